"""Structured ops against hand-made facts: writers, ties, zeros, known bits."""

import numpy as np
import pytest

import diffc.ops
from diffc.ir.aval import aval, aval_of
from diffc.ops.contraction import letters
from diffc.ops.term import ArrayTerm
from tests.ops.local import jvp, run, transposed
from tests.ops.samples import Sample


def use(name, *arrays, **params):
    arrays = tuple(map(np.asarray, arrays))
    return Sample(diffc.ops.find(name), tuple(map(aval_of, arrays)), params, (), arrays)


def value(name, *arrays, **params):
    return run(use(name, *arrays, **params))[0]


# --- random bits ------------------------------------------------------------------------------

# known answers of Random123 (threefry2x32, 20 rounds): key, counter, words
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "words"), KNOWN)
def test_threefry_gives_the_known_answers(key, counter, words):
    from diffc.ops.generate import threefry

    terms = [ArrayTerm(np.array([word], np.uint32)) for word in (*key, *counter)]
    assert tuple(int(word.array[0]) for word in threefry(*terms)) == words


def test_random_bits_depend_on_the_position_alone():
    key = np.array([1, 2], np.uint32)
    flat = value("random_bits", key, shape=(12,))
    np.testing.assert_array_equal(value("random_bits", key, shape=(3, 4)), flat.reshape(3, 4))
    np.testing.assert_array_equal(value("random_bits", key, shape=(5,)), flat[:5])
    zero = np.zeros(2, np.uint32)
    assert value("random_bits", zero, shape=())[()] == KNOWN[0][2][0]


# --- extremes, ties, zeros --------------------------------------------------------------------


def test_ties_of_max_share():
    x = np.array([[1.0, 3, 3], [2, 2, 2]])
    x_dot = np.array([[7.0, 1, 2], [1, 2, 6]])
    np.testing.assert_array_equal(jvp(use("max", x, axes=(1,)), [x_dot]), [1.5, 3])
    np.testing.assert_array_equal(jvp(use("min", x, axes=(1,)), [x_dot]), [7, 3])


def test_ties_of_maximum_share():
    x, y = np.array([1.0, 2, 3]), np.array([3.0, 2, 1])
    for name, expected in (("maximum", [0, 0.5, 1]), ("minimum", [1, 0.5, 0])):
        np.testing.assert_array_equal(jvp(use(name, x, y), [np.ones(3), None]), expected)


def test_derivatives_at_kinks():
    zero = np.zeros(1)
    one = np.ones(1)
    assert jvp(use("abs", zero), [one]) == 0
    assert jvp(use("sqrt", zero), [one]) == np.inf
    assert jvp(use("pow", zero, zero), [one, None]) == 0
    assert jvp(use("pow", zero, 2 * one), [None, one]) == 0
    assert jvp(use("pow", zero, one), [one, None]) == 1
    assert jvp(use("integer_pow", zero, exponent=1), [one]) == 1
    assert jvp(use("integer_pow", zero, exponent=0), [one]) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_prod_is_differentiable_at_zeros(n, zeros):
    if zeros > n:
        return
    x = np.arange(1.0, n + 1)
    x[:zeros] = 0
    expected = [np.prod(np.delete(x, k)) for k in range(n)]
    for k, unit in enumerate(np.eye(n)):
        assert jvp(use("prod", x, axes=(0,)), [unit]) == expected[k]


def test_argmax_takes_the_first():
    x = np.array([[1.0, 5, 5], [np.nan, 9, np.nan]])
    np.testing.assert_array_equal(value("argmax", x, axis=1), [1, 0])
    np.testing.assert_array_equal(value("argmin", -x, axis=1), [1, 0])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_second_operand_wins_among_zeros(dtype):
    x, y = np.array([-0.0, 0.0], dtype), np.array([0.0, -0.0], dtype)
    for name in ("maximum", "minimum"):
        np.testing.assert_array_equal(np.signbit(value(name, x, y)), np.signbit(y))


# --- scatter ----------------------------------------------------------------------------------


def test_the_last_writer_wins_and_gets_the_cotangent():
    sample = use(
        "scatter",
        np.zeros(4),
        np.array([1.0, 2, 3, 4]),
        np.array([1, 3, 1, 9]),
        axes=(0,),
        mode="drop",
        combine="set",
    )
    np.testing.assert_array_equal(run(sample)[0], [0, 3, 0, 2])
    ct = np.array([10.0, 20, 30, 40])
    np.testing.assert_array_equal(transposed(sample, ct, 0), [10, 0, 30, 0])
    np.testing.assert_array_equal(transposed(sample, ct, 1), [0, 40, 20, 0])


