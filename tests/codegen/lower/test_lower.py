"""Lowered kernels compute what the interpreter says, and have the form that is promised."""

import numpy as np
import pytest

import diffc.ops  # noqa: F401  (fills the registry)
from diffc.codegen.loops.nodes import Contract, For, Load, Par, Reduce, Scatter, Sort, Store
from diffc.codegen.loops.walk import expressions, operands, statements
from diffc.codegen.lower import Messages, chunks, lower
from diffc.codegen.lower.cuts import cut
from diffc.errors import InternalError
from diffc.ir.aval import DTYPES, aval, is_float, wide
from diffc.ir.graph import Builder, Location, literal, prune
from diffc.ops.interpret import evaluate
from diffc.ops.registry import find
from tests.codegen.lower.evaluate import run


class B(Builder):
    """A builder with ops as functions: ``b.op("add", x, y)``."""

    def op(self, name, *operands, **params):
        (result,) = self.emit(find(name), operands, params)
        return result

    def arg(self, *shape, dtype="f64", name=""):
        return self.input(aval(dtype, shape), name)

    def lit(self, value, like):
        return literal(value, like.aval)

    def spread(self, x, shape, axes):
        return self.op("broadcast", x, shape=shape, axes=axes)


def inputs_of(graph, seed=0, high=None):
    rng = np.random.default_rng(seed)
    arrays = []
    for value in graph.inputs:
        dtype, shape = DTYPES[value.aval.dtype], value.aval.shape
        if is_float(dtype):
            arrays.append(np.asarray(rng.normal(size=shape)).astype(dtype))
        elif dtype.kind == "b":
            arrays.append(np.asarray(rng.integers(0, 2, shape)).astype(dtype))
        else:
            low = 0 if dtype.kind == "u" else -3
            arrays.append(np.asarray(rng.integers(low, high or 9, shape)).astype(dtype))
    return arrays


TOLERANCES = {"bf16": 1e-1, "f16": 2e-2, "f32": 1e-5, "f64": 1e-12}


def check(builder, *outputs, arrays=None, messages=None):
    graph = prune(builder.build(outputs))
    kernel = lower(graph, "k", messages or Messages())
    arrays = inputs_of(graph) if arrays is None else arrays
    expected = evaluate(graph, arrays)
    found = run(kernel, arrays)
    assert len(found) == len(expected)
    for got, want, value in zip(found, expected, graph.outputs, strict=True):
        assert got.size == want.size and got.dtype == DTYPES[value.aval.dtype]
        tolerance = TOLERANCES.get(value.aval.dtype, 0)
        got, want = (x.astype(wide(x.dtype)) for x in (got, want))
        np.testing.assert_allclose(
            got.reshape(want.shape), want, rtol=tolerance, atol=tolerance, equal_nan=True
        )
    return kernel


def kinds(kernel):
    return [type(stmt).__name__ for stmt in statements(kernel.body)]


def loads(kernel):
    roots = [e for stmt in statements(kernel.body) for e in operands(stmt)]
    return [e for e in expressions(roots) if isinstance(e, Load)]


# --- maps


@pytest.mark.parametrize("shape", [(), (1,), (0,), (5,), (3, 4), (2, 1, 3)])
@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16", "f16"])
def test_elementwise(shape, dtype):
    b = B()
    x, y = b.arg(*shape, dtype=dtype), b.arg(*shape, dtype=dtype)
    z = b.op("tanh", b.op("mul", x, b.op("add", y, b.lit(1.5, x))))
    c = b.op("lt", x, y)
    w = b.op("select", c, z, b.op("integer_pow", x, exponent=3))
    i = b.op("convert", b.op("mul", w, b.lit(10, w)), dtype="i32")
    check(b, w, c, i)


def test_outputs_may_be_inputs_literals_and_repeat():
    b = B()
    x = b.arg(3)
    y = b.op("neg", x)
    kernel = check(b, y, x, y, b.lit(2.0, x))
    assert len({p.name for p in kernel.params}) == 5


