"""Products of arrays: everything becomes ``contract``, a sum of products of two operands."""

from __future__ import annotations

import operator
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffc.errors import ShapeError, TraceError
from diffc.ir.graph import Literal, Operand
from diffc.trace import kinks, promote
from diffc.trace import operands as o
from diffc.trace.arguments import arg, operand, operands, tracer
from diffc.trace.location import line
from diffc.trace.shapes import expand_dims, moveaxis, reshape
from diffc.trace.table import FUNCTIONS, implements
from diffc.trace.tracer import Tracer, read, store, wrap


def product(x: Operand, y: Operand, left: str, right: str, result: str, what: str) -> Operand:
    """Einsum of two operands of one dtype, letters unique within each.

    Axes of size 1 against a larger one broadcast; letters of one operand only that the result does
    not have are summed first.

    Raises:
        ShapeError: axes of one letter differ.
    """
    sizes = dict(zip(left, x.aval.shape, strict=True))
    for letter, dim in zip(right, y.aval.shape, strict=True):
        known = sizes.get(letter, 1)
        if known != dim and known != 1 and dim != 1:
            raise ShapeError(
                f"{what}: {x.aval} and {y.aval} do not fit ({known} against {dim})",
                location=line(),
                hint="the axes that are multiplied and summed must have one size",
            )
        sizes[letter] = dim if known == 1 else known
    x, left = _reduced(x, left, right + result, sizes)
    y, right = _reduced(y, right, left + result, sizes)
    missing = [letter for letter in result if letter not in left and letter not in right]
    inner = "".join(letter for letter in result if letter not in missing)
    if x.aval.dtype == "bool":
        counted = o.contract(o.cast(x, "i64"), o.cast(y, "i64"), f"{left},{right}->{inner}")
        found: Operand = o.cast(counted, "bool")
    elif not set(left) & set(right) - set(inner):
        found = _outer(x, y, left, right, inner, sizes)
    else:
        found = o.contract(x, y, f"{left},{right}->{inner}")
    return o.reshape(found, tuple(1 if c in missing else sizes[c] for c in result))


def _reduced(x: Operand, own: str, others: str, sizes: dict[str, Any]) -> tuple[Operand, str]:
    """Without axes of size 1 that another operand stretches, and summed where nobody asks."""
    keep = [
        not (dim == 1 and (sizes[letter] != 1 or letter in others))
        for letter, dim in zip(own, x.aval.shape, strict=True)
    ]
    if not all(keep):
        x = o.reshape(x, tuple(d for d, k in zip(x.aval.shape, keep, strict=True) if k))
        own = "".join(c for c, k in zip(own, keep, strict=True) if k)
    lonely = tuple(i for i, letter in enumerate(own) if letter not in others)
    if lonely:
        x = o.reduce("any" if x.aval.dtype == "bool" else "sum", x, lonely)
        own = "".join(c for i, c in enumerate(own) if i not in lonely)
    return x, own


def _outer(
    x: Operand, y: Operand, left: str, right: str, result: str, sizes: dict[str, Any]
) -> Operand:
    """No axis is summed: an elementwise product of broadcast operands."""
    shape = tuple(sizes[c] for c in result)

    def placed(value: Operand, own: str) -> Operand:
        order = tuple(sorted(range(len(own)), key=lambda i: result.index(own[i])))
        value = o.transpose(value, order)
        return o.spread(value, shape, tuple(sorted(result.index(c) for c in own)))

    return o.emit("mul", placed(x, left), placed(y, right))


def _pair(a: Any, b: Any, what: str, dtype: Any = None) -> tuple[Operand, Operand]:
    if dtype is not None:
        name = promote.dtype_arg(dtype)
        return arg(a, what).to(name), arg(b, what).to(name)
    x, y = operands([a, b], what)
    return x, y


