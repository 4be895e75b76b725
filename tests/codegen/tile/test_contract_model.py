"""Choices of tiles: within the registers, a function of the problem alone, and plain cases."""

import math
from dataclasses import astuple, replace

import pytest

from diffc.codegen.loops.contraction import (
    Span,
    blocks,
    column_tiles,
    contraction,
    spans,
    workspace,
)
from diffc.codegen.loops.nodes import Store, Tile
from diffc.codegen.targets import ARM_NEON, ITEM_BYTES, X86_AVX2, X86_AVX512, X86_SSE2
from diffc.codegen.tile.contract import tile_contractions
from diffc.codegen.tile.contract_costs import costs
from diffc.codegen.tile.contract_model import choose, column_block
from diffc.codegen.tile.contract_price import Operand, Price, Problem
from tests.codegen.emit.contractions import einsum, how_of, tiled_as

TARGETS = [X86_AVX512, X86_AVX2, X86_SSE2, ARM_NEON]


def plain(rows, columns, depth, dtype="f32", *, by_column=True, **more):
    """A product of matrices, the second one turned around or not."""
    item = ITEM_BYTES[dtype]
    rhs = (item, item * columns) if by_column else (item * depth, item)
    return Problem(
        rows=rows,
        columns=columns,
        depth=depth,
        inner_depth=depth,
        outer=1,
        dtype=dtype,
        lhs=Operand(dtype, item * depth, item),
        rhs=Operand(dtype, *rhs),
        **more,
    )


SIZES = (1, 2, 7, 16, 33, 100, 512, 2000)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32", "f64", "i8", "i64"])
def test_tiles_fit_the_registers(target, dtype):
    for rows in SIZES[::2]:
        for columns in SIZES:
            for depth in (0, 1, 1000):
                for by_column in (True, False):
                    problem = plain(rows, columns, depth, dtype, by_column=by_column)
                    tile = choose(problem, target).tile
                    assert 1 <= tile.rows <= rows
                    used = (tile.rows + 1) * tile.vectors + 1
                    assert used <= target.vector_registers - 1
                    assert tile.lanes >= 2
                    assert tile.unroll >= 1
                    assert by_column or tile.dot or tile.pack_rhs or depth <= 1
                    assert not (tile.dot and tile.pack_rhs)
                    assert tile.depth_block % tile.unroll == 0
                    assert not tile.turn


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_price_is_below_the_arithmetic(target):
    """Multiply-adds of whole or half vectors, one after the other."""
    least = costs(target).multiply_add
    for rows in SIZES:
        for columns in SIZES:
            for depth in (1, 17, 1000):
                choice = choose(plain(rows, columns, depth), target)
                ideal = rows * columns * depth / target.lanes("f32") * least
                assert ideal <= choice.cycles < math.inf


@pytest.mark.parametrize("size", [64, 256, 512, 1000, 1024, 2048])
@pytest.mark.parametrize("by_column", [True, False])
def test_large_products_are_near_the_arithmetic(size, by_column):
    choice = choose(plain(size, size, size, by_column=by_column), X86_AVX512)
    assert size**3 / 16 >= 0.8 * choice.cycles


def test_small_operands_are_not_packed():
    for size in (16, 64, 100, 256):
        tile = choose(plain(size, size, size), X86_AVX512).tile
        assert not tile.pack_rhs
        assert not tile.pack_lhs
        assert not tile.depth_block


def test_rows_that_meet_in_the_cache_are_few_or_packed():
    """Rows of lhs 4096 bytes apart push each other out of the first cache."""
    tile = choose(plain(1024, 1024, 1024), X86_AVX512).tile
    assert tile.pack_lhs or tile.rows <= 8
    price = Price(plain(1024, 1024, 1024), X86_AVX512)
    tall = Tile(12, 2, 16, 1, pack_rhs=True)
    assert price.register(tall) > 1.1 * price.register(replace(tall, pack_lhs=True))


