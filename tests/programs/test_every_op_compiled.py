"""Every op of the registry: native code against its NumPy facet, and so for its gradient."""

import warnings

import numpy as np
import pytest

import diffc.ops
from diffc.codegen.emit.math import FUNCTIONS
from diffc.errors import ExecutionError
from diffc.ir.aval import FLOATS, aval, is_float
from diffc.ir.graph import Builder
from diffc.ops.declare import Fold, Undefined, Zero
from diffc.programs import GraphProgram
from diffc.transforms import jvp, vjp
from tests.ops.samples import (
    DTYPES,
    Sample,
    draw_array,
    elementwise_avals,
    fill,
    op_dtypes,
    samples,
    specials,
)
from tests.programs.compare import agree, arrays_of, one_op_graph, same

OPS = list(diffc.ops.every_op())
ELEMENTARY = [op for op in OPS if op.ulp]
ALL = tuple(DTYPES)


def every(ops):
    return pytest.mark.parametrize("op", ops, ids=lambda op: op.name)


def chunks(items, size=120):
    return [items[k : k + size] for k in range(0, len(items), size)]


@every(OPS)
def test_compiled_is_interpreted(op, monkeypatch):
    for some in chunks([*samples(op), *specials(op)]):
        graph, arrays = one_op_graph(some, op.name), arrays_of(some)
        program = GraphProgram(graph, op.name)
        found = program(arrays)
        agree(found, graph, arrays)
        monkeypatch.setenv("DIFFC_GUARD", "1")
        for plain, guarded in zip(found, program(arrays), strict=True):
            same(guarded, plain, "in guard mode")
        monkeypatch.delenv("DIFFC_GUARD")


@every([op for op in OPS if op.is_elementwise])
def test_vectors_and_the_rest_of_a_row_give_the_same(op):
    # every dtype, in lengths around the lanes of a vector; each element once in each place
    some = []
    for dtype in op_dtypes(op):
        params = samples(op, (dtype,))[0].params
        if params.get("exponent", 0) < 0 and dtype not in FLOATS:
            params = {"exponent": 3}
        for n in (1, 3, 8, 17, 67):
            sample = Sample(op, elementwise_avals(op, dtype, (n,)), params)
            some.append(fill(sample))
    graph, arrays = one_op_graph(some, op.name), arrays_of(some)
    agree(GraphProgram(graph, op.name)(arrays), graph, arrays)


# --- elementary functions, against wider arithmetic -------------------------------------------

REDUCED = ("bool", "i8", "i64", "bf16", "f16", "f32", "f64")
WIDE = {"bf16": np.float64, "f16": np.float64, "f32": np.float64, "f64": np.longdouble}


@every(ELEMENTARY)
def test_stated_ulps_are_those_of_the_emitted_code(op):
    function = FUNCTIONS[op.name]
    assert op.ulp == max(function.f32, function.f64, function.f32_split, function.f64_split)


def in_ulps(found, exact):
    """How far results are from wide ones, in units of the last place."""
    rounded = exact.astype(found.dtype)
    unit = np.abs(np.spacing(np.where(np.isfinite(rounded), rounded, 1)))
    apart = np.abs(found.astype(exact.dtype) - exact) / unit
    equal = (found == rounded) | ((found != found) & (rounded != rounded))
    return np.where(equal, 0, apart)


@every(ELEMENTARY)
def test_elementary_functions_keep_their_ulps(op):
    rng = np.random.default_rng(7)
    some = [s for s in specials(op, ("f32", "f64")) if s.arrays[0].size]
    for dtype in ("f32", "f64"):
        for scale in (1e-3, 1.0, 30.0):
            like = elementwise_avals(op, dtype, (333,))
            drawn = [draw_array(rng, a) * a.numpy.type(scale) for a in like]
            some.append(Sample(op, like, {}, (), tuple(drawn)))
    graph, arrays = one_op_graph(some, op.name), arrays_of(some)
    for sample, found in zip(some, GraphProgram(graph, op.name)(arrays), strict=True):
        wide = WIDE[sample.avals[0].dtype]
        if op.name == "erf":  # the C library's, of doubles
            wide = np.float64
        with np.errstate(all="ignore"):
            exact = np.asarray(op.numpy(*(x.astype(wide) for x in sample.arrays)))
            apart = in_ulps(found, exact)
        slack = 1.0 if exact.dtype == found.dtype else 1e-3
        worst = np.nanargmax(apart)
        at = [x[worst] for x in sample.arrays]
        assert apart[worst] <= op.ulp + slack, f"{sample} at {at}: {found[worst]}, {exact[worst]}"


# --- derivatives ------------------------------------------------------------------------------