def test_movement_dissolves():
    b = B()
    x, v = b.arg(4, 6), b.arg(6)
    y = b.op("transpose", x, perm=(1, 0))
    y = b.op("reshape", y, shape=(2, 3, 4))
    y = b.op("reverse", y, axes=(0, 2))
    y = b.op("slice", y, start=(0, 1, 0), stop=(2, 3, 4), step=(1, 1, 2))
    y = b.op(
        "add", y, b.spread(b.op("slice", v, start=(1,), stop=(5,), step=(2,)), (2, 2, 2), (1,))
    )
    kernel = check(b, y)
    assert [k for k in kinds(kernel) if k != "Par"] == ["Store"]


def test_pad_and_concat_choose_before_loading():
    b = B()
    x, y, p = b.arg(3, 2), b.arg(2, 2), b.arg()
    z = b.op("concat", x, y, x, axis=0)
    z = b.op("pad", z, p, low=(1, 0), high=(2, 1), interior=(1, 0))
    check(b, z)


def test_window():
    b = B()
    x = b.arg(7, 5)
    y = b.op("window", x, axes=(0, 1), sizes=(3, 2), strides=(2, 1), dilations=(1, 2))
    check(b, b.op("neg", y))


def test_zero_sizes_in_movement():
    b = B()
    x, y = b.arg(0, 2), b.arg(2, 2)
    check(b, b.op("concat", x, y, axis=0))
    b = B()
    x, p = b.arg(0), b.arg()
    check(b, b.op("pad", x, p, low=(2,), high=(1,), interior=(3,)))


def test_reshapes_collapse_to_strides():
    b = B()
    x = b.arg(64, 10)
    y = b.op("reshape", b.op("reshape", x, shape=(8, 8, 2, 5)), shape=(64, 10))
    kernel = check(b, b.op("neg", y))
    (load,) = loads(kernel)
    (store,) = (s for s in statements(kernel.body) if isinstance(s, Store))
    assert load.indices == store.indices


def test_transposed_sibling_is_stored_where_it_goes():
    b = B()
    x, y = b.arg(3, 4), b.arg(3, 4)
    z = b.op("add", x, y)
    kernel = check(b, z, b.op("reshape", b.op("transpose", z, perm=(1, 0)), shape=(2, 2, 3)))
    assert len({e.indices for e in loads(kernel)}) == 1


def test_long_chains_do_not_recurse():
    b = B()
    x = b.arg(2)
    for k in range(3000):
        x = b.op("add", x, b.lit(k % 7, x))
    check(b, x)


def test_shared_values_stay_shared():
    b = B()
    x = b.arg(2)
    y = x
    for _ in range(60):
        y = b.op("add", y, y)
    kernel = check(b, y)
    roots = [e for stmt in statements(kernel.body) for e in operands(stmt)]
    assert len(expressions(roots)) == 61


def test_iota_constant_and_random_bits():
    b = B()
    i = b.op("iota", dtype="i32", shape=(3, 4), axis=1)
    data = np.arange(12, dtype=np.int32).reshape(3, 4) % 5
    c = b.op("constant", dtype="i32", shape=(3, 4), data=data.tobytes())
    check(b, b.op("add", i, b.op("reverse", c, axes=(1,))))
    b = B()
    key = b.arg(2, dtype="u32")
    r = b.op("random_bits", key, shape=(3, 5))
    check(b, b.op("transpose", r, perm=(1, 0)))


def test_a_large_constant_must_be_a_buffer():
    b = B()
    data = np.arange(100, dtype=np.float32)
    c = b.op("constant", dtype="f32", shape=(100,), data=data.tobytes())
    with pytest.raises(InternalError, match="must be an input"):
        lower(b.build([c]), "k", Messages())


# --- gathers


INDEX = np.array([[2, -1, 0], [5, 9, 1]])


@pytest.mark.parametrize("mode", ["clip", "fill"])
@pytest.mark.parametrize("dtype", ["i64", "i32", "u8"])
def test_gather(mode, dtype):
    b = B()
    x, i = b.arg(4, 6, 2), b.arg(2, 3, dtype=dtype)
    index = (INDEX if dtype[0] == "i" else abs(INDEX)).astype(DTYPES[dtype])
    arrays = [np.random.default_rng(0).normal(size=(4, 6, 2)), index]
    check(b, b.op("gather", x, i, axes=(1,), mode=mode), arrays=arrays)
    y = b.op("gather", x, i, i, axes=(0, 2), mode=mode)
    check(b, b.op("neg", y), arrays=arrays)


