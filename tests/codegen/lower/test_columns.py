"""Reductions over leading axes: blocks of rows, alone and beside reductions along the rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffc.ops  # noqa: F401  (fills the registry)
from diffc.codegen.loops.nodes import For, Reduce, Sweep
from diffc.codegen.loops.text import parse_kernel, print_kernel
from diffc.codegen.loops.walk import statements
from diffc.codegen.lower import Messages, columns, lower
from diffc.ir.graph import prune
from diffc.plan import forms
from tests.codegen.lower.test_lower import B, check, inputs_of


@pytest.fixture
def short_blocks(monkeypatch):
    """Blocks of three rows or fewer."""
    monkeypatch.setattr(forms, "block_rows", lambda columns: 3)
    monkeypatch.setattr("diffc.codegen.lower.columns.block_rows", lambda columns: 3)


def test_rows_of_a_block():
    assert forms.block_rows(1) == forms.block_rows(128) == 256
    assert forms.block_rows(129) == 128
    assert forms.block_rows(768) == 32
    assert forms.block_rows(10**6) == 16


@pytest.mark.parametrize("rows", [2, 3, 4, 6, 7, 11])
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16", "f16", "i32", "u8"])
def test_columns_alone(short_blocks, rows, name, dtype):
    b = B()
    x = b.arg(rows, 5, dtype=dtype)
    y = b.op("add", x, x)
    total = b.op(name, y, axes=(0,))
    kernel = check(b, total, b.op("mul", total, total), y)
    orders = {s.order for s in statements(kernel.body) if isinstance(s, Reduce)}
    assert orders == {"sequence"}
    assert not any(isinstance(s, For) for s in statements(kernel.body))


@pytest.mark.parametrize("shape", [(64, 2), (96, 3), (36, 5), (50, 10), (8, 4, 2), (33, 3)])
def test_narrow_rows_side_by_side(short_blocks, shape):
    b = B()
    x = b.arg(*shape, dtype="f32")
    check(b, b.op("sum", x, axes=tuple(range(len(shape) - 1))), b.op("neg", x))


def test_groups_of_rows():
    assert columns._groups(100000, 3) == 16
    assert columns._groups(60000, 10) == 4
    assert columns._groups(60002, 10) == 2
    assert columns._groups(1000, 16) == 4
    assert columns._groups(1001, 3) == columns._groups(1000, 33) == 1


@pytest.mark.parametrize("name", ["any", "all"])
def test_columns_of_bools(short_blocks, name):
    b = B()
    check(b, b.op(name, b.arg(7, 2, 3, dtype="bool"), axes=(0, 1)))


def norm(b, x, gain, ct):
    """A row's centred values, and what a layer norm's backward pass makes of them."""
    shape, rows = x.aval.shape, tuple(range(len(x.aval.shape) - 1))
    last = (len(shape) - 1,)
    centred = b.op("sub", x, b.spread(b.op("sum", x, axes=last), shape, rows))
    scale = b.op("sqrt", b.op("sum", b.op("mul", centred, centred), axes=last))
    unit = b.op("div", centred, b.spread(scale, shape, rows))
    weighted = b.op("mul", ct, b.spread(gain, shape, last))
    back = b.op("sum", b.op("mul", weighted, unit), axes=last)
    dx = b.op("sub", weighted, b.op("mul", unit, b.spread(back, shape, rows)))
    return unit, scale, dx


@pytest.mark.parametrize("shape", [(2, 4), (3, 4), (7, 4), (5, 3, 4), (1, 8, 1, 4)])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_columns_beside_rows(short_blocks, shape, dtype):
    b = B()
    x, ct, gain = b.arg(*shape, dtype=dtype), b.arg(*shape, dtype=dtype), b.arg(4, dtype=dtype)
    unit, scale, dx = norm(b, x, gain, ct)
    lead = tuple(range(len(shape) - 1))
    dgain = b.op("sum", b.op("mul", ct, unit), axes=lead)
    step = b.op("sub", gain, dgain)
    top = b.op("max", ct, axes=lead)
    kernel = check(b, dx, scale, step, top, b.op("neg", gain))
    rows = np.prod(shape[:-1])
    has_loop = any(isinstance(s, For) for s in statements(kernel.body))
    assert has_loop == (rows > columns._groups(rows, 4)), "rows of one group run in order"


def test_columns_that_leave_more_than_the_row(short_blocks):
    b = B()
    x, ct, gain = b.arg(7, 3, 4), b.arg(7, 3, 4), b.arg(4)
    unit, _, dx = norm(b, x, gain, ct)
    check(b, dx, b.op("sum", b.op("mul", ct, unit), axes=(0,)))


def test_columns_of_another_shape_than_rows(short_blocks):
    """The rows are those of a matrix, the columns those of its two halves."""
    b = B()
    x, ct, gain = b.arg(6, 4), b.arg(6, 4), b.arg(4)
    unit, _, dx = norm(b, x, gain, ct)
    apart = b.op("reshape", b.op("mul", ct, unit), shape=(2, 3, 4))
    together = b.op("reshape", apart, shape=(2, 12))
    check(b, dx, b.op("sum", together, axes=(0,)))


def test_sums_start_with_plus_zero(short_blocks):
    b = B()
    x = b.arg(4, 3)
    total = b.op("sum", x, axes=(0,))
    _, _, dx = norm(b, x, b.arg(3), x)
    for outputs in ((total,), (total, dx)):
        graph = prune(b.build(outputs))
        kernel = lower(graph, "k", Messages())
        arrays = [np.full((4, 3), -0.0), np.ones(3)][: len(graph.inputs)]
        from tests.codegen.lower.evaluate import run

        found = run(kernel, arrays)[0]
        assert not np.signbit(found).any()


def bits_of_columns(outputs_of, seed):
    """The sums of columns that a kernel gives, with other outputs beside them."""
    from tests.codegen.lower.evaluate import run

    b = B()
    x, ct, gain = (b.arg(*shape, dtype="f32") for shape in ((10, 6), (10, 6), (6,)))
    unit, scale, dx = norm(b, x, gain, ct)
    total = b.op("sum", ct, axes=(0,))
    graph = b.build([total, *outputs_of(unit, scale, dx)])
    return run(lower(graph, "k", Messages()), inputs_of(graph, seed))[0]


@given(st.integers(0, 2**32 - 1))
def test_bits_are_the_same_beside_rows_and_alone(seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffc.codegen.lower.columns.block_rows", lambda columns: 3)
        alone = bits_of_columns(lambda unit, scale, dx: [], seed)
        for others in (lambda u, s, d: [d], lambda u, s, d: [s], lambda u, s, d: [u, d, s]):
            beside = bits_of_columns(others, seed)
            assert alone.tobytes() == beside.tobytes()


def test_an_added_element_stands_where_its_operands_are(short_blocks):
    """The pass that finds the last statistic has what the sum of columns adds up."""
    b = B()
    x, ct, gain = b.arg(7, 4), b.arg(7, 4), b.arg(4)
    unit, _, dx = norm(b, x, gain, ct)
    kernel = check(b, dx, b.op("sum", b.op("mul", ct, unit), axes=(0,)))
    (sweep,) = (s for s in statements(kernel.body) if isinstance(s, Sweep))
    assert "partial" in {store.buffer.name for store in sweep.stores}


def test_text_parses_back(short_blocks):
    b = B()
    x, ct, gain = b.arg(7, 4), b.arg(7, 4), b.arg(4)
    unit, _, dx = norm(b, x, gain, ct)
    graph = prune(b.build([dx, b.op("sum", b.op("mul", ct, unit), axes=(0,))]))
    text = print_kernel(lower(graph, "k", Messages()))
    assert "for n0 in 3 if `" in text
    assert print_kernel(parse_kernel(text)) == text
