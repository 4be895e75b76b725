"""``contract``: the sum of products of two arrays over shared letters.

``"ij,jk->ik"`` is the matrix product. A letter in both operands and not in the result is summed; a
letter in one operand alone must be in the result (sum it first). So the cotangents of both
operands are contractions again, with the letters turned around.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from diffc.errors import ShapeError
from diffc.ir.aval import NUMBERS, Aval, wide
from diffc.ops import batching
from diffc.ops.avals import need_dtype, need_same_dtype
from diffc.ops.declare import Linear, Special, Waived, op
from diffc.ops.term import GraphTerm

if TYPE_CHECKING:
    from diffc.ir.index import Dim

Array = np.ndarray[Any, Any]


def split(spec: str) -> tuple[str, str, str]:
    """The letters of both operands and of the result.

    >>> split("ij,jk->ik")
    ('ij', 'jk', 'ik')
    """
    operands, arrow, result = spec.partition("->")
    left, comma, right = operands.partition(",")
    if not arrow or not comma or (not (left + right + result).isalpha() and left + right + result):
        raise ShapeError(f'spec {spec!r} is not of the form "ij,jk->ik"')
    return left, right, result


def letters(spec: str) -> tuple[str, str, str, str]:
    """Letters by role: batch (in all), left and right (in one operand), summed.

    >>> letters("bij,bjk->bik")
    ('b', 'i', 'k', 'j')
    """
    left, right, result = split(spec)
    batch = "".join(c for c in result if c in left and c in right)
    summed = "".join(c for c in left if c in right and c not in result)
    only_left = "".join(c for c in result if c not in right)
    only_right = "".join(c for c in result if c not in left)
    return batch, only_left, only_right, summed


def _contract_aval(x: Aval, y: Aval, *, spec: str) -> Aval:
    need_dtype(0, x, NUMBERS)
    need_same_dtype(1, y, x)
    left, right, result = split(spec)
    for name, label in (("operand 0", left), ("operand 1", right), ("the result", result)):
        if len(set(label)) != len(label):
            raise ShapeError(f"spec {spec!r} repeats a letter in {name}")
    dims: dict[str, Dim] = {}
    for position, (found, label) in enumerate(((x, left), (y, right))):
        if len(label) != found.ndim:
            raise ShapeError(
                f"operand {position} is {found} with {found.ndim} axes; spec {spec!r} gives it "
                f"{len(label)} letters"
            )
        for letter, dim in zip(label, found.shape, strict=True):
            if dims.setdefault(letter, dim) != dim:
                raise ShapeError(
                    f"operand 1 is {y}: letter {letter} of spec {spec!r} is {dim} there, "
                    f"but {dims[letter]} in operand 0, {x}"
                )
    for letter in result:
        if letter not in dims:
            raise ShapeError(f"spec {spec!r}: no operand has the result's letter {letter}")
    for letter in set(left) ^ set(right):
        if letter not in result:
            raise ShapeError(f"spec {spec!r}: only one operand has letter {letter}; sum it first")
    return x.with_shape(tuple(dims[letter] for letter in result))


def _contract(x: Array, y: Array, *, spec: str) -> Array:
    """One (batched) matrix product of the operands brought to [batch, left, summed] and so on."""
    dtype = x.dtype
    x, y = x.astype(wide(dtype), copy=False), y.astype(wide(dtype), copy=False)
    left, right, result = split(spec)
    batch, only_left, only_right, summed = letters(spec)
    dims = dict(zip(left + right, x.shape + y.shape, strict=True))

    def arrange(array: Array, label: str, order: str, *groups: str) -> Array:
        moved = array.transpose([label.index(letter) for letter in order])
        return moved.reshape([math.prod(dims[c] for c in group) for group in groups])

    a = arrange(x, left, batch + only_left + summed, batch, only_left, summed)
    b = arrange(y, right, batch + summed + only_right, batch, summed, only_right)
    found = batch + only_left + only_right
    product = (np.matmul(a, b) if summed else a * b).reshape([dims[letter] for letter in found])
    arranged = product.transpose([found.index(letter) for letter in result])
    return np.asarray(arranged).astype(dtype, copy=False)


def _contract_transpose(
    ct: GraphTerm,
    operands: tuple[GraphTerm | None, ...],
    avals: tuple[Aval, ...],
    params: Any,
    index: int,
) -> GraphTerm:
    left, right, result = split(params["spec"])
    x, y = operands
    if index == 0:
        assert y is not None
        return ct.call("contract", y, spec=f"{result},{right}->{left}")
    assert x is not None
    return ct.wrap(x.operand).call("contract", ct, spec=f"{left},{result}->{right}")


contract = op(
    "contract",
    doc="Sum of products over the letters that the result lacks; f16 and bf16 add up in f32.",
    aval=_contract_aval,
    numpy=_contract,
    sympy=Waived("its numpy facet runs on arrays of symbols"),
    derivative=Linear(_contract_transpose, jointly=False),
    body=Special("contract"),
    params=("spec",),
    dtypes=NUMBERS,
    batching=batching.contract,
)
