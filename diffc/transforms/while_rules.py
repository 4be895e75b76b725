"""Derivatives of ``while``, as functions on graphs.

The jvp is one loop that carries values and tangents; which carries have tangents is a fixpoint. A
loop with ``slots=none`` is linearized by ``while_stores``. For all others the linearization is the
loop itself, and a second loop that runs it again beside the tangents: nothing
but operands is kept. Its transpose runs the values forward with ``checkpoints`` and then undoes the
steps from the last one on. Where both loops meet in one graph, as in a vjp, the one with
checkpoints takes the place of the other (:func:`merged`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from diffc.errors import InternalError
from diffc.ir.aval import Aval
from diffc.ir.graph import (
    Builder,
    Eqn,
    Graph,
    Operand,
    Value,
    depends_on,
    literal,
    prune,
    rebuild,
)
from diffc.transforms.backward import TRANSPOSE_RULES, VJP_PASSES, plain_transpose, transpose
from diffc.transforms.checkpoints import Checkpoints, Loop, checkpointed, reversed_steps
from diffc.transforms.forward import (
    JVP_RULES,
    LINEARIZE_RULES,
    Jvp,
    Linearization,
    Mask,
    jvp,
    linearize,
    plain,
)
from diffc.transforms.stores import added
from diffc.transforms.while_stores import linearized, reversed_rows

Found = tuple[Sequence[Operand], Sequence[Operand | None]]

#: bodies that carry values and tangents -> test and body of the values alone
_PRIMALS: WeakKeyDictionary[Graph, tuple[Graph, Graph]] = WeakKeyDictionary()
#: bodies of loops with checkpoints -> test and body of the loop that they stand for
_PLAIN: WeakKeyDictionary[Graph, tuple[Graph, Graph]] = WeakKeyDictionary()


def _active(eqn: Eqn, dots: Mapping[int, Operand]) -> Mask:
    """Which inputs of the body are active."""
    body = eqn.regions[1]
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    mask = [tests + i in dots for i in range(len(body.inputs))]
    while True:
        found = jvp(body, mask).active_outputs[: len(mask) - consts]
        carried = [
            was or (now and value.aval.is_float)
            for was, now, value in zip(mask[consts:], found, body.inputs[consts:], strict=True)
        ]
        if carried == mask[consts:]:
            return tuple(mask)
        mask[consts:] = carried


def _wanted(eqn: Eqn, mask: Mask) -> list[bool]:
    """Which outputs of the body get a tangent in any case: those that are carried on."""
    carried = mask[eqn.params["consts"] :]
    return [*carried, *(False for _ in range(len(eqn.results) - len(carried)))]


def _while_jvp(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> Found:
    mask = _active(eqn, dots)
    both = jvp(eqn.regions[1], mask, _wanted(eqn, mask))
    if not any(both.active_outputs):
        results = builder.emit(eqn.op, operands, eqn.params, eqn.regions, eqn.loc)
        return results, [None] * len(results)
    return _emit_both(builder, eqn, operands, dots, mask, both)


def _emit_both(
    builder: Builder,
    eqn: Eqn,
    operands: Sequence[Operand],
    dots: Mapping[int, Operand],
    mask: Mask,
    both: Jvp,
) -> Found:
    """The loop that computes values and tangents; ``both`` is a step of it."""
    test, body = eqn.regions
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    count, carry = len(eqn.results), len(mask) - consts
    positions = [i for i, is_active in enumerate(mask) if is_active]
    behind = {i: len(mask) + n for n, i in enumerate(positions)}
    fixed = [i for i in positions if i < consts]
    moving = [i for i in positions if i >= consts]
    order = [*range(consts), *(behind[i] for i in fixed), *range(consts, len(mask))]
    order += [behind[i] for i in moving]
    dotted = [i for i, is_active in enumerate(both.active_outputs) if is_active]
    dot_at = {i: count + n for n, i in enumerate(dotted)}
    outputs = [*range(carry), *(dot_at[i] for i in dotted if i < carry)]
    outputs += [*range(carry, count), *(dot_at[i] for i in dotted if i >= carry)]
    graph = both.graph
    new_body = Graph(
        graph.name,
        tuple(graph.inputs[i] for i in order),
        graph.eqns,
        tuple(graph.outputs[i] for i in outputs),
    )
    _PRIMALS[new_body] = test, body
    given = operands[tests:]
    dot_of = {i: dots.get(tests + i, literal(0, body.inputs[i].aval)) for i in positions}
    new_operands = [
        *operands[: tests + consts],
        *(dot_of[i] for i in fixed),
        *given[consts:],
        *(dot_of[i] for i in moving),
    ]
    params = {**eqn.params, "consts": consts + len(fixed)}
    regions = _widened(test, [(x.aval, f"{x.name}_dot") for x in _at(body, moving)]), new_body
    results = builder.emit(eqn.op, new_operands, params, regions, eqn.loc)
    at = {old: new for new, old in enumerate(outputs)}
    found = [results[at[dot_at[i]]] if i in dot_at else None for i in range(count)]
    return [results[at[i]] for i in range(count)], found


def _at(body: Graph, positions: Sequence[int]) -> list[Value]:
    return [body.inputs[i] for i in positions]


def _widened(test: Graph, more: Sequence[tuple[Aval, str]]) -> Graph:
    """The test, given further carries that it doesn't read."""
    builder = Builder(test.name)
    inputs = [builder.input(value.aval, value.name) for value in test.inputs]
    for aval, name in more:
        builder.input(aval, name)
    return builder.build(builder.inline(test, inputs))


