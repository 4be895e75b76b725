"""Decides which values of a kernel later kernels read, and which they compute again.

Before: the epilogue of a layer stores all that its backward pass reads (the pre-activation, its
square, its half, one minus the square of a tanh, ...). After: it stores the least that the rest
follows from.

One minimum cut a group. Each value can be had in two ways: from memory, which costs a store of its
bytes and a load for each kernel that needs it, or again in each of these from its operands, which
costs the price of its op; the result of a contraction or reduction can't be computed again. What
must lie in memory anyway (outputs, operands of contractions, calls and loops) costs nothing to
read. The cut separates what is kept or at hand from what is computed again, at the least sum of
both costs (the formulation of rematerialization as a minimum cut of Chen and others, and of
functorch's partitioner). What a kernel reads at several points, as a stencil does, it would compute
again at each; of two such values, one of which follows from the other, one lies in memory.
"""

from __future__ import annotations

import math

from diffc.ir.aval import Aval
from diffc.ir.flow import Network
from diffc.ir.graph import Eqn, Operand, Value
from diffc.plan.forms import access, is_gathering, is_indexed, price_of
from diffc.plan.fuse import Coords, Fusion, Group, domain_of

#: what one more equation costs in code, in bytes of traffic: it counts where arrays are small
EQN_PRICE = 64.0


def values_in_memory(fusion: Fusion) -> set[Value]:
    """The computed values that lie in memory: all others live in the kernels that read them."""
    needed: set[Value] = {x for x in fusion.outputs if x.eqn is not None}
    forced: set[Value] = set(needed)
    points = points_read(fusion)
    wanted: dict[Group, dict[Value, set[Group]]] = {}
    for group in fusion.groups:
        for eqn in group.eqns:
            keeps = fusion.kinds[eqn] in ("contract", "solo", "region") or is_indexed(eqn)
            keeps = keeps and not is_gathering(eqn)
            for value in fusion.roots(eqn):
                if value.eqn is None:
                    continue
                producer = fusion.group_of[value.eqn]
                if producer is not group:
                    wanted.setdefault(producer, {}).setdefault(value, set()).add(group)
                    if keeps:
                        forced.add(value)
    final = chained(fusion, points, forced)
    memory = set(forced)
    for group in reversed(_in_order(fusion)):  # what later kernels compute again is known here
        values = wanted.get(group)
        if values:
            memory |= _kept(fusion, group, values, forced, points, final)
            _pass_on(fusion, group, values, memory, wanted)
    return memory


def points_read(fusion: Fusion) -> dict[Value, int]:
    """At how many different points one kernel would compute a value again, where several.

    The sum of two slices of a value reads it at two; so does the sum of slices of two values for
    what both follow from.
    """
    found: dict[Value, int] = {}
    for group in fusion.groups:
        places: dict[Group, dict[Value, set[Coords]]] = {}
        for eqn in group.eqns:
            for value, coords in _reads(fusion, group, eqn):
                producer = fusion.group_of[_producer(value)]
                if producer is not group:
                    places.setdefault(producer, {}).setdefault(value, set()).add(coords)
        for producer, read in places.items():
            if len(set().union(*read.values())) > 1:
                for value, points in _points_within(fusion, producer, read).items():
                    if len(points) > 1:
                        found[value] = max(found.get(value, 1), len(points))
    return found


def _points_within(
    fusion: Fusion, group: Group, read: dict[Value, set[Coords]]
) -> dict[Value, set[Coords]]:
    """The points for all values of the group from which the ones that are read follow."""
    found = {value: set(points) for value, points in read.items()}
    for eqn in sorted(group.eqns, key=fusion.position.__getitem__, reverse=True):
        points: set[Coords] = set().union(*(found.get(result, ()) for result in eqn.results))
        for root in fusion.roots(eqn) if points else ():
            if root in group.coords:
                found.setdefault(root, set()).update(points)
    return found


def _producer(value: Value) -> Eqn:
    assert value.eqn is not None
    return value.eqn


def _reads(fusion: Fusion, group: Group, eqn: Eqn) -> list[tuple[Value, Coords]]:
    """The computed values that an equation reads, and where; views are looked through."""
    stack: list[tuple[Operand, Coords]] = []
    if fusion.kinds[eqn] == "fold":
        stack = [(operand, domain_of(operand.aval.shape)) for operand in eqn.operands]
    elif fusion.kinds[eqn] in ("point", "view", "source"):
        stack = [(eqn.operands[k], at) for k, at, _ in access(eqn, group.coords[eqn.result])]
    found: list[tuple[Value, Coords]] = []
    while stack:
        value, coords = stack.pop()
        if not isinstance(value, Value) or value.eqn is None:
            continue
        if fusion.dissolves(value):
            inner = value.eqn
            stack += [(inner.operands[k], at) for k, at, _ in access(inner, coords)]
        else:
            found.append((value, coords))
    return found


