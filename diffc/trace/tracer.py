"""Tracers: what stands for an array while a function is traced.

A tracer is a view (a chain of lenses) on a :class:`~diffc.trace.context.Cell`. It behaves like an
``ndarray``, or like a NumPy or Python scalar, but has no values: each operation emits equations.
It is a class of its own, not a subclass of ``ndarray``; NumPy reaches it through
``__array_ufunc__`` and ``__array_function__``.

Invariants: ``aval`` never changes; ``weak`` only for Python scalars; what NumPy would give as a
scalar (``scalar``) is never written in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from diffc.errors import ShapeError, TraceError
from diffc.ir.aval import Aval
from diffc.ir.graph import Operand, Value
from diffc.ir.index import Dim
from diffc.trace import operands as o
from diffc.trace.context import Cell, ValueNeeded, current, leaked
from diffc.trace.location import here, line
from diffc.trace.table import FUNCTIONS, UFUNC_METHODS, dispatch
from diffc.trace.views import Lens


class Tracer:
    """An array under trace.

    Attributes:
        aval: dtype and shape.
        weak: whether it is a Python scalar, which promotes weakly.
        scalar: whether NumPy would give a scalar, not an array: it is then never written.
    """

    __slots__ = ("__weakref__", "_cell", "_lens", "_parent", "_seen", "aval", "scalar", "weak")
    __array_priority__ = 1000.0
    __hash__ = None  # type: ignore[assignment]  # as ndarrays

    def __init__(
        self,
        cell: Cell,
        aval: Aval,
        lens: Lens | None = None,
        parent: Tracer | None = None,
        *,
        weak: bool = False,
        scalar: bool = False,
    ) -> None:
        self._cell = cell
        self._lens = lens
        self._parent = parent
        self._seen: tuple[Cell, Operand, Operand] | None = None
        self.aval = aval
        self.weak = weak
        self.scalar = scalar

    # --- what an array says of itself

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Dimensions."""
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype."""
        return self.aval.numpy

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.aval.shape)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return self.aval.size

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.aval.numpy.itemsize

    @property
    def nbytes(self) -> Dim:
        """Bytes of all elements."""
        return self.aval.nbytes

    @property
    def T(self) -> Tracer:
        """The axes in reverse order, as a view."""
        found: Tracer = FUNCTIONS["transpose"](self)
        return found

    @property
    def mT(self) -> Tracer:
        """The last two axes exchanged, as a view."""
        found: Tracer = FUNCTIONS["matrix_transpose"](self)
        return found

    @property
    def real(self) -> Tracer:
        """The array itself: diffc's dtypes are real."""
        return self

    @property
    def imag(self) -> Tracer:
        """Zeros."""
        found: Tracer = FUNCTIONS["zeros_like"](self)
        return found

    @property
    def flat(self) -> Iterator[Tracer]:
        """The elements one after another."""
        return iter(FUNCTIONS["ravel"](self))

    def __len__(self) -> int:
        if not self.aval.shape:
            raise TypeError("len() of a traced scalar")
        dim = self.aval.shape[0]
        if not isinstance(dim, int):
            raise TraceError(
                f"len() of an array with the symbolic dimension {dim}",
                location=line(),
                hint="use x.shape[0]",
            )
        return dim

    def __repr__(self) -> str:
        name = f" {self._cell.name}" if self._cell.name and self._lens is None else ""
        return f"<traced{name} {self.aval}>"

    def __format__(self, spec: str) -> str:
        if not spec:
            return repr(self)
        return format(value_of(self, "text", _HINT_NUMBER).item(), spec)

    # --- asking for values

    def item(self, *index: Any) -> Any:
        """The value as a Python scalar; an error unless it depends on no input."""
        array = number_of(self, "a Python number (.item())", _HINT_NUMBER)
        return array.item(*index)

    def tolist(self) -> Any:
        """The values as nested lists; an error unless they depend on no input."""
        return number_of(self, "a list (.tolist())", _HINT_NUMBER).tolist()

    def __bool__(self) -> bool:
        if self.aval.shape and self.aval.size != 1:
            raise TraceError(
                f"the truth value of an array of shape {o.text_of_shape(self.shape)} is ambiguous",
                location=line(),
                hint="use np.any(x) or np.all(x); for each element: & for and, | for or, ~ for not",
            )
        return bool(value_of(self, "a truth value (if, while, and, or, not, min, max)", _HINT_BOOL))

    def __int__(self) -> int:
        return int(value_of(self, "a Python int (int())", _HINT_NUMBER).item())

    def __index__(self) -> int:
        if self.aval.shape or self.aval.dtype[0] not in "iu":
            raise TypeError(f"only integer scalars can be an index, not {self.aval}")
        return int(value_of(self, "a Python int (index, range or shape)", _HINT_INDEX).item())

    def __float__(self) -> float:
        return float(number_of(self, "a Python float (float(), math.*)", _HINT_FLOAT).item())

    def __complex__(self) -> complex:
        return complex(number_of(self, "a Python complex", _HINT_NUMBER).item())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = number_of(self, "a NumPy array", _HINT_ARRAY)
        return array.astype(dtype) if dtype is not None else array.copy()

    def __reduce__(self) -> NoReturn:
        raise TraceError("a traced array cannot be pickled", location=line())

    def __copy__(self) -> Tracer:
        return copy_of(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tracer:
        return copy_of(self)

    # --- NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return UFUNC_METHODS[method](ufunc, inputs, kwargs)

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return dispatch(func, args, kwargs)

    # --- elements

    def __getitem__(self, key: Any) -> Any:
        found: Tracer = FUNCTIONS["__getitem__"](self, key)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        FUNCTIONS["__setitem__"](self, key, value)

    def __iter__(self) -> Iterator[Tracer]:
        if not self.aval.shape:
            raise TypeError("iteration over a traced scalar")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    def fill(self, value: Any) -> None:
        """Overwrites all elements."""
        self[...] = value

    def astype(self, dtype: Any, order: str = "K", *, copy: bool = True, **_: Any) -> Tracer:
        """A copy with another dtype (the array itself if nothing changes and ``copy=False``)."""
        found: Tracer = FUNCTIONS["astype"](self, dtype, copy=copy)
        return found

    def reshape(self, *shape: Any, order: str = "C", copy: bool | None = None) -> Tracer:
        """Another shape, as a view where NumPy gives one."""
        found: Tracer = FUNCTIONS["reshape"](
            self, shape[0] if len(shape) == 1 else shape, order=order
        )
        return found

    def transpose(self, *axes: Any) -> Tracer:
        """Axes in another order, as a view."""
        order = None if not axes else axes[0] if len(axes) == 1 else axes
        found: Tracer = FUNCTIONS["transpose"](self, order)
        return found


_HINT_BOOL = (
    "choose between arrays with np.where(condition, a, b); make a Python number that decides "
    "a static argument (static_argnums); for control flow on traced values use "
    "@diffc.jit(control_flow=True), or diffc.cond, diffc.while_loop and diffc.scan"
)
_HINT_NUMBER = (
    "keep it as an array; return it and read it outside; or pass what it comes from as a static "
    "argument (static_argnums)"
)
_HINT_FLOAT = (
    "use the functions of np instead of math or float(): np.exp(x), x.astype(np.float64); an array "
    "that is written to must be made inside the function, or be an argument"
)
_HINT_INDEX = (
    "sizes must not depend on traced values: pass them as static arguments (static_argnums); "
    "loop over traced bounds with @diffc.jit(control_flow=True) or diffc.fori_loop; "
    "index arrays made outside with np.take(a, i)"
)
_HINT_ARRAY = (
    "make arrays that are written to inside the function, with np.zeros and the like, or pass them "
    "as arguments; use functions of np or diffc on traced arrays"
)


def read(x: Tracer) -> Operand:
    """The current value of a tracer in the current trace."""
    trace = current()
    cell = x._cell
    if cell.shared is not None:
        cell.shared.on_read()
    if cell.trace is not trace:
        cell = trace.localize(cell)
    lens = x._lens
    if lens is None:
        return cell.value
    seen = x._seen
    if seen is not None and seen[0] is cell and seen[1] is cell.value:
        return seen[2]
    assert x._parent is not None
    value = lens.get(read(x._parent))
    x._seen = (cell, cell.value, value)
    return value


def write(x: Tracer, new: Operand) -> None:
    """Overwrites all that the tracer sees; ``new`` has its aval.

    Raises:
        TraceError: it sees an array captured from outside.
    """
    cell = current().localize(x._cell)
    if x._cell.shared is not None:
        x._cell.shared.on_write()
    origin = cell
    while isinstance(origin.captured, Cell):
        origin = origin.captured
    if origin.captured is not None:
        raise captured_write()
    if x._lens is None:
        cell.value = new
    else:
        assert x._parent is not None
        write(x._parent, x._lens.put(read(x._parent), new))
        x._seen = (cell, cell.value, new)
    if not cell.written:
        cell.written = True
        cell.written_at = here()


def captured_write() -> TraceError:
    """The error for an in-place write to an array that was made outside the function."""
    return TraceError(
        "in-place write to a captured array: it was made outside the traced function",
        location=line(),
        hint="pass the array as an argument (then the write is done), or write into a copy",
    )


def wrap(value: Operand, *, weak: bool = False) -> Tracer:
    """A fresh result: an array of its own, or a scalar if it has no axes."""
    aval = value.aval
    return Tracer(Cell(current(), value), aval, weak=weak, scalar=not aval.shape)


def wrap_array(value: Operand) -> Tracer:
    """A fresh array, which can be written also if it has no axes."""
    return Tracer(Cell(current(), value), value.aval)


def view(x: Tracer, lens: Lens, shape: tuple[Dim, ...]) -> Tracer:
    """A view of ``x``."""
    return Tracer(x._cell, x.aval.with_shape(shape), lens, x)


def copy_of(x: Tracer) -> Tracer:
    """An array of its own with the same value."""
    return Tracer(Cell(current(), read(x)), x.aval, weak=x.weak, scalar=x.scalar)


def number_of(x: Tracer, wanted: str, hint: str) -> np.ndarray[Any, Any]:
    """As :func:`value_of`, for a number that the code goes on computing with, outside the trace."""
    found = value_of(x, wanted, hint)
    current().detach(read(x), wanted)
    return found


def value_of(x: Tracer, wanted: str, hint: str) -> np.ndarray[Any, Any]:
    """The concrete value, where the trace knows it.

    Raises:
        TraceError: it depends on an input.
    """
    if not x._cell.trace.alive:
        raise leaked(x._cell)
    value = read(x)
    found = current().ask(value)
    if found is None:
        name = f" {x._cell.name!r}" if x._cell.name and x._lens is None else ""
        made = ""
        if isinstance(value, Value) and value.eqn is not None and value.eqn.loc is not None:
            made = f", made by {value.eqn.op.name} at {value.eqn.loc},"
        raise ValueNeeded(
            f"the traced array{name} {x.aval}{made} has no value yet, but the code asks for "
            f"{wanted}",
            location=line(),
            hint=hint,
        )
    return found


# --- operators, installed from a table


def _binary(ufunc: np.ufunc) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    def forward(self: Tracer, other: Any) -> Any:
        return FUNCTIONS["__operator__"](ufunc, self, other)

    def reflected(self: Tracer, other: Any) -> Any:
        return FUNCTIONS["__operator__"](ufunc, other, self)

    def in_place(self: Tracer, other: Any) -> Any:
        if self.scalar:
            return FUNCTIONS["__operator__"](ufunc, self, other)
        result = FUNCTIONS["__operator__"](ufunc, self, other)
        if result is not NotImplemented:
            store(self, result, f"np.{ufunc.__name__} in place")
            return self
        return result

    return forward, reflected, in_place


def store(target: Any, result: Any, what: str) -> None:
    """Writes ``result`` into ``target`` as ``out=`` does.

    Raises:
        TraceError: the target is an array made outside.
        ShapeError: the result does not fit.
        DtypeError: the result's dtype can't be cast to the target's.
    """
    from diffc.trace.promote import check_same_kind

    if not isinstance(target, Tracer):
        raise captured_write()
    if target.scalar:
        raise TraceError(f"{what}: a scalar cannot be written to", location=line())
    value = read(result)
    check_same_kind(value.aval.dtype, target.aval.dtype, what)
    value = o.cast(value, target.aval.dtype)
    shape = o.common_shape([target.shape, value.aval.shape], what)
    if shape != target.shape:
        raise ShapeError(
            f"{what}: a result of shape {o.text_of_shape(value.aval.shape)} does not fit into "
            f"{o.text_of_shape(target.shape)}",
            location=line(),
        )
    write(target, o.broadcast(value, shape))


_OPERATORS: dict[str, np.ufunc] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "divmod": np.divmod,
    "matmul": np.matmul,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
}
_COMPARISONS: dict[str, np.ufunc] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
_UNARY_OPERATORS: dict[str, np.ufunc] = {
    "neg": np.negative,
    "pos": np.positive,
    "abs": np.absolute,
    "invert": np.invert,
}
_BINARY_OPERATORS: dict[str, np.ufunc] = {**_OPERATORS, **_COMPARISONS}
_METHODS = [
    "all", "any", "argmax", "argmin", "argsort", "clip", "cumprod", "cumsum", "diagonal", "dot",
    "flatten", "max", "mean", "min", "prod", "ravel", "repeat", "round", "searchsorted", "squeeze",
    "std", "sum", "swapaxes", "take", "trace", "var", "nonzero", "compress", "ptp", "choose", "put",
]  # fmt: skip


