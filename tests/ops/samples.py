"""Drawn operands for every op: what the registry tests run on, here and elsewhere.

``samples(op)`` gives uses of an op (avals, params, regions, drawn arrays) over its dtypes and over
sizes 0, 1 and more; ``specials(op)`` the same with nan, inf, zeros of both signs, subnormals and
extreme integers, for elementwise ops. Floats are odd multiples of 1/64 within the op's domain, so
that kinks and jumps are never near; ``whole`` draws small integers as floats, for exact sums.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import diffc.ops
from diffc.ir.aval import ANY, DTYPES, FLOATS, INTEGERS, NUMBERS, Aval, aval, limits
from diffc.ir.graph import Builder, Graph, literal
from diffc.ir.index import Dim
from diffc.ops.declare import Op
from diffc.transforms import JvpRule, jvp

Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, "Sample"], list[Array]]

#: dtypes that structured ops are drawn in, where they take them.
SOME = ("bool", "i8", "i32", "i64", "u8", "bf16", "f16", "f32", "f64")


@dataclass(frozen=True)
class Sample:
    """One use of an op with operands drawn for it."""

    op: Op
    avals: tuple[Aval, ...]
    params: dict[str, Any] = field(default_factory=dict)
    regions: tuple[Graph, ...] = ()
    arrays: tuple[Array, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(f"{k}={v}" for k, v in self.params.items() if k != "data")
        return f"{self.op.name}({', '.join(map(str, self.avals))}; {shown})"


@dataclass(frozen=True)
class Case:
    """A use of a structured op as a function of one dimension, an integer or a symbol."""

    op: str
    make: Callable[[str, Dim], tuple[Any, ...]]  # dtype, n -> avals, params[, regions]
    sizes: tuple[int, ...] = (1, 5)
    dtypes: frozenset[str] = ANY
    draw: Draw | None = None
    least: int = 0  # the symbolic use stands for sizes from here on

    def sample(self, dtype: str, n: Dim) -> Sample:
        """The use for a dtype and a dimension, without arrays."""
        avals, params, *regions = self.make(dtype, n)
        return Sample(diffc.ops.find(self.op), avals, params, tuple(regions))


# --- drawing ----------------------------------------------------------------------------------

_VOCABULARY = {"Ne": np.not_equal, "floor": np.floor, "cos": np.cos, "__builtins__": {}}


def draw_array(rng: np.random.Generator, like: Aval, whole: bool = False) -> Array:
    """An array of an aval."""
    shape: Any = like.shape
    if like.dtype == "bool":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if like.dtype in INTEGERS:
        low = 0 if like.dtype.startswith("u") else -6
        return np.asarray(rng.integers(low, 7, shape)).astype(like.numpy)
    if whole:
        return np.asarray(rng.integers(-4, 5, shape)).astype(like.numpy)
    return np.asarray((2 * rng.integers(-64, 64, shape) + 1) / 64).astype(like.numpy)


def in_domain(op: Op, arrays: tuple[Array, ...], params: dict[str, Any]) -> Any:
    """Where the operands lie in the op's domain."""
    if op.domain.startswith("distinct"):
        return True
    env = dict(zip("xyz", arrays, strict=False)) | params
    return eval(op.domain, _VOCABULARY, env)  # the text is the op's own


def draw_operands(rng: np.random.Generator, sample: Sample, whole: bool = False) -> list[Array]:
    """Arrays for all operands; floats within the op's domain."""
    op, avals = sample.op, sample.avals
    arrays = [draw_array(rng, like, whole) for like in avals]
    if op.domain.startswith("distinct"):
        order = rng.permutation(arrays[0].size).reshape(arrays[0].shape) - arrays[0].size // 2
        return [np.asarray(order / 4 if avals[0].is_float else order).astype(avals[0].numpy)]
    if op.domain == "True" or not avals[0].is_float:
        return arrays
    for _ in range(200):
        inside = np.broadcast_to(in_domain(op, tuple(arrays), sample.params), arrays[0].shape)
        if inside.all():
            return arrays
        for k, like in enumerate(avals):
            arrays[k] = np.where(inside, arrays[k], draw_array(rng, like, whole))
    raise AssertionError(f"{sample}: no operands drawn in {op.domain}")


