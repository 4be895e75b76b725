"""Derivatives of ``while``, as functions on graphs.

The jvp is one loop that carries values and tangents; which carries have tangents is a fixpoint, and
which of these have supports another one, as in a scan; the transpose carries supports, too.

A loop with ``slots=none`` is linearized by ``while_stores``. For all others the linearization is
the loop itself, and a second loop that runs it again beside the tangents: nothing but operands is
kept. Its transpose runs the values forward with ``checkpoints`` and then undoes the steps from the
last one on. Where both loops meet in one graph, as in a vjp, the one with checkpoints takes the
place of the other (:func:`merged`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    prune,
    rebuild,
)
from diffc.ops.registry import find
from diffc.transforms.backward import TRANSPOSE_RULES, VJP_PASSES, Transposed, transposed
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
from diffc.transforms.regions import is_zero
from diffc.transforms.rules import Tangent
from diffc.transforms.scan_rules import permuted
from diffc.transforms.stores import added
from diffc.transforms.supported import (
    Order,
    given_supports,
    kept_supports,
    start_of,
    support_of,
)
from diffc.transforms.while_stores import linearized, reversed_rows

Found = tuple[Sequence[Operand], Sequence[Operand | None]]

#: bodies that carry values and tangents -> test and body of the values alone
_PRIMALS: WeakKeyDictionary[Graph, tuple[Graph, Graph]] = WeakKeyDictionary()
#: bodies of loops with checkpoints -> test and body of the loop that they stand for
_PLAIN: WeakKeyDictionary[Graph, tuple[Graph, Graph]] = WeakKeyDictionary()


def _active(eqn: Eqn, dots: Mapping[int, object]) -> Mask:
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
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Tangent]
) -> tuple[Sequence[Operand], Sequence[Tangent | None]]:
    body = eqn.regions[1]
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    mask, carry = _active(eqn, dots), len(body.inputs) - consts
    wanted = _wanted(eqn, mask)
    own = {i - tests: dot for i, dot in dots.items()}
    plain_carries = [i for i in range(consts, len(mask)) if not body.inputs[i].aval.is_store]
    supports = kept_supports(
        given_supports(mask, own, plain_carries),
        consts,
        carry,
        lambda given: jvp(body, mask, wanted, given).supports[:carry],
        len(body.outputs),
    )
    both = jvp(body, mask, wanted, supports)
    if not any(both.active_outputs):
        results = builder.emit(eqn.op, operands, eqn.params, eqn.regions, eqn.loc)
        return results, [None] * len(results)
    return _emit_both(builder, eqn, operands, own, both, supports.given)


def _emit_both(
    builder: Builder,
    eqn: Eqn,
    operands: Sequence[Operand],
    dots: Mapping[int, Tangent],
    both: Jvp,
    given: Mask,
) -> tuple[Sequence[Operand], Sequence[Tangent | None]]:
    """The loop that computes values and tangents.

    Args:
        builder: where to.
        eqn: the loop.
        operands: its operands in ``builder``.
        dots: tangents by input of the body.
        both: a step of values and tangents.
        given: which inputs of the body come with the support of their tangent.
    """
    test, body = eqn.regions
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    count, carry, size = len(eqn.results), len(body.inputs) - consts, len(body.inputs)
    carried = [k < carry and given[consts + k] for k in range(count)]
    ins, out = Order(size, both.active, given), Order(count, both.active_outputs, both.supports)
    out.support = {k: i for k, i in out.support.items() if carried[k]}
    fixed, moving = range(consts), range(consts, size)
    order = [*ins.group(fixed), *ins.group(moving)]
    outputs = [*out.group(range(carry)), *out.group(range(carry, count))]
    new_body = permuted(both.graph, order, outputs)
    _PRIMALS[new_body] = test, body
    starts = {i: dots.get(i, start_of(body.inputs[i], None)) for i in ins.dot}
    flat: list[Operand] = [*operands[tests:], *(starts[i].operand for i in ins.dot)]
    flat += [support_of(starts[i]) for i in ins.support]
    more = [(value.aval, value.name) for value in new_body.inputs[len(ins.group(fixed)) + carry :]]
    params = {**eqn.params, "consts": len(ins.group(fixed))}
    new_operands = [*operands[:tests], *(flat[i] for i in order)]
    regions = _widened(test, more), new_body
    results = builder.emit(eqn.op, new_operands, params, regions, eqn.loc)
    at = dict(zip(outputs, results, strict=True))
    return [at[k] for k in range(count)], [
        Tangent(at[out.dot[k]], at[out.support[k]] if k in out.support else None)
        if k in out.dot
        else None
        for k in range(count)
    ]


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
    own = {i - eqn.params["tests"]: Tangent(dot) for i, dot in dots.items()}
    both, none = _in_halves(halves), (False,) * len(mask)
    found = _emit_both(builder, eqn, operands, own, both, none)[1]
    return results, [None if dot is None else dot.operand for dot in found]


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
    builder: Builder, eqn: Eqn, operands: Sequence[Operand | None], cts: Mapping[int, Tangent]
) -> Mapping[int, Tangent]:
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
    steps = prune(Graph(f"{body.name}_linear", body.inputs, body.eqns, outputs))
    ends = {n: cts[i - consts] for n, i in enumerate(moving) if i - consts in cts}
    ends |= {len(moving) + n: cts[i] for n, i in enumerate(rows)}
    step = _turned(steps, mask, ends, [body.inputs[i] for i in moving], len(fixed))
    starts = [start_of(body.inputs[i], ends.get(n)) for n, i in enumerate(moving)]
    sums = [start_of(body.inputs[i], None) for i in fixed]
    start = [*(x.operand for x in starts), *(support_of(starts[n]) for n in step.confined)]
    start += [*(x.operand for x in sums), *(support_of(sums[n]) for n in step.summed)]
    more = [_there(operands[tests + i]) for i in given]
    if eqn.params["slots"] is None:
        stores = [cts[i].operand for i in rows]
        stores += [support for i in rows if (support := cts[i].support) is not None]
        found = reversed_rows(builder, loop, step.undo, more, stores, start)
    else:
        found = reversed_steps(builder, loop, _kept(builder, loop), step.undo, more, start)
    back = step.split(found)
    positions = [tests + i for i in (*fixed, *moving)]
    absent = {i for i, x in zip(positions, step.turned.graph.outputs, strict=False) if is_zero(x)}
    absent &= {tests + i for i in fixed}  # a loop of no trips gives a carry's back
    return {
        i: ct
        for i, ct in zip(positions, back, strict=True)
        if operands[i] is None and i not in absent
    }


@dataclass(frozen=True, slots=True)
class _Step:
    """One trip undone: what is carried from trip to trip backwards.

    A trip is also given ``rows`` of the stores of cotangents, and of their supports.
    Carried are the cotangents of the ``moving`` carries, the supports of those that are
    ``confined``, the sums of the cotangents of the ``fixed`` constants, and the supports of those
    that are ``summed``.
    """

    turned: Transposed
    rows: int
    fixed: int
    moving: int
    confined: Sequence[int]
    summed: Sequence[int]

    def undo(
        self, inner: Builder, own: list[Operand], carry: list[Operand], now: list[Operand]
    ) -> list[Operand]:
        """``now``: rows of cotangents and of their supports, and what is carried."""
        count = self.moving + len(self.confined) + self.fixed + len(self.summed)
        rows, carried = now[: len(now) - count], now[len(now) - count :]
        last = self.moving + len(self.confined)
        cotangents = [*carried[: self.moving], *rows[: self.rows]]
        supports = [*carried[self.moving : last], *rows[self.rows :]]
        found = inner.inline(self.turned.graph, [*own, *carry, *cotangents, *supports])
        linear = self.fixed + self.moving
        had = [i for i, has in enumerate(self.turned.supports) if has]
        where = dict(zip(had, found[linear:], strict=True))
        either = find("bitwise_or")
        sums, anywhere = carried[last : last + self.fixed], carried[last + self.fixed :]
        following: list[Operand] = [*found[self.fixed : linear]]
        following += [where[self.fixed + n] for n in self.confined]
        following += [added(inner, *pair) for pair in zip(sums, found[: self.fixed], strict=True)]
        for n, support in zip(self.summed, anywhere, strict=True):
            following.append(inner.emit(either, (support, where[n]))[0])
        return following

    def split(self, found: Sequence[Operand]) -> list[Tangent]:
        """What is carried in the end, as cotangents: of constants, then of carries."""
        rest = iter(found)
        moving = [next(rest) for _ in range(self.moving)]
        confined = {n: next(rest) for n in self.confined}
        fixed = [next(rest) for _ in range(self.fixed)]
        summed = {n: next(rest) for n in self.summed}
        constants = [Tangent(x, summed.get(n)) for n, x in enumerate(fixed)]
        return [*constants, *(Tangent(x, confined.get(n)) for n, x in enumerate(moving))]


def _turned(
    steps: Graph, mask: Sequence[bool], ends: Mapping[int, Tangent], moving: list[Value], fixed: int
) -> _Step:
    """A step of the loop turned around; ``ends``: the cotangents that there are of its outputs."""
    rows = len(steps.outputs) - len(moving)
    plain_carries = [n for n, value in enumerate(moving) if not value.aval.is_store]
    on = [*(True for _ in moving), *(False for _ in range(rows))]
    supports = kept_supports(
        given_supports(on, ends, plain_carries),
        0,
        len(moving),
        lambda own: transposed(steps, mask, None, own).supports[fixed:],
        fixed + len(moving),
    )
    turned = transposed(steps, mask, None, supports)
    constants = [value for value, is_on in zip(steps.inputs, mask, strict=True) if is_on][:fixed]
    confined = [n for n in range(len(moving)) if supports.given[n]]
    summed = [n for n, x in enumerate(constants) if turned.supports[n] and not x.aval.is_store]
    return _Step(turned, rows, fixed, len(moving), confined, summed)


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


JVP_RULES["while"] = _while_jvp
LINEARIZE_RULES["while"] = plain(_while_linearize)
TRANSPOSE_RULES["while"] = _while_transpose
VJP_PASSES.append(merged)
