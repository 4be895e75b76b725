"""Stores in modules: where they are, what is freed when, and what the memory plan says."""

import numpy as np
import pytest

from diffc.codegen.loops.failure import is_atomic
from diffc.codegen.loops.module import Cycle, Repeat, Sweep, routines_of
from diffc.errors import UsageError
from diffc.ir.aval import aval
from diffc.ir.graph import Builder, literal
from diffc.ir.text import parse
from diffc.ops.registry import find, table
from diffc.optimize import optimize
from diffc.programs import GraphProgram
from diffc.transforms import vjp
from tests.codegen.test_allocate_control import run

SUM = """
func @sum(n: i64[], x: i64[3]) -> (i64[3], i64[3]) {
  %0: i64[], %1: i64[3], %2: i64[*,3] = while(n, 0:i64[], x, tests=1, consts=0, slots=none) {
    func @test(n: i64[], i: i64[], x: i64[3]) -> (bool[]) {
      %0: bool[] = lt(i, n)
      return %0
    }
    func @body(i: i64[], x: i64[3]) -> (i64[], i64[3], i64[3]) {
      %0: i64[] = add(i, 1:i64[])
      %1: i64[3] = add(x, x)
      %2: i64[3] = reverse(x, axes=[0])
      return %0, %1, %2
    }
  }
  %3: i64[3] = scan(%0, x, %2, consts=1, carry=1, length=`*`, reverse=true) {
    func @step(n: i64[], t: i64[3], x: i64[3]) -> (i64[3]) {
      %0: i64[3] = mul(t, 3:i64[3])
      %1: i64[3] = sub(%0, x)
      %2: i64[3] = reverse(%1, axes=[0])
      return %2
    }
  }
  return %1, %3
}
"""


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_rows_are_kept_and_run_over(n, guard):
    graph = parse(SUM, table())
    module, memory = run(graph, [np.array(n), np.array([1, 2, -3])], guard=guard)
    (cycle,) = [step for step in module.entry.steps if isinstance(step, Cycle)]
    (sweep,) = [step for step in module.entry.steps if isinstance(step, Sweep)]
    assert cycle.stores == sweep.slices
    assert [nbytes for _, nbytes in cycle.stores] == [24]
    assert cycle.grows_by_one == guard
    assert memory.grows == (("t2", 24),) or [n for _, n in memory.grows] == [24]
    assert "grows: 24 bytes per trip" in str(memory)
    assert module.has_stores and not module.returns_stores
    text, _ = module.messages[cycle.status - 1]
    assert "no memory for what the loop keeps of each trip (24 bytes)" in text


def test_rows_of_nothing():
    text = SUM.replace("i64[3]", "i64[0]").replace("i64[*,3]", "i64[*,0]")
    run(parse(text, table()), [np.array(3), np.zeros(0, np.int64)])


NESTED = """
func @nested(x: f64[4]) -> (f64[]) {
  %0: f64[] = scan(1.0:f64[], x, consts=0, carry=1, length=4, reverse=false) {
    func @outer(c: f64[], x: f64[]) -> (f64[]) {
      %0: f64[] = while(x, x, c, tests=1, consts=1, slots=none) {
        func @test(x: f64[], c: f64[]) -> (bool[]) {
          %0: bool[] = lt(c, x)
          return %0
        }
        func @body(x: f64[], c: f64[]) -> (f64[]) {
          %0: f64[] = mul(c, c)
          %1: f64[] = add(%0, x)
          return %1
        }
      }
      return %0
    }
  }
  return %0
}
"""


def routines(module):
    """All routines but the entry, by name."""
    found, stack = {}, [module.entry]
    while stack:
        for step in stack.pop().steps:
            for routine in routines_of(step):
                found[routine.name] = routine
                stack.append(routine)
    return found


def test_stores_of_a_loop_in_a_loop_are_stacked():
    graph = optimize(vjp(parse(NESTED, table()), [True]).graph)
    module, memory = run(graph, [np.array([0.5, 3.0, 4.0, 9.0]), np.array(1.0)], exact=False)
    repeats = [step for step in module.entry.steps if isinstance(step, Repeat)]
    assert len(repeats) == 2
    assert 16 in [nbytes for _, nbytes in repeats[0].stacked]  # what stands for a store
    assert not any(routine.frees for routine in routines(module).values())
    assert module.entry.frees
    assert any(inner.grows for inner in memory.callees)


def test_a_body_that_returns_no_store_frees_its_own():
    builder = Builder("train")
    w = builder.input(aval("f64", (4,)), "w")
    step = Builder("step")
    x = step.input(w.aval, "w")
    slope = vjp(parse(NESTED, table()), [True]).graph
    _, ct = step.inline(slope, [x, literal(1.0, aval("f64"))])
    body = step.build(step.emit(find("sub"), (x, ct)))
    params = {"consts": 0, "carry": 1, "length": 3, "reverse": False}
    graph = builder.build(builder.emit(find("scan"), (w,), params, (body,)))
    module, _ = run(optimize(graph), [np.array([0.5, 3.0, 4.0, 9.0])], exact=False)
    freeing = [name for name, routine in routines(module).items() if routine.frees]
    assert freeing == ["step"] and not module.entry.frees


def test_a_store_may_fail_before_an_argument_is_written():
    graph = parse(SUM, table())
    module, _ = run(graph, [np.array(2), np.array([1, 2, -3])], donated={1: 1})
    assert is_atomic(module)


ZEROS = """
func @f(n: i64[], x: f64[3]) -> (f64[3]) {
  %0: f64[3] = scan(n, x, 0.0:f64[*,3], consts=1, carry=1, length=`*`, reverse=false) {
    func @step(n: i64[], x: f64[3], row: f64[3]) -> (f64[3]) {
      %0: f64[3] = add(x, 1.0:f64[3])
      %1: f64[3] = sub(%0, row)
      return %1
    }
  }
  return %0
}
"""


@pytest.mark.parametrize("n", [-1, 0, 1, 4])
def test_a_literal_store_is_zero_in_all_rows(n, monkeypatch):
    graph = parse(ZEROS, table())
    for _ in range(2):
        inputs = [np.array(n), np.arange(3.0)]
        _, memory = run(graph, inputs)
        assert any(entry.name == "zeros" and entry.nbytes == 24 for entry in memory.entries)
        (found,) = GraphProgram(graph, "zeros")(inputs)
        np.testing.assert_array_equal(found, np.arange(3.0) + max(n, 0))
        monkeypatch.setenv("DIFFC_GUARD", "1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("consts=1, carry=1", "consts=0, carry=2", "the first one says how many steps"),
        ("n: i64[]", "n: i32[]", "needs the number of steps"),
        ("0.0:f64[*,3]", "1.0:f64[*,3]", "a literal f64\\[\\*,3\\] is zero"),
        ("length=`*`", "length=3", "needs length 3 on axis 0"),
    ],
)
def test_malformed_loops_over_stores(old, new, message):
    assert old in ZEROS
    with pytest.raises(UsageError, match=message):
        parse(ZEROS.replace(old, new), table())


def test_only_loops_read_stores():
    text = SUM.replace("return %1, %3", "%4: i64[*,3] = add(%2, %2)\n  return %1, %3")
    with pytest.raises(UsageError, match="only loops read stores"):
        parse(text, table())
    text = SUM.replace("slots=none", "slots=16")
    with pytest.raises(UsageError, match="gives rows of stores; needs slots none"):
        parse(text, table())