def _while_linearize(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> Found:
    mask = _active(eqn, dots)
    halves = linearize(eqn.regions[1], mask, _wanted(eqn, mask))
    if not any(halves.active_outputs):
        results = builder.emit(eqn.op, operands, eqn.params, eqn.regions, eqn.loc)
        return results, [None] * len(results)
    if eqn.params["slots"] is None:
        return linearized(builder, eqn, operands, dots, halves)
    results = builder.emit(eqn.op, operands, eqn.params, eqn.regions, eqn.loc)
    return results, _emit_both(builder, eqn, operands, dots, mask, _in_halves(halves))[1]


def _in_halves(halves: Linearization) -> Jvp:
    """A jvp in which no equation computes values and tangents, so that it can be transposed."""
    builder = Builder(halves.primal.name)
    inputs = [builder.input(value.aval, value.name) for value in halves.primal.inputs]
    formals = halves.linear.inputs[halves.residuals :]
    dots = [builder.input(value.aval, value.name) for value in formals]
    values = builder.inline(halves.primal, inputs)
    split = len(values) - halves.residuals
    tangents = builder.inline(halves.linear, [*values[split:], *dots])
    both = builder.build([*values[:split], *tangents])
    return Jvp(both, halves.active, halves.active_outputs)


# --- transpose --------------------------------------------------------------------------------


def _while_transpose(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand | None], cts: Mapping[int, Operand]
) -> Mapping[int, Operand]:
    body = eqn.regions[1]
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    mask = _linear(eqn, operands)
    moving = [i for i in range(consts, len(mask)) if mask[i]]
    fixed = [i for i in range(consts) if mask[i]]
    loop = _values(eqn, operands, mask)
    # what a step reads beside the loop's own carries
    given = [i for i in range(consts) if not mask[i]]
    rows = [i for i in sorted(cts) if i >= len(mask) - consts]
    outputs = (*(body.outputs[i - consts] for i in moving), *(body.outputs[i] for i in rows))
    steps = Graph(f"{body.name}_linear", body.inputs, body.eqns, outputs)
    turned = transpose(prune(steps), mask)

    def undo(
        inner: Builder, own: list[Operand], carry: list[Operand], now: list[Operand]
    ) -> Sequence[Operand]:
        """``now``: cotangents of rows, of carries, and sums of those of constants."""
        first = len(rows) + len(moving)
        cotangents = [*now[len(rows) : first], *now[: len(rows)]]
        found = inner.inline(turned, [*own, *carry, *cotangents])
        sums = [
            added(inner, total, ct)
            for total, ct in zip(now[first:], found[: len(fixed)], strict=True)
        ]
        return [*found[len(fixed) :], *sums]

    start = [cts.get(i - consts, literal(0, body.inputs[i].aval)) for i in moving]
    start += [literal(0, body.inputs[i].aval) for i in fixed]
    more = [_there(operands[tests + i]) for i in given]
    if eqn.params["slots"] is None:
        found = reversed_rows(builder, loop, undo, more, [cts[i] for i in rows], start)
    else:
        found = reversed_steps(builder, loop, _kept(builder, loop), undo, more, start)
    positions = [tests + i for i in (*moving, *fixed)]
    return {i: ct for i, ct in zip(positions, found, strict=True) if operands[i] is None}


