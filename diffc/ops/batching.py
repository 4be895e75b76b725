"""Batching: what one equation becomes when some operands carry a batch axis in front.

A rule takes a :class:`Batched` equation and gives its result, which has the batch axis in front
too. For most ops the rule follows from the kind of their body; the others name one of the rules
here, or their own, where they are declared. Region ops are batched by ``transforms``.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffc.ir.graph import Literal, literal
from diffc.ops.term import GraphTerm, select

if TYPE_CHECKING:
    from diffc.ir.index import Dim


@dataclass(frozen=True, slots=True)
class Batched:
    """One equation, at least one operand of which has a batch axis.

    Attributes:
        op: the op's name.
        operands: as terms; a batched one has the batch axis in front of its own axes.
        mask: which operands are batched.
        size: length of the batch axis.
        params: the equation's params, in terms of the axes without the batch.
    """

    op: str
    operands: tuple[GraphTerm, ...]
    mask: tuple[bool, ...]
    size: Dim
    params: Mapping[str, Any]

    def own_shape(self, position: int) -> tuple[Dim, ...]:
        """The shape of an operand without the batch axis."""
        shape = self.operands[position].aval.shape
        return shape[1:] if self.mask[position] else shape

    def front(self, position: int) -> GraphTerm:
        """The operand with the batch axis in front, repeated along it if it was unbatched."""
        operand = self.operands[position]
        return operand if self.mask[position] else spread_front(operand, self.size)

    def fronts(self) -> tuple[GraphTerm, ...]:
        """All operands with the batch axis in front."""
        return tuple(map(self.front, range(len(self.operands))))

    def emit(self, operands: Sequence[GraphTerm], **changed: Any) -> GraphTerm:
        """The op itself on other operands, with some params changed."""
        first, *others = operands
        return first.call(self.op, *others, **{**self.params, **changed})


Batching = Callable[[Batched], GraphTerm]


def spread_front(term: GraphTerm, size: Dim) -> GraphTerm:
    """The term repeated along a new first axis; a literal stays one."""
    aval = term.aval
    shape = (size, *aval.shape)
    if isinstance(term.operand, Literal):
        return term.wrap(literal(term.operand.value, aval.with_shape(shape)))
    return term.call("broadcast", shape=shape, axes=shifted(range(aval.ndim)))


def shifted(axes: Sequence[int]) -> tuple[int, ...]:
    """Axes behind a batch axis."""
    return tuple(axis + 1 for axis in axes)


def to_front(term: GraphTerm, axis: int) -> GraphTerm:
    """One axis moved to the front."""
    if axis == 0:
        return term
    others = (k for k in range(term.aval.ndim) if k != axis)
    return term.call("transpose", perm=(axis, *others))


def from_front(term: GraphTerm, axis: int) -> GraphTerm:
    """The first axis moved to position ``axis``."""
    if axis == 0:
        return term
    return term.call("transpose", perm=(*range(1, axis + 1), 0, *range(axis + 1, term.aval.ndim)))


# --- rules by kind ----------------------------------------------------------------------------


def elementwise(eqn: Batched) -> GraphTerm:
    """Unbatched operands are repeated."""
    return eqn.emit(eqn.fronts())


def along_axes(eqn: Batched) -> GraphTerm:
    """One operand, worked on along ``axes`` or ``axis``: reductions, cumulative sums, sorting."""
    if "axes" in eqn.params:
        return eqn.emit(eqn.operands, axes=shifted(eqn.params["axes"]))
    return eqn.emit(eqn.fronts(), axis=eqn.params["axis"] + 1)


def reshape(eqn: Batched) -> GraphTerm:
    """The batch axis stays; the others are reshaped."""
    return eqn.emit(eqn.operands, shape=(eqn.size, *eqn.params["shape"]))


def transpose(eqn: Batched) -> GraphTerm:
    """The batch axis stays in front."""
    return eqn.emit(eqn.operands, perm=(0, *shifted(eqn.params["perm"])))


def broadcast(eqn: Batched) -> GraphTerm:
    """The batch axis of the operand is that of the result."""
    shape, axes = (eqn.size, *eqn.params["shape"]), (0, *shifted(eqn.params["axes"]))
    return eqn.emit(eqn.operands, shape=shape, axes=axes)


def slice_(eqn: Batched) -> GraphTerm:
    """All of the batch axis."""
    start, stop, step = (eqn.params[name] for name in ("start", "stop", "step"))
    return eqn.emit(eqn.operands, start=(0, *start), stop=(eqn.size, *stop), step=(1, *step))


def pad(eqn: Batched) -> GraphTerm:
    """No padding on the batch axis; values that differ along it are put in by selection."""
    x, value = eqn.operands
    front = {name: (0, *widths) for name, widths in eqn.params.items()}
    if not eqn.mask[1]:
        return eqn.emit((x, value), **front)
    outside = x.wrap(literal(False, x.aval.with_dtype("bool").with_shape(eqn.own_shape(0))))
    true = x.wrap(literal(True, value.aval.with_dtype("bool").with_shape(())))
    outside = spread_front(outside.call("pad", true, **eqn.params), eqn.size)
    zero = x.wrap(literal(0, value.aval.with_shape(())))
    padded = eqn.emit((eqn.front(0), zero), **front)
    values = value.call("broadcast", shape=padded.aval.shape, axes=(0,))
    return select(outside, values, padded)  # type: ignore[no-any-return]  # of graph terms


def concat(eqn: Batched) -> GraphTerm:
    """Operands side by side on the same axis, behind the batch."""
    return eqn.emit(eqn.fronts(), axis=eqn.params["axis"] + 1)


def windows(eqn: Batched) -> GraphTerm:
    """Windows on the same axes, behind the batch."""
    changed: dict[str, Any] = {"axes": shifted(eqn.params["axes"])}
    if "shape" in eqn.params:
        changed["shape"] = (eqn.size, *eqn.params["shape"])
    return eqn.emit(eqn.operands, **changed)


def contract(eqn: Batched) -> GraphTerm:
    """A new letter, in the batched operands and the result."""
    spec = eqn.params["spec"]
    letter = next(c for c in string.ascii_letters if c not in spec)
    operands, _, result = spec.partition("->")
    left, right = operands.split(",")
    x, y = (letter if is_batched else "" for is_batched in eqn.mask)
    return eqn.emit(eqn.operands, spec=f"{x}{left},{y}{right}->{letter}{result}")