def differentiable(op):
    found = []
    for sample in samples(op, dtypes=("f32", "f64")):
        fact = op.fact(sample.params)
        is_float = any(a.is_float for a in sample.avals) and all(
            a.is_float for a in op.infer(sample.avals, sample.params, sample.regions)
        )
        if is_float and not isinstance(fact, Undefined | Zero):
            found.append(sample)
    return found


DIFFERENTIABLE = [op for op in OPS if differentiable(op)]


@every(DIFFERENTIABLE)
def test_compiled_derivatives_are_interpreted_ones(op, monkeypatch):
    monkeypatch.setenv("DIFFC_GUARD", "1")  # also in the layout of the arena
    some = differentiable(op)
    graph, arrays = one_op_graph(some, op.name), arrays_of(some)
    rng = np.random.default_rng(0)
    active = [a.is_float for a in graph.input_avals]
    for transform in (vjp, jvp):
        made = transform(graph, active).graph
        extra = made.input_avals[len(arrays) :]
        operands = [*arrays, *(draw_array(rng, a) for a in extra)]
        program = GraphProgram(made, f"{op.name}_{transform.__name__}")
        # the graph after `optimize`: rules may change the rounding, and have tests of their own
        agree(program(operands), program.compilation.graph, operands)


# --- errors at run time -----------------------------------------------------------------------


@pytest.mark.parametrize("index", [-1, 3, 2**40, -(2**63)])
@pytest.mark.parametrize("name", ["gather", "scatter"])
def test_an_index_out_of_bounds_is_an_error_before_any_access(name, index, monkeypatch):
    monkeypatch.setenv("DIFFC_GUARD", "1")
    builder = Builder(name)
    x, i = builder.input(aval("f32", (3, 2)), "x"), builder.input(aval("i64", (2,)), "i")
    params = {"axes": (0,), "mode": "check"}
    operands = [x, i]
    if name == "scatter":
        operands.insert(1, builder.input(aval("f32", (2, 2)), "u"))
        params["combine"] = "set"
    graph = builder.build(builder.emit(diffc.ops.find(name), operands, params))
    given = {"x": np.ones((3, 2), "f4"), "i": np.array([1, index]), "u": np.zeros((2, 2), "f4")}
    arrays = [given[value.name] for value in graph.inputs]
    with pytest.raises(ExecutionError, match="out of bounds"), warnings.catch_warnings():
        warnings.simplefilter("error")
        GraphProgram(graph, name)(arrays)


# --- beyond one chunk -------------------------------------------------------------------------

LARGE = {
    "whole": ((40_003,), (0,)),
    "one more than a chunk": ((16_385,), (0,)),
    "rows": ((3, 17_001), (1,)),
    "columns": ((17_001, 3), (0,)),
    "both": ((131, 257), (0, 1)),
    "middle": ((2, 9_001, 3), (1,)),
}


@every([op for op in OPS if isinstance(op.body, Fold)])
def test_reductions_of_many_elements(op):
    some = []
    for shape, axes in LARGE.values():
        if op.params == ("axis",):
            axis = max(axes, key=lambda k: shape[k])
            params = {"axis": axis}
        else:
            params = {"axes": axes}
        for dtype in [d for d in REDUCED if d in op.dtypes]:
            sample = Sample(op, (aval(dtype, shape),), params)
            rng = np.random.default_rng(len(some))
            x = draw_array(rng, sample.avals[0], whole=op.name in ("max", "min"))
            if op.name == "prod" and is_float(x.dtype):
                x = (1 + x.astype(np.float64) / 2**18).astype(x.dtype)
            if op.name in ("any", "all"):
                x[...] = op.name == "all"
                x.flat[x.size - 1] = op.name == "any"
            if op.name in ("max", "min", "argmax", "argmin") and dtype == "f64":
                x.flat[x.size // 2] = np.nan
            some.append(Sample(op, sample.avals, params, (), (x,)))
    graph, arrays = one_op_graph(some, op.name), arrays_of(some)
    agree(GraphProgram(graph, op.name)(arrays), graph, arrays)


@pytest.mark.parametrize("name", ["sort", "argsort", "cumsum", "cummax", "cummin"])
def test_long_rows(name):
    op = diffc.ops.find(name)
    extra = {"reverse": True} if name == "cumsum" else {}
    some = []
    for dtype in ("i32", "bf16", "f32", "f64"):
        for shape, axis in (((20_011,), 0), ((3, 5_003), 1), ((5_003, 3), 0)):
            x = draw_array(np.random.default_rng(1), aval(dtype, shape))
            if is_float(x.dtype) and name != "cumsum":
                x.flat[::1001] = np.nan
            some.append(Sample(op, (aval(dtype, shape),), {"axis": axis, **extra}, (), (x,)))
    graph, arrays = one_op_graph(some, name), arrays_of(some)
    agree(GraphProgram(graph, name)(arrays), graph, arrays)