def test_ties_of_scattered_extremes_share():
    at = np.array([0, 0, 1, 2])
    sample = use(
        "scatter",
        np.array([5.0, 1, 9]),
        np.array([5.0, 5, 4, 3]),
        at,
        axes=(0,),
        mode="drop",
        combine="max",
    )
    np.testing.assert_array_equal(run(sample)[0], [5, 4, 9])
    x_dot, u_dot = np.array([3.0, 7, 8]), np.array([6.0, 9, 2, 1])
    np.testing.assert_array_equal(jvp(sample, [x_dot, u_dot, None]), [6, 2, 8])
    np.testing.assert_array_equal(jvp(sample, [x_dot, None, None]), [1, 0, 8])


def test_clipped_reads_add_up_at_the_ends():
    at = np.array([-5, 0, 2, 99], np.int8)
    sample = use("gather", np.array([1.0, 2, 3]), at, axes=(0,), mode="clip")
    np.testing.assert_array_equal(run(sample)[0], [1, 1, 3, 3])
    ct = np.array([1.0, 10, 100, 1000])
    np.testing.assert_array_equal(transposed(sample, ct, 0), [11, 0, 1100])


def test_clip_in_a_dtype_narrower_than_the_axis():
    x = np.arange(300.0)
    sample = use("gather", x, np.array([-1, 127], np.int8), axes=(0,), mode="clip")
    np.testing.assert_array_equal(run(sample)[0], [0, 127])
    found = transposed(sample, np.array([1.0, 2.0]), 0)
    assert (found[0], found[127], found.sum()) == (1, 2, 3)


def test_dynamic_slices_move_inside():
    x = np.arange(5.0)
    for start, expected in ((-9, [0, 1]), (1, [1, 2]), (4, [3, 4]), (2**40, [3, 4])):
        np.testing.assert_array_equal(
            value("dynamic_slice", x, np.int64(start), sizes=(2,)), expected
        )


# --- contract, windows ------------------------------------------------------------------------


def test_letters_have_roles():
    assert letters("bij,bjk->bik") == ("b", "i", "k", "j")
    assert letters("i,i->") == ("", "", "", "i")
    assert letters(",->") == ("", "", "", "")


def test_contract_is_einsum():
    rng = np.random.default_rng(0)
    x, y = rng.integers(-9, 9, (2, 3, 4)), rng.integers(-9, 9, (4, 5, 2))
    spec = "abc,cda->dab"
    np.testing.assert_array_equal(value("contract", x, y, spec=spec), np.einsum(spec, x, y))


def test_windows_read_position_and_offset():
    x = np.arange(10.0)
    found = value("window", x, axes=(0,), sizes=(3,), strides=(2,), dilations=(2,))
    np.testing.assert_array_equal(found, [[0, 2, 4], [2, 4, 6], [4, 6, 8]])
    back = value(
        "overlap_add",
        np.ones((3, 3)),
        axes=(0,),
        sizes=(3,),
        strides=(2,),
        dilations=(2,),
        shape=(10,),
    )
    np.testing.assert_array_equal(back, [1, 0, 2, 0, 3, 0, 2, 0, 1, 0])


# --- integers ---------------------------------------------------------------------------------


def test_integer_corner_cases():
    low = np.iinfo(np.int32).min
    x, y = np.array([7, -7, 7, low], np.int32), np.array([0, 2, -2, -1], np.int32)
    np.testing.assert_array_equal(value("floor_divide", x, y), [0, -4, -4, low])
    np.testing.assert_array_equal(value("remainder", x, y), [0, 1, -1, 0])
    bits = np.array([1, -1, -8], np.int32)
    over = np.array([40, 40, -1], np.int32)
    np.testing.assert_array_equal(value("shift_left", bits, over), [0, 0, 0])
    np.testing.assert_array_equal(value("shift_right", bits, over), [0, -1, -1])


def test_convert_is_like_a_cast():
    x = np.array([-1.9, 1.9, 0.0, 300.7])
    np.testing.assert_array_equal(value("convert", x, dtype="i32"), [-1, 1, 0, 300])
    np.testing.assert_array_equal(value("convert", x, dtype="bool"), [True, True, False, True])
    assert diffc.ops.find("convert").infer((aval("f64"),), {"dtype": "f16"}, ()) == (aval("f16"),)
