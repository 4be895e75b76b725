"""Index expressions: every simplification against brute force over the whole domain."""

import copy
import itertools
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffc.ir.index import (
    FALSE,
    TRUE,
    Cond,
    Dim,
    Expr,
    Guard,
    Symbol,
    Var,
    bounds,
    coefficient,
    dim,
    divisible,
    eq,
    evaluate,
    free,
    ge,
    is_nonnegative,
    linear_in,
    lt,
    parse,
    parse_guard,
    ravel,
    size,
    strides,
    substitute,
    unravel,
)

I, J, L, X = Var("i", 3), Var("j", 4), Var("l", 5), Var("x", 120)
N, M = Symbol("n"), Symbol("m")
SCOPE: dict[str, Dim] = {"i": I, "j": J, "l": L, "x": X, "n": N, "m": M}
LOOKUP = SCOPE.__getitem__

# One point a column: all values of i, j, l and of a dimension n.
_GRID = np.meshgrid(np.arange(3), np.arange(4), np.arange(5), np.arange(6), indexing="ij")
ENV: dict[Expr, np.ndarray] = {
    atom: axis.ravel() for atom, axis in zip((I, J, L, N), _GRID, strict=True)
}

Tree = tuple[Dim, np.ndarray]
_LEAVES = st.one_of(
    st.sampled_from(list(ENV.items())),
    st.integers(-30, 30).map(lambda c: (c, np.full(360, c))),
)