def test_strips_of_a_large_rhs_are_asked_for():
    """20 rows read 9 MB once, in runs of some lines."""
    tile = choose(plain(20, 1145, 1927), X86_AVX512).tile
    assert tile.prefetch_rhs or tile.depth_block


def test_few_rows_of_a_transposed_operand_are_dots():
    few = plain(8, 1024, 1024, by_column=False)
    assert choose(few, X86_AVX512).tile.dot
    assert not choose(replace(few, rows=512), X86_AVX512).tile.dot


def test_a_vector_times_a_large_matrix_keeps_many_sums():
    tile = choose(plain(1, 1024, 1024), X86_AVX512).tile
    assert (tile.rows, tile.pack_rhs) == (1, False)
    assert tile.vectors >= 4


def test_results_that_go_to_memory_are_written_in_long_runs():
    tile = choose(plain(622, 1755, 25), X86_AVX512).tile
    assert tile.vectors >= 5
    price = Price(plain(622, 1755, 25), X86_AVX512)
    tall = Tile(20, 1, 16, 1)
    assert price.register(tall) > price.register(Tile(2, 10, 16, 1))


def test_half_vectors_stand_alone():
    kernel = einsum("mk,kn->mn", {"m": 30, "k": 40, "n": 24})
    c = contraction(tiled_as(kernel, X86_AVX512, narrow=True, vectors=2).body[0])
    assert column_tiles(c) == (Span(0, 1, 16), Span(16, 1, 8))
    kernel = einsum("mk,kn->mn", {"m": 30, "k": 40, "n": 25})
    c = contraction(tiled_as(kernel, X86_AVX512, narrow=True, vectors=2).body[0])
    assert column_tiles(c) == (Span(0, 1, 25),)


def test_stores_along_rows_are_turned_or_avoided():
    (nest,) = tile_contractions(einsum("km,nk->mn", {"m": 64, "k": 107, "n": 105}), X86_AVX512).body
    c = contraction(nest)
    assert c.how.turn or c.how.pack_rhs
    assert not c.how.dot


@pytest.mark.parametrize(("m", "k", "n"), [(48, 412, 2), (2, 412, 48), (613, 169, 3)])
def test_few_columns_are_copied_for_dots(m, k, n):
    """A few columns of rhs, or rows of lhs, lie along the contracted index first."""
    spec = "mk,kn->mn" if m > n else "km,nk->mn"
    tiled = tile_contractions(einsum(spec, {"m": m, "k": k, "n": n}, "f64"), X86_AVX512)
    copy, nest = tiled.body
    assert contraction(nest).how.dot
    assert isinstance(copy.body[0], Store)
    (copied,) = (b for b in tiled.scratch if b.name.endswith("_copy"))
    assert sorted(copied.shape) == sorted((k, min(m, n)))


def test_spans_cover_and_have_two_sizes():
    for size in range(60):
        for most in range(1, 20):
            found = spans(size, most)
            covered = [k for s in found for n in range(s.count) for k in piece(s, n)]
            assert covered == list(range(size))
            assert len({span.size for span in found}) <= 2
            for unit in (4, 16):
                found = spans(size, max(most, unit), unit)
                covered = [k for s in found for n in range(s.count) for k in piece(s, n)]
                assert covered == list(range(size))
                assert all(span.size % unit == 0 for span in found[:-1])


def piece(span: Span, number: int) -> range:
    start = span.start + number * span.size
    return range(start, start + span.size)


def test_blocks_keep_the_tiles():
    for size in (1, 31, 100, 1000):
        tiles = spans(size, 9)
        for most in (0, 5, 30, 5000):
            parts = blocks(tiles, most)
            pieces = [piece(s, n) for part in parts for s in part for n in range(s.count)]
            assert pieces == [piece(s, n) for s in tiles for n in range(s.count)]
            if most:
                longest = max(sum(s.size * s.count for s in part) for part in parts)
                assert longest <= max(most, tiles[0].size)


# --- roles