@implements("matmul", "linalg.matmul")
def matmul(x1: Any, x2: Any, /, *, dtype: Any = None) -> Tracer:
    """Matrix product, leading axes broadcast."""
    x, y = _pair(x1, x2, "np.matmul", dtype)
    if not x.aval.shape or not y.aval.shape:
        raise ShapeError(
            f"np.matmul: a scalar operand ({x.aval}, {y.aval})",
            location=line(),
            hint="use * for scalars",
        )
    letters = iter(string.ascii_letters)
    k = next(letters)
    rows = next(letters) if x.aval.ndim > 1 else ""
    columns = next(letters) if y.aval.ndim > 1 else ""
    depth = max(x.aval.ndim, y.aval.ndim) - 2
    batch = "".join(next(letters) for _ in range(max(depth, 0)))
    lead_x = batch[len(batch) - max(x.aval.ndim - 2, 0) :]
    lead_y = batch[len(batch) - max(y.aval.ndim - 2, 0) :]
    if x.aval.shape[-1] != y.aval.shape[-2 if columns else -1]:
        raise ShapeError(
            f"np.matmul: {x.aval} and {y.aval} do not fit: the last axis of the first has "
            f"{x.aval.shape[-1]}, the rows of the second are {y.aval.shape[-2 if columns else -1]}",
            location=line(),
        )
    left = lead_x + rows + k
    right = lead_y + (k + columns if columns else k)
    return wrap(product(x, y, left, right, batch + rows + columns, "np.matmul"))


@implements("dot", "ndarray.dot")
def dot(a: Any, b: Any, out: Any = None) -> Any:
    """The last axis of the first with the last but one of the second."""
    if out is not None:
        store(out, dot(a, b), "np.dot(..., out=)")
        return out
    x, y = _pair(a, b, "np.dot")
    if not x.aval.shape or not y.aval.shape:
        return FUNCTIONS["__operator__"](np.multiply, a, b)
    place = max(y.aval.ndim - 2, 0)
    return _tensordot(x, y, [x.aval.ndim - 1], [place], "np.dot")


def _tensordot(x: Operand, y: Operand, left: list[int], right: list[int], what: str) -> Tracer:
    names = string.ascii_letters
    xs = list(names[: x.aval.ndim])
    ys = list(names[x.aval.ndim : x.aval.ndim + y.aval.ndim])
    for i, j in zip(left, right, strict=True):
        if x.aval.shape[i] != y.aval.shape[j]:
            raise ShapeError(
                f"{what}: {x.aval} and {y.aval} do not fit: axis {i} of the first has "
                f"{x.aval.shape[i]}, axis {j} of the second {y.aval.shape[j]}",
                location=line(),
            )
        ys[j] = xs[i]
    summed = {xs[i] for i in left}
    result = "".join(c for c in xs + ys if c not in summed)
    return wrap(product(x, y, "".join(xs), "".join(ys), result, what))


@implements("tensordot", "linalg.tensordot")
def tensordot(a: Any, b: Any, axes: Any = 2) -> Tracer:
    """Sums of products over pairs of axes."""
    x, y = _pair(a, b, "np.tensordot")
    if hasattr(axes, "__index__"):
        count = operator.index(axes)
        left = list(range(x.aval.ndim - count, x.aval.ndim))
        right = list(range(count))
    else:
        first, second = axes
        left = [o.axis_of(i, x.aval.ndim) for i in _listed(first)]
        right = [o.axis_of(i, y.aval.ndim) for i in _listed(second)]
    if len(left) != len(right):
        raise ShapeError("np.tensordot: as many axes of each", location=line())
    return _tensordot(x, y, left, right, "np.tensordot")


def _listed(axes: Any) -> list[Any]:
    return list(axes) if isinstance(axes, (list, tuple)) else [axes]


@implements("inner")
def inner(a: Any, b: Any, /) -> Tracer:
    """The last axes with each other."""
    x, y = _pair(a, b, "np.inner")
    if not x.aval.shape or not y.aval.shape:
        return FUNCTIONS["__operator__"](np.multiply, a, b)  # type: ignore[no-any-return]  # the table is untyped
    return _tensordot(x, y, [x.aval.ndim - 1], [y.aval.ndim - 1], "np.inner")


@implements("vdot")
def vdot(a: Any, b: Any, /) -> Any:
    """All elements with each other."""
    x, y = (tracer(v, "np.vdot") for v in (a, b))
    return dot(reshape(x, (-1,)), reshape(y, (-1,)))


@implements("vecdot", "linalg.vecdot")
def vecdot(x1: Any, x2: Any, /, *, axis: Any = -1) -> Any:
    """Sums of products along one axis, the others broadcast."""
    x, y = moveaxis(x1, axis, -1), moveaxis(x2, axis, -1)
    found = matmul(expand_dims(x, -2), expand_dims(y, -1))
    return found[..., 0, 0]


@implements("outer", "linalg.outer")
def outer(a: Any, b: Any) -> Any:
    """Each element of the first times each of the second."""
    x, y = reshape(tracer(a), (-1, 1)), reshape(tracer(b), (1, -1))
    return x * y  # type: ignore[operator]  # operators come from a table