def _linear(eqn: Eqn, operands: Sequence[Operand | None]) -> list[bool]:
    """Which inputs of the body are linear: a carry is, if it starts so or the body makes it so."""
    test, body = eqn.regions
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    mask = [operand is None for operand in operands[tests:]]
    while True:
        sources = [value for value, is_on in zip(body.inputs, mask, strict=True) if is_on]
        reached = depends_on(body, sources)
        carried = [
            was or output in reached
            for was, output in zip(mask[consts:], body.outputs, strict=False)
        ]
        if carried == mask[consts:]:
            break
        mask[consts:] = carried
    read = [v for v, is_on in zip(test.inputs[tests:], carried, strict=True) if is_on]
    if test.outputs[0] in depends_on(test, read):
        raise InternalError("the test of a linear while reads what is linear")
    return mask


def _values(eqn: Eqn, operands: Sequence[Operand | None], mask: Sequence[bool]) -> Loop:
    """The loop of what is not linear; where it is known, that which was linearized."""
    test, body = eqn.regions
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    first = tests + consts
    tested = tuple(map(_there, operands[:tests]))
    carried = [i for i in range(len(mask) - consts) if not mask[consts + i]]
    carry = tuple(_there(operands[first + i]) for i in carried)
    known = _PRIMALS.get(body)
    if known is not None and known[1].output_avals == tuple(x.aval for x in carry):
        own = len(known[1].inputs) - len(carry)
        fixed = tuple(map(_there, operands[tests : tests + own]))
        return Loop(*known, tested, fixed, carry, eqn.params["slots"] or 0)
    given = [i for i in range(consts) if not mask[i]]
    fixed = tuple(_there(operands[tests + i]) for i in given)
    new_test = _part(test, [*range(tests), *(tests + i for i in carried)], [0])
    new_body = _part(body, [*given, *(consts + i for i in carried)], carried)
    return Loop(new_test, new_body, tested, fixed, carry, eqn.params["slots"] or 0)


def _there(operand: Operand | None) -> Operand:
    if operand is None:
        raise InternalError("the values of a while read what is linear")
    return operand


def _part(graph: Graph, inputs: Sequence[int], outputs: Sequence[int]) -> Graph:
    """The part of a graph that gives some outputs and reads only some inputs."""
    part = prune(
        Graph(graph.name, graph.inputs, graph.eqns, tuple(graph.outputs[i] for i in outputs))
    )
    builder = Builder(graph.name)
    env: dict[Operand, Operand] = {
        graph.inputs[i]: builder.input(graph.inputs[i].aval, graph.inputs[i].name) for i in inputs
    }
    for eqn in part.eqns:
        builder.loc = eqn.loc
        builder.copy(eqn, env)
    return builder.build(env.get(output, output) for output in part.outputs)


# --- one loop instead of two ------------------------------------------------------------------


def _kept(builder: Builder, loop: Loop) -> Checkpoints:
    kept = checkpointed(builder, loop)
    made = kept.steps
    assert isinstance(made, Value) and made.eqn is not None
    _PLAIN[made.eqn.regions[1]] = loop.test, loop.body
    return kept


def merged(graph: Graph) -> Graph:
    """The graph without loops that another one runs too, with checkpoints."""
    known: dict[tuple[object, ...], Eqn] = {}
    for eqn in graph.eqns:
        plain = _PLAIN.get(eqn.regions[1]) if eqn.op.name == "while" else None
        if plain is not None:
            known[_key(*plain, _plain_operands(eqn, *plain))] = eqn
    if not known:
        return graph

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        other = (
            known.get(_key(eqn.regions[0], eqn.regions[1], eqn.operands))
            if eqn.op.name == "while"
            else None
        )
        if other is None:
            builder.copy(eqn, env)
            return
        results = builder.copy(other, dict(env))
        last = results[len(results) - len(eqn.results) :]
        env.update(zip(eqn.results, last, strict=True))

    return rebuild(graph, step)


def _key(test: Graph, body: Graph, operands: Sequence[Operand]) -> tuple[object, ...]:
    return id(test), id(body), *map(id, operands)


def _plain_operands(eqn: Eqn, test: Graph, body: Graph) -> list[Operand]:
    """The operands of the loop for which a loop with checkpoints stands."""
    carry = len(body.outputs)
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    return [
        *eqn.operands[:tests],
        *eqn.operands[2 * tests : tests + consts],
        *eqn.operands[len(eqn.operands) - carry :],
    ]


JVP_RULES["while"] = plain(_while_jvp)
LINEARIZE_RULES["while"] = plain(_while_linearize)
TRANSPOSE_RULES["while"] = plain_transpose(_while_transpose)
VJP_PASSES.append(merged)
