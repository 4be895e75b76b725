"""Aval rules shared by the families, and the checks they are made of.

Every rule works on symbolic dimensions: it computes with ``+ - * // %`` and ``==`` only, and asks
for an order (``<``) only between integers; what can't be decided yet is let through and decided
when the symbols get their values. Errors say which operand, what was found and what is needed;
``Op.infer`` puts the op's name in front.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffc.errors import DtypeError, ShapeError
from diffc.ir.aval import ANY, BOOLS, DTYPES, FLOATS, INTEGERS, NUMBERS, Aval

if TYPE_CHECKING:
    from diffc.ir.index import Dim

_FAMILIES = {
    BOOLS: "bool",
    FLOATS: "a float",
    INTEGERS: "an integer",
    NUMBERS: "a number",
    INTEGERS | BOOLS: "an integer or bool",
    ANY: "any dtype",
}


def family(dtypes: frozenset[str]) -> str:
    """A set of dtypes in words."""
    return _FAMILIES.get(dtypes) or " or ".join(sorted(dtypes))


def need_dtype(position: int, found: Aval, dtypes: frozenset[str]) -> None:
    """Raises unless the dtype is one of ``dtypes``."""
    if found.dtype not in dtypes:
        raise DtypeError(f"operand {position} is {found}; needs {family(dtypes)}")


def need_same_dtype(position: int, found: Aval, first: Aval, first_position: int = 0) -> None:
    """Raises unless both have one dtype."""
    if found.dtype != first.dtype:
        raise DtypeError(
            f"operand {position} is {found}, but operand {first_position} is {first}; "
            "needs equal dtypes"
        )


def need_shape(position: int, found: Aval, shape: tuple[Dim, ...], why: str) -> None:
    """Raises unless the shape is ``shape``."""
    if found.shape != shape:
        raise ShapeError(f"operand {position} is {found}; needs shape {text(shape)}, {why}")


def need_scalar(position: int, found: Aval, what: str) -> None:
    """Raises unless it has no axes."""
    if found.shape:
        raise ShapeError(f"operand {position}, {what}, is {found}; needs a scalar")


def need_axes(axes: Sequence[int], ndim: int, found: Aval, name: str = "axes") -> None:
    """Raises unless the axes are sorted, unique and within operand 0."""
    if any(not 0 <= axis < ndim for axis in axes):
        raise ShapeError(f"{name} {tuple(axes)} of operand 0, {found}; needs axes below {ndim}")
    if any(low >= high for low, high in itertools.pairwise(axes)):
        raise ShapeError(f"{name} {tuple(axes)} must increase")


def need_length(name: str, values: Sequence[Any], length: int, what: str) -> None:
    """Raises unless a tuple of params has one entry for each of ``what``."""
    if len(values) != length:
        raise ShapeError(
            f"{name} {tuple(values)} has {len(values)} entries; needs {length}, {what}"
        )


def is_less(left: Dim, right: Dim) -> bool:
    """Whether ``left < right`` is known."""
    return isinstance(left, int) and isinstance(right, int) and left < right


def is_known_zero(dim: Dim) -> bool:
    """Whether the dimension is the integer 0."""
    return isinstance(dim, int) and dim == 0


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dimensions."""
    result: Dim = 1
    for dim in dims:
        result = result * dim
    return result


def text(shape: tuple[Dim, ...]) -> str:
    """A shape as avals print it."""
    return f"[{','.join(map(str, shape))}]"


@dataclass(frozen=True, slots=True)
class Elementwise:
    """All operands have one aval, of one of ``dtypes``; the result has it, or dtype ``result``."""

    dtypes: frozenset[str]
    arity: int = 1
    result: str | None = None

    def __call__(self, *avals: Aval) -> Aval:
        """The result's aval, or an error that names the operand."""
        first = avals[0]
        if first.dtype not in self.dtypes:
            need_dtype(0, first, self.dtypes)
        for position, other in enumerate(avals):
            if other is not first:
                need_same_dtype(position, other, first)
                need_shape(position, other, first.shape, "as operand 0")
        return first if self.result is None else first.with_dtype(self.result)


def elementwise(dtypes: frozenset[str], arity: int = 1, result: str | None = None) -> Elementwise:
    """The aval rule of elementwise ops; nothing broadcasts or promotes."""
    return Elementwise(dtypes, arity, result)


def need_known_dtype(dtype: str) -> None:
    """Raises unless the param names a dtype."""
    if dtype not in DTYPES:
        raise DtypeError(f"dtype {dtype!r} is not known; needs one of {', '.join(DTYPES)}")


def need_dims(shape: tuple[Dim, ...]) -> None:
    """Raises if a dimension of a shape param is negative."""
    if any(is_less(dim, 0) for dim in shape):
        raise ShapeError(f"shape {text(shape)} has a negative dimension")