@implements("kron")
def kron(a: Any, b: Any) -> Any:
    """Each element of the first times the whole second."""
    x, y = tracer(a), tracer(b)
    rank = max(x.ndim, y.ndim)
    xs, ys = ((1,) * (rank - v.ndim) + v.shape for v in (x, y))
    wide = reshape(x, tuple(d for dim in xs for d in (dim, 1)))
    flat = reshape(y, tuple(d for dim in ys for d in (1, dim)))
    return reshape(wide * flat, tuple(p * q for p, q in zip(xs, ys, strict=True)))  # type: ignore[operator]  # operators come from a table


@implements("linalg.multi_dot")
def multi_dot(arrays: Sequence[Any]) -> Tracer:
    """Matrix products from left to right."""
    found = tracer(arrays[0])
    for other in arrays[1:]:
        found = dot(found, other)
    return found


@implements("linalg.matrix_power")
def matrix_power(a: Any, n: int) -> Tracer:
    """A matrix to a known power, not negative."""
    if n < 0:
        raise TraceError("np.linalg.matrix_power with a negative power", location=line())
    x = tracer(a)
    if n == 0:
        identity = FUNCTIONS["eye"](x.shape[-1], dtype=x.dtype)
        return FUNCTIONS["broadcast_to"](identity, x.shape)  # type: ignore[no-any-return]  # the table is untyped
    found: Tracer | None = None
    while True:
        if n & 1:
            found = x if found is None else matmul(found, x)
        n >>= 1
        if not n:
            assert found is not None
            return found
        x = matmul(x, x)


# --- einsum


@implements("einsum")
def einsum(*operands_: Any, dtype: Any = None, optimize: Any = True, **_: Any) -> Tracer:
    """Sums of products by letters; several operands pairwise, in a cheap order."""
    spec, xs = _einsum_arguments(operands_)
    found = [arg(x, "np.einsum") for x in xs]
    name = (
        promote.common(tuple(a.key for a in found)) if dtype is None else promote.dtype_arg(dtype)
    )
    values = [a.to(name) for a in found]
    inputs, result = _expanded(spec, values)
    terms = [_distinct(x, letters) for x, letters in zip(values, inputs, strict=True)]
    while len(terms) > 2:
        i, j = _cheapest(terms, result)
        (y, right), (x, left) = terms.pop(j), terms.pop(i)
        wanted = set(result).union(*(letters for _, letters in terms))
        kept = "".join(dict.fromkeys(c for c in left + right if c in wanted))
        terms.append((product(x, y, left, right, kept, "np.einsum"), kept))
    if len(terms) == 2:
        (x, left), (y, right) = terms
        return wrap(product(x, y, left, right, result, "np.einsum"))
    ((x, own),) = terms
    lonely = tuple(i for i, c in enumerate(own) if c not in result)
    x = o.reduce("any" if name == "bool" else "sum", x, lonely)
    own = "".join(c for c in own if c in result)
    return wrap(o.transpose(x, tuple(own.index(c) for c in result)))


def _einsum_arguments(given: tuple[Any, ...]) -> tuple[str, list[Any]]:
    if isinstance(given[0], str):
        return given[0].replace(" ", ""), list(given[1:])
    pairs = len(given) // 2
    xs = [given[2 * i] for i in range(pairs)]
    lists = [given[2 * i + 1] for i in range(pairs)]
    text = [_letters_of(labels) for labels in lists]
    spec = ",".join(text)
    if len(given) % 2:
        spec += "->" + _letters_of(given[-1])
    return spec, xs


def _letters_of(labels: Any) -> str:
    return "".join("..." if c is Ellipsis else string.ascii_letters[c] for c in labels)


def _expanded(spec: str, values: list[Operand]) -> tuple[list[str], str]:
    """Letters per operand and of the result, with the ellipsis spelled out."""
    left, arrow, result = spec.partition("->")
    inputs = left.split(",")
    if len(inputs) != len(values):
        raise ShapeError(
            f"np.einsum({spec!r}) names {len(inputs)} operands, not {len(values)}", location=line()
        )
    unused = [c for c in string.ascii_letters if c not in spec]
    depth = max(
        (v.aval.ndim - len(t.replace("...", "")) for t, v in zip(inputs, values, strict=True)),
        default=0,
    )
    dots = "".join(unused[: max(depth, 0)])
    found = []
    for text, value in zip(inputs, values, strict=True):
        rank = value.aval.ndim - len(text.replace("...", ""))
        if rank < 0 or (rank > 0 and "..." not in text):
            raise ShapeError(
                f"np.einsum({spec!r}): {text!r} does not name the axes of {value.aval}",
                location=line(),
            )
        found.append(text.replace("...", dots[len(dots) - rank :] if rank else ""))
    if not arrow:
        every = "".join(found)
        result = dots + "".join(sorted(c for c in set(every) - set(dots) if every.count(c) == 1))
    else:
        result = result.replace("...", dots)
    unknown = set(result) - set("".join(found))
    if unknown or len(set(result)) != len(result):
        raise ShapeError(
            f"np.einsum({spec!r}): the result's letters must be the operands', each once",
            location=line(),
        )
    return found, result


