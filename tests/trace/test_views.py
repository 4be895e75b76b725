"""Views, aliasing and in-place writes: traced code means what NumPy means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffc.errors import TraceError
from diffc.trace import trace

A = np.arange(12.0).reshape(3, 4)
V = np.arange(1.0, 8.0)


def heat(u):
    for _ in range(3):
        u[1:-1] += 0.1 * (u[2:] - 2 * u[1:-1] + u[:-2])
    return u


def fill_rows(x):
    out = np.zeros((3, 4))
    for i in range(3):
        out[i] = x[i] * i
    return out


def triangle(x):
    out = np.empty((4, 4))
    for i in range(4):
        for j in range(4):
            out[i, j] = x[0, i] * x[1, j] if j <= i else 0.0
    return out


def write_through_transpose(x):
    t = x.T
    t[1] = 7
    t[:, 0] *= 2
    return x, t


def write_through_reshape(x):
    flat = x.reshape(-1)
    flat[::5] = -1
    pairs = flat.reshape(6, 2)
    pairs[:, 1] += 100
    return x


def copy_of_reshaped_transpose(x):
    flat = x.T.reshape(-1)  # NumPy copies here
    flat[:] = 0
    return x, flat


def reads_see_later_writes(x):
    row = x[1]
    before = row + 0
    x[:, 2] = 50
    return before, row, row.sum()


def swap(x):
    x[0], x[1] = x[1].copy(), x[0].copy()
    return x


def naive_swap(x):
    x[0], x[1] = x[1], x[0]  # NumPy's views alias: both rows end equal
    return x


def overlapping(x):
    x[1:] = x[:-1]
    return x


def negative_steps(x):
    x[::-1, ::-2] = np.arange(6.0).reshape(3, 2)
    x[::-1][0] -= 1
    return x[::-2, 1::-1]


def new_axes(x):
    y = x[:, None, ..., None]
    y[0, 0, :, 0] = 5
    return y.shape[0] * y


def newaxis_write(x):
    x[:, np.newaxis][1, 0, 2] = -3
    return x


def masks(x):
    x[x > 5] = 0
    m = x < 3
    x[m] += 1.0
    x[m] = 2 * x[m] - np.exp(-x.T.reshape(3, 4)[m]) / 3
    x[~m] **= 2
    rows = x[:, 0] > 1
    x[rows] *= np.array([1.0, 2, 3, 4])
    return x, x[m].sum(), np.mean(x[rows]), x[m].max() - x[m].min(), np.sqrt(x[m]).std(), x[m].size


def mask_rows(x):
    x[x[:, 0] > 3] = np.array([1.0, 2, 3, 4])
    return x


def fancy(x):
    x[[0, 2], [1, 3]] = [10, 20]
    x[[0, 0, 1]] += 1
    x[:, [1, 0]] = x[:, [0, 1]]
    return x[[2, 1]], x[:, [[0, 3], [1, 2]]], x[[0, 1], :, None], x[1, [0, 2]]


def separated(x):
    y = x.reshape(2, 3, 2)
    return y[[0, 1], :, [1, 0]], y[0, :, [1, 0]], y[[1, 0], 0], y[..., [0]], y[[0], None, [1]]


def augmented_elements(x):
    x[1, 2] += 5
    x[0][3] *= 2
    x[-1, -1] = x[0, 0] - 1
    return x


def scalars_are_values(x):
    s = x.sum()
    t = s
    s += 1
    e = x[1, 1]
    e -= 1
    return s, t, e, x


def zero_d(x):
    acc = np.zeros(())
    same = acc
    for row in x:
        acc += row.sum()
    return acc, same


def iterate(x):
    total = 0
    for row in x:
        for i, v in enumerate(row):
            total = total + v * i
    return total


def flips(x):
    np.flip(x, 0)[0] = 3
    np.swapaxes(x, 0, 1)[3] = 4
    np.moveaxis(x, 0, -1)[2, 1] = 5
    np.split(x, 2, axis=1)[1][:] += 0.5
    return x


def ravel_view(x):
    np.ravel(x)[3] = 9
    np.squeeze(x[None])[1, 1] = 8
    np.expand_dims(x, 1)[2, 0, 0] = 7
    np.diagonal(x)
    return x


def integer_array(x):
    n = np.zeros(3, dtype=int)
    n[0] = 2.9  # NumPy truncates
    n[1] = x[0, 1]
    n += 1
    return n


def broadcast_write(x):
    x[:] = x[0]
    x[:, 1:3] = 1
    x[...] *= 2
    return x


def empty_slices(x):
    x[3:] = 5
    x[:, 2:2] = 1
    x[0:0] += 1
    return x, x[2:1], x[5:], x[:, ::-1][:, :0]


def list_of_rows(x):
    rows = list(x)
    rows[1] += 10
    return np.stack(rows), x


def aliased_arguments(x):
    y = x
    y += 1
    z = y * 1
    z += 1
    return y, z


def strided_update(x):
    x[::2, 1::2] += 10
    x[1] = 0
    return x


PROGRAMS = [
    fill_rows, triangle, write_through_transpose, write_through_reshape,
    copy_of_reshaped_transpose, reads_see_later_writes, swap, naive_swap, overlapping,
    negative_steps, new_axes, newaxis_write, masks, mask_rows, fancy, separated,
    augmented_elements, scalars_are_values, zero_d, iterate, flips, ravel_view, integer_array,
    broadcast_write, empty_slices, list_of_rows, aliased_arguments, strided_update,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_program(program, check):
    check(program, A.copy())


def test_masked_update(check):
    def program(x):
        x[x < 2] = x[0]  # a row, where the number of elements is wanted
        return x

    with pytest.raises(TraceError, match="mask"):
        trace(program, [A])

    def fixed(x):
        x[x > 5] = 0
        x[...] = np.where(x < 2, x + 1, x)
        return x

    check(fixed, A.copy())


def test_heat(check):
    check(heat, V.copy())
    check(heat, np.arange(100.0))


def test_traced_index(check):
    def program(x, i, j):
        row = x[i]
        row += 1
        x[i, j] = 5
        x[:, j] *= 2
        return x, x[j, 1:], x[i, j], x[i][j], x[[i, 0], 1], np.take(x, [i, j], axis=0)

    check(program, A.copy(), np.int64(1), np.int64(2))
    check(program, A.copy(), -1, -2)


def test_index_arrays_as_arguments(check):
    def program(x, i, y):
        x[i] += 1
        return x[i], x[:, y], x[i, y], x[np.arange(3), y]

    check(program, A.copy(), np.array([0, -1, 1]), np.array([1, 2, -4], np.int32))
    check(program, A.copy(), np.array([0, 2, 1], np.uint8), np.array([1, 2, -4], np.int8))


def test_embedding_and_its_accumulation(check):
    def program(table, ids):
        counts = np.zeros(5)
        np.add.at(counts, ids, 1.0)
        return table[ids].sum(axis=-1), counts

    check(program, np.arange(10.0).reshape(5, 2), np.array([[0, 4], [4, 1]]))


def test_written_arguments_are_reported():
    def program(x, y, n):
        y[0] = x[1]
        n += 1
        return n

    traced = trace(program, [V, V.copy(), 3])
    assert traced.written == (1,)
    assert len(traced.graph.outputs) == traced.num_results + 1


def test_full_overwrite_keeps_nothing_of_the_old_value():
    def program(x, y):
        x[:] = y
        x[...] = x * 2
        return x

    traced = trace(program, [V, V])
    assert [eqn.op.name for eqn in traced.graph.eqns] == ["mul"]


INDICES = [
    slice(None), slice(1, None), slice(None, -1), slice(None, None, 2), slice(None, None, -1),
    slice(2, 0, -1), 0, -1, None, Ellipsis, slice(1, 1),
]  # fmt: skip


@st.composite
def aliasing_programs(draw):
    """Steps that take views of views and write through them."""
    steps = []
    for _ in range(draw(st.integers(1, 6))):
        steps.append(
            (
                draw(st.sampled_from(["index", "transpose", "reshape", "write", "add", "flip"])),
                draw(st.integers(0, 5)),
                tuple(draw(st.lists(st.sampled_from(INDICES), max_size=3))),
                draw(st.integers(-3, 3)),
            )
        )
    return steps


@given(aliasing_programs())
def test_aliasing_programs_mean_what_numpy_means(check, steps):
    def program(x):
        views = [x]
        for kind, which, key, value in steps:
            v = views[which % len(views)]
            if kind == "transpose":
                views.append(v.T)
            elif kind == "reshape":
                views.append(v.reshape(-1))
            elif kind == "flip":
                views.append(np.flip(v))
            elif key.count(Ellipsis) > 1 or sum(k not in (None, Ellipsis) for k in key) > v.ndim:
                continue
            else:
                try:
                    part = v[key]
                except IndexError:
                    continue
                if kind == "index":
                    if np.ndim(part):
                        views.append(part)
                elif kind == "write":
                    v[key] = value
                else:
                    v[key] += value * v.sum()
        return views

    try:
        program(A.copy())
    except IndexError:
        return
    check(program, A.copy())