@pytest.mark.parametrize("mode", ["clip", "fill"])
def test_gather_from_what_is_not_in_memory(mode):
    b = B()
    x, y, i = b.arg(6, 2), b.arg(3, 2), b.arg(2, 3, dtype="i64")
    z = b.op("concat", b.op("exp", x), y, axis=0)
    z = b.op("pad", z, b.lit(7.0, b.arg()), low=(1, 0), high=(0, 2), interior=(1, 0))
    z = b.op("reshape", b.op("transpose", z, perm=(1, 0)), shape=(2, 36))
    z = b.op("add", z, b.op("iota", dtype="f64", shape=(2, 36), axis=1))
    j = b.op("mul", i, b.op("abs", i))
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(6, 2)), rng.normal(size=(3, 2)), INDEX, np.array(0.0)]
    check(b, b.op("gather", z, j, axes=(1,), mode=mode), arrays=arrays)


def test_gather_of_gather():
    b = B()
    x, i, j = b.arg(5, 4), b.arg(6, dtype="i64"), b.arg(3, dtype="i64")
    once = b.op("gather", x, i, axes=(0,), mode="clip")
    twice = b.op("gather", once, j, axes=(0,), mode="fill")
    check(b, b.op("gather", b.op("neg", twice), j, axes=(1,), mode="clip"))


def test_checked_gather_names_the_line():
    b = B()
    x, i = b.arg(4, 2), b.arg(3, dtype="i64", name="rows")
    b.loc = Location("model.py", 12, "f")
    messages = Messages()
    y = b.op("gather", x, i, axes=(0,), mode="check")
    check(b, y, arrays=[np.ones((4, 2)), np.array([0, 3, 1])], messages=messages)
    ((text, line),) = messages.table
    assert "axis 0 needs 0 <= index < 4" in text and line == "model.py:12"


def test_dynamic_slice():
    for start in (-5, 1, 9):
        b = B()
        x, s, t = b.arg(6, 4), b.arg(dtype="i32"), b.arg(dtype="i32")
        y = b.op("dynamic_slice", b.op("transpose", x, perm=(1, 0)), t, s, sizes=(4, 3))
        arrays = [np.arange(24.0).reshape(6, 4), np.array(start, np.int32), np.array(3, np.int32)]
        check(b, b.op("neg", y), arrays=arrays)


# --- rows


def softmax(b, x, axis):
    shape = x.aval.shape
    kept = tuple(k for k in range(len(shape)) if k != axis)
    m = b.op("max", x, axes=(axis,))
    e = b.op("exp", b.op("sub", x, b.spread(m, shape, kept)))
    s = b.op("sum", e, axes=(axis,))
    return b.op("div", e, b.spread(s, shape, kept)), m, s


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (4, 1), (1, 4), (2, 3, 4), (0, 3)])
def test_softmax_rows(shape):
    b = B()
    out, m, s = softmax(b, b.arg(*shape), len(shape) - 1)
    check(b, out, m, s)


def test_a_costly_row_is_computed_once():
    b = B()
    out, *_ = softmax(b, b.arg(3, 5), 1)
    kernel = check(b, out)
    (row,) = kernel.scratch
    assert row.shape == (5,) and row.mode == "scratch"
    applied = [e for s in statements(kernel.body) for r in operands(s) for e in expressions([r])]
    exps = {id(e) for e in applied if getattr(e, "name", "") == "exp"}
    assert len(exps) == 1


def test_layer_norm_has_kept_and_full_outputs():
    b = B()
    x, g = b.arg(4, 6), b.arg(6)
    mean = b.op("div", b.op("sum", x, axes=(1,)), b.lit(6.0, b.arg(4)))
    c = b.op("sub", x, b.spread(mean, (4, 6), (0,)))
    var = b.op("sum", b.op("mul", c, c), axes=(1,))
    r = b.op("rsqrt", b.op("add", var, b.lit(1e-5, var)))
    y = b.op("mul", b.op("mul", c, b.spread(r, (4, 6), (0,))), b.spread(g, (4, 6), (1,)))
    kernel = check(b, y, b.op("reshape", mean, shape=(4, 1)), r)
    assert kinds(kernel).count("Reduce") == 2
    assert all(s.order == "lanes" for s in statements(kernel.body) if isinstance(s, Reduce))