def _grow(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    by = st.sampled_from([1, 2, 3, 4, 5, 6, 8, 12, 15, 24])
    return st.one_of(
        st.tuples(children, children).map(lambda p: (p[0][0] + p[1][0], p[0][1] + p[1][1])),
        st.tuples(children, children).map(lambda p: (p[0][0] - p[1][0], p[0][1] - p[1][1])),
        st.tuples(children, st.integers(-12, 12)).map(lambda p: (p[0][0] * p[1], p[0][1] * p[1])),
        st.tuples(children, by).map(lambda p: (p[0][0] // p[1], p[0][1] // p[1])),
        st.tuples(children, by).map(lambda p: (p[0][0] % p[1], p[0][1] % p[1])),
    )


# Pairs of an expression, simplified as it was built, and its values, computed by NumPy alone.
TREES = st.recursive(_LEAVES, _grow, max_leaves=12)


@settings(max_examples=600, deadline=None)
@given(TREES)
def test_simplification_keeps_every_value(tree: Tree) -> None:
    expr, values = tree
    assert np.array_equal(np.broadcast_to(evaluate(expr, ENV), values.shape), values)


@settings(max_examples=300, deadline=None)
@given(TREES)
def test_bounds_contain_every_value(tree: Tree) -> None:
    expr, values = tree
    low, high = bounds(expr)
    assert low is None or low <= values.min()
    assert high is None or high >= values.max()
    if N not in free(expr):
        assert low is not None
        assert high is not None


@settings(max_examples=300, deadline=None)
@given(TREES)
def test_text_parses_back_to_an_equal_expression(tree: Tree) -> None:
    expr, values = tree
    again = parse(str(expr), LOOKUP)
    assert np.array_equal(np.broadcast_to(evaluate(again, ENV), values.shape), values)
    assert again == expr
    assert hash(again) == hash(expr)
    assert str(again) == str(expr)


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_normal_form_is_rebuilt_by_substitution_and_pickle(tree: Tree) -> None:
    expr, _ = tree
    assert substitute(expr, {}) == expr
    assert pickle.loads(pickle.dumps(expr)) == expr
    assert copy.deepcopy(expr) == expr
    assert not isinstance(expr, Expr) or free(expr)


@settings(max_examples=200, deadline=None)
@given(TREES, TREES)
def test_substitution_commutes_with_evaluation(tree: Tree, other: Tree) -> None:
    replaced = substitute(tree[0], {I: other[0]})
    expected = evaluate(tree[0], {**ENV, I: other[1]})
    assert np.array_equal(
        np.broadcast_to(evaluate(replaced, ENV), (360,)), np.broadcast_to(expected, (360,))
    )


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_linear_split_adds_up(tree: Tree) -> None:
    expr, values = tree
    split = linear_in(expr, (I, J))
    if split is None:
        assert coefficient(expr, I) is None or coefficient(expr, J) is None
        return
    steps, rest = split
    assert free(rest).isdisjoint({I, J})
    assert steps[I] * I + steps[J] * J + rest == expr
    assert coefficient(expr, I) == steps[I]
    total = evaluate(steps[I], ENV) * ENV[I] + evaluate(steps[J], ENV) * ENV[J]
    assert np.array_equal(np.broadcast_to(total + evaluate(rest, ENV), (360,)), values)


@settings(max_examples=200, deadline=None)
@given(TREES, st.integers(1, 12))
def test_quotients_follow_floor_division(tree: Tree, k: int) -> None:
    expr, values = tree
    quotient, remainder = divmod(expr, k)
    assert np.array_equal(np.broadcast_to(evaluate(quotient, ENV), (360,)), values // k)
    assert np.array_equal(np.broadcast_to(evaluate(remainder, ENV), (360,)), values % k)
    if divisible(expr, k):
        assert not (values % k).any()


@settings(max_examples=300, deadline=None)
@given(*[st.integers(-30, 30)] * 5, st.integers(1, 30))
def test_both_halves_of_an_affine_expression_recombine(
    i: int, j: int, x: int, n: int, const: int, k: int
) -> None:
    expr = i * I + j * J + x * X + n * N + const
    assert k * (expr // k) + expr % k == expr
    assert expr - k * (expr // k) == expr % k


@pytest.mark.parametrize(
    ("text", "k"),
    [("6*(x%3) - x", 4), ("10*x - 10*(x//2) + 6", 6), ("2*(x%4) + x//4", 4), ("11*l - l%4 + 4", 8)],
)
def test_rewriting_ends_where_a_part_recombines(text: str, k: int) -> None:
    expr = parse(text, LOOKUP)
    for x, l in itertools.product(range(120), range(5)):
        env = {X: x, L: l}
        assert evaluate(expr // k, env) == evaluate(expr, env) // k
        assert evaluate(expr % k, env) == evaluate(expr, env) % k


# --- single rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(4*i + j) // 4", "i"),
        ("(4*i + j) % 4", "j"),
        ("(4*i + j + 3) // 4", "i + (j + 3)//4"),  # j + 3 leaves 0 .. 3
        ("(4*i + l) // 4", "i + l//4"),
        ("(4*i + l) % 4", "l%4"),
        ("x//4//2", "x//8"),
        ("(x//4 + 1)//2", "(x + 4)//8"),
        ("x%8%4", "x%4"),
        ("x%8//4", "x//4%2"),
        ("x%6%4", "x%6%4"),  # 4 does not divide 6
        ("x//1", "x"),
        ("x%1", "0"),
        ("x//120", "0"),
        ("x%120", "x"),
        ("x%119", "x%119"),
        ("6*x//4", "3*x//2"),
        ("6*x%4", "2*(3*x%2)"),
        ("(12*i + 4*j + 3)%8", "4*((i + j)%2) + 3"),
        ("(119 - x)//8", "14 - x//8"),
        ("(119 - x)%8", "7 - x%8"),
        ("-x//8", "-((x + 7)//8)"),
        ("x - x//4*4", "x%4"),
        ("x%4 - x", "-4*(x//4)"),
        ("4*(x//4) + x%4", "x"),
        ("8*(x//8) + 4*(x//4%2) + x%4", "x"),
        ("8*(x//4) + 2*(x%4) + i", "2*x + i"),
        ("4*(x//4) + 2*(x%4)", "4*(x//4) + 2*(x%4)"),
        ("n*64//n", "64"),
        ("(n*m + 3*m)//m", "n + 3"),
        ("64*n*m//(64*m)", "n"),
        ("(n*n + 2*n + 1)//(n + 1)", "n + 1"),
        ("n*64%n", "0"),
        ("n*64//32", "2*n"),
        ("0//n", "0"),
        ("(n + 1)*(m - 1)", "n*m - n + m - 1"),
        ("(n//2)*(m//2)", "(m//2)*(n//2)"),
        ("i - i", "0"),
    ],
)
def test_simplifies(text: str, expected: str) -> None:
    # The right side stands for its text: what prints alike here is equal.
    got = parse(text, LOOKUP)
    assert got == parse(expected, LOOKUP)
    values = {I: 2, J: 3, L: 4, X: 107, N: 3, M: 5}
    names = {"i": 2, "j": 3, "l": 4, "x": 107, "n": 3, "m": 5}
    assert evaluate(got, values) == eval(text, names)


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (4 * I + L // 4 + N, "4*i + l//4 + n"),
        (3 - I, "3 - i"),
        (-I - 3, "-i - 3"),
        (-(X // 4), "-(x//4)"),
        (2 * (X // 4), "2*(x//4)"),
        ((X + 1) // 4, "(x + 1)//4"),
        (X // 4 % 2, "(x//4)%2"),
        (N * M - 1, "m*n - 1"),
        (N * I, "i*n"),
        (N * N, "n*n"),
    ],
)
def test_prints(expr: Dim, text: str) -> None:
    assert str(expr) == text
    assert parse(text, LOOKUP) == expr


@pytest.mark.parametrize(
    "build",
    [
        lambda: I * J,
        lambda: I * (X // 4),
        lambda: X // N,
        lambda: (N + 1) % N,  # 1 % n is 0 for n == 1
        lambda: N // I,
        lambda: 7 // N,
        lambda: I // -2,
        lambda: (N * 63) // (2 * N),
        lambda: Var("v", -1),
    ],
)
def test_what_is_not_quasi_affine_is_an_error(build: Callable[[], Dim]) -> None:
    with pytest.raises(ValueError, match=r"affine|known|negative|index"):
        build()


def test_division_by_zero() -> None:
    with pytest.raises(ZeroDivisionError):
        I // 0


def test_integers_of_numpy_are_accepted_and_floats_are_not() -> None:
    assert I + np.int64(2) == I + 2
    assert I * np.int32(2) // np.int8(2) is I
    assert type((I + np.int64(2)) - I) is int
    assert type(dim(np.int64(3))) is int
    for operation in (lambda: I + 0.5, lambda: 0.5 * I, lambda: I // 2.0, lambda: I - "n"):  # type: ignore[operator]
        with pytest.raises(TypeError):
            operation()


def test_variables_are_equal_by_name_and_extent() -> None:
    assert Var("i", 3) is I
    assert Var("i", 4) != I
    assert Symbol("n") is N
    assert Symbol("i") != I
    assert Var("i", 4) - I != 0
    assert I != 3
    assert (I + 1) in {1 + I}
    assert copy.deepcopy(X // 4) is X // 4


def test_order_of_terms_does_not_depend_on_history() -> None:
    a, b = Var("i", 7), Var("i", 11)
    assert (a + b).terms == (b + a).terms
    assert str(N + J + X // 4 + I) == str(I + X // 4 + J + N) == "i + j + x//4 + n"


# --- indices with symbolic extents


def test_symbolic_extents_bound_their_indices() -> None:
    a, b = Var("a", N), Var("b", M)
    assert is_nonnegative(N - 1 - a)
    assert not is_nonnegative(N - 2 - a)
    assert is_nonnegative(N * M - 1 - (M * a + b))
    assert bounds(N - a) == (1, None)
    offset = ravel((a, b), (N, M))
    assert str(offset) == "a*m + b"
    assert unravel(offset, (N, M)) == (a, b)
    assert unravel(ravel((a, J), (N, 4)), (2 * N, 2))[1] == J % 2
    assert linear_in(offset, (a, b)) == ({a: M, b: 1}, 0)
    assert (M * a - 1) // M == a - 1
    assert substitute(offset, {N: 8, M: 4}) == 4 * Var("a", 8) + Var("b", 4)


def test_triangular_extents() -> None:
    row = Var("row", 8)
    column = Var("column", row + 1)
    assert bounds(column) == (0, 7)
    assert is_nonnegative(row - column)


def test_an_index_without_values_is_harmless() -> None:
    none = Var("z", 0)
    assert bounds(none) == (0, 0)
    assert str(unravel(ravel((none, I), (0, 3)), (0, 3))) == "(0, 0)"
    assert unravel(I, (3, 0)) == (0, 0)
    assert unravel(0, ()) == ()
    assert ravel((), ()) == 0
    assert size((2, 0, N)) == 0


# --- maps


SHAPES_OF_24 = [(24,), (6, 4), (2, 3, 4), (4, 6), (3, 8), (2, 2, 2, 3), (1, 24), (6, 1, 4), (8, 3)]


def _indices(shape: tuple[int, ...]) -> tuple[Var, ...]:
    return tuple(Var(f"v{axis}", extent) for axis, extent in enumerate(shape))


@pytest.mark.parametrize("first", SHAPES_OF_24)
@pytest.mark.parametrize("second", SHAPES_OF_24)
@pytest.mark.parametrize("third", [(24,), (4, 6), (3, 2, 4)])
def test_reshapes_there_and_back_are_the_identity(
    first: tuple[int, ...], second: tuple[int, ...], third: tuple[int, ...]
) -> None:
    start = _indices(first)
    index: tuple[Dim, ...] = start
    for source, target in itertools.pairwise((first, second, third, second, first)):
        index = unravel(ravel(index, source), target)
    expected = tuple(0 if extent == 1 else var for var, extent in zip(start, first, strict=True))
    assert index == expected


def test_reshape_and_transpose_collapse_to_strides() -> None:
    i, j, k = _indices((2, 3, 4))
    assert unravel(ravel((i, j, k), (2, 3, 4)), (6, 4)) == (3 * i + j, k)
    # heads: (8, 15) -> (8, 3, 5) -> (3, 8, 5), read back from the storage of (8, 15)
    h, r, c = _indices((3, 8, 5))
    row, column = unravel(ravel((r, h, c), (8, 3, 5)), (8, 15))
    assert (row, column) == (r, 5 * h + c)
    assert linear_in(ravel((row, column), (8, 15)), (h, r, c)) == ({h: 5, r: 15, c: 1}, 0)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(SHAPES_OF_24[1:]), min_size=2, max_size=5), st.randoms())
def test_chains_of_reshape_and_transpose_against_numpy(shapes: list, random: object) -> None:
    """Follows each element of a chain of reshapes and transposes back to where it came from."""
    array = np.arange(24)
    steps = []
    for shape in shapes:
        order = list(range(len(shape)))
        random.shuffle(order)  # type: ignore[attr-defined]
        array = array.reshape(shape).transpose(order)
        steps.append((shape, order))
    start = _indices(array.shape)
    index: tuple[Dim, ...] = start
    for position in range(len(steps) - 1, -1, -1):
        shape, order = steps[position]
        before: list[Dim] = [0] * len(order)
        for axis, source in enumerate(order):
            before[source] = index[axis]
        flat = ravel(before, shape)
        if position == 0:
            break
        previous, previous_order = steps[position - 1]
        index = unravel(flat, [previous[axis] for axis in previous_order])
    env = dict(zip(start, np.indices(array.shape), strict=True))
    assert np.array_equal(np.broadcast_to(evaluate(flat, env), array.shape), array)


def test_strides_and_sizes() -> None:
    assert strides((2, 3, 4)) == (12, 4, 1)
    assert strides((N, M, 4)) == (4 * M, 4, 1)
    assert strides(()) == ()
    assert size(()) == 1
    assert size((N, 64)) == 64 * N
    with pytest.raises(ValueError, match="axes"):
        ravel((I,), (3, 4))


# --- queries


def test_strides_within_a_quotient_are_unknown() -> None:
    assert linear_in(I + X // 4, (X,)) is None
    assert linear_in(I + X // 4, (I,)) == ({I: 1}, X // 4)
    assert linear_in(7, (I,)) == ({I: 0}, 7)
    assert linear_in(N * (X // 4), (X,)) is None
    assert linear_in(N * I + 2 * I, (I,)) == ({I: N + 2}, 0)
    assert linear_in(N * I, (I, N)) is None
    assert coefficient(I + X // 4, X) is None
    assert free(I + N * (X // 4) + 1) == {I, N, X}


def test_divisible() -> None:
    assert divisible(8 * X + 4 * I, 4)
    assert not divisible(8 * X + 4 * I, 8)
    assert divisible(64 * N, N)
    assert not divisible(64 * N, M)
    assert divisible(0, 4)


def test_evaluate_names_what_is_missing() -> None:
    assert evaluate(X // 4 + N, {X: 9, N: 1}) == 3
    with pytest.raises(KeyError, match="n"):
        evaluate(X // 4 + N, {X: 9})


# --- guards


_RELATIONS = {ge: np.greater_equal, lt: np.less, eq: np.equal}
_CONDS = st.tuples(st.sampled_from([ge, lt, eq]), TREES, TREES)


@settings(max_examples=400, deadline=None)
@given(st.lists(_CONDS, max_size=4))
def test_guards_keep_every_value(parts: list) -> None:
    guard = TRUE
    expected = np.full(360, True)
    for relation, (left, a), (right, b) in parts:
        guard = guard & relation(left, right)
        expected &= _RELATIONS[relation](a, b)
    assert np.array_equal(np.broadcast_to(guard.evaluate(ENV), (360,)), expected)
    assert parse_guard(str(guard), LOOKUP) == guard
    assert Guard(guard) == guard
    assert Guard(reversed(list(guard))) == guard
    assert guard.substitute({}) == guard
    assert not guard.is_true or expected.all()
    assert not guard.is_false or not expected.any()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x >= 1 & x < 9", "x >= 1 & x < 9"),
        ("x < 9 & x >= 1", "x >= 1 & x < 9"),
        ("x >= 0 & x < 120", "true"),
        ("x >= 120", "false"),
        ("x >= 5 & x < 5", "false"),
        ("x >= 3 & x >= 5 & x < 90 & x < 80", "x >= 5 & x < 80"),
        ("x >= 3 & x <= 3", "x == 3"),
        ("x == 3 & x < 9", "x == 3"),
        ("x == 3 & x > 9", "false"),
        ("2*x == 5", "false"),
        ("2*x >= 5", "x >= 3"),
        ("6*x < 4*i + 5", "3*x <= 2*i + 2"),
        ("i < n & n > i", "i < n"),
        ("4*i + j >= 0", "true"),
        ("x >= 119", "x >= 119"),
        ("3 >= 4", "false"),
        ("3 == 3", "true"),
    ],
)
def test_guard_normal_form(text: str, expected: str) -> None:
    assert str(parse_guard(text, LOOKUP)) == str(parse_guard(expected, LOOKUP))
    assert parse_guard(text, LOOKUP) == parse_guard(expected, LOOKUP)


def test_guard_text_is_what_one_writes() -> None:
    assert str(ge(X, 1) & lt(X, 9)) == "x >= 1 & x < 9"
    assert str(lt(I, N)) == "i < n"
    assert str(eq(X, 2 * I)) == "2*i == x"
    assert str(TRUE) == "true"
    assert str(FALSE) == "false"
    assert str(ge(I + J, L)) == "i + j >= l"


def test_guard_interface() -> None:
    guard = ge(X, 1) & lt(X, N)
    assert guard.free() == {X, N}
    assert len(list(guard)) == 2
    assert all(isinstance(cond, Cond) for cond in guard)
    assert guard & TRUE is guard
    assert TRUE & guard is guard
    assert (guard & FALSE).is_false
    assert TRUE.is_true
    assert guard.substitute({N: 200}) == ge(X, 1)
    assert guard.substitute({X: 0}) == FALSE
    assert guard & ge(X, 0) == guard  # guard implies it
    assert guard.evaluate({X: 3, N: 4}) is True
    assert TRUE.evaluate({}) is True
    with pytest.raises(TypeError, match="truth"):
        bool(guard)


# --- text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("i +", "the end"),
        ("(i", "parenthesis"),
        ("i j", "unexpected 'j'"),
        ("i $ 2", "unexpected"),
        ("k + 1", "unknown name 'k'"),
        ("i // 0", "zero"),
        ("", "the end"),
        ("* 2", "expected a value"),
    ],
)
def test_malformed_text_is_an_error(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text, LOOKUP)


def test_malformed_guards_are_errors() -> None:
    with pytest.raises(ValueError, match="comparison"):
        parse_guard("i + 1", LOOKUP)
    with pytest.raises(ValueError, match="unexpected"):
        parse_guard("i < 2 i", LOOKUP)


def test_symbol_is_a_lookup() -> None:
    assert parse("n*64", Symbol) == 64 * N


# --- cost


def test_long_sums_and_deep_quotients_stay_small() -> None:
    total: Dim = 0
    for number in range(2000):
        total = total + Symbol("s") * (number % 3)
    assert total == 1999 * Symbol("s")
    deep: Dim = X
    for level in range(14):  # each level holds the one below twice; its text doubles, keys do not
        deep = (deep // 7) * 5 + deep % 5 + level
    assert isinstance(deep, Expr)
    assert all(len(atom.key[1]) <= 160 for atom, _ in deep.terms)
