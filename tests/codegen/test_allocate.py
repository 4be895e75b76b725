"""Memory plans keep what programs mean, and keep their promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffc.ops  # noqa: F401  (fills the registry)
from diffc.codegen.allocate import allocate
from diffc.codegen.allocate.place import Block, most_alive, place, place_guarded
from diffc.codegen.loops.module import Launch, Repeat
from diffc.codegen.loops.nodes import Sweep
from diffc.codegen.loops.overlap import can_overwrite
from diffc.codegen.lower import Messages, lower
from diffc.errors import InternalError
from diffc.ir.aval import aval
from diffc.ir.graph import Builder, Graph, literal
from diffc.ops.interpret import evaluate
from diffc.ops.registry import find
from diffc.plan.plan import plan
from diffc.plan.program import Buffer, Call, Copy, Fill, Kernel, Loop, Program
from tests.codegen.drawn import Draw
from tests.codegen.simulate import simulate


def lowered(program):
    messages, kernels, stack = Messages(), {}, [program]
    while stack:
        for node in stack.pop().nodes:
            if isinstance(node, Kernel):
                kernels[node] = lower(node.graph, f"k{len(kernels)}", messages)
            elif isinstance(node, Call | Loop):
                stack.append(node.program if isinstance(node, Call) else node.body)
    return kernels, messages


def run(graph, inputs, donated=None, guard=False):
    program = plan(graph, donated or {})
    kernels, messages = lowered(program)
    module, memory = allocate(program, kernels, messages, guard=guard)
    given = [array.copy() for array in inputs]
    sizes = [output.aval.nbytes for output in graph.outputs]
    found = simulate(module, given, sizes)
    wanted = evaluate(graph, inputs)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(got.view(want.dtype).reshape(want.shape), want)
    for k, (before, after) in enumerate(zip(inputs, given, strict=True)):
        if k not in (donated or {}).values():
            np.testing.assert_array_equal(before, after)
    return module, memory


def inputs_of(graph, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(-4, 5, v.aval.shape).astype(v.aval.numpy) for v in graph.inputs]


# --- offsets

BLOCKS = st.lists(
    st.builds(
        lambda n, first, length: Block(n, first, first + length),
        st.integers(0, 500),
        st.integers(0, 20),
        st.integers(0, 8),
    ),
    max_size=24,
)


def is_apart(one, other):
    return one.last < other.first or other.last < one.first


@given(BLOCKS)
@settings(max_examples=200, deadline=None)
def test_live_blocks_never_overlap(blocks):
    offsets, peak = place(blocks)
    assert (offsets, peak) == place(blocks)
    assert most_alive(blocks) <= peak <= sum(-(-b.nbytes // 64) * 64 for b in blocks)
    for k, (block, start) in enumerate(zip(blocks, offsets, strict=True)):
        assert (start % 64 == 0 and start + block.nbytes <= peak) or not block.nbytes
        for other, at in zip(blocks[:k], offsets, strict=False):
            if block.nbytes and other.nbytes and not is_apart(block, other):
                assert start + block.nbytes <= at or at + other.nbytes <= start


def test_a_chain_needs_two_places():
    blocks = [Block(1000, k, k + 1) for k in range(10)]
    assert place(blocks)[1] == 2 * 1024


def test_no_blocks():
    assert place([]) == ([], 0) and place_guarded([], 4096) == ([], 0)
    assert place([Block(0, 0, 1)]) == ([0], 0)


@given(BLOCKS)
@settings(max_examples=50, deadline=None)
def test_guarded_blocks_end_at_pages_of_their_own(blocks):
    offsets, peak = place_guarded(blocks, 4096)
    pages = set()
    for block, start in zip(blocks, offsets, strict=True):
        end = start + block.nbytes
        assert end % 4096 == 0 and end <= peak
        mine = set(range(start // 4096, -(-end // 4096)))
        assert not mine & pages
        pages |= mine | {end // 4096}


# --- whole programs


@pytest.mark.parametrize("seed", range(60))
def test_drawn_programs_keep_their_meaning(seed):
    graph = Draw(seed).graph(20)
    inputs = inputs_of(graph, seed)
    module, memory = run(graph, inputs)
    assert memory.least <= memory.peak == module.entry.arena_bytes
    guarded, _ = run(graph, inputs, guard=True)
    assert guarded.entry.arena_bytes >= module.entry.arena_bytes


@pytest.mark.parametrize("seed", range(100, 150))
def test_drawn_donations_keep_their_meaning(seed):
    draw = Draw(seed)
    shapes = ((3, 4), (4,), (3, 4))
    graph = draw.graph(16, shapes=shapes, outputs=(*shapes[1:], (3, 4), (4,)))
    donated = {0: 1, 1: 0} if seed % 2 else {2: 2, 1: 0, 3: 1}
    module, memory = run(graph, inputs_of(graph, seed), donated=donated)
    assert module.aliases == donated and len(memory.donated) == len(donated)


# --- in place


class B(Builder):
    def op(self, name, *operands, **params):
        return self.emit(find(name), operands, params)[0]

    def arg(self, *shape, dtype="f64", name=""):
        return self.input(aval(dtype, shape), name)


def overwrites(builder, output, source=0):
    graph = builder.build([output])
    kernel = lower(graph, "k", Messages())
    return can_overwrite(kernel, [kernel.params[source]], kernel.params[-1])


def test_elementwise_results_go_over_operands():
    b = B()
    x, y = b.arg(3, 4), b.arg(3, 4)
    assert overwrites(b, b.op("add", x, b.op("mul", y, x)))


@pytest.mark.parametrize(
    "name,params", [("reverse", {"axes": (0,)}), ("transpose", {"perm": (1, 0)})]
)
def test_moved_results_do_not(name, params):
    b = B()
    x = b.arg(3, 3)
    assert not overwrites(b, b.op("add", x, b.op(name, x, **params)))


def test_other_sizes_do_not():
    b = B()
    x = b.arg(4)
    assert not overwrites(b, b.op("broadcast", x, shape=(3, 4), axes=(1,)))
    b = B()
    assert not overwrites(b, b.op("convert", b.arg(4), dtype="f32"))
    b = B()
    assert overwrites(b, b.op("convert", b.arg(4), dtype="i64"))


def test_rows_go_over_their_operand():
    b = B()
    x = b.arg(3, 4)
    s = b.op("broadcast", b.op("sum", x, axes=(1,)), shape=(3, 4), axes=(0,))
    assert overwrites(b, b.op("sub", x, s))


def test_a_sweep_stores_over_what_it_reads_unless_later_passes_read_it():
    def rows(reads_again):
        b = B()
        x = b.arg(3, 4)
        e = b.op("exp", x)
        s = b.op("broadcast", b.op("sum", e, axes=(1,)), shape=(3, 4), axes=(0,))
        last = b.op("mul", x if reads_again else e, s)
        kernel = lower(b.build([e, b.op("max", last, axes=(1,))]), "k", Messages())
        (sweep,) = (stmt for stmt in kernel.body[0].body if isinstance(stmt, Sweep))
        assert [store.buffer for store in sweep.stores] == [kernel.params[1]]
        return can_overwrite(kernel, [kernel.params[0]], kernel.params[1])

    assert rows(False)
    assert not rows(True)


def test_an_epilogue_goes_over_what_it_reads_but_not_over_operands():
    b = B()
    x, w, c = b.arg(4, 4), b.arg(4, 4), b.arg(4, 4)
    y = b.op("sub", c, b.op("contract", x, w, spec="ij,jk->ik"))
    assert overwrites(b, y, 2) and not overwrites(b, y, 0) and not overwrites(b, y, 1)


def test_a_result_may_not_go_over_what_a_gather_reads():
    b = B()
    x, i = b.arg(4), b.arg(4, dtype="i64")
    y = b.op("gather", x, i, axes=(0,), mode="clip")
    assert not overwrites(b, y, 0) and overwrites(b, y, 1)


def test_two_results_over_operands_that_both_read():
    b = B()
    x, y = b.arg(5), b.arg(5)
    graph = b.build([b.op("add", x, y), b.op("sub", x, y)])
    program = Program(
        "f",
        tuple(Buffer(v.name, v.aval, "input", i) for i, v in enumerate(graph.inputs)),
        tuple(Buffer(f"out{i}", v.aval, "output", i) for i, v in enumerate(graph.outputs)),
        (),
        (),
        {0: 0, 1: 1},
    )
    program.nodes = (Kernel(graph, program.inputs, program.outputs),)
    kernels, messages = lowered(program)
    module, memory = allocate(program, kernels, messages)
    assert [how for *_, how in memory.donated] == ["in place"] * 2
    (launch,) = module.entry.steps
    assert isinstance(launch, Launch) and launch.aliased
    given = [np.arange(5.0), np.ones(5)]
    simulate(module, given, [40, 40])
    np.testing.assert_array_equal(given[0], np.arange(5.0) + 1)
    np.testing.assert_array_equal(given[1], np.arange(5.0) - 1)


def test_an_update_of_a_donated_weight_needs_no_memory():
    b = B()
    x, dz, w = b.arg(5, 3), b.arg(5, 2), b.arg(3, 2)
    g = b.op("contract", x, dz, spec="ij,ik->jk")
    new = b.op("sub", w, b.op("mul", g, literal(0.5, g.aval)))
    graph = b.build([new])
    _, memory = run(graph, inputs_of(graph), donated={0: 2})
    assert (
        memory.peak == 0 and not memory.copies and memory.donated == (("out0", "x2", "in place"),)
    )


def test_a_donated_input_read_later_is_copied_to_at_the_end():
    b = B()
    x = b.arg(6)
    y = b.op("cumsum", x, axis=0, reverse=False)
    z = b.op("cumsum", b.op("reverse", b.op("mul", x, y), axes=(0,)), axis=0, reverse=False)
    graph = b.build([y, z])
    _, memory = run(graph, inputs_of(graph), donated={0: 0})
    assert memory.donated == (("out0", "x0", "copied at the end"),)


def test_a_scatter_into_donated_memory_copies_nothing():
    b = B()
    x, u, i = b.arg(50, 2), b.arg(3, 2), b.arg(3, dtype="i64")
    y = b.op("scatter", x, u, i, axes=(0,), mode="drop", combine="add")
    graph = b.build([y])
    module, _ = run(graph, inputs_of(graph), donated={0: 0})
    (launch,) = module.entry.steps
    assert isinstance(launch, Launch) and len(launch.kernel.body) == 1


def test_temporaries_continue_in_outputs():
    b = B()
    x = b.arg(8)
    y = b.op("cumsum", x, axis=0, reverse=False)
    z = b.op("sort", y, axis=0)
    graph = b.build([b.op("neg", z)])
    _, memory = run(graph, inputs_of(graph))
    assert ("out0", memory.in_place[0][1]) in memory.in_place


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("donate", [False, True])
def test_loops_alternate_places(length, donate):
    inner = B("step")
    c, xs = inner.arg(4), inner.arg(4)
    body = inner.build([inner.op("reverse", inner.op("add", c, xs), axes=(0,)), c])
    b = B()
    init, xs = b.arg(4), b.arg(length, 4)
    params = {"consts": 0, "carry": 1, "length": length, "reverse": False}
    final, ys = b.emit(find("scan"), (init, xs), params, (body,))
    graph = b.build([final, ys])
    module, memory = run(graph, inputs_of(graph), donated={0: 0} if donate else None)
    assert sum(isinstance(step, Repeat) for step in module.entry.steps) == (length > 0)
    if donate and length and length % 2 == 0:
        assert memory.donated == (("out0", "x0", "in place"),)
    if donate and length:  # what the initial value frees is the spare place
        assert not any("out0.spare" in entry.name for entry in memory.entries) or length % 2 == 0


def test_an_initial_value_that_dies_is_the_spare_place():
    inner = B("step")
    c, xs = inner.arg(4), inner.arg(4)
    body = inner.build([inner.op("reverse", inner.op("add", c, xs), axes=(0,))])
    for length, spares in ((3, 0), (4, 1)):
        b = B()
        init, xs = b.arg(4), b.arg(length, 4)
        init = b.op("cumsum", init, axis=0, reverse=False)
        params = {"consts": 0, "carry": 1, "length": length, "reverse": True}
        (final,) = b.emit(find("scan"), (init, xs), params, (body,))
        graph = b.build([b.op("sort", final, axis=0)])
        _, memory = run(graph, inputs_of(graph))
        assert sum(".spare" in entry.name for entry in memory.entries) == spares


def test_guards_cover_callees():
    inner = B("step")
    c = inner.arg(4)
    y = inner.op("cumsum", inner.op("sort", c, axis=0), axis=0, reverse=False)
    body = inner.build([inner.op("reverse", y, axes=(0,))])
    b = B()
    x = b.arg(4)
    once = b.emit(find("call"), (x,), {}, (body,))
    twice = b.emit(find("call"), once, {}, (body,))
    graph = b.build(twice)
    module, _ = run(graph, inputs_of(graph), guard=True)
    inside = sum(nbytes == 32 for _, nbytes in module.guards)
    assert inside > 2
    for offset, nbytes in module.guards:
        assert (offset + nbytes) % 4096 == 0 and offset + nbytes <= module.entry.arena_bytes
    assert len({offset for offset, n in module.guards if n}) == sum(
        1 for _, n in module.guards if n
    )


def test_the_report_reads():
    graph = Draw(3).graph(20)
    _, memory = run(graph, inputs_of(graph))
    text = str(memory)
    assert text.startswith(f"memory @{memory.name}: peak {memory.peak} bytes")
    assert all(entry.name in text for entry in memory.entries)


def test_plans_are_deterministic():
    texts = set()
    for _ in range(2):
        graph = Draw(7).graph(24)
        texts.add(str(run(graph, inputs_of(graph))[1]))
    assert len(texts) == 1


# --- malformed programs


def program_of(nodes, outputs, inputs=(), donated=None):
    return Program("f", tuple(inputs), tuple(outputs), (), tuple(nodes), donated or {})


def test_malformed_programs_are_refused():
    x = Buffer("x", aval("f64", (4,)), "input", 0)
    t = Buffer("t", aval("f64", (4,)), "temporary")
    out = Buffer("out", aval("f64", (4,)), "output", 0)
    small = Buffer("small", aval("f32", (4,)), "output", 0)

    def fails(text, *args, **names):
        with pytest.raises(InternalError, match=text):
            allocate(program_of(*args, **names), {}, Messages())

    fails("read before", [Copy(t, out)], [out])
    fails("may not be written", [Fill(out, 1.0), Fill(out, 2.0)], [out])
    fails("may not be written", [Fill(x, 1.0), Fill(out, 2.0)], [out], [x])
    fails("is not written", [], [out])
    fails("does not fit", [Fill(small, 1.0)], [small], [x], {0: 0})
    fails("donated to two", [Fill(out, 1.0)], [out], [x], {0: 0, 1: 0})


def test_fills_and_constants():
    data = np.arange(4.0)
    constant = Buffer("c", aval("f64", (4,)), "constant", 0, data.tobytes())
    first = Buffer("a", aval("f64", (4,)), "output", 0)
    second = Buffer("b", aval("i32", (0,)), "output", 1)
    third = Buffer("c", aval("bool", (3,)), "output", 2)
    nodes = [Copy(constant, first), Fill(second, 3), Fill(third, True)]
    program = program_of(nodes, [first, second, third])
    module, memory = allocate(program, {}, Messages())
    assert module.constants == (data.tobytes(),) and memory.peak == 0
    found = simulate(module, [], [32, 0, 3])
    np.testing.assert_array_equal(found[0].view(np.float64), data)
    assert found[2].tolist() == [1, 1, 1]


def test_no_outputs():
    module, memory = allocate(program_of([], []), {}, Messages())
    assert module.entry.steps == () and memory.peak == 0
    assert isinstance(Graph("f", (), (), ()), Graph)
