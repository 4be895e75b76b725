"""Memory of branches and loops: what is updated in place, what alternates, what is shared."""

import numpy as np
import pytest

from diffc.codegen.allocate import allocate
from diffc.codegen.loops.module import Cycle, Repeat, Select
from diffc.codegen.lower import Messages, lower
from diffc.ir.aval import aval
from diffc.ir.graph import Builder, literal
from diffc.ops.interpret import evaluate
from diffc.ops.registry import find
from diffc.plan.plan import plan
from diffc.plan.program import Kernel, callees
from diffc.plan.text import print_program
from tests.codegen.simulate import simulate

I64 = aval("i64")


class B(Builder):
    def arg(self, *shape, dtype="i64"):
        return self.input(aval(dtype, shape), "x")

    def op(self, name, *operands, **params):
        return self.emit(find(name), operands, params)[0]


def run(graph, inputs, donated=None, guard=False, exact=True):
    """The module and the memory plan; the steps run on bytes as the interpreter says."""
    program = plan(graph, donated or {})
    messages, kernels, stack = Messages(), {}, [program]
    while stack:
        current = stack.pop()
        stack += callees(current)
        for node in current.nodes:
            if isinstance(node, Kernel):
                kernels[node] = lower(node.graph, f"k{len(kernels)}", messages)
    module, memory = allocate(program, kernels, messages, guard=guard)
    given = [array.copy() for array in inputs]
    found = simulate(module, given, [output.aval.nbytes for output in graph.outputs])
    for got, want in zip(found, evaluate(graph, inputs), strict=True):
        tolerance = 0 if exact else 1e-12
        np.testing.assert_allclose(got.view(want.dtype).reshape(want.shape), want, rtol=tolerance)
    for k, (before, after) in enumerate(zip(inputs, given, strict=True)):
        if k not in (donated or {}).values():
            np.testing.assert_array_equal(before, after)
    return module, memory


def counted(step):
    """``while(n; i, carries...)``, n times ``step(builder, i, carries) -> carries``."""

    def build(*avals):
        test = B("test")
        limit, i = test.arg(), test.arg()
        for each in avals:
            test.input(each, "c")
        test = test.build([test.op("lt", i, limit)])
        body = B("body")
        i = body.arg()
        carries = [body.input(each, "c") for each in avals]
        following = body.op("add", i, literal(1, I64))
        body = body.build([following, *step(body, i, carries)])
        outer = B("outer")
        n = outer.arg()
        start = [outer.input(each, "c") for each in avals]
        params = {"tests": 1, "consts": 0, "slots": 8}
        given = (n, literal(0, I64), *start)
        results = outer.emit(find("while"), given, params, (test, body))
        return outer.build(results[1:])

    return build


def cycle_of(module):
    (found,) = [step for step in module.entry.steps if isinstance(step, Cycle)]
    return found


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_a_carry_is_updated_in_place(n, guard):
    graph = counted(lambda b, i, c: [b.op("mul", c[0], c[0])])(aval("i64", (4,)))
    module, memory = run(graph, [np.array(n), np.array([1, 2, -1, 0])], guard=guard)
    cycle = cycle_of(module)
    assert cycle.spare == cycle.final
    assert not any(".spare" in entry.name for entry in memory.entries)


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_a_carry_that_is_read_elsewhere_alternates(n, guard):
    graph = counted(lambda b, i, c: [b.op("reverse", c[0], axes=(0,))])(aval("i64", (5,)))
    module, memory = run(graph, [np.array(n), np.arange(5)], guard=guard)
    cycle = cycle_of(module)
    assert [a == b for a, b in zip(cycle.spare, cycle.final, strict=True)] == [True, False]
    assert any(".spare" in entry.name for entry in memory.entries)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_carries_that_swap(n):
    graph = counted(lambda b, i, c: [c[1], b.op("add", c[0], c[1])])(I64, I64)
    run(graph, [np.array(n), np.array(1), np.array(2)])
    run(graph, [np.array(n), np.array(1), np.array(2)], guard=True)


@pytest.mark.parametrize("n", [0, 3])
def test_one_row_of_a_carry_is_written(n):
    def step(b, i, c):
        row = b.op("dynamic_slice", c[0], i, literal(0, I64), sizes=(1, 3))
        return [b.op("dynamic_update_slice", c[0], b.op("add", row, row), i, literal(0, I64))]

    graph = counted(step)(aval("i64", (4, 3)))
    module, memory = run(graph, [np.array(n), np.arange(12).reshape(4, 3)])
    assert cycle_of(module).spare == cycle_of(module).final
    body = memory.callees[-1]
    assert body.in_place and not body.copies


def test_the_first_carry_dies_into_the_last():
    graph = counted(lambda b, i, c: [b.op("mul", c[0], c[0])])(aval("i64", (4,)))
    _, memory = run(graph, [np.array(2), np.arange(4)], donated={0: 1})
    assert memory.donated == (("out0", "c", "in place"),) and not memory.copies