def _rng(*key: Any) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def fill(sample: Sample, draw: Draw | None = None, seed: int = 0, whole: bool = False) -> Sample:
    """The sample with arrays."""
    rng = _rng(str(sample), seed)
    arrays = draw(rng, sample) if draw else draw_operands(rng, sample, whole)
    return Sample(sample.op, sample.avals, sample.params, sample.regions, tuple(arrays))


# --- structured ops ---------------------------------------------------------------------------


def _indices(first: int, axes_operand: int = 0) -> Draw:
    """Indices from operand ``first`` on; out of bounds too unless the mode checks."""

    def draw(rng: np.random.Generator, sample: Sample) -> list[Array]:
        arrays = [draw_array(rng, like) for like in sample.avals[:first]]
        shape = sample.avals[axes_operand].shape
        slack = 0 if sample.params["mode"] == "check" else 2
        for like, axis in zip(sample.avals[first:], sample.params["axes"], strict=True):
            low = 0 if like.dtype.startswith("u") else -slack
            high = max(int(shape[axis]) + slack, low + 1)  # type: ignore[arg-type]
            arrays.append(np.asarray(rng.integers(low, high, like.shape)).astype(like.numpy))
        return arrays

    return draw


def _window_case(dtype: str, n: Dim) -> tuple[Any, ...]:
    params = {"axes": (0, 1), "sizes": (3, 2), "strides": (2, 1), "dilations": (2, 1)}
    return (aval(dtype, (n, 4, 2)),), params


