"""Graphs: building, equal equations, pruning, comparing, checking, and the text form."""

import math

import numpy as np
import pytest

import diffc.ops
from diffc.errors import InternalError, UsageError
from diffc.ir.aval import DTYPES, aval, aval_of, dtype_name
from diffc.ir.check import check
from diffc.ir.graph import (
    Builder,
    Eqn,
    Graph,
    Location,
    depends_on,
    graphs_of,
    is_same,
    literal,
    prune,
    rebuild,
    uses,
)
from diffc.ir.text import parse, parse_all, parse_aval, print_graph
from diffc.ops.registry import find

OPS = diffc.ops.table()
F4 = aval("f32", (4,))


def parsed(text):
    return parse(text, OPS, "test.txt")


LOSS = """\
func @loss_grad(x: f32[4], w: f32[4]) -> (f32[], f32[4]) {
  %0: f32[4] = mul(x, w)
  %1: f32[4] = tanh(%0)
  %2: f32[] = sum(%1, axes=[0])
  %3: f32[4] = mul(%1, %1)
  %4: f32[4] = sub(1.0:f32[4], %3)
  %5: f32[4] = mul(%4, x)
  return %2, %5
}
"""


def test_avals_are_interned():
    assert aval("f32", (4,)) is F4
    assert aval(np.float32, (np.int64(4),)) is F4
    assert aval_of(np.zeros(4, np.float32)) is F4
    assert str(aval("f64")) == "f64[]"
    assert F4.nbytes == 16


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype_has_one_name(dtype):
    assert DTYPES[dtype_name(dtype)] == dtype
    assert dtype_name(dtype.newbyteorder(">")) == dtype_name(dtype)


@pytest.mark.parametrize("dtype", [np.complex64, "S3", object])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="not supported"):
        dtype_name(dtype)


def test_negative_dimensions_are_refused():
    with pytest.raises(ValueError, match="negative"):
        aval("f32", (-1,))


def test_literals_are_interned_by_bits():
    assert literal(1.0, F4) is literal(1, F4)
    assert literal(0.0, F4) is not literal(-0.0, F4)
    assert literal(math.nan, F4) is literal(math.nan, F4)
    assert literal(0.1, F4).value == float(np.float32(0.1))


def test_equal_equations_are_built_once():
    builder = Builder()
    x = builder.input(F4)
    first = builder.emit(find("exp"), [x])
    assert builder.emit(find("exp"), [x]) is first
    assert builder.emit(find("log"), [x]) is not first
    assert len(builder.eqns) == 2


def test_input_names_are_unique():
    builder = Builder()
    names = [builder.input(F4, "x").name for _ in range(3)]
    assert len(set(names)) == 3


def test_prune_keeps_what_is_needed():
    builder = Builder()
    x = builder.input(F4)
    (dead,) = builder.emit(find("exp"), [x])
    (live,) = builder.emit(find("log"), [x])
    graph = builder.build([live])
    assert [eqn.op.name for eqn in prune(graph).eqns] == ["log"]
    assert prune(prune(graph)) is prune(graph) or is_same(prune(graph), prune(prune(graph)))
    assert dead not in depends_on(prune(graph), [x])
    assert uses(graph)[x] == 2


def test_an_unchanged_graph_is_returned_itself():
    graph = parsed(LOSS)
    assert rebuild(graph, lambda builder, eqn, env: builder.copy(eqn, env)) is graph


def test_same_graphs_are_recognized():
    assert is_same(parsed(LOSS), parsed(LOSS))
    assert not is_same(parsed(LOSS), parsed(LOSS.replace("tanh", "sin")))
    assert not is_same(parsed(LOSS), parsed(LOSS.replace("1.0:", "2.0:")))
    assert not is_same(parsed(LOSS), parsed(LOSS.replace("return %2, %5", "return %2, %4")))


def test_text_round_trip():
    assert print_graph(parsed(LOSS)) == LOSS