@pytest.mark.parametrize("axes", [(0,), (0, 1), (1,), (0, 2), ()])
def test_sums_over_any_axes(axes):
    b = B()
    x = b.arg(3, 4, 5)
    s = b.op("sum", b.op("mul", x, x), axes=axes)
    kernel = check(b, b.op("sqrt", s), s)
    orders = {s.order for s in statements(kernel.body) if isinstance(s, Reduce)}
    assert orders == ({"lanes"} if 2 in axes else {"sequence"} if axes else set())


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32", "i32", "u8"])
def test_monoids(name, dtype):
    b = B()
    check(b, b.op(name, b.arg(3, 4, dtype=dtype), axes=(1,)))


def test_logical_and_positions():
    b = B()
    x, c = b.arg(3, 4), b.arg(3, 4, dtype="bool")
    check(b, b.op("any", c, axes=(1,)), b.op("all", c, axes=(1,)))
    check(b, b.op("argmax", x, axis=1), b.op("argmin", x, axis=1))
    check(b, b.op("argmax", b.op("reshape", x, shape=(12, 1)), axis=1))


def test_empty_sums():
    b = B()
    check(b, b.op("sum", b.arg(3, 0), axes=(1,)))
    b = B()
    check(
        b,
        b.op("sum", b.arg(0, 3), axes=(0,)),
    )


def test_a_sum_of_a_reshaped_domain():
    b = B()
    x = b.arg(4, 6)
    y = b.op("exp", x)
    s = b.op("sum", b.op("reshape", y, shape=(2, 2, 6)), axes=(2,))
    t = b.op("sum", y, axes=(1,))
    check(b, s, t, b.op("div", y, b.spread(b.op("reshape", s, shape=(4,)), (4, 6), (0,))))


def test_reductions_of_other_points_are_refused():
    b = B()
    x = b.arg(4, 6)
    s = b.op("sum", x, axes=(1,))
    y = b.op("sub", x, b.spread(b.op("reverse", s, axes=(0,)), (4, 6), (0,)))
    with pytest.raises(InternalError, match="not at hand"):
        lower(b.build([y]), "k", Messages())


# --- chunks


@pytest.mark.parametrize("shape", [(1000,), (129,), (40, 7), (3, 130), (3, 5, 11), (1, 300, 1)])
def test_chunks(shape, monkeypatch):
    monkeypatch.setattr(chunks, "LARGE", 100)
    monkeypatch.setattr(chunks, "CHUNK", 64)
    b = B()
    x, v = b.arg(*shape), b.arg(*shape)
    axes = tuple(range(len(shape)))
    e = b.op("exp", x)
    s = b.op("sum", e, axes=axes)
    full = b.op("mul", e, v)
    kernel = check(b, s, b.op("max", v, axes=axes), full, b.op("log", s))
    assert [buffer.name for buffer in kernel.scratch] == ["partial", "partial_1"]
    mean = b.op("div", s, b.lit(2.0, b.arg()))
    d = b.op("sub", e, b.spread(mean, shape, ()))
    var = b.op("sum", b.op("mul", d, d), axes=axes)
    check(b, var, full, b.op("add", d, b.spread(var, shape, ())))


def test_chunks_of_f16_add_in_f32(monkeypatch):
    monkeypatch.setattr(chunks, "LARGE", 100)
    monkeypatch.setattr(chunks, "CHUNK", 64)
    b = B()
    x = b.arg(500, dtype="f16")
    s = b.op("sum", x, axes=(0,))
    kernel = check(b, s, b.op("argmax", x, axis=0))
    assert [buffer.dtype for buffer in kernel.scratch] == ["f32"]


