"""Nests cut where their choices change: the same values, and no choice left where it pays."""

import numpy as np
import pytest

from diffc.codegen.loops.nodes import Choose, Kernel, Load, Par, Store
from diffc.codegen.loops.text import parse_kernel
from diffc.codegen.loops.walk import expressions, operands, statements
from diffc.codegen.tile import tile
from diffc.codegen.tile.ranges import MOST_PIECES, by_ranges
from diffc.ir.index import TRUE, Var, eq, ge, lt
from tests.codegen.emit.kernels import HOST, apply, buffer, check, const


def roll(length: int, by: int) -> Kernel:
    x, y = buffer("x", "f32", (length,)), buffer("y", "f32", (length,), "out")
    i = Var("i", length)
    value = Choose(lt(i, by), Load(x, (i + length - by,)), Load(x, (i - by,)))
    return Kernel("roll", (x, y), (), (Par((i,), (Store(y, (i,), value),)),))


def roll_rows(rows: int, columns: int, by: tuple[int, int]) -> Kernel:
    x, y = buffer("x", "f32", (rows, columns)), buffer("y", "f32", (rows, columns), "out")
    i, j = Var("i", rows), Var("j", columns)

    def row(at):
        return Choose(lt(j, by[1]), Load(x, (at, j + columns - by[1])), Load(x, (at, j - by[1])))

    value = Choose(lt(i, by[0]), row(i + rows - by[0]), row(i - by[0]))
    return Kernel("roll", (x, y), (), (Par((i, j), (Store(y, (i, j), value),)),))


def pieces(kernel: Kernel) -> tuple[Par, ...]:
    (nest,) = kernel.body
    return by_ranges(nest)


def choices(kernel: Kernel) -> int:
    roots = [root for stmt in statements(kernel.body) for root in operands(stmt)]
    return sum(isinstance(node, Choose) for node in expressions(roots))


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("by", [1, 15, 16, 100, 2999])
def test_a_roll_is_two_copies(by: int) -> None:
    kernel = roll(3000, by)
    assert [piece.vars[0].extent for piece in pieces(kernel)] == [by, 3000 - by]
    assert choices(tile(kernel, HOST)) == 0
    check(kernel, f32(3000))


@pytest.mark.parametrize("shape", [(70, 130), (3, 1000), (50, 41), (2000, 3)])
@pytest.mark.parametrize("by", [(1, 1), (2, 2), (1, 40)])
def test_rolls_of_rows(shape: tuple[int, int], by: tuple[int, int]) -> None:
    check(roll_rows(*shape, (by[0], min(by[1], shape[1] - 1))), f32(*shape))


def test_rows_are_not_cut_into_short_runs() -> None:
    assert len(pieces(roll_rows(70, 130, (1, 1)))) == 2
    assert len(pieces(roll_rows(70, 130, (1, 65)))) == 4
    assert len(pieces(roll_rows(3, 1000, (1, 1)))) == 4


def test_short_nests_stay_whole() -> None:
    kernel = roll(1000, 10)
    assert pieces(kernel) == kernel.body
    check(kernel, f32(1000))


def test_equalities_bounds_from_above_and_guards_of_stores() -> None:
    n = 3000
    x, y = buffer("x", "f32", (n,)), buffer("y", "f32", (n,), "mut")
    i = Var("i", n)
    twice = apply("mul", "f32", Load(x, (i,)), const(2.0))
    value = Choose(eq(i, 7), const(1.0), Choose(ge(2990, i), twice, const(-1.0)))
    store = Store(y, (i,), value, ge(2 * i, 201))
    ends = [7, 8, 101, 2991, 3000]
    found = by_ranges(Par((i,), (store,)))
    assert [piece.vars[0].extent for piece in found] == np.diff([0, *ends]).tolist()
    check(Kernel("parts", (x, y), (), (Par((i,), (store,)),)), f32(n), f32(n))


def test_many_pieces_stay_one() -> None:
    n = 3000
    x, y = buffer("x", "f32", (n,)), buffer("y", "f32", (n,), "out")
    i, value = Var("i", n), const(0.0)
    for k in range(MOST_PIECES):
        value = Choose(lt(i, 100 * (k + 1)), apply("add", "f32", value, Load(x, (i,))), value)
    kernel = Kernel("steps", (x, y), (), (Par((i,), (Store(y, (i,), value, TRUE),)),))
    assert len(pieces(kernel)) == 1
    check(kernel, f32(n))


@pytest.mark.parametrize("order", ["sequence", "lanes"])
@pytest.mark.parametrize(("columns", "at"), [(512, 128), (300, 75), (97, 64)])
def test_columns_of_sums_are_cut_between_what_was_joined(columns: int, at: int, order: str) -> None:
    """The bias of joined gates: each piece sums what one gate hands it, rows in the same order."""
    shape = f"f32[40,{columns}]"
    results = f"out: out {shape}, sums: out f32[{columns}]"
    text = f"""kernel @gates(a: in {shape}, b: in {shape}, {results}) {{
      par j in {columns} {{
        sweep r in 40 {{
          s: f32 = reduce sum {order}(r in 40: choose(`j < {at}`, a[r, j], mul(b[r, j], b[r, j])))
          out[r, j] = choose(`j < {at}`, a[r, j], mul(b[r, j], b[r, j]))
        }}
        sums[j] = s
      }}
    }}"""
    kernel = parse_kernel(text)
    assert [piece.vars[0].extent for piece in pieces(kernel)] == [at, columns - at]
    assert choices(tile(kernel, HOST)) == 0
    check(kernel, f32(40, columns), f32(40, columns))