def _distinct(x: Operand, letters: str) -> tuple[Operand, str]:
    """Repeated letters of one operand become its diagonal."""
    while len(set(letters)) != len(letters):
        repeated = next(c for c in letters if letters.count(c) > 1)
        i = letters.index(repeated)
        j = letters.index(repeated, i + 1)
        x = read(FUNCTIONS["diagonal"](wrap(x), 0, i, j))
        letters = letters[:i] + letters[i + 1 : j] + letters[j + 1 :] + repeated
    return x, letters


def _cheapest(terms: list[tuple[Operand, str]], result: str) -> tuple[int, int]:
    """The pair whose product is smallest, then the cheapest to compute."""
    best: tuple[Any, ...] | None = None
    for i in range(len(terms)):
        for j in range(i + 1, len(terms)):
            rest = set(result).union(*(t[1] for n, t in enumerate(terms) if n not in (i, j)))
            sizes = dict(zip(terms[i][1], terms[i][0].aval.shape, strict=True))
            for c, dim in zip(terms[j][1], terms[j][0].aval.shape, strict=True):
                sizes[c] = dim if sizes.get(c, 1) == 1 else sizes[c]
            numbers = {c: dim if isinstance(dim, int) else 1024 for c, dim in sizes.items()}
            size = int(np.prod([float(n) for c, n in numbers.items() if c in rest] or [1.0]))
            work = int(np.prod([float(n) for n in numbers.values()] or [1.0]))
            cost = (size, work, i, j)
            if best is None or cost < best:
                best = cost
    assert best is not None
    return best[2], best[3]


# --- diagonals and norms


@implements("diagonal")
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tracer:
    """The diagonal of two axes, as the last axis (a copy)."""
    x = tracer(a, "np.diagonal")
    if x.ndim < 2:
        raise ShapeError(f"np.diagonal needs two axes, not {x.aval}", location=line())
    value = read(moveaxis(x, (axis1, axis2), (-2, -1)))
    rows: Any = value.aval.shape[-2]
    columns: Any = value.aval.shape[-1]
    start = (max(-offset, 0), max(offset, 0))
    length = max(min(rows - start[0], columns - start[1]), 0)
    rank = value.aval.ndim
    if length == 0:
        return wrap(o.fill(0, value.aval.dtype, (*value.aval.shape[:-2], 0)))
    value = o.slice_axis(value, rank - 2, start[0], start[0] + length)
    value = o.slice_axis(value, rank - 1, start[1], start[1] + length)
    if isinstance(value, Literal):
        return wrap(o.fill(value.value, value.aval.dtype, value.aval.shape[:-1]))
    # The diagonal of a square matrix: rows of length n + 1 begin with it, one after another.
    lead = value.aval.shape[:-2]
    flat = o.reshape(value, (*lead, length * length))
    picked = o.slice_axis(flat, rank - 2, 0, length * length, length + 1)
    return wrap(picked)


@implements("diag")
def diag(v: Any, k: int = 0) -> Tracer:
    """The diagonal of a matrix, or the matrix of a diagonal."""
    x = tracer(v, "np.diag")
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise ShapeError(f"np.diag needs a vector or a matrix, not {x.aval}", location=line())
    size: Any = x.shape[0]
    n = size + abs(k)
    zero = o.fill(0, x.aval.dtype)
    # The reverse: each element is followed by n zeros, and the rows fall into place.
    if size == 0:
        return wrap(o.fill(0, x.aval.dtype, (n, n)))
    first = k if k >= 0 else -k * n
    used = (size - 1) * (n + 1) + 1
    value = o.pad(read(x), zero, (first,), (n * n - first - used,), (n if size > 1 else 0,))
    return wrap(o.reshape(value, (n, n)))


@implements("diagflat")
def diagflat(v: Any, k: int = 0) -> Tracer:
    """The matrix whose diagonal is the flattened array."""
    return diag(FUNCTIONS["ravel"](v), k)