@pytest.mark.parametrize("shape", [(16385,), (1000000,), (100000, 3), (3, 10000), (2, 4097, 1)])
def test_chunks_cover_each_element_once(shape):
    made = cut(shape, chunks.CHUNK, 64)
    pieces, partial = made.pieces(), made.chunks
    flat, parts = [], []
    from diffc.ir.index import evaluate as value
    from diffc.ir.index import ravel

    for piece in pieces:
        loop = [v for v in (*piece.outer, *piece.inner) if not isinstance(v, int)]
        grid = np.meshgrid(*(np.arange(v.extent) for v in loop), indexing="ij")
        env = dict(zip(loop, grid, strict=True))
        flat.append(np.ravel(value(ravel(piece.full, shape), env)))
        parts.append(np.unique(value(ravel(piece.partial, partial), env)))
        assert np.prod(piece.extents) <= chunks.CHUNK
    assert sorted(np.concatenate(flat)) == list(range(int(np.prod(shape))))
    assert sorted(np.concatenate(parts)) == list(range(int(np.prod(partial))))
    whole = made.whole()
    loop = [v for v in (*whole.outer, *whole.inner) if not isinstance(v, int)]
    grid = np.meshgrid(*(np.arange(v.extent) for v in loop), indexing="ij")
    env = dict(zip(loop, grid, strict=True))
    held = np.broadcast_to(whole.guard.evaluate(env), grid[0].shape)
    at = np.broadcast_to(value(ravel(whole.full, shape), env), grid[0].shape)
    assert sorted(at[held]) == list(range(int(np.prod(shape))))


# --- contractions


@pytest.mark.parametrize(
    "spec,left,right",
    [
        ("ij,jk->ik", (3, 4), (4, 5)),
        ("ji,jk->ki", (4, 3), (4, 5)),
        ("bij,bkj->bik", (2, 3, 4), (2, 5, 4)),
        ("ijk,jk->i", (3, 2, 4), (2, 4)),
        ("i,i->", (5,), (5,)),
        ("i,j->ij", (3,), (4,)),
        ("ij,ij->ij", (3, 4), (3, 4)),
        ("ij,jk->ik", (3, 1), (1, 2)),
        ("ij,jk->ik", (3, 0), (0, 2)),
        ("ij,jk->ik", (1, 4), (4, 1)),
    ],
)
@pytest.mark.parametrize("dtype", ["f64", "i32", "bf16", "f16"])
def test_contract(spec, left, right, dtype):
    b = B()
    x, y = b.arg(*left, dtype=dtype), b.arg(*right, dtype=dtype)
    check(b, b.op("contract", x, y, spec=spec))


def test_dense_layer_with_several_outputs():
    b = B()
    x, w, bias = b.arg(4, 6), b.arg(5, 6), b.arg(5)
    z = b.op("contract", x, b.op("transpose", w, perm=(1, 0)), spec="ij,jk->ik")
    z = b.op("add", z, b.spread(bias, (4, 5), (1,)))
    out = b.op("maximum", z, b.lit(0.0, z))
    kernel = check(
        b,
        out,
        b.op("gt", z, b.lit(0.0, z)),
        b.op("reshape", b.op("transpose", out, perm=(1, 0)), shape=(20,)),
    )
    (outer,) = kernel.body
    assert isinstance(outer, Par) and isinstance(outer.body[0], Contract)
    assert all(isinstance(stmt, Store) for stmt in outer.body[1:])


def test_convolution_is_a_contraction_over_windows():
    b = B()
    x, w = b.arg(2, 6, 5, 3), b.arg(3, 2, 3, 4)
    v = b.op("window", x, axes=(1, 2), sizes=(3, 2), strides=(1, 2), dilations=(1, 1))
    check(b, b.op("contract", v, w, spec="nhwcij,ijco->nhwo"))


# --- kernels of one equation


@pytest.mark.parametrize("combine", ["set", "add", "mul", "min", "max"])
def test_scatter(combine):
    b = B()
    x, u, i = b.arg(4, 3), b.arg(2, 3, 3), b.arg(2, 3, dtype="i64")
    y = b.op("scatter", b.op("neg", x), b.op("abs", u), i, axes=(0,), mode="drop", combine=combine)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(4, 3)), rng.normal(size=(2, 3, 3)), INDEX]
    kernel = check(b, y, arrays=arrays)
    assert "Scatter" in kinds(kernel)