def chained(fusion: Fusion, points: dict[Value, int], memory: set[Value]) -> set[Value]:
    """Values needed at several points that follow from others which are: one way is too long.

    Else the points multiply along a chain of stencils: three steps of five points each are 125.
    """
    found: set[Value] = set()
    spread: set[Value] = set()  # what would be computed from a value needed at several points
    for eqn in fusion.graph.eqns:
        if eqn not in fusion.group_of:
            continue
        follows = any(
            (root in spread or root in points) and root not in memory and root not in found
            for root in fusion.roots(eqn)
        )
        if follows:
            for value in eqn.results:
                (found if value in points else spread).add(value)
    return found


def _in_order(fusion: Fusion) -> list[Group]:
    """The groups, each after those that run before it."""
    waiting = dict.fromkeys(fusion.groups, 0)
    for group in fusion.groups:
        for follower in group.following:
            waiting[follower] += 1
    ready = [group for group, count in waiting.items() if not count]
    for group in ready:
        for follower in sorted(group.following, key=lambda g: g.number):
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)
    return ready


def _pass_on(
    fusion: Fusion,
    group: Group,
    values: dict[Value, set[Group]],
    memory: set[Value],
    wanted: dict[Group, dict[Value, set[Group]]],
) -> None:
    """Kernels that compute values of ``group`` again want what these follow from elsewhere."""
    again = {value: kernels for value, kernels in values.items() if value not in memory}
    found: dict[Value, set[Group]] = {}
    stack = list(again.items())
    while stack:
        value, kernels = stack.pop()
        known = found.setdefault(value, set())
        if kernels <= known:
            continue
        known |= kernels
        assert value.eqn is not None
        for operand in fusion.roots(value.eqn):
            if operand.eqn is None or operand in memory:
                continue
            if operand in group.coords:
                stack.append((operand, kernels))
            else:
                producer = fusion.group_of[operand.eqn]
                wanted.setdefault(producer, {}).setdefault(operand, set()).update(kernels)


def _kept(
    fusion: Fusion,
    group: Group,
    wanted: dict[Value, set[Group]],
    forced: set[Value],
    points: dict[Value, int],
    final: set[Value],
) -> set[Value]:
    """What the group keeps so that all wanted values can be had."""
    if group.form in ("solo", "region"):
        return set(wanted)
    asked = [value for value in wanted if value not in forced]
    if not asked or all(_is_final(value.eqn) for value in asked):
        return set(asked)
    network = Network()
    source, sink = network.node(), network.node()
    into: dict[Value, int] = {}
    outof: dict[Value, int] = {}
    readers = _readers(fusion, group, {value: wanted[value] for value in asked})
    for value in readers:
        into[value], outof[value] = network.node(), network.node()
    for value, kernels in readers.items():
        eqn = value.eqn
        assert eqn is not None
        elements = _elements(value.aval)
        bytes_ = elements * value.aval.numpy.itemsize
        keep = 0.0 if value in forced else bytes_ * (1 + len(kernels)) + EQN_PRICE
        network.edge(into[value], outof[value], keep)
        price = price_of(eqn)
        width = max(value.aval.numpy.itemsize, 4) / 4
        again = math.inf
        if math.isfinite(price) and value not in final:
            times = len(kernels) * points.get(value, 1)
            again = (price * elements * width + EQN_PRICE) * times
        network.edge(source, into[value], again)
        for operand in fusion.roots(eqn):
            if operand in outof:
                network.edge(outof[operand], into[value], math.inf)
    for value in asked:
        network.edge(outof[value], sink, math.inf)
    reached = network.source_side(source, sink)
    return {value for value in readers if into[value] in reached and outof[value] not in reached}


def _readers(
    fusion: Fusion, group: Group, asked: dict[Value, set[Group]]
) -> dict[Value, set[Group]]:
    """The asked values and all that they follow from, with the kernels that would need each."""
    found: dict[Value, set[Group]] = {value: set(kernels) for value, kernels in asked.items()}
    stack = list(found)
    while stack:
        value = stack.pop()
        assert value.eqn is not None
        for operand in fusion.roots(value.eqn):
            if operand in group.coords:
                known = found.setdefault(operand, set())
                if not found[value] <= known:
                    known |= found[value]
                    stack.append(operand)
    return found


def _is_final(eqn: Eqn | None) -> bool:
    return eqn is not None and not math.isfinite(price_of(eqn))


def _elements(aval: Aval) -> float:
    size = aval.size
    return float(size) if isinstance(size, int) else 1.0
