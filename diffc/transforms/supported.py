"""Supports of what loops carry: which carries have one, where they start, where they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from diffc.ir.graph import Operand, Value, literal
from diffc.transforms.forward import Supports
from diffc.transforms.rules import Tangent


def kept_supports(
    given: list[bool],
    first: int,
    carry: int,
    have: Callable[[Supports], Sequence[bool]],
    wanted: int,
) -> Supports:
    """Supports that go in, less those of carries that the body doesn't keep.

    Args:
        given: which inputs would have one.
        first: the position of the first carry among them.
        carry: how many carries there are.
        have: of a derivative of the body, which following carries have a support.
        wanted: how many outputs the derivative has.
    """
    while True:
        supports = Supports(tuple(given), (False,) * wanted)
        own = given[first : first + carry]
        kept = [a and b for a, b in zip(own, have(supports), strict=True)]
        if kept == own:
            return supports
        given[first : first + carry] = kept


def given_supports(
    mask: Sequence[bool], dots: Mapping[int, Tangent], carries: Sequence[int]
) -> list[bool]:
    """Inputs whose tangents may have a support: also carries that start from zero."""
    given = [i in dots and dots[i].support is not None for i in range(len(mask))]
    for i in carries:
        given[i] = given[i] or (mask[i] and i not in dots)
    return given


def start_of(aval_of: Operand | Value, tangent: Tangent | None) -> Tangent:
    """The tangent with a support; zeros that are nowhere else, where there is none."""
    if tangent is not None:
        return tangent
    aval = aval_of.aval
    return Tangent(literal(0, aval), literal(False, aval.with_dtype("bool")))


def support_of(tangent: Tangent) -> Operand:
    """The support of a tangent that is known to have one."""
    assert tangent.support is not None
    return tangent.support


class Order:
    """Where values, tangents and supports stand in a derivative's inputs or outputs.

    ``dot`` says where a tangent stands; in Taylor mode, the first of ``width`` coefficients.
    """

    def __init__(
        self, count: int, active: Sequence[bool], have: Sequence[bool], width: int = 1
    ) -> None:
        on = [i for i, is_on in enumerate(active) if is_on]
        self.width = width
        self.dot = {i: count + width * n for n, i in enumerate(on)}
        with_support = [i for i, has in enumerate(have) if has]
        last = count + width * len(on)
        self.support = {i: last + n for n, i in enumerate(with_support)}

    def group(self, positions: Sequence[int]) -> list[int]:
        """Values, tangents and supports at some positions."""
        found = list(positions)
        starts = [self.dot[i] for i in positions if i in self.dot]
        found += [start + n for start in starts for n in range(self.width)]
        return found + [self.support[i] for i in positions if i in self.support]
