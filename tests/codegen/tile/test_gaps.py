"""Nests cut into what lies between rare points, and those points: the same values, no choice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffc
from diffc.codegen.loops.nodes import Choose, IndexValue, Kernel, Load, Par, Store
from diffc.codegen.loops.walk import expressions, operands, statements
from diffc.codegen.tile import tile
from diffc.codegen.tile.gaps import LEAST_GAP, LEAST_POINTS, by_gaps
from diffc.ir.index import Guard, Var, eq, lt
from tests.codegen.emit.kernels import HOST, apply, buffer, check, const


def spread(length: int, step: int, start: int, *, plain: bool = True) -> Kernel:
    """`y[start::step] = x`, and zeros, or twice what z has, between."""
    count = -(-(length - start) // step)
    x, y = buffer("x", "f32", (max(count, 1),)), buffer("y", "f32", (length,), "out")
    z, i = buffer("z", "f32", (length,)), Var("i", length)
    holds = eq(i % step, start % step) & lt(i, length - 1)
    other = const(0.0) if plain else apply("mul", "f32", Load(z, (i,)), const(2.0))
    value = apply("neg", "f32", Choose(holds, Load(x, (i // step,)), other))
    if plain:
        value = Choose(holds, Load(x, (i // step,)), other)
    return Kernel("spread", (x, z, y), (), (Par((i,), (Store(y, (i,), value),)),))


def pieces(kernel: Kernel) -> tuple[Par, ...]:
    (nest,) = kernel.body
    assert isinstance(nest, Par)
    return by_gaps(nest)


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("step", "start"), [(2, 0), (2, 1), (7, 3), (64, 63), (1001, 0), (2999, 5)]
)
def test_points_at_equal_steps(step: int, start: int, plain: bool) -> None:
    kernel = spread(3000, step, start, plain=plain)
    assert len(pieces(kernel)) == (2 if plain or step >= LEAST_GAP else 1)
    found = tile(kernel, HOST)
    if len(pieces(kernel)) == 2:
        roots = [root for stmt in statements(found.body) for root in operands(stmt)]
        guards = [node.guard for node in expressions(roots) if isinstance(node, Choose)]
        assert not any(cond.kind == "eq" for guard in guards for cond in guard)
    check(kernel, f32(*kernel.params[0].shape), f32(3000))


def test_short_nests_stay_whole() -> None:
    kernel = spread(LEAST_POINTS - 1, 7, 0)
    assert pieces(kernel) == kernel.body


def square(guard: Guard, i: Var, j: Var) -> Kernel:
    shape = i.extent, j.extent
    x, y = buffer("x", "f32", shape), buffer("y", "f32", shape, "out")
    value = Choose(guard, Load(x, (i, j)), const(-1.0))
    return Kernel("square", (x, y), (), (Par((i, j), (Store(y, (i, j), value),)),))


I, J = Var("i", 70), Var("j", 50)


@pytest.mark.parametrize(
    ("guard", "points"),
    [
        (eq((50 * I + J) % 51, 0), (69,)),
        (eq((50 * I + J) % 7, 3), (500,)),
        (eq(I % 9, 8) & eq(J % 4, 1), (7, 13)),
        (eq(J % 10, 2), (70, 5)),
        (eq((J + 3) % 10, 2), (70, 5)),
        (eq(I % 100, 80), (0, 50)),
        (eq((2 * J) % 10, 4), (70, 10)),
        (eq((I + J) % 9, 0), None),
        (eq(I % 9, 0) & eq((I + 1) % 4, 0), None),
        (eq((J + 50 * I) % 9, 0) & eq(J % 4, 0), None),
    ],
)
def test_where_the_points_are(guard: Guard, points: tuple[int, ...] | None) -> None:
    kernel = square(guard, I, J)
    found = pieces(kernel)
    if points is None or len(found) == 1:
        assert len(found) == 1
        assert points is None or points[0] == 0
    else:
        assert tuple(var.extent for var in found[1].vars) == points
    check(kernel, f32(70, 50))


def test_other_choices_at_such_points_stay_one_nest() -> None:
    x, y = buffer("x", "f32", (3000,)), buffer("y", "f32", (3000,), "out")
    i = Var("i", 3000)
    inner = Choose(eq(i % 9, 1), const(2.0), const(0.0))
    value = Choose(eq(i % 9, 0), Load(x, (i,)), inner)
    kernel = Kernel("both", (x, y), (), (Par((i,), (Store(y, (i,), value),)),))
    assert pieces(kernel) == kernel.body
    check(kernel, f32(3000))


def test_the_index_itself_is_that_of_the_point() -> None:
    y, i = buffer("y", "f32", (3000,), "out"), Var("i", 3000)
    value = Choose(eq(i % 9, 4), IndexValue("f32", i), const(0.0))
    kernel = Kernel("index", (y,), (), (Par((i,), (Store(y, (i,), value),)),))
    assert len(pieces(kernel)) == 2
    check(kernel)


def test_memory_of_the_operand_is_not_cleared_first() -> None:
    """Of a donated operand what lies between is lost, not what is read afterwards."""

    def doubled(x):
        return diffc.grad(lambda x: np.sum(np.diagonal(x) ** 2))(x)

    x = f32(100, 100)
    wanted = np.diag(2 * np.diagonal(x))
    found = diffc.jit(doubled, donate_argnums=0)(x.copy())
    np.testing.assert_array_equal(found, wanted)


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.booleans(),
)
def test_gradients_of_slices_with_steps(shape, steps, starts, is_joined) -> None:
    pick = tuple(slice(a, None, k) for a, k in zip(starts, steps, strict=True))
    x = np.random.default_rng(1).standard_normal(shape)

    def loss(x):
        return np.sum(x[pick] ** 3) + (np.sum(x * x) if is_joined else 0.0)

    wanted = 2 * x if is_joined else np.zeros_like(x)
    wanted[pick] += 3 * x[pick] ** 2
    np.testing.assert_allclose(diffc.jit(diffc.grad(loss))(x), wanted, rtol=1e-14)
