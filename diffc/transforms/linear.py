"""Whether a graph is linear: f(0) = 0, and every equation is linear in what the inputs reach.

The answer comes from the ops' derivative facts: no partial may depend on a linear value, no choice
either, and nothing that is not linear may be added to a linear value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffc.ir.graph import Eqn, Graph, Literal, Operand, depends_on
from diffc.ops.declare import Linear, Partials, Regional, Routes, plain
from diffc.ops.term import Term


class Trail(Term):
    """Knows of a formula's value only whether it depends on a linear operand."""

    __slots__ = ("is_reached",)

    def __init__(self, is_reached: bool) -> None:
        self.is_reached = is_reached

    def call(self, name: str, *others: Any, **params: Any) -> Trail:
        """Reached if any operand is."""
        return Trail(self.is_reached or any(map(_is_reached, others)))

    def lift(self, value: Any) -> Trail:
        """A constant."""
        return Trail(False)


def _is_reached(part: Any) -> bool:
    return isinstance(part, Trail) and part.is_reached


def explain_nonlinear(graph: Graph, mask: Sequence[bool]) -> str | None:
    """Why ``graph`` is not linear in the inputs marked in ``mask``; None if it is."""
    linear = _reached(graph, mask)
    for output in graph.outputs:
        if output not in linear and not _is_zero(output):
            return "a result does not depend on the arguments"
    return _problem_in(graph, linear)


def _reached(graph: Graph, mask: Sequence[bool]) -> set[Operand]:
    sources = [value for value, is_linear in zip(graph.inputs, mask, strict=True) if is_linear]
    return {*depends_on(graph, sources)}


def _is_zero(operand: Operand) -> bool:
    return isinstance(operand, Literal) and operand.value == 0


def _problem_in(graph: Graph, linear: set[Operand]) -> str | None:
    for eqn in graph.eqns:
        found = [i for i, operand in enumerate(eqn.operands) if operand in linear]
        if not found:
            continue
        is_regional = isinstance(eqn.op.fact(eqn.params), Regional)
        if is_regional:
            problem = _in_region(eqn, found)
        else:
            problem = _problem(eqn, found)
            if problem is not None and eqn.loc is not None:
                problem += f" ({eqn.loc})"
        if problem is not None:
            return problem
    return None


def _problem(eqn: Eqn, found: Sequence[int]) -> str | None:
    """Why an equation is not linear in the operands ``found`` together."""
    name = eqn.op.name
    terms = [Trail(i in found) for i in range(len(eqn.operands))]
    others = [i for i, x in enumerate(eqn.operands) if i not in found and not _is_zero(x)]
    added = f"{name} adds something that does not depend on the arguments"
    match eqn.op.fact(eqn.params):
        case Partials(formula=formula):
            partials = [plain(each) for each in formula(*terms, Trail(True), **eqn.params)]
            if any(_is_reached(partials[i]) for i in found):
                return f"{name} is not linear"
            is_added = any(not isinstance(partials[i], Trail) and partials[i] for i in others)
            return added if is_added else None
        case Routes(formula=formula):
            routes = formula(*terms, Trail(True), **eqn.params)
            conditions = [c for i in found for c, _ in routes[i] or ()]
            if any(routes[i] is None for i in found) or any(map(_is_reached, conditions)):
                return f"{name} chooses by the arguments' values"
            return added if any(routes[i] for i in others) else None
        case Linear(operands=positions, jointly=jointly):
            places = range(len(eqn.operands)) if positions is None else positions
            if any(i not in places for i in found) or (not jointly and len(found) > 1):
                return f"{name} is not linear in all of its operands"
            return added if jointly and any(i in places for i in others) else None
    return f"{name} is not linear"


def _in_region(eqn: Eqn, found: Sequence[int]) -> str | None:
    """A region is linear in what is linear outside; carries become linear by fixpoint."""
    name, params = eqn.op.name, eqn.params
    mask = [i in found for i in range(len(eqn.operands))]
    if name == "custom_linear":
        return f"{name} is not linear in residuals" if any(mask[: params["residuals"]]) else None
    if name == "linear_solve":
        has_system = any(mask[: len(mask) - len(eqn.results)])
        return f"{name} is not linear in the system" if has_system else None
    if name == "cond":
        steered, bodies, mask = mask[0], eqn.regions, mask[1:]
    elif name == "while":
        steered, bodies = any(mask[: params["tests"]]), eqn.regions[1:]
        mask = mask[params["tests"] :]
    else:
        steered, bodies = False, eqn.regions
    first = params.get("consts", 0)
    carry = len(mask) - first if name == "while" else params.get("carry", 0)
    while True:
        reached = _reached(bodies[0], mask)
        grown = [mask[first + i] or bodies[0].outputs[i] in reached for i in range(carry)]
        if grown == mask[first : first + carry]:
            break
        mask[first : first + carry] = grown
    if name == "while":
        test = eqn.regions[0]
        read = _reached(test, [False] * params["tests"] + mask[first:])
        steered = steered or test.outputs[0] in read
    if steered:
        return f"{name} chooses by the arguments' values"
    skipped = len(eqn.operands) - len(mask)
    for i in range(first, first + carry):
        if mask[i] and i + skipped not in found and not _is_zero(eqn.operands[i + skipped]):
            return f"a carry of {name} starts from what does not depend on the arguments"
    for body in bodies:
        reached = _reached(body, mask)
        problem = _problem_in(body, reached)
        if problem is None and name == "cond" and not _all_reached(body, bodies, mask):
            problem = "a branch gives what does not depend on the arguments"
        if problem is not None:
            return f"in {name}: {problem}"
    return None


def _all_reached(body: Graph, bodies: Sequence[Graph], mask: Sequence[bool]) -> bool:
    """Whether a branch is linear, or zero, wherever any other branch is."""
    linear = [
        any(each.outputs[i] in _reached(each, mask) for each in bodies)
        for i in range(len(body.outputs))
    ]
    own = _reached(body, mask)
    return all(
        not on or output in own or _is_zero(output)
        for output, on in zip(body.outputs, linear, strict=True)
    )
