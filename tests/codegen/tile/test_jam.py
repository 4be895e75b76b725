"""Rows two at a time: the same bits, and only where rows are long and do not need one another."""

from dataclasses import replace

import numpy as np
import pytest

import diffc
from diffc.codegen.loops.nodes import For, Kernel, Load, Par, Reduce, Scalar, Store, Sweep
from diffc.codegen.loops.walk import statements
from diffc.codegen.tile.jam import jam
from diffc.ir.index import Var, ge
from diffc.runtime.pool import use_threads
from tests.codegen.emit.kernels import HOST, apply, buffer, check, const

LONG = HOST.l1_bytes // 4 + 5


def mul(a, b):
    return apply("mul", "f32", a, b)


def add(a, b):
    return apply("add", "f32", a, b)


def rows_kernel(rows: int, length: int = LONG) -> Kernel:
    """Two passes that reduce, scratch from one to the next, two sums over rows, a result."""
    x, y = buffer("x", "f32", (rows, length)), buffer("y", "f32", (rows, length), "out")
    p, q = buffer("p", "f32", (length,), "mut"), buffer("q", "f32", (length,), "mut")
    row = buffer("row", "f32", (length,), "scratch")
    n, r = Var("n", rows), Var("r", length)
    top, total = Scalar("top", "f32"), Scalar("total", "f32")
    value = apply("sub", "f32", Load(x, (n, r)), top)
    body = (
        Reduce(top, "max", (r,), Load(x, (n, r))),
        Sweep(
            (r,),
            (
                Reduce(total, "sum", (r,), mul(value, value)),
                Store(row, (r,), value),
                Store(p, (r,), add(Load(p, (r,)), value)),
            ),
        ),
        Par(
            (r,),
            (
                Store(y, (n, r), mul(Load(row, (r,)), total)),
                Store(q, (r,), add(mul(Load(row, (r,)), total), Load(q, (r,)))),
            ),
        ),
    )
    return Kernel("rows", (x, p, q, y), (row,), (For(n, body),))


def loop_of(kernel: Kernel) -> For:
    (loop,) = kernel.body
    assert isinstance(loop, For)
    return loop


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
def test_pairs_give_the_same_bits(rows: int) -> None:
    kernel = rows_kernel(rows)
    found = jam(loop_of(kernel), HOST)
    assert (found is None) == (rows < 2)
    if found is not None:
        assert found.loop.var.extent == rows // 2
        assert len(found.last) == (3 if rows % 2 else 0)
        assert [each.name for each in found.scratch] == ["row_2"]
        assert sum(isinstance(stmt, Reduce) for stmt in statements(found.loop.body)) == 4
    check(kernel, drawn(rows, LONG), drawn(LONG), drawn(LONG))


def test_short_rows_stay_alone() -> None:
    kernel = rows_kernel(4, 100)
    assert jam(loop_of(kernel), HOST) is None
    check(kernel, drawn(4, 100), drawn(100), drawn(100))


def test_what_stays_alone() -> None:
    kernel = rows_kernel(4)
    loop = loop_of(kernel)
    x, _, _, y = kernel.params
    n, r = loop.var, Var("r", LONG)
    assert jam(loop, HOST) is not None
    assert jam(replace(loop, reverse=True), HOST) is None
    assert jam(replace(loop, guard=ge(n, 1)), HOST) is None
    # a row that reads another one's result, or scratch of the row before
    other = Par((r,), (Store(y, (n, r), Load(y, ((n + 3) % 4, r))),))
    assert jam(replace(loop, body=(*loop.body, other)), HOST) is None
    assert jam(replace(loop, body=loop.body[::-1]), HOST) is None
    # a sum that something else reads, or none at all
    p = kernel.params[1]
    reads = Par((r,), (Store(y, (n, r), Load(p, (r,))),))
    assert jam(replace(loop, body=(*loop.body[:2], reads)), HOST) is None
    alone = Par((r,), (Store(y, (n, r), mul(Load(x, (n, r)), const(2.0))),))
    assert jam(replace(loop, body=(loop.body[0], alone)), HOST) is None


def test_gradients_of_long_rows_for_any_number_of_threads() -> None:
    def norm(x, gain, shift):
        c = x - np.mean(x, -1, keepdims=True)
        return c / np.sqrt(np.mean(c * c, -1, keepdims=True) + 1e-5) * gain + shift

    def both(x, gain, shift, ct):
        y, back = diffc.vjp(norm, x, gain, shift)
        return y, *back(ct)

    args = drawn(67, LONG), drawn(LONG), drawn(LONG), drawn(67, LONG)[::-1].copy()
    jitted, found = diffc.jit(both), []
    for count in (1, 2, 3):
        with use_threads(count):
            found.append([each.tobytes() for each in jitted(*args)])
    assert found[0] == found[1] == found[2]
    x, gain, _, ct = (each.astype(np.float64) for each in args)
    c = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((c * c).mean(-1, keepdims=True) + 1e-5)
    h, g = c / deviation, ct * gain
    by_x = (g - g.mean(-1, keepdims=True) - h * (g * h).mean(-1, keepdims=True)) / deviation
    for each, expected in zip(jitted(*args)[1:], (by_x, (ct * h).sum(0), ct.sum(0)), strict=True):
        np.testing.assert_allclose(each, expected, rtol=1e-3, atol=1e-3)
