"""Rows are asked for while the ones before are worked on: what, where, and no other bits."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import diffc
from diffc import pipeline
from diffc.codegen.loops.nodes import (
    Fetch,
    For,
    Kernel,
    Load,
    Par,
    Reduce,
    Scalar,
    Store,
    Sweep,
    Vector,
)
from diffc.codegen.loops.text import parse_kernel, print_kernel
from diffc.codegen.loops.walk import statements
from diffc.codegen.tile import ahead
from diffc.codegen.tile.ahead import look_ahead
from diffc.ir.index import Var
from diffc.programs import GraphProgram
from diffc.runtime.target import host
from tests.codegen.emit.kernels import HOST, apply, buffer, check
from tests.programs.compare import same
from tests.programs.drawn import Drawer, operands_for

ROW = 1024
ROWS = HOST.l2_bytes // ROW


@pytest.fixture
def anything(monkeypatch):
    """Asks for rows of any length of buffers of any size."""
    monkeypatch.setattr(ahead, "SHORT", 1)
    monkeypatch.setattr(ahead, "FAR", 0)
    target = replace(host(), l3_bytes=host().l3_bytes + 1)
    monkeypatch.setattr(pipeline, "host", lambda: target)


def rows_kernel(rows: int = ROWS, length: int = ROW, **mode: str) -> Kernel:
    """Three passes: a sum of x; a sum of x and y; a result of y and w."""
    x, y = buffer("x", "f32", (rows, length)), buffer("y", "f32", (rows, length))
    w = buffer("w", "f32", (length,))
    out = buffer("out", "f32", (rows, length), "out")
    n, r = Var("n", rows), Var("r", length)
    first, second = Scalar("first", "f32"), Scalar("second", "f32")
    product = apply("mul", "f32", apply("sub", "f32", Load(x, (n, r)), first), Load(y, (n, r)))
    body = (
        Reduce(first, "sum", (r,), Load(x, (n, r))),
        Reduce(second, "sum", (r,), product),
        Par((r,), (Store(out, (n, r), apply("mul", "f32", second, Load(w, (r,)))),), Vector(16)),
    )
    return Kernel("rows", (x, y, w, out), (), (Par((n,), body),))


def fetches(kernel: Kernel) -> list[tuple[int, str, str]]:
    """Of each fetch the number of its pass, its buffer and its first index."""
    (loop,) = kernel.body
    assert isinstance(loop, Par | For)
    return [
        (number, stmt.buffer.name, str(stmt.indices[0]))
        for number, part in enumerate(loop.body)
        for stmt in statements((part,))
        if isinstance(stmt, Fetch)
    ]


def test_later_passes_ask_for_the_next_row() -> None:
    found = look_ahead(rows_kernel(), HOST)
    assert fetches(found) == [(1, "x", "n + 1"), (2, "y", "n + 1")]
    (loop,) = found.body
    assert isinstance(loop, Par)
    assert isinstance(loop.body[1], Sweep), "a reduction with company is a sweep"
    assert print_kernel(parse_kernel(print_kernel(found))) == print_kernel(found)


def test_what_only_the_last_pass_reads_is_asked_for_before() -> None:
    kernel = rows_kernel()
    (loop,) = kernel.body
    assert isinstance(loop, Par)
    turned = replace(loop, body=(loop.body[0], loop.body[2], loop.body[1]))
    found = fetches(look_ahead(replace(kernel, body=(turned,)), HOST))
    assert (2, "x", "n + 1") in found
    ((asking, _, row),) = (each for each in found if each[1] == "y")
    assert asking < 2
    assert row == "n"


def test_rows_that_are_read_already_are_not_asked_for() -> None:
    kernel = rows_kernel()
    (loop,) = kernel.body
    assert isinstance(loop, Par)
    x, (n,) = kernel.params[0], loop.vars
    sweep = loop.body[0]
    assert isinstance(sweep, Reduce)
    pair = apply("add", "f32", sweep.value, Load(x, (n + 1, *sweep.vars)))
    body = (replace(sweep, value=pair), *loop.body[1:])
    found = fetches(look_ahead(replace(kernel, body=(replace(loop, body=body),)), HOST))
    assert [each for each in found if each[1] == "x"] == [(1, "x", "n + 2")]


@pytest.mark.parametrize(
    ("rows", "length"),
    [(ROWS // 8, ROW), (ROWS * 32, 32), (4, HOST.l2_bytes // 4)],
    ids=["all_is_in_the_cache", "short_rows", "rows_beyond_the_cache"],
)
def test_where_it_would_not_pay(rows: int, length: int) -> None:
    kernel = rows_kernel(rows, length)
    assert look_ahead(kernel, HOST) is kernel


def test_loops_that_go_down_stay() -> None:
    kernel = rows_kernel()
    (loop,) = kernel.body
    assert isinstance(loop, Par)
    down = replace(kernel, body=(For(loop.vars[0], loop.body, reverse=True),))
    assert look_ahead(down, HOST) is down


@pytest.mark.parametrize("length", [1, 5, 64, 100, 700])
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.usefixtures("anything")
def test_bits_and_bounds(rows: int, length: int) -> None:
    """The last row asks for what lies behind the buffer: that reads nothing."""
    rng = np.random.default_rng(0)
    shapes = [(rows, length), (rows, length), (length,)]
    kernel = rows_kernel(rows, length)
    assert bool(fetches(look_ahead(kernel, HOST))) == (rows > 1 and length > 1)
    check(kernel, *(rng.standard_normal(shape).astype(np.float32) for shape in shapes))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("anything")
@given(st.integers(0, 2**32 - 1), st.integers(1, 25))
def test_drawn_programs(seed: int, count: int) -> None:
    graph = Drawer(seed).graph(count)
    arrays = operands_for(graph.input_avals, seed)
    found = GraphProgram(graph, "ahead")(arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "host", host)
        expected = GraphProgram(graph, "plain")(arrays)
    for x, y in zip(found, expected, strict=True):
        same(x, y)


def test_a_layer_norm_and_its_gradient_ask_for_both_operands() -> None:
    def norm(x, g):
        c = x - np.mean(x, axis=-1, keepdims=True)
        return c / np.sqrt(np.mean(c * c, axis=-1, keepdims=True) + 1e-5) * g

    def both(x, g, ct):
        value, back = diffc.vjp(norm, x, g)
        return value, back(ct)

    args = np.zeros((4096, 768), np.float32), np.zeros(768, np.float32)
    text = diffc.jit(both).stages(*args, args[0]).stage("tile").text
    asked = sorted(line.split("[")[0].split()[-1] for line in text.splitlines() if "fetch" in line)
    assert asked == ["ct", "x"]


def test_blocks_that_are_transposed_are_no_rows():
    """Nor are those beside each other that the same points share."""
    x, y = (np.arange(1030 * 1030, dtype="f4").reshape(1030, 1030) + k for k in range(2))
    got = diffc.jit(lambda x, y: (x + y.T, x.T * y))(x, y)
    np.testing.assert_array_equal(got[0], x + y.T)
    np.testing.assert_array_equal(got[1], x.T * y)