def test_one_start_for_two_carries_is_copied():
    def step(b, i, c):
        return [b.op("add", c[0], i), b.op("sub", c[1], i)]

    body_of = counted(step)
    inner = body_of(I64, I64)
    b = B("twice")
    n, x = b.arg(), b.arg()
    y = b.op("mul", x, x)
    (eqn,) = inner.eqns
    results = b.emit(eqn.op, (n, literal(0, I64), y, y), eqn.params, eqn.regions)
    for count in (0, 1, 4):
        run(b.build(results[1:]), [np.array(count), np.array(3)])


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_carries_of_a_scan_are_updated_in_place(length):
    body = B("body")
    c, x = body.arg(4), body.arg(4)
    body = body.build([body.op("add", c, x), c])
    b = B()
    start, xs = b.arg(4), b.arg(length, 4)
    params = {"consts": 0, "carry": 1, "length": length, "reverse": False}
    graph = b.build(b.emit(find("scan"), (start, xs), params, (body,)))
    inputs = [np.arange(4), np.arange(4 * length).reshape(length, 4)]
    module, memory = run(graph, inputs)
    (repeat,) = [step for step in module.entry.steps if isinstance(step, Repeat)]
    assert repeat.initial == repeat.spare == repeat.final
    assert not any(".spare" in entry.name for entry in memory.entries)
    _, memory = run(graph, inputs, donated={0: 0})
    assert memory.donated == (("out0", "x", "in place"),) and not memory.copies
    run(graph, inputs, guard=True)


def branches(dtype, counts):
    b = B("outer")
    index, x = b.arg(dtype=dtype), b.arg(8)
    regions = []
    for count in counts:
        arm = B(f"arm{count}")
        y = arm.arg(8)
        for _ in range(count):
            y = arm.op("sort", arm.op("cumsum", y, axis=0, reverse=False), axis=0)
        regions.append(arm.build([y, arm.op("reverse", y, axes=(0,))]))
    return b.build(b.emit(find("cond"), (index, x), {}, tuple(regions)))


@pytest.mark.parametrize("guard", [False, True])
def test_branches(guard):
    x = np.array([3, -1, 4, 1, -5, 9, 2, 6])
    for index in (False, True):
        run(branches("bool", (0, 2)), [np.array(index), x], guard=guard)
    for index in (-(2**31), -1, 0, 1, 2, 3, 2**31 - 1):
        inputs = [np.array(index, np.int32), x]
        module, _ = run(branches("i32", (0, 1, 3)), inputs, guard=guard)
    (select,) = [step for step in module.entry.steps if isinstance(step, Select)]
    assert len(set(map(str, select.arenas))) == (3 if guard else 1)


def test_programs_say_what_they_offer_and_run():
    graph = counted(lambda b, i, c: [b.op("mul", c[0], c[0])])(aval("i64", (4,)))
    text = print_program(plan(graph))
    assert "offer c to out1" in text
    assert "while @test @body(x, fill0, c; tests=1, constants=0)" in text
    text = print_program(plan(branches("bool", (0, 2))))
    assert "branch x to @arm0, @arm2 (x_1)" in text


def stays_or_sorts(b, index, x):
    """``cond(index, x)``: x as it is, or sorted and a sum."""
    stays, sorts = B("stays"), B("sorts")
    y = stays.arg(*x.aval.shape)
    stays = stays.build([y, literal(0, I64)])
    y = sorts.arg(*x.aval.shape)
    sorts = sorts.build([sorts.op("sort", y, axis=0), sorts.op("sum", y, axes=(0,))])
    return b.emit(find("cond"), (index, x), {}, (stays, sorts))


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_a_branch_that_changes_nothing_copies_nothing(n, guard):
    def step(b, i, c):
        return stays_or_sorts(b, b.op("eq", i, literal(1, I64)), c[0])[:1]

    graph = counted(step)(aval("i64", (6,)))
    module, memory = run(graph, [np.array(n), np.array([3, -1, 2, 9, 9, 0])], guard=guard)
    assert cycle_of(module).spare == cycle_of(module).final
    body = next(m for m in memory.callees if m.name == "body")
    assert ("out1", "c") in body.in_place and not body.copies


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("lives_on", [False, True])
def test_branches_take_over_what_dies(index, lives_on):
    b = B()
    i, x = b.arg(dtype="bool"), b.arg(5)
    y = b.op("cumsum", x, axis=0, reverse=False)
    found = stays_or_sorts(b, i, y)
    graph = b.build([b.op("reverse", found[0], axes=(0,)), found[1], *([y] if lives_on else [])])
    program = plan(graph)
    _, memory = run(graph, [np.array(index), np.array([3, -1, -2, 9, -9])])
    assert ("mut" in print_program(program)) is not lives_on
    assert any(source == "t0" for _, source in memory.in_place) is not lives_on
    run(graph, [np.array(index), np.array([3, -1, -2, 9, -9])], guard=True)


@pytest.mark.parametrize("index", [False, True])
def test_what_a_branch_reads_beside_is_not_overwritten(index):
    # the operand is passed on in one branch, and is an argument of the program: it stays
    b = B()
    i, x = b.arg(dtype="bool"), b.arg(5)
    graph = b.build(stays_or_sorts(b, i, x))
    run(graph, [np.array(index), np.array([3, -1, -2, 9, -9])])
    run(graph, [np.array(index), np.array([3, -1, -2, 9, -9])], donated={0: 1})