TEXTS = {
    "no_inputs": "func @f() -> (f32[2]) {\n  return 1.5:f32[2]\n}\n",
    "no_outputs": "func @f(x: f32[]) -> () {\n  return\n}\n",
    "specials": "func @f() -> (f32[], f64[], f16[], f32[], f64[], bool[], i8[], u64[]) {\n"
    "  return nan:f32[], -inf:f64[], inf:f16[], -0.0:f32[], 5e-324:f64[], true:bool[], -128:i8[], "
    "18446744073709551615:u64[]\n}\n",
    "symbols": "func @f(x: f32[n,64]) -> (f32[n,64]) {\n  %0: f32[n,64] = exp(x)\n  return %0\n}\n",
    "constant": "func @f() -> (i16[2]) {\n"
    '  %0: i16[2] = constant(data=x"01000200", dtype="i16", shape=[2])\n  return %0\n}\n',
    "region": "func @f(x: f32[3]) -> (f32[3]) {\n  %0: f32[3] = call(x) {\n"
    "    func @g(y: f32[3]) -> (f32[3]) {\n      %0: f32[3] = call(y) {\n"
    "        func @h(z: f32[3]) -> (f32[3]) {\n          %0: f32[3] = neg(z)\n"
    "          return %0\n        }\n      }\n      return %0\n    }\n  }\n  return %0\n}\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_print_as_they_are_parsed(name):
    graph = parsed(TEXTS[name])
    check(graph)
    assert print_graph(graph) == TEXTS[name]
    assert len(list(graphs_of(graph))) == (3 if name == "region" else 1)


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32", "f64"])
def test_floats_keep_their_bits(dtype):
    rng = np.random.default_rng(0)
    kind = DTYPES[dtype]
    unsigned = np.dtype(f"u{kind.itemsize}")
    for bits in rng.integers(0, np.iinfo(unsigned).max, 300, unsigned, endpoint=True):
        value = np.asarray(bits).view(kind)[()]
        graph = Graph("f", (), (), (literal(value, aval(dtype)),))
        found = np.asarray(parsed(print_graph(graph)).outputs[0].value, kind)
        assert np.isnan(value) == np.isnan(found)
        assert np.isnan(value) or found.tobytes() == value.tobytes()


ERRORS = {
    "no op is named 'frob'": "func @f(x: f32[]) -> () {\n  %0: f32[] = frob(x)\n  return\n}",
    "y is not defined": "func @f(x: f32[]) -> (f32[]) {\n  %0: f32[] = neg(y)\n  return %0\n}",
    "defined twice": "func @f(x: f32[]) -> () {\n  x: f32[] = neg(x)\n  return\n}",
    "declared f64[]": "func @f(x: f32[]) -> () {\n  %0: f64[] = neg(x)\n  return\n}",
    "returns": "func @f(x: f32[]) -> (f64[]) {\n  return x\n}",
    "expected": "func @f(x f32[]) -> () {\n  return\n}",
    "unexpected '!'": "func @f(!)",
    "two inputs": "func @f(x: f32[], x: f32[]) -> () {\n  return\n}",
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors_name_the_line(message):
    with pytest.raises(UsageError) as caught:
        parsed(ERRORS[message])
    assert message in str(caught.value)
    assert "test.txt:" in str(caught.value)


def test_several_functions_in_one_text():
    assert [graph.name for graph in parse_all(LOSS + "\n" + TEXTS["region"], OPS)] == [
        "loss_grad",
        "f",
    ]
    with pytest.raises(UsageError, match="one function"):
        parsed(LOSS + LOSS)


@pytest.mark.parametrize("text", ["f32", "f33[2]", "f32[2", "f32[-1]", ""])
def test_what_is_no_aval(text):
    with pytest.raises(ValueError):
        parse_aval(text)


def test_locations_and_primals_are_comments():
    builder = Builder()
    x = builder.input(F4, "x")
    builder.loc = Location("model.py", 7, "f")
    (y,) = builder.emit(find("exp"), [x])
    y.of = x
    graph = builder.build([y])
    text = print_graph(graph, locations=True)
    assert "# of=x model.py:7" in text
    assert print_graph(parsed(text)) == print_graph(graph)


def eqn_of(op, operands, avals):
    return Eqn(find(op), tuple(operands), {}, (), avals, None, ())


def test_the_checker_finds_what_is_wrong():
    builder = Builder()
    x = builder.input(F4, "x")
    (y,) = builder.emit(find("exp"), [x])
    good = builder.build([y])
    assert check(good) is good
    with pytest.raises(InternalError, match="not defined before"):
        check(Graph("f", (), good.eqns, (y,)))
    with pytest.raises(InternalError, match="does not define"):
        check(Graph("f", (x,), (), (y,)))
    with pytest.raises(InternalError, match="defined twice"):
        check(Graph("f", (x,), (*good.eqns, *good.eqns), (y,)))
    with pytest.raises(InternalError, match="the rule says"):
        check(Graph("f", (x,), (eqn_of("exp", [x], (aval("f64", (4,)),)),), ()))
    with pytest.raises(InternalError, match="stands twice"):
        check(Graph("f", (x, x), (), ()))


def test_regions_are_isolated():
    builder = Builder()
    x = builder.input(F4, "x")
    region = Graph("g", (), (), (x,))
    with pytest.raises(InternalError, match="does not define"):
        check(Graph("f", (x,), (Eqn(find("call"), (), {}, (region,), (F4,), None, ()),), ()))
