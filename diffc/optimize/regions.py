"""Rewrites of branches and loops: what is known of them from outside goes in, what is unused goes.

Functions on whole graphs, as they look at who uses a result. Calls, whose callees are shared, are
the business of ``calls``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffc.ir.aval import GROWING
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, prune, rebuild
from diffc.optimize.edit import keep


@dataclass(frozen=True, slots=True)
class Change:
    """What replaces an equation.

    ``results``: for each old result the position of the new one, or an operand of the old equation,
    or None where nobody uses it.
    """

    operands: Sequence[Operand]
    params: Mapping[str, Any]
    regions: tuple[Graph, ...]
    results: Sequence[int | Operand | None]


def _changed(graph: Graph, change: Callable[[Eqn, Collection[Operand]], Change | None]) -> Graph:
    """The graph with its branches and loops changed."""
    if not any(eqn.op.name in ("cond", "scan", "while") for eqn in graph.eqns):
        return graph
    used: set[Operand] = {operand for eqn in graph.eqns for operand in eqn.operands}
    used |= set(graph.outputs)

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        found = change(eqn, used) if eqn.regions else None
        if found is None:
            keep(builder, eqn, env)
            return
        operands = [env.get(operand, operand) for operand in found.operands]
        results = builder.emit(eqn.op, operands, found.params, found.regions, eqn.loc)
        for old, new in zip(eqn.results, found.results, strict=True):
            if isinstance(new, int):
                env[old] = results[new]
                results[new].name = results[new].name or old.name
                results[new].of = results[new].of or old.of
            elif new is not None:
                env[old] = env.get(new, new)

    return rebuild(graph, step)


def with_inputs(
    graph: Graph,
    inputs: Sequence[int],
    outputs: Sequence[int],
    bound: Mapping[int, Operand] | None = None,
) -> Graph:
    """Some outputs of a graph on some inputs, in that order; ``bound`` inputs are literals."""
    part = prune(
        Graph(graph.name, graph.inputs, graph.eqns, tuple(graph.outputs[i] for i in outputs))
    )
    builder = Builder(graph.name)
    env: dict[Operand, Operand] = {graph.inputs[i]: x for i, x in (bound or {}).items()}
    for i in inputs:
        env[graph.inputs[i]] = builder.input(graph.inputs[i].aval, graph.inputs[i].name)
    for eqn in part.eqns:
        builder.loc = eqn.loc
        builder.copy(eqn, env)
    return builder.build(env.get(output, output) for output in part.outputs)


def read_by(graph: Graph, outputs: Iterable[int]) -> set[int]:
    """The inputs that some outputs depend on."""
    part = prune(
        Graph(graph.name, graph.inputs, graph.eqns, tuple(graph.outputs[i] for i in outputs))
    )
    read: set[Operand] = {operand for eqn in part.eqns for operand in eqn.operands}
    read |= set(part.outputs)
    return {i for i, value in enumerate(graph.inputs) if value in read}


# --- branches that are known ------------------------------------------------------------------


def branch_of_literal(graph: Graph) -> Graph:
    """``cond(true, x) {f} {g}`` is ``g(x)``."""
    if not any(_chosen(eqn) for eqn in graph.eqns):
        return graph

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        branch = _chosen(eqn)
        if branch is None:
            keep(builder, eqn, env)
            return
        operands = [env.get(operand, operand) for operand in eqn.operands[1:]]
        env.update(zip(eqn.results, builder.inline(branch, operands), strict=True))

    return rebuild(graph, step)


def _chosen(eqn: Eqn) -> Graph | None:
    """The branch of a ``cond`` that is known to be taken."""
    if eqn.op.name != "cond":
        return None
    index, regions = eqn.operands[0], eqn.regions
    if isinstance(index, Literal):
        return regions[min(max(int(index.value), 0), len(regions) - 1)]
    return regions[0] if all(region is regions[0] for region in regions) else None


def _steps(eqn: Eqn) -> int:
    """How many operands of a scan in front say how many steps there are: one, or none."""
    return int(eqn.params["length"] is GROWING)


# --- literals go in ---------------------------------------------------------------------------


def literal_operands(graph: Graph) -> Graph:
    """Literals that branches and loops are given stand within them instead."""
    return _changed(graph, _bind)


def _bind(eqn: Eqn, used: Collection[Operand]) -> Change | None:
    literals = {i: x for i, x in enumerate(eqn.operands) if isinstance(x, Literal)}
    params, count = dict(eqn.params), len(eqn.operands)
    match eqn.op.name:
        case "cond":
            literals.pop(0, None)
            starts = [1] * len(eqn.regions)
            ends = [count] * len(eqn.regions)
        case "scan":
            steps = _steps(eqn)
            literals = {i: x for i, x in literals.items() if steps <= i < params["consts"]}
            params["consts"] -= len(literals)
            starts, ends = [0], [count]
        case "while":
            tests, first = params["tests"], params["tests"] + params["consts"]
            literals = {i: x for i, x in literals.items() if i < first}
            params["tests"] -= sum(i < tests for i in literals)
            params["consts"] -= sum(i >= tests for i in literals)
            return _bind_while(eqn, literals, params, tests) if literals else None
        case _:
            return None
    if not literals:
        return None
    regions = []
    for region, start, end in zip(eqn.regions, starts, ends, strict=True):
        bound = {i - start: x for i, x in literals.items()}
        inputs = [i - start for i in range(start, end) if i not in literals]
        regions.append(with_inputs(region, inputs, range(len(region.outputs)), bound))
    operands = [x for i, x in enumerate(eqn.operands) if i not in literals]
    return Change(operands, params, tuple(regions), range(len(eqn.results)))


def _bind_while(
    eqn: Eqn, literals: Mapping[int, Operand], params: Mapping[str, Any], tests: int
) -> Change:
    test, body = eqn.regions
    tested = {i: x for i, x in literals.items() if i < tests}
    given = {i - tests: x for i, x in literals.items() if i >= tests}
    test_inputs = [i for i in range(len(test.inputs)) if i not in tested]
    inputs = [i for i in range(len(body.inputs)) if i not in given]
    regions = (
        with_inputs(test, test_inputs, [0], tested),
        with_inputs(body, inputs, range(len(eqn.results)), given),
    )
    operands = [x for i, x in enumerate(eqn.operands) if i not in literals]
    return Change(operands, params, regions, range(len(eqn.results)))


# --- carries that stay what they are ----------------------------------------------------------


def constant_carries(graph: Graph) -> Graph:
    """What a loop carries and never changes is a constant of it."""
    return _changed(graph, _fix)


def _fix(eqn: Eqn, used: Collection[Operand]) -> Change | None:
    if eqn.op.name not in ("scan", "while"):
        return None
    is_while, params = eqn.op.name == "while", eqn.params
    body = eqn.regions[-1]
    tests, consts = params.get("tests", 0), params["consts"]
    carry = len(body.inputs) - consts if is_while else params["carry"]
    same = [k for k in range(carry) if body.outputs[k] is body.inputs[consts + k]]
    if not same:
        return None
    others = [k for k in range(carry) if k not in same]
    first = tests + consts
    fixed = [eqn.operands[first + k] for k in same]
    carried = [eqn.operands[first + k] for k in others]
    slices = range(consts + carry, len(body.inputs))
    inputs = [*range(consts), *(consts + k for k in (*same, *others)), *slices]
    outputs = [*others, *range(carry, len(body.outputs))]
    new_body = with_inputs(body, inputs, outputs)
    place = {k: n for n, k in enumerate(outputs)}
    results = [
        place.get(k, eqn.operands[first + k] if k < carry else k) for k in range(len(eqn.results))
    ]
    if not is_while:
        given = [*eqn.operands[:consts], *fixed, *carried, *eqn.operands[consts + carry :]]
        changed = {**params, "consts": consts + len(same), "carry": len(others)}
        return Change(given, changed, (new_body,), results)
    test_inputs = [*range(tests), *(tests + k for k in (*same, *others))]
    test = with_inputs(eqn.regions[0], test_inputs, [0])
    given = [*eqn.operands[:tests], *fixed, *eqn.operands[tests:first], *fixed, *carried]
    changed = {**params, "tests": tests + len(same), "consts": consts + len(same)}
    return Change(given, changed, (test, new_body), results)


# --- what is not used -------------------------------------------------------------------------


def unused_in_regions(graph: Graph) -> Graph:
    """Branches and loops without what nobody uses: results, carries, operands."""
    return _changed(graph, _trim)


def _trim(eqn: Eqn, used: Collection[Operand]) -> Change | None:
    wanted = [k for k, result in enumerate(eqn.results) if result in used]
    if not wanted:
        return None
    match eqn.op.name:
        case "cond":
            return _trim_cond(eqn, wanted)
        case "scan":
            return _trim_scan(eqn, wanted)
        case "while":
            return _trim_while(eqn, wanted)
    return None


def _picks(count: int, kept: Sequence[int]) -> list[int | None]:
    place = {k: n for n, k in enumerate(kept)}
    return [place.get(k) for k in range(count)]


def _trim_cond(eqn: Eqn, wanted: list[int]) -> Change | None:
    inputs = sorted(set().union(*(read_by(branch, wanted) for branch in eqn.regions)))
    if len(wanted) == len(eqn.results) and len(inputs) == len(eqn.operands) - 1:
        return None
    regions = tuple(with_inputs(branch, inputs, wanted) for branch in eqn.regions)
    operands = [eqn.operands[0], *(eqn.operands[i + 1] for i in inputs)]
    return Change(operands, eqn.params, regions, _picks(len(eqn.results), wanted))


def _live(body: Graph, consts: int, carry: int, wanted: set[int]) -> list[int]:
    """The outputs that are needed in some step, if ``wanted`` ones are needed in the end."""
    live = set(wanted)
    while True:
        read = read_by(body, sorted(live))
        grown = live | {i - consts for i in read if consts <= i < consts + carry}
        if grown == live:
            return sorted(live)
        live = grown


def _trim_scan(eqn: Eqn, wanted: list[int]) -> Change | None:
    (body,) = eqn.regions
    consts, carry = eqn.params["consts"], eqn.params["carry"]
    live = _live(body, consts, carry, set(wanted))
    read = read_by(body, live)
    carried = [k for k in live if k < carry]
    inputs = [i for i in range(consts) if i in read or i < _steps(eqn)]
    fixed = len(inputs)
    inputs += [consts + k for k in carried]
    inputs += [i for i in range(consts + carry, len(body.inputs)) if i in read]
    if len(inputs) == len(body.inputs) and len(live) == len(eqn.results):
        return None
    params = {**eqn.params, "consts": fixed, "carry": len(carried)}
    operands = [eqn.operands[i] for i in inputs]
    new_body = with_inputs(body, inputs, live)
    return Change(operands, params, (new_body,), _picks(len(eqn.results), live))


def _trim_while(eqn: Eqn, wanted: list[int]) -> Change | None:
    test, body = eqn.regions
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    count = len(eqn.results)
    carry = len(body.inputs) - consts
    tested = read_by(test, [0])
    steering = {i - tests for i in tested if i >= tests}
    live = _live(body, consts, carry, steering | set(wanted))
    carried = [k for k in live if k < carry]
    read = read_by(body, live)
    own_tests = [i for i in range(tests) if i in tested]
    own_consts = [i for i in range(consts) if i in read]
    if len(live) == count and len(own_tests) == tests and len(own_consts) == consts:
        return None
    regions = (
        with_inputs(test, [*own_tests, *(tests + k for k in carried)], [0]),
        with_inputs(body, [*own_consts, *(consts + k for k in carried)], live),
    )
    first = tests + consts
    positions = [*own_tests, *(tests + i for i in own_consts), *(first + k for k in carried)]
    params = {**eqn.params, "tests": len(own_tests), "consts": len(own_consts)}
    operands = [eqn.operands[i] for i in positions]
    return Change(operands, params, regions, _picks(count, live))
