"""How an op is declared: one statement with all its facets.

A facet that is missing must be waived with a reason; a gap fails at import. Nothing here knows
single ops; the families (``arithmetic``, ``movement``, ...) hold the declarations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffc.errors import DiffcError, ShapeError
from diffc.ir.aval import Aval
from diffc.ir.graph import Graph
from diffc.ops.batching import Batching, along_axes, elementwise

AvalRule = Callable[..., Aval | tuple[Aval, ...]]


# --- derivatives: one fact, from which jvp and vjp follow -------------------------------------


@dataclass(frozen=True, slots=True)
class Partials:
    """Elementwise: ``formula(*operands, out, **params)`` gives the partial by each operand.

    A partial is a term, or a Python number where it is constant, or ``Over`` a divisor. What a
    formula mentions becomes a residual. ``bounded`` declares that all partials are finite whatever
    the operands are (nan and inf included), so that no support is applied to them.
    """

    formula: Callable[..., tuple[Any, ...]]
    bounded: bool = False


@dataclass(frozen=True, slots=True)
class Over:
    """The partial ``1 / divisor``: tangents are divided, rather than multiplied by it.

    Of a subnormal divisor it overflows, where 0 divided by the divisor is 0.
    """

    divisor: Any


def plain(partial: Any) -> Any:
    """A partial as a term or Python number."""
    return 1 / partial.divisor if isinstance(partial, Over) else partial


@dataclass(frozen=True, slots=True)
class Routes:
    """Elementwise choice: ``formula(*operands, out, **params)`` gives, per operand, its routes.

    The routes of an operand are a tuple of ``(condition, factor)``: where the (boolean) condition
    holds, the cotangent passes times the Python number ``factor``; conditions of one operand
    exclude one another; where none holds nothing passes. Applied by selection, never by a product
    with 0 or 1. ``ties(*operands, out, **params)`` is the condition under which all differentiable
    operands share the cotangent evenly; ignored when any of them is a literal (then the derivative
    at the tie is 0). None as an operand's routes: not differentiable (an index, a condition).
    """

    formula: Callable[..., tuple[Any, ...]]
    ties: Callable[..., Any] | None = None


@dataclass(frozen=True, slots=True)
class Linear:
    """Linear in the operands at positions ``operands`` (None: in all of them).

    ``jointly``: linear in all of these together (concat), so the jvp is one equation on the
    tangents, absent ones as zeros; otherwise linear in each with the others fixed (contract), and
    the jvp is a sum. ``transpose(ct, operands, avals, params, index)`` gives the cotangent of
    operand ``index`` as a term: ``ct`` is the result's cotangent as a term, ``operands`` the
    operands as terms (None for those that are linear here), ``avals`` the avals of all operands.
    Only float operands have cotangents.
    """

    transpose: Callable[..., Any]
    operands: tuple[int, ...] | None = None
    jointly: bool = True


@dataclass(frozen=True, slots=True)
class Linearized:
    """Anything else: ``jvp(operands, tangents, out, params)`` on terms; tangents None where absent.

    The jvp applies to tangents only ops that are linear in them: ``Linear`` ones, add, sub, neg,
    products with and quotients by residuals, and select under a condition on residuals.
    ``source`` says where the formula comes from.
    """

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


@dataclass(frozen=True, slots=True)
class ByParams:
    """The params decide: ``choose(params)`` is one of the other facts. Ask ``Op.fact(params)``."""

    choose: Callable[[Mapping[str, Any]], Fact]


Fact = Partials | Routes | Linear | Linearized | Zero | Undefined | Regional
Derivative = Fact | ByParams


# --- bodies: what the op is in loops ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Map:
    """Elementwise: ``formula(*operands, **params)`` on loop terms gives the element of the result.

    The loop scalars are the ops of the same names. ``price``: how many bytes of memory traffic cost
    as much as computing one element (of four bytes); what is cheap is computed again rather than
    kept.
    """

    formula: Callable[..., Any]
    price: float = 0.25

    @property
    def cheap(self) -> bool:
        """Whether computing it again costs less than a load."""
        return self.price < 1.0


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
    """A function of the indices: ``formula(indices, operands, params, term_of_index)``.

    ``indices`` index the result (``ir.index`` expressions); ``term_of_index(index)`` is the loop
    term of that integer in the result's dtype.
    """

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
            names the operand by its position. Region ops get ``regions=`` too.
        numpy: reference meaning, ``numpy(*arrays, **params)``: an array or scalar, or a tuple.
            Region ops get ``regions=`` too and give a generator: it yields ``(region, arrays)``,
            is sent what the region computes, and returns the results.
        sympy: text of the meaning in SymPy's vocabulary over operands ``x y z`` and the params'
            names (``"tanh(x)"``); of bits on booleans. Waived for movement, sums, contractions,
            whose ``numpy`` runs on object arrays.
        domain: text of the condition under which it is smooth, in the same vocabulary restricted
            to comparisons, ``Ne``, ``floor``, ``cos``, ``&`` and ``|``, or ``distinct(x)`` (no two
            elements are equal); also draws samples.
        derivative: one of the derivative facts above.
        body: one of the bodies above.
        params: names of the static parameters.
        results: number of results; None when the regions decide.
        ulp: how far compiled code may be from the exact value in units of the last place; 0 where
            it is ``numpy`` bit for bit, sums excepted (their bound grows with the terms).
        dtypes: dtypes that operand 0 (select: the last one) may have.
        arity: number of operands; None for any number.
        batching: what an equation becomes when operands carry a batch axis; by default from the
            kind of the body. None for region ops, and for ops without operands.
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
    arity: int | None = None
    batching: Batching | None = None

    def infer(
        self, avals: tuple[Aval, ...], params: Mapping[str, Any], regions: tuple[Graph, ...]
    ) -> tuple[Aval, ...]:
        """Avals of the results.

        Raises:
            ShapeError, DtypeError: the operands, params or regions do not fit; names which.
        """
        if self.arity is not None and len(avals) != self.arity:
            raise ShapeError(f"{self.name}: found {len(avals)} operands, needs {self.arity}")
        if len(params) != len(self.params) or not all(name in params for name in self.params):
            found_names, needed = ", ".join(params) or "none", ", ".join(self.params) or "none"
            raise ShapeError(f"{self.name}: found params {found_names}; needs {needed}")
        try:
            if self.is_regional:
                found = self.aval(*avals, regions=regions, **params)
            elif any(aval.is_store for aval in avals):
                position = next(i for i, aval in enumerate(avals) if aval.is_store)
                raise ShapeError(f"operand {position} is {avals[position]}; only loops read stores")
            else:
                found = self.aval(*avals, **params)
        except DiffcError as error:
            error.message = f"{self.name}: {error.message}"
            raise
        return found if isinstance(found, tuple) else (found,)

    def fact(self, params: Mapping[str, Any]) -> Fact:
        """The derivative fact for these params."""
        derivative = self.derivative
        return derivative.choose(params) if isinstance(derivative, ByParams) else derivative

    @property
    def is_regional(self) -> bool:
        """Whether equations of this op hold regions."""
        return isinstance(self.body, Regional)

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
    batching: Batching | None = None,
) -> Op:
    """Declares an op and enters it into the registry.

    Raises:
        ValueError: the name is taken, or a facet is empty.
    """
    from diffc.ops.registry import register

    facets = (("doc", doc), ("domain", domain), ("numpy", numpy), ("sympy", sympy))
    for facet, content in facets:
        text = content.reason if isinstance(content, Waived) else content
        if isinstance(text, str) and not text:
            raise ValueError(
                f"op {name}: facet {facet} is empty; fill it or waive it with a reason"
            )
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
        dtypes=dtypes or getattr(aval, "dtypes", frozenset()),
        arity=_arity(aval),
        batching=batching or _batching(name, body, _arity(aval)),
    )
    register(declared)
    return declared


def _batching(name: str, body: Body, arity: int | None) -> Batching | None:
    """The rule that follows from the kind of the body."""
    if isinstance(body, Map):
        return elementwise
    if isinstance(body, Fold):
        return along_axes
    if isinstance(body, Regional) or arity == 0:
        return None
    raise ValueError(f"op {name}: a body of this kind needs a facet batching")


def _arity(rule: AvalRule) -> int | None:
    """How many operands an aval rule takes; None for any number."""
    if hasattr(rule, "arity"):
        return int(rule.arity)
    parameters = inspect.signature(rule).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return sum(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
