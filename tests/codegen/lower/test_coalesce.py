"""Neighbouring loops merge where every access runs through them as through one."""

from diffc.codegen.loops.walk import statements
from tests.codegen.lower.test_lower import B, check


def loops(kernel):
    return [tuple(v.extent for v in s.vars) for s in statements(kernel.body) if hasattr(s, "vars")]


def test_row_major_maps_are_one_loop():
    b = B()
    x, y = b.arg(6, 5, 4), b.arg(6, 5, 4)
    kernel = check(b, b.op("add", x, y), b.op("reshape", b.op("mul", x, y), shape=(30, 4)))
    assert loops(kernel) == [(120,)]
    assert all(buffer.shape == (120,) for buffer in kernel.params)


def test_a_row_that_repeats_keeps_its_loop():
    b = B()
    x, v = b.arg(2, 3, 4), b.arg(4)
    kernel = check(b, b.op("add", x, b.spread(v, (2, 3, 4), (2,))))
    assert loops(kernel) == [(6, 4)]
    assert [buffer.shape for buffer in kernel.params] == [(6, 4), (4,), (6, 4)]


def test_parts_of_rows_do_not_merge():
    b = B()
    x = b.arg(4, 6)
    y = b.op("slice", x, start=(0, 1), stop=(4, 5), step=(1, 1))
    assert loops(check(b, b.op("neg", y))) == [(4, 4)]
    b = B()
    y = b.op("iota", dtype="f64", shape=(4, 6), axis=0)
    assert loops(check(b, b.op("neg", y))) == [(4, 6)]


def test_rows_merge_kept_and_reduced_axes_apart():
    b = B()
    x = b.arg(2, 3, 4, 5)
    s = b.op("sum", b.op("exp", x), axes=(2, 3))
    kernel = check(b, b.op("sub", b.op("exp", x), b.spread(s, (2, 3, 4, 5), (0, 1))))
    assert loops(kernel) == [(6,), (20,), (20,), (20,)]


def test_batch_axes_of_a_dense_layer_are_rows():
    b = B()
    x, w, v = b.arg(2, 3, 4), b.arg(4, 5), b.arg(5)
    y = b.op("contract", x, w, spec="bij,jk->bik")
    kernel = check(b, b.op("add", y, b.spread(v, (2, 3, 5), (2,))))
    assert loops(kernel) == [(6, 5), (4,)]


def test_gathered_rows_merge_their_axes():
    b = B()
    x, i = b.arg(5, 2, 3), b.arg(2, 2, dtype="i64")
    kernel = check(b, b.op("gather", x, i, axes=(0,), mode="clip"))
    assert loops(kernel) == [(4, 6)]
    assert [buffer.shape for buffer in kernel.params] == [(5, 6), (4,), (4, 6)]
