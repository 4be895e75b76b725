"""Choices of tiles: within the registers, a function of the problem alone, and plain cases."""

from dataclasses import astuple, replace

import pytest

from diffc.codegen.loops.contraction import Span, blocks, contraction, spans, workspace
from diffc.codegen.targets import ARM_NEON, X86_AVX2, X86_AVX512, X86_SSE2
from diffc.codegen.tile.contract import tile_contractions
from diffc.codegen.tile.contract_model import Problem, choose, column_block
from tests.codegen.emit.contractions import einsum, how_of, tiled_as

TARGETS = [X86_AVX512, X86_AVX2, X86_SSE2, ARM_NEON]
PLAIN = Problem(
    rows=64,
    columns=100,
    depth=1000,
    inner_depth=1000,
    outer=1,
    outer_rhs=1,
    dtype="f32",
    operand="f32",
    rhs_by_column=True,
    rhs_by_depth=False,
    lhs_by_depth=True,
    strided=0,
    is_single_depth=True,
    row_bytes=4000,
)
SIZES = (1, 2, 7, 16, 33, 100, 512, 2000)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("dtype", ["f16", "f32", "f64", "i8", "i64"])
def test_tiles_fit_the_registers(target, dtype):
    for rows in SIZES:
        for columns in SIZES:
            for depth in (0, 1, 17, 1000):
                for by_column in (True, False):
                    problem = replace(
                        PLAIN,
                        rows=rows,
                        columns=columns,
                        depth=depth,
                        inner_depth=depth,
                        dtype=dtype,
                        operand=dtype,
                        rhs_by_column=by_column,
                        rhs_by_depth=not by_column,
                    )
                    tile = choose(problem, target).tile
                    assert 1 <= tile.rows <= rows
                    used = (tile.rows + 1) * tile.vectors + 1
                    assert used <= target.vector_registers - 1
                    assert tile.lanes >= 2
                    assert tile.unroll >= 1
                    assert by_column or tile.dot or tile.pack_rhs
                    assert not (tile.dot and tile.pack_rhs)
                    assert tile.depth_block % tile.unroll == 0


def test_small_operands_are_not_packed():
    for size in (16, 64, 100, 512):
        tile = choose(replace(PLAIN, rows=size, columns=size, depth=size), X86_AVX512).tile
        assert not tile.pack_rhs
        assert not tile.pack_lhs
        assert not tile.depth_block


def test_large_operands_are_packed_in_blocks():
    size = 2048
    large = replace(
        PLAIN, rows=size, columns=size, depth=size, inner_depth=size, row_bytes=4 * size
    )
    tile = choose(large, X86_AVX512).tile
    assert tile.pack_rhs and tile.pack_lhs
    assert tile.depth_block and tile.row_block and tile.column_block


def test_few_rows_of_a_transposed_operand_are_dots():
    few = replace(
        PLAIN,
        rows=8,
        columns=1024,
        depth=1024,
        inner_depth=1024,
        rhs_by_column=False,
        rhs_by_depth=True,
    )
    assert choose(few, X86_AVX512).tile.dot
    many = replace(few, rows=512)
    assert not choose(many, X86_AVX512).tile.dot


def test_a_vector_times_a_large_matrix_goes_by_blocks():
    tile = choose(
        replace(PLAIN, rows=1, columns=1024, depth=1024, inner_depth=1024), X86_AVX512
    ).tile
    assert tile.rows == 1
    assert tile.vectors >= 8
    assert tile.depth_block and not tile.pack_rhs


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
    many = replace(PLAIN, rows=14, columns=256, depth=2304, outer=56)
    block = column_block(many, X86_AVX512)
    assert block == 64
    assert 4 * block * many.depth <= X86_AVX512.l2_bytes
    assert column_block(replace(many, outer=1), X86_AVX512) == 0  # rhs is read once
    assert column_block(replace(many, outer_rhs=56), X86_AVX512) == 0  # by each run another
    assert column_block(replace(many, columns=250), X86_AVX512) == 0  # no whole vectors
    assert column_block(replace(many, depth=144), X86_AVX512) == 0  # it stays in the cache
    assert column_block(replace(many, rows=64), X86_AVX512) == 0  # packed in blocks anyway
