"""How an op is declared: one statement with all its facets.

A facet that is missing must be waived with a reason; a gap fails at import. Nothing here knows
single ops; the families (``arithmetic``, ``movement``, ...) hold the declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffc.ir.aval import Aval
from diffc.ir.graph import Graph

AvalRule = Callable[..., Aval | tuple[Aval, ...]]


# --- derivatives: one fact, from which jvp and vjp follow -------------------------------------


@dataclass(frozen=True, slots=True)
class Partials:
    """Elementwise: ``formula(*operands, out)`` gives the partial derivative by each operand.

    A partial is a term, or a Python number where it is constant. What a formula mentions becomes a
    residual. ``bounded`` declares, per operand, that the partial is finite wherever the op's
    operands are anything at all (nan and inf included), so that no support is applied to it.
    """

    formula: Callable[..., tuple[Any, ...]]
    bounded: bool = False


@dataclass(frozen=True, slots=True)
class Routes:
    """Elementwise choice: ``formula(*operands, out)`` gives, per operand, its routes.

    The routes of an operand are a tuple of ``(condition, factor)``: where the (boolean) condition
    holds, the cotangent passes times the Python number ``factor``; conditions of one operand
    exclude one another; where none holds nothing passes. Applied by selection, never by a product
    with 0 or 1. ``ties(*operands, out)`` is the condition under which all differentiable operands
    share the cotangent evenly; ignored when any of them is a literal (then the derivative at the
    tie is 0). None as an operand's routes: not differentiable (an index, a condition).
    """

    formula: Callable[..., tuple[Any, ...]]
    ties: Callable[..., Any] | None = None


@dataclass(frozen=True, slots=True)
class Linear:
    """Linear in the operands at positions ``operands`` (None: in all of them).

    ``jointly``: linear in all of these together (concat), so the jvp is one equation on the
    tangents, absent ones as zeros; otherwise linear in each with the others fixed (contract), and
    the jvp is a sum. ``transpose(ct, operands, params, index)`` gives the cotangent of operand
    ``index`` as a term: ``ct`` is the result's cotangent as a term, ``operands`` the operands as
    terms (None for those that are linear here, except that ``avals`` tell their shapes).
    """

    transpose: Callable[..., Any]
    operands: tuple[int, ...] | None = None
    jointly: bool = True


@dataclass(frozen=True, slots=True)
class Linearized:
    """Anything else: ``jvp(operands, tangents, out, params)`` on terms; tangents None where absent."""

    jvp: Callable[..., Any]
    source: str


@dataclass(frozen=True, slots=True)
class Zero:
    """Piecewise constant: the derivative is zero where it exists."""

    reason: str


@dataclass(frozen=True, slots=True)
class Undefined:
    """Differentiating raises, with this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Regional:
    """A region op (``call``, ``scan``): transforms are functions on graphs, see ``transforms``."""

    reason: str


Derivative = Partials | Routes | Linear | Linearized | Zero | Undefined | Regional


# --- bodies: what the op is in loops ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Map:
    """Elementwise: ``formula(*operands)`` on loop terms gives the element of the result.

    ``cheap``: computing it again costs less than a load, so fusion may duplicate it.
    """

    formula: Callable[..., Any]
    cheap: bool = True


@dataclass(frozen=True, slots=True)
class Move:
    """Movement: ``access(indices, avals, params)`` says which operand element is read.

    ``indices`` index the result (``ir.index`` expressions); the answer is a tuple of
    ``(operand, indices into it, guard)`` tried in order: the first whose guard holds is read; the
    last one's guard is ``TRUE``. A scalar operand has no indices.
    """

    access: Callable[..., tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Fold:
    """Reduction of ``params["axes"]`` by ``monoid``: sum prod max min any all argmax argmin."""

    monoid: str


@dataclass(frozen=True, slots=True)
class Generate:
    """A function of the indices: ``formula(index_terms, operands, params, term_of_index)``."""

    formula: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Special:
    """Lowered by its own function in ``codegen.lower``, named ``kind`` (contract, gather, ...)."""

    kind: str


Body = Map | Move | Fold | Generate | Special | Regional


@dataclass(frozen=True, slots=True)
class Waived:
    """A facet that an op does without, and why."""

    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """An op with all its facets; see ``docs/howto/add-an-op.md``.

    Attributes:
        name: NumPy's name where NumPy has one.
        doc: one sentence.
        aval: ``aval(*avals, **params)`` -> the result's aval (or a tuple), raising an error that
            names the operand. Region ops get ``regions=`` too.
        numpy: reference meaning, ``numpy(*arrays, **params)``.
        sympy: text of the meaning in SymPy's vocabulary over operands ``x y z`` (``"tanh(x)"``);
            Waived for movement, sums, contractions, whose ``numpy`` runs on object arrays.
        domain: text of the condition under which it is smooth; also draws samples.
        derivative: one of the derivative facts above.
        body: one of the bodies above.
        params: names of the static parameters.
        results: number of results; None when the params decide.
        identities: facts for tests (dtype families it takes, ...).
    """

    name: str
    doc: str
    aval: AvalRule
    numpy: Callable[..., Any] | Waived
    sympy: str | Waived
    domain: str
    derivative: Derivative
    body: Body
    params: tuple[str, ...] = ()
    results: int | None = 1
    ulp: float = 0.0
    dtypes: frozenset[str] = frozenset()

    def infer(
        self, avals: tuple[Aval, ...], params: Mapping[str, Any], regions: tuple[Graph, ...]
    ) -> tuple[Aval, ...]:
        """Avals of the results."""
        if regions or isinstance(self.derivative, Regional):
            found = self.aval(*avals, regions=regions, **params)
        else:
            found = self.aval(*avals, **params)
        return found if isinstance(found, tuple) else (found,)

    @property
    def is_elementwise(self) -> bool:
        """Whether each element of the result depends on the same element of each operand."""
        return isinstance(self.body, Map)

    @property
    def is_movement(self) -> bool:
        """Whether each element of the result is an element of an operand."""
        return isinstance(self.body, Move)

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        from diffc.ops.registry import find

        return find, (self.name,)


def op(
    name: str,
    *,
    doc: str,
    aval: AvalRule,
    numpy: Callable[..., Any] | Waived,
    sympy: str | Waived,
    derivative: Derivative,
    body: Body,
    domain: str = "True",
    params: Sequence[str] = (),
    results: int | None = 1,
    ulp: float = 0.0,
    dtypes: frozenset[str] = frozenset(),
) -> Op:
    """Declares an op and enters it into the registry.

    Raises:
        ValueError: the name is taken, or a facet is empty.
    """
    from diffc.ops.registry import register

    for facet, content in (("doc", doc), ("domain", domain), ("sympy", sympy)):
        if isinstance(content, str) and not content:
            raise ValueError(f"op {name}: facet {facet} is empty; fill it or waive it with a reason")
    declared = Op(
        name=name,
        doc=doc,
        aval=aval,
        numpy=numpy,
        sympy=sympy,
        domain=domain,
        derivative=derivative,
        body=body,
        params=tuple(params),
        results=results,
        ulp=ulp,
        dtypes=dtypes,
    )
    register(declared)
    return declared