@implements("linalg.diagonal")
def linalg_diagonal(x: Any, /, *, offset: int = 0) -> Tracer:
    """The diagonal of the last two axes."""
    return diagonal(x, offset, -2, -1)


@implements("trace")
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Any:
    """The sum of the diagonal."""
    return FUNCTIONS["sum"](diagonal(a, offset, axis1, axis2), -1, dtype)


@implements("linalg.trace")
def linalg_trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    """The sum of the diagonal of the last two axes."""
    return trace(x, offset, -2, -1, dtype)


@implements("linalg.norm", "linalg.vector_norm")
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Norms of vectors, and of matrices those that need no decomposition."""
    value = operand(x, "np.linalg.norm")
    value = value if value.aval.is_float else o.cast(value, "f64")
    a: Any = wrap(value)
    total = FUNCTIONS["sum"]
    size: Any = wrap(o.emit("abs", value))
    axes = o.axes_of(axis, a.ndim)
    if ord is None or (ord == 2 and len(axes) == 1) or (ord == "fro" and len(axes) == 2):
        return _sqrt(total(a * a, axes, keepdims=keepdims))
    if len(axes) == 1:
        if ord == np.inf:
            return FUNCTIONS["max"](size, axes, keepdims=keepdims)
        if ord == -np.inf:
            return FUNCTIONS["min"](size, axes, keepdims=keepdims)
        if ord == 0:
            return total((a != 0).astype(a.dtype), axes, keepdims=keepdims)
        if ord == 1:
            return total(size, axes, keepdims=keepdims)
        if isinstance(ord, str):
            raise TraceError(f"np.linalg.norm(ord={ord!r}) is of matrices", location=line())
        return total(size**ord, axes, keepdims=keepdims) ** (1.0 / ord)
    if len(axes) == 2 and ord in (1, -1, np.inf, -np.inf):
        first, second = axis if axis is not None else (0, 1)
        if abs(ord) != 1:
            first, second = second, first
        sums = total(size, first, keepdims=True)
        extreme = FUNCTIONS["max" if ord > 0 else "min"](sums, second, keepdims=True)
        return extreme if keepdims else FUNCTIONS["squeeze"](extreme, tuple(axes))
    raise TraceError(
        f"np.linalg.norm(ord={ord!r}) of {len(axes)} axes can't be traced", location=line()
    )


def _sqrt(x: Tracer) -> Tracer:
    return wrap(kinks.length(read(x)))


@implements("cross", "linalg.cross")
def cross(
    a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None
) -> Any:
    """The cross product of vectors of three."""
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = moveaxis(a, axisa, -1), moveaxis(b, axisb, -1)
    if x.shape[-1] != 3 or y.shape[-1] != 3:
        raise ShapeError(f"np.cross of {x.aval} and {y.aval}: 3 elements each", location=line())
    parts = [
        x[..., i] * y[..., j] - x[..., j] * y[..., i]  # as the right-hand rule goes round
        for i, j in ((1, 2), (2, 0), (0, 1))
    ]
    return FUNCTIONS["stack"](parts, axisc)


def _convolved(x: Tracer, y: Tracer, mode: str) -> Tracer:
    """The product of all pairs summed along the antidiagonals: windows over the padded array."""
    if x.ndim != 1 or y.ndim != 1:
        raise ShapeError("np.convolve: vectors", location=line())
    n: Any = x.shape[0]
    m: Any = y.shape[0]
    if n == 0 or m == 0:
        raise ShapeError("np.convolve: empty operands", location=line())
    left, right = operands([x, y], "np.convolve")
    if m > n:
        left, right, n, m = right, left, m, n
    around = {"full": (m - 1, m - 1), "same": (m // 2, (m - 1) // 2), "valid": (0, 0)}
    if mode not in around:
        raise TraceError(f"np.convolve(mode={mode!r})", location=line(), hint="full, same, valid")
    low, high = around[mode]
    if mode == "same":
        low, high = m - 1 - (m - 1) // 2, (m - 1) // 2
    padded = o.pad(left, o.fill(0, left.aval.dtype), (low,), (high,), (0,))
    windows = o.emit("window", padded, axes=(0,), sizes=(m,), strides=(1,), dilations=(1,))
    return wrap(o.contract(windows, o.reverse(right, (0,)), "ij,j->i"))


@implements("convolve")
def convolve(a: Any, v: Any, mode: str = "full") -> Tracer:
    """Convolution of vectors."""
    return _convolved(tracer(a), tracer(v), mode)
