"""Derivatives of ``while``, as functions on graphs.

The jvp is one loop that carries values and tangents; which carries have tangents is a fixpoint. The
linearization is the loop itself, and a second loop that runs it again beside the tangents: nothing
but operands is kept. Its transpose runs the values forward with ``checkpoints`` and then undoes the
steps from the last one on. Where both loops meet in one graph, as in a vjp, the one with
checkpoints takes the place of the other (:func:`merged`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from diffc.errors import InternalError
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
from diffc.ops.registry import find
from diffc.transforms.backward import TRANSPOSE_RULES, VJP_PASSES, transpose
from diffc.transforms.checkpoints import Checkpoints, Loop, checkpointed, reversed_steps
from diffc.transforms.forward import (
    JVP_RULES,
    LINEARIZE_RULES,
    Linearization,
    Mask,
    jvp,
    linearize,
)

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
        found = jvp(body, mask).active_outputs
        carried = [
            was or (now and value.aval.is_float)
            for was, now, value in zip(mask[consts:], found, body.inputs[consts:], strict=True)
        ]
        if carried == mask[consts:]:
            return tuple(mask)
        mask[consts:] = carried


def _while_jvp(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> Found:
    mask = _active(eqn, dots)
    consts = eqn.params["consts"]
    if not any(mask[consts:]):
        results = builder.emit(eqn.op, operands, eqn.params, eqn.regions, eqn.loc)
        return results, [None] * len(results)
    both = jvp(eqn.regions[1], mask, mask[consts:]).graph
    return _emit_both(builder, eqn, operands, dots, mask, both)


def _emit_both(
    builder: Builder,
    eqn: Eqn,
    operands: Sequence[Operand],
    dots: Mapping[int, Operand],
    mask: Mask,
    both: Graph,
) -> Found:
    """The loop that carries values and tangents; ``both`` is a step of it."""
    test, body = eqn.regions
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    count = len(eqn.results)
    positions = [i for i, is_active in enumerate(mask) if is_active]
    behind = {i: len(mask) + n for n, i in enumerate(positions)}
    fixed = [i for i in positions if i < consts]
    moving = [i for i in positions if i >= consts]
    order = [*range(consts), *(behind[i] for i in fixed), *range(consts, len(mask))]
    order += [behind[i] for i in moving]
    inputs = tuple(both.inputs[i] for i in order)
    new_body = Graph(both.name, inputs, both.eqns, both.outputs)
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
    regions = _widened(test, [body.inputs[i] for i in moving]), new_body
    results = builder.emit(eqn.op, new_operands, params, regions, eqn.loc)
    found: list[Operand | None] = [None] * count
    for i, dot in zip(moving, results[count:], strict=True):
        found[i - consts] = dot
    return results[:count], found


def _widened(test: Graph, more: Sequence[Value]) -> Graph:
    """The test, given tangents that it doesn't read."""
    builder = Builder(test.name)
    inputs = [builder.input(value.aval, value.name) for value in test.inputs]
    for value in more:
        builder.input(value.aval, f"{value.name}_dot")
    return builder.build(builder.inline(test, inputs))


def _while_linearize(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> Found:
    results = builder.emit(eqn.op, operands, eqn.params, eqn.regions, eqn.loc)
    mask = _active(eqn, dots)
    carried = mask[eqn.params["consts"] :]
    if not any(carried):
        return results, [None] * len(results)
    both = _in_halves(linearize(eqn.regions[1], mask, carried))
    return results, _emit_both(builder, eqn, operands, dots, mask, both)[1]


def _in_halves(halves: Linearization) -> Graph:
    """A jvp in which no equation computes values and tangents, so that it can be transposed."""
    builder = Builder(halves.primal.name)
    inputs = [builder.input(value.aval, value.name) for value in halves.primal.inputs]
    formals = halves.linear.inputs[halves.residuals :]
    dots = [builder.input(value.aval, value.name) for value in formals]
    values = builder.inline(halves.primal, inputs)
    split = len(values) - halves.residuals
    tangents = builder.inline(halves.linear, [*values[split:], *dots])
    return builder.build([*values[:split], *tangents])


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
    carried = [i for i in range(consts, len(mask)) if not mask[i]]
    given = [i for i in range(consts) if not mask[i]]
    steps = Graph(
        f"{body.name}_linear",
        body.inputs,
        body.eqns,
        tuple(body.outputs[i - consts] for i in moving),
    )
    turned = transpose(prune(steps), mask)

    def undo(
        inner: Builder, own: list[Operand], carry: list[Operand], now: list[Operand]
    ) -> Sequence[Operand]:
        assert len(carry) == len(carried)
        found = inner.inline(turned, [*own, *carry, *now[: len(moving)]])
        sums = [
            inner.emit(find("add"), (total, ct))[0]
            for total, ct in zip(now[len(moving) :], found[: len(fixed)], strict=True)
        ]
        return [*found[len(fixed) :], *sums]

    kept = _kept(builder, eqn, loop)
    start = [cts.get(i - consts, literal(0, body.inputs[i].aval)) for i in moving]
    start += [literal(0, body.inputs[i].aval) for i in fixed]
    more = [_there(operands[tests + i]) for i in given]
    found = reversed_steps(builder, loop, kept, undo, more, start)
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
            for was, output in zip(mask[consts:], body.outputs, strict=True)
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
    carried = [i for i in range(len(eqn.results)) if not mask[consts + i]]
    carry = tuple(_there(operands[first + i]) for i in carried)
    known = _PRIMALS.get(body)
    if known is not None and known[1].output_avals == tuple(x.aval for x in carry):
        own = len(known[1].inputs) - len(carry)
        fixed = tuple(map(_there, operands[tests : tests + own]))
        return Loop(*known, tested, fixed, carry, eqn.params["slots"])
    given = [i for i in range(consts) if not mask[i]]
    fixed = tuple(_there(operands[tests + i]) for i in given)
    new_test = _part(test, [*range(tests), *(tests + i for i in carried)], [0])
    new_body = _part(body, [*given, *(consts + i for i in carried)], carried)
    return Loop(new_test, new_body, tested, fixed, carry, eqn.params["slots"])


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


def _kept(builder: Builder, eqn: Eqn, loop: Loop) -> Checkpoints:
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


JVP_RULES["while"] = _while_jvp
LINEARIZE_RULES["while"] = _while_linearize
TRANSPOSE_RULES["while"] = _while_transpose
VJP_PASSES.append(merged)