def test_scatter_of_one_update_stands_in_a_loop():
    b = B()
    x, u, i = b.arg(4), b.arg(), b.arg(dtype="i64")
    y = b.op("scatter", x, u, i, axes=(0,), mode="drop", combine="add")
    kernel = check(b, y, arrays=[np.ones(4), np.array(2.0), np.array(3)])
    (loop,) = (s for s in kernel.body if isinstance(s, For))
    assert isinstance(loop.body[0], Scatter)
    b = B()
    x, u, i, j = b.arg(4, 5), b.arg(2, 1), b.arg(2, 1, dtype="i64"), b.arg(2, 1, dtype="i32")
    y = b.op("scatter", x, u, i, j, axes=(0, 1), mode="drop", combine="add")
    check(b, y, b.op("neg", u))


@pytest.mark.parametrize("start", [-3, 2, 50])
def test_dynamic_update_slice(start):
    arrays = [np.arange(24.0).reshape(6, 4), -np.ones((3, 4)), np.array(start), np.array(1)]
    b = B()
    x, u, s, t = b.arg(6, 4), b.arg(3, 4), b.arg(dtype="i64"), b.arg(dtype="i64")
    check(b, b.op("dynamic_update_slice", x, u, s, t), arrays=arrays)
    b = B()
    x, u, s, t = b.arg(6, 4), b.arg(3, 2), b.arg(dtype="i64"), b.arg(dtype="i64")
    y = b.op("dynamic_update_slice", x, u, s, t)
    check(b, y, b.op("neg", y), arrays=[arrays[0], arrays[1][:, :2].copy(), *arrays[2:]])
    b = B()
    x, u = b.arg(), b.arg()
    check(b, b.op("dynamic_update_slice", x, u))


@pytest.mark.parametrize(
    "shape,axis",
    [((5,), 0), ((3, 4), 0), ((3, 4), 1), ((2, 3, 4), 1), ((1, 3), 0), ((0,), 0), ((2, 0), 0)],
)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["f64", "bf16", "f16", "i32"])
def test_cumsum(shape, axis, reverse, dtype):
    b = B()
    x = b.arg(*shape, dtype=dtype)
    y = b.op("cumsum", b.op("mul", x, x), axis=axis, reverse=reverse)
    check(b, y)


def test_an_output_made_of_the_result():
    b = B()
    x = b.arg(3, 4)
    y = b.op("cumsum", x, axis=1, reverse=False)
    check(b, b.op("transpose", b.op("neg", y), perm=(1, 0)))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["sort", "argsort"])
def test_sort(axis, name):
    b = B()
    x = b.arg(3, 4)
    kernel = check(b, b.op(name, x, axis=axis))
    assert not kernel.scratch
    kernel = check(b, b.op(name, b.op("neg", x), axis=axis))
    assert [buffer.name for buffer in kernel.scratch] == ["keys"]
    assert any(isinstance(s, Sort) for s in statements(kernel.body))


@pytest.mark.parametrize(
    "shape,params",
    [
        ((7,), {"axes": (0,), "sizes": (3,), "strides": (1,), "dilations": (1,)}),
        ((7, 2), {"axes": (0,), "sizes": (2,), "strides": (3,), "dilations": (2,)}),
        ((6, 5), {"axes": (0, 1), "sizes": (2, 3), "strides": (2, 1), "dilations": (1, 1)}),
        ((4,), {"axes": (0,), "sizes": (1,), "strides": (1,), "dilations": (1,)}),
        ((5,), {"axes": (0,), "sizes": (1,), "strides": (2,), "dilations": (1,)}),
    ],
)
def test_overlap_add(shape, params):
    b = B()
    x = b.arg(*shape)
    y = b.op("window", x, **params)
    b2 = B()
    z = b2.arg(*y.aval.shape)
    check(b2, b2.op("overlap_add", b2.op("neg", z), shape=shape, **params))


def test_what_cannot_share_loops_is_refused():
    b = B()
    x = b.arg(3, 3)
    y = b.op("contract", x, x, spec="ij,jk->ik")
    z = b.op("contract", x, y, spec="ij,jk->ik")
    with pytest.raises(InternalError, match="can't share loops"):
        lower(b.build([z]), "k", Messages())


def test_lowering_is_deterministic():
    def once():
        b = B()
        out, m, s = softmax(b, b.arg(3, 5), 1)
        kernel = lower(b.build([out, m, s]), "k", Messages())
        return [(type(s).__name__, getattr(s, "indices", None)) for s in statements(kernel.body)]

    assert once() == once()