@pytest.mark.parametrize(
    ("spec", "rows", "columns", "outer"),
    [
        ("btc,cd->btd", 2 * 10, 16, ()),
        ("bqd,bkd->bqk", 4, 11, (2,)),
        ("btc,chd->bthd", 2 * 10, 3 * 16, ()),
        ("i,ij->j", 1, 7, ()),
        ("ij,j->i", 1, 9, ()),
        ("i,i->", 1, 1, ()),
    ],
)
def test_rows_and_columns(spec, rows, columns, outer):
    extents = {"b": 2, "c": 5, "d": 16, "h": 3, "i": 9, "j": 7, "k": 11, "q": 4, "t": 10}
    tiled = tile_contractions(einsum(spec, extents), X86_AVX512)
    (nest,) = tiled.body
    c = contraction(nest)
    assert (c.row.extent, c.column.extent) == (rows, columns)
    assert tuple(var.extent for var in c.outer) == outer


def test_contracted_variables_merge_in_their_order():
    extents = {"i": 6, "j": 7, "k": 8, "l": 20}
    (nest,) = tile_contractions(einsum("ijk,jkl->il", extents), X86_AVX512).body
    assert [var.extent for var in contraction(nest).depth] == [56]
    (nest,) = tile_contractions(einsum("ijk,kjl->il", extents), X86_AVX512).body
    assert [var.extent for var in contraction(nest).depth] == [7, 8]


def test_columns_do_not_merge_where_stores_would_jump():
    extents = {"t": 10, "c": 5, "h": 3, "d": 7}
    (nest,) = tile_contractions(einsum("tc,chd->thd", extents, order="htd"), X86_AVX512).body
    assert contraction(nest).column.extent in (7, 10)
    extents["d"] = 32
    (nest,) = tile_contractions(einsum("tc,chd->thd", extents, order="htd"), X86_AVX512).body
    assert contraction(nest).column.extent == 96


def test_choices_are_the_same_every_time():
    kernel = einsum("mk,nk->mn", {"m": 64, "k": 100, "n": 1000})
    first = astuple(how_of(kernel, X86_AVX2))
    choose.cache_clear()
    assert astuple(how_of(kernel, X86_AVX2)) == first


def test_workspaces_hold_the_panels():
    kernel = einsum("mk,kn->mn", {"m": 33, "k": 40, "n": 50})
    sizes = {"rows": 4, "vectors": 2, "unroll": 4, "dot": False}
    more = {"pack_rhs": True, "pack_lhs": True, "depth_block": 16, "column_block": 32}
    forced = tiled_as(kernel, X86_AVX512, **sizes, **more)
    found = {one.name: one.shape for one in workspace(forced.body[0])}
    assert found["total.rhs"] == (32 * 16,)
    assert found["total.lhs"] == (33 * 16 + 16,)
    assert found["total.sums"] == (33 * 32,)


def test_a_nest_that_is_done_is_left_alone():
    tiled = tile_contractions(einsum("mk,kn->mn", {"m": 3, "k": 4, "n": 5}), X86_AVX512)
    assert tile_contractions(tiled, X86_AVX512) is tiled


def test_columns_run_by_themselves_where_short_rows_share_a_large_rhs():
    """Convolutions of few wide images: 14 rows a run, weights beyond the second cache."""
    many = replace(plain(14, 256, 2304), outer=56)
    block = column_block(many, X86_AVX512)
    assert block == 64
    assert 4 * block * many.depth <= X86_AVX512.l2_bytes
    assert column_block(replace(many, outer=1), X86_AVX512) == 0  # rhs is read once
    assert (
        column_block(replace(many, rhs=replace(many.rhs, runs=56)), X86_AVX512) == 0
    )  # by each run another
    assert column_block(replace(many, columns=250), X86_AVX512) == 0  # no whole vectors
    assert column_block(replace(many, depth=144), X86_AVX512) == 0  # it stays in the cache
    assert column_block(replace(many, rows=64), X86_AVX512) == 0  # packed in blocks anyway