def _install() -> None:
    for name, ufunc in _OPERATORS.items():
        forward, reflected, in_place = _binary(ufunc)
        setattr(Tracer, f"__{name}__", forward)
        setattr(Tracer, f"__r{name}__", reflected)
        setattr(Tracer, f"__i{name}__", in_place)
    for name, ufunc in _COMPARISONS.items():
        setattr(Tracer, f"__{name}__", _binary(ufunc)[0])
    for name, ufunc in _UNARY_OPERATORS.items():
        setattr(Tracer, f"__{name}__", _unary(ufunc))
    for name in _METHODS:
        setattr(Tracer, name, _method(name))
    for name in ("copy", "sort"):
        setattr(Tracer, name, _method(f"ndarray.{name}"))
    for name in ("conj", "conjugate"):
        setattr(Tracer, name, _unary(np.conjugate))


def _unary(ufunc: np.ufunc) -> Callable[[Tracer], Any]:
    def apply(self: Tracer) -> Any:
        return FUNCTIONS["__operator__"](ufunc, self)

    return apply


def _method(name: str) -> Callable[..., Any]:
    def apply(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        return dispatch(name, (self, *args), kwargs)

    apply.__name__ = name
    apply.__doc__ = f"As ``np.{name}``."
    return apply


_install()


_PYTHON: dict[str, type[Any]] = {"bool": bool, "i64": int, "f64": float}


def dtype_key(x: Tracer) -> Any:
    """How promotion sees a tracer: a dtype's short name, or the type of a weak scalar."""
    if not x.weak:
        return x.aval.dtype
    return _PYTHON[x.aval.dtype]