def _overlap_case(dtype: str, n: Dim) -> tuple[Any, ...]:
    (x,), params = _window_case(dtype, n)
    y = aval(dtype, ((n - 5) // 2 + 1, 3, 2, 3, 2))
    return (y,), {**params, "shape": x.shape}


def _affine(dtype: str, n: Dim) -> Graph:
    """A region: (w, c, x) -> (c + w*x, c * x)."""
    builder = Builder("body")
    w, c, x = (builder.input(aval(dtype, (2,)), name) for name in "wcx")
    (wx,) = builder.emit(diffc.ops.find("mul"), (w, x))
    (new,) = builder.emit(diffc.ops.find("add"), (c, wx))
    (y,) = builder.emit(diffc.ops.find("mul"), (c, x))
    return builder.build((new, y))


def _scan_case(reverse: bool) -> Callable[[str, Dim], tuple[Any, ...]]:
    def make(dtype: str, n: Dim) -> tuple[Any, ...]:
        params = {"consts": 1, "carry": 1, "length": n, "reverse": reverse}
        row = aval(dtype, (2,))
        return (row, row, aval(dtype, (n, 2))), params, _affine(dtype, n)

    return make


def _call_case(dtype: str, n: Dim) -> tuple[Any, ...]:
    row = aval(dtype, (2,))
    return (row, row, row), {}, _affine(dtype, n)


def _scaled(dtype: str, n: Dim, factor: int) -> Graph:
    """A region: (w, c) -> (c + factor*w, w)."""
    builder = Builder(f"scaled{factor}")
    w, c = (builder.input(aval(dtype, (n,)), name) for name in "wc")
    (scaled,) = builder.emit(diffc.ops.find("mul"), (w, literal(factor, w.aval)))
    return builder.build((*builder.emit(diffc.ops.find("add"), (c, scaled)), w))


def _cond_case(index: str) -> Callable[[str, Dim], tuple[Any, ...]]:
    def make(dtype: str, n: Dim) -> tuple[Any, ...]:
        factors = (2, 3) if index == "bool" else (1, 0, 2)
        regions = [_scaled(dtype, n, factor) for factor in factors]
        row = aval(dtype, (n,))
        return (aval(index), row, row), {}, *regions

    return make


def _while_case(dtype: str, n: Dim) -> tuple[Any, ...]:
    """c = c*w + w, as often as the first operand says."""
    count, row = aval("i64"), aval(dtype, (n,))
    builder = Builder("test")
    limit, i, _ = (builder.input(a) for a in (count, count, row))
    test = builder.build(builder.emit(diffc.ops.find("lt"), (i, limit)))
    builder = Builder("body")
    w, i, c = (builder.input(a) for a in (row, count, row))
    (following,) = builder.emit(diffc.ops.find("add"), (i, literal(1, count)))
    (product,) = builder.emit(diffc.ops.find("mul"), (c, w))
    body = builder.build((following, *builder.emit(diffc.ops.find("add"), (product, w))))
    return (count, row, count, row), {"tests": 1, "consts": 1, "slots": 4}, test, body


def _custom_case(dtype: str, n: Dim) -> tuple[Any, ...]:
    avals, _, graph = _call_case(dtype, n)
    everything = [a.is_float for a in avals]
    rule = JvpRule("affine", 3, 2, lambda: jvp(graph, everything).graph)
    return avals, {"rule": rule.name}, graph


def _checkpoint_case(policy: str) -> Callable[[str, Dim], tuple[Any, ...]]:
    def make(dtype: str, n: Dim) -> tuple[Any, ...]:
        avals, _, graph = _call_case(dtype, n)
        return avals, {"policy": policy}, graph

    return make


def _custom_linear_case(dtype: str, n: Dim) -> tuple[Any, ...]:
    """The transpose of (w, s, t) -> (w*s, w*s + t), by its residual w."""
    builder = Builder("backward")
    row = aval(dtype, (2,))
    w, s, t = (builder.input(row, name) for name in ("w", "s_ct", "t_ct"))
    (both,) = builder.emit(diffc.ops.find("add"), (s, t))
    (ct,) = builder.emit(diffc.ops.find("mul"), (w, both))
    return (row, row, row), {"residuals": 1}, builder.build((ct, t))


def _linear_solve_case(dtype: str, n: Dim) -> tuple[Any, ...]:
    """2 x = b: regions that belong together whatever the operands are."""
    row = aval(dtype, (n,))

    def diagonal(name: str) -> Graph:
        builder = Builder(f"{name}_by_two")
        x = builder.input(row, "x")
        return builder.build(builder.emit(diffc.ops.find(name), (x, literal(2, row))))

    regions = (diagonal("mul"), diagonal("div"), diagonal("div"))
    return (row,), {"products": 0, "forward": 0, "backward": 0}, *regions


def _constant_case(dtype: str, n: Dim) -> tuple[Any, ...]:
    data = np.arange(6).astype(DTYPES[dtype]).tobytes()
    return (), {"dtype": dtype, "shape": (2, 3), "data": data}


def _take(mode: str, index: str, axes: tuple[int, ...]) -> Case:
    def make(dtype: str, n: Dim) -> tuple[Any, ...]:
        indices = (aval(index, (n, 2)),) * len(axes)
        return (aval(dtype, (3, 4, 2)), *indices), {"axes": axes, "mode": mode}

    return Case("gather", make, (0, 3), draw=_indices(1))


def _put(combine: str, mode: str, index: str, axes: tuple[int, ...]) -> Case:
    def make(dtype: str, n: Dim) -> tuple[Any, ...]:
        rest = tuple(dim for k, dim in enumerate((3, 4, 2)) if k not in axes)
        indices = (aval(index, (n, 2)),) * len(axes)
        operands = (aval(dtype, (3, 4, 2)), aval(dtype, (n, 2, *rest)), *indices)
        return operands, {"axes": axes, "mode": mode, "combine": combine}

    taken = ANY if combine == "set" else NUMBERS
    return Case("scatter", make, (0, 5), taken, draw=_indices(2))


def _reductions(op: str, dtypes: frozenset[str], least: int = 0) -> list[Case]:
    sizes = (0, 1, 5) if least == 0 else (1, 5)
    return [
        Case(op, lambda d, n: ((aval(d, (n,)),), {"axes": (0,)}), (*sizes, 33), dtypes),
        Case(op, lambda d, n: ((aval(d, (3, n, 2)),), {"axes": (1,)}), sizes, dtypes),
        Case(op, lambda d, n: ((aval(d, (n, 3, 2)),), {"axes": (1, 2)}), (0, 1, 4), dtypes),
        Case(op, lambda d, n: ((aval(d, (3, n, 2)),), {"axes": (0, 2)}), (0, 5), dtypes),
        Case(op, lambda d, n: ((aval(d, (2, n)),), {"axes": ()}), (0, 3), dtypes),
    ]


def _contraction(spec: str, x: str, y: str, sizes: tuple[int, ...] = (0, 1, 3)) -> Case:
    def make(dtype: str, n: Dim) -> tuple[Any, ...]:
        dims: dict[str, Dim] = {"n": n, "1": 1, "2": 2, "4": 4, "7": 7}
        left, right = (tuple(dims[c] for c in label) for label in (x, y))
        return (aval(dtype, left), aval(dtype, right)), {"spec": spec}

    return Case("contract", make, sizes, NUMBERS)


def _along(op: str, dtypes: frozenset[str], least: int = 0, **params: Any) -> list[Case]:
    sizes = (0, 1, 5) if least == 0 else (1, 5)
    return [
        Case(op, lambda d, n: ((aval(d, (n,)),), {"axis": 0, **params}), sizes, dtypes),
        Case(op, lambda d, n: ((aval(d, (3, n, 2)),), {"axis": 1, **params}), sizes, dtypes),
    ]


CASES: list[Case] = [
    Case("reshape", lambda d, n: ((aval(d, (n, 6)),), {"shape": (n, 2, 3)}), (0, 1, 4)),
    Case("reshape", lambda d, n: ((aval(d, (2, n, 3)),), {"shape": (2, n * 3)}), (0, 1, 4)),
    Case("reshape", lambda d, n: ((aval(d, (n, 1)),), {"shape": (1, n, 1, 1)}), (0, 1, 4)),
    Case("reshape", lambda d, n: ((aval(d, (4, 6)),), {"shape": (3, 8)}), (1,)),
    Case("reshape", lambda d, n: ((aval(d, (1, 1)),), {"shape": ()}), (1,)),
    Case("transpose", lambda d, n: ((aval(d, (2, n, 3)),), {"perm": (2, 0, 1)}), (0, 1, 5)),
    Case("transpose", lambda d, n: ((aval(d, ()),), {"perm": ()}), (1,)),
    Case("broadcast", lambda d, n: ((aval(d, (n,)),), {"shape": (3, n, 2), "axes": (1,)}), (0, 4)),
    Case("broadcast", lambda d, n: ((aval(d, (2, 3)),), {"shape": (2, n, 3), "axes": (0, 2)})),
    Case("broadcast", lambda d, n: ((aval(d, ()),), {"shape": (n,), "axes": ()}), (0, 1, 4)),
    Case("broadcast", lambda d, n: ((aval(d, (n,)),), {"shape": (n,), "axes": (0,)})),
    Case("reverse", lambda d, n: ((aval(d, (n, 2, 3)),), {"axes": (0, 2)}), (0, 1, 4)),
    Case(
        "slice",
        lambda d, n: ((aval(d, (n, 5)),), {"start": (0, 1), "stop": (n, 5), "step": (1, 2)}),
        (0, 1, 4),
    ),
    Case(
        "slice",
        lambda d, n: ((aval(d, (n, 5)),), {"start": (1, 2), "stop": (n - 1, 2), "step": (3, 1)}),
        (2, 3, 8),
        least=2,
    ),
    Case(
        "pad",
        lambda d, n: (
            (aval(d, (n, 3)), aval(d)),
            {"low": (1, 0), "high": (0, 2), "interior": (0, 1)},
        ),
        (0, 1, 4),
    ),
    Case(
        "pad",
        lambda d, n: ((aval(d, (n,)), aval(d)), {"low": (2,), "high": (1,), "interior": (2,)}),
        (0, 1, 4),
        least=1,
    ),
    Case(
        "concat",
        lambda d, n: ((aval(d, (2, n)), aval(d, (2, 3)), aval(d, (2, n))), {"axis": 1}),
        (0, 1, 4),
    ),
    Case("concat", lambda d, n: ((aval(d, (n,)),), {"axis": 0}), (0, 2)),
    Case("window", _window_case, (5, 8), least=5),
    Case(
        "window",
        lambda d, n: (
            (aval(d, (2, n)),),
            {"axes": (1,), "sizes": (1,), "strides": (1,), "dilations": (1,)},
        ),
        (1, 4),
        least=1,
    ),
    Case("overlap_add", _overlap_case, (5, 8), NUMBERS, least=5),
    *_reductions("sum", NUMBERS),
    *_reductions("prod", NUMBERS),
    *_reductions("max", NUMBERS, least=1),
    *_reductions("min", NUMBERS, least=1),
    *_reductions("any", frozenset({"bool"})),
    *_reductions("all", frozenset({"bool"})),
    *_along("argmax", NUMBERS, least=1),
    *_along("argmin", NUMBERS, least=1),
    *_along("cumsum", NUMBERS, reverse=False),
    *_along("cumsum", NUMBERS, reverse=True),
    *_along("cumprod", NUMBERS),
    *_along("cummax", NUMBERS),
    *_along("cummin", NUMBERS),
    *_along("sort", ANY),
    *_along("argsort", ANY),
    _contraction("ij,jk->ik", "n7", "72"),
    _contraction("ij,jk->ki", "4n", "n2"),
    _contraction("bij,bjk->bik", "2n4", "247"),
    _contraction("bhij,bhkj->bhik", "2n42", "2n72"),
    _contraction("i,i->", "n", "n"),
    _contraction("i,j->ji", "n", "4"),
    _contraction("ij,j->i", "2n", "n", (0, 1, 33)),
    _contraction("ij,ij->ij", "n2", "n2"),
    _contraction("nm,nm->", "n2", "n2"),
    _contraction("nm,knm->k", "2n", "42n"),
    _contraction(",->", "", "", (1,)),
    _contraction("kij,jlk->il", "4n2", "274"),
    _take("clip", "i64", (0,)),
    _take("clip", "u8", (1,)),
    _take("fill", "i32", (1,)),
    _take("fill", "i64", (0, 2)),
    _take("check", "i8", (0, 1)),
    *(_put(combine, "drop", "i64", (0,)) for combine in ("set", "add", "mul", "min", "max")),
    *(_put(combine, "drop", "i32", (0, 2)) for combine in ("set", "add", "min", "max")),
    _put("set", "check", "u8", (1,)),
    _put("add", "check", "i8", (1,)),
    Case(
        "dynamic_slice",
        lambda d, n: ((aval(d, (n, 4)), aval("i64"), aval("i32")), {"sizes": (2, 3)}),
        (2, 5),
        least=2,
    ),
    Case(
        "dynamic_update_slice",
        lambda d, n: ((aval(d, (n, 4)), aval(d, (2, 3)), aval("i64"), aval("i32")), {}),
        (2, 5),
        least=2,
    ),
    Case(
        "iota",
        lambda d, n: ((), {"dtype": d, "shape": (2, n), "axis": 1}),
        (0, 1, 7),
        NUMBERS,
    ),
    Case("constant", _constant_case, (1,)),
    Case(
        "random_bits",
        lambda d, n: ((aval("u32", (2,)),), {"shape": (n, 3)}),
        (0, 1, 5),
        frozenset({"f32"}),  # the dtype is not used: one sample
    ),
    Case("call", _call_case, (1,), NUMBERS),
    Case("custom", _custom_case, (1,), NUMBERS),
    Case("custom_linear", _custom_linear_case, (1,), NUMBERS),
    Case("linear_solve", _linear_solve_case, (3,), FLOATS),
    Case("checkpoint", _checkpoint_case("nothing"), (1,), NUMBERS),
    Case("checkpoint", _checkpoint_case("dots"), (1,), NUMBERS),
    Case("scan", _scan_case(False), (0, 1, 4), NUMBERS),
    Case("scan", _scan_case(True), (0, 4), NUMBERS),
    Case("cond", _cond_case("bool"), (0, 1, 4), NUMBERS),
    Case("cond", _cond_case("i32"), (3,), NUMBERS),
    Case("while", _while_case, (0, 1, 5), NUMBERS),
]

_EXPONENTS = (-3, -1, 0, 1, 2, 3, 7)


def _elementwise_params(op: Op) -> Iterator[dict[str, Any]]:
    if op.name == "integer_pow":
        yield from ({"exponent": exponent} for exponent in _EXPONENTS)
    elif op.name == "convert":
        yield from ({"dtype": dtype} for dtype in DTYPES)
    else:
        assert not op.params, f"say in _elementwise_params how {op.name}'s params are drawn"
        yield {}


def _is_taken(dtype: str, params: dict[str, Any]) -> bool:
    return params.get("exponent", 0) >= 0 or dtype in FLOATS


def elementwise_avals(op: Op, dtype: str, shape: tuple[Dim, ...]) -> tuple[Aval, ...]:
    """Avals of all operands of an elementwise op."""
    assert op.arity is not None
    avals = [aval(dtype, shape)] * op.arity
    if op.name == "select":
        avals[0] = aval("bool", shape)
    return tuple(avals)


def op_dtypes(op: Op) -> list[str]:
    """The dtypes an op takes, in their order."""
    return [dtype for dtype in DTYPES if dtype in (op.dtypes or ANY)]


def cases(op: Op) -> list[Case]:
    """The cases of a structured op; every op that is not elementwise has some."""
    found = [case for case in CASES if case.op == op.name]
    assert found or op.is_elementwise, f"op {op.name} has no case in tests/ops/samples.py"
    return found


def samples(op: Op, dtypes: tuple[str, ...] = SOME, whole: bool = False) -> list[Sample]:
    """Uses of ``op`` with drawn operands, over those of ``dtypes`` that it takes."""
    found = []
    if op.is_elementwise:
        taken = [dtype for dtype in op_dtypes(op) if dtype in dtypes]
        shapes = ((), (0, 2), (1,), (3, 5))
        for params, dtype, shape in itertools.product(_elementwise_params(op), taken, shapes):
            if _is_taken(dtype, params):
                sample = Sample(op, elementwise_avals(op, dtype, shape), params)
                found.append(fill(sample, whole=whole))
    for case in cases(op):
        for dtype in (d for d in DTYPES if d in case.dtypes and d in dtypes):
            found.extend(fill(case.sample(dtype, n), case.draw, whole=whole) for n in case.sizes)
    return found


def special_values(dtype: str) -> Array:
    """nan, infinities, zeros, subnormals, extremes of a float; extremes of an integer."""
    like = DTYPES[dtype]
    if like.kind == "b":
        return np.array([False, True])
    if like.kind in "iu":
        ends = np.iinfo(like)
        values = [0, 1, 2, 3, 7, ends.max, ends.max - 1, ends.min, ends.min + 1]
        return np.array(values + ([-1, -2] if like.kind == "i" else []), like)
    info = limits(like)
    positive = [0.0, 1.0, 0.5, 1.5, 2.5, 3.0, float(info.max), float(info.tiny), float(info.eps)]
    positive += [float(info.smallest_subnormal), float("inf"), 100.0]
    return np.array([*positive, *(-value for value in positive), float("nan")], like)


def specials(op: Op, dtypes: tuple[str, ...] = SOME) -> list[Sample]:
    """Uses of an elementwise op on all pairs of special values."""
    found = []
    if not op.is_elementwise:
        return found
    taken = [dtype for dtype in op_dtypes(op) if dtype in dtypes]
    for params, dtype in itertools.product(_elementwise_params(op), taken):
        if not _is_taken(dtype, params):
            continue
        avals = elementwise_avals(op, dtype, ())
        grid = np.meshgrid(*(special_values(like.dtype) for like in avals), indexing="ij")
        arrays = tuple(axis.ravel() for axis in grid)
        shaped = tuple(like.with_shape(arrays[0].shape) for like in avals)
        found.append(Sample(op, shaped, params, (), arrays))
    return found
