"""The conventions of `docs/reference/kinks.md`, in every mode, plain and within control flow."""

import numpy as np
import pytest

import diffc

NAN = float("nan")
INF = float("inf")


def relu(x):
    return np.maximum(x, 0.0)


def relu_from_left(x):
    return np.maximum(0.0, x)


def at_most(x):
    return np.minimum(x, 2.0)


def clip(x):
    return np.clip(x, -1.0, 2.0)


def greatest(x):
    return np.max(x)


def least(x):
    return np.min(x)


def pair(x):
    return np.maximum(x[0], x[1])


def pair_least(x):
    return np.minimum(x[0], x[1])


def power(p):
    return lambda x: x**p


def hypot(x):
    return np.hypot(x[0], x[1])


ONES, ZEROS = np.ones(2), np.zeros(2)

# function, choices, point, gradient of the sum there
CONVENTIONS = {
    "relu": (relu, {}, 0.0, 0.0),
    "relu = 1": (relu, {"relu": 1}, 0.0, 1.0),
    "relu = 1/2": (relu, {"relu": 0.5}, 0.0, 0.5),
    "relu from the left": (relu_from_left, {"relu": 1}, 0.0, 1.0),
    "relu elsewhere": (relu, {"relu": 1}, np.array([-1.0, 2.0]), np.array([0.0, 1.0])),
    "minimum": (at_most, {}, 2.0, 0.0),
    "minimum, relu = 1": (at_most, {"relu": 1}, 2.0, 1.0),
    "clip": (clip, {}, np.array([-1.0, 2.0]), ZEROS),
    "clip, relu = 1": (clip, {"relu": 1}, np.array([-1.0, 2.0, 3.0]), np.array([1.0, 1.0, 0.0])),
    "abs": (np.abs, {}, 0.0, 0.0),
    "abs = 1": (np.abs, {"abs": 1}, 0.0, 1.0),
    "abs = -1": (np.fabs, {"abs": -1}, -0.0, -1.0),
    "abs elsewhere": (np.abs, {"abs": 1}, np.array([-2.0, 3.0]), np.array([-1.0, 1.0])),
    "sign": (np.sign, {}, 0.0, 0.0),
    "max": (greatest, {}, ONES, ONES / 2),
    "max, first": (greatest, {"tie": "first"}, ONES, np.array([1.0, 0.0])),
    "max, all": (greatest, {"tie": "all"}, ONES, ONES),
    "min": (least, {}, np.array([1.0, 3.0, 1.0]), np.array([0.5, 0.0, 0.5])),
    "min, first": (least, {"tie": "first"}, np.array([3.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0])),
    "min, all": (least, {"tie": "all"}, np.array([3.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0])),
    "max of infinities": (greatest, {"tie": "all"}, np.array([INF, INF]), ZEROS),
    "maximum": (pair, {}, ONES, ONES / 2),
    "maximum, first": (pair, {"tie": "first"}, ONES, np.array([1.0, 0.0])),
    "maximum, all": (pair, {"tie": "all"}, ONES, ONES),
    "minimum, first": (pair_least, {"tie": "first"}, ONES, np.array([1.0, 0.0])),
    "minimum, no tie": (pair_least, {"tie": "first"}, np.array([2.0, 1.0]), np.array([0.0, 1.0])),
    "sqrt": (np.sqrt, {}, 0.0, INF),
    "sqrt = 0": (np.sqrt, {"sqrt": 0}, np.array([0.0, 4.0]), np.array([0.0, 0.25])),
    "sqrt = 3": (np.sqrt, {"sqrt": 3}, 0.0, 3.0),
    "half power": (power(0.5), {"sqrt": 0}, 0.0, 0.0),
    "norm": (np.linalg.norm, {}, ZEROS, ZEROS),
    "norm elsewhere": (np.linalg.norm, {}, np.array([3.0, -4.0]), np.array([0.6, -0.8])),
    "norm = nan": (np.linalg.norm, {"norm": NAN}, ZEROS, np.array([NAN, NAN])),
    "norm, 1": (lambda x: np.linalg.norm(x, 1), {}, ZEROS, ZEROS),
    "std": (np.std, {}, ONES, ZEROS),
    "hypot": (hypot, {}, ZEROS, ZEROS),
    "pow 0": (power(0), {}, 0.0, 0.0),
    "pow 1": (power(1), {}, 0.0, 1.0),
    "pow 1/3": (power(1 / 3), {}, 0.0, INF),
    "pow 3/2": (power(1.5), {}, 0.0, 0.0),
    "sort": (lambda x: np.sort(x) * np.array([1.0, 10.0]), {}, ONES, np.array([1.0, 10.0])),
}


def in_scan(f):
    def run(x):
        return diffc.scan(lambda c, _: (c + np.sum(f(x)), ()), 0.0, None, length=1)[0]

    return run


def in_cond(f):
    return lambda x: diffc.cond(np.all(x == x), lambda x: np.sum(f(x)), lambda x: 5.0, x)


PLACES = {
    "plain": lambda f: lambda x: np.sum(f(x)),
    "scan": in_scan,
    "cond": in_cond,
    "compiled": lambda f: diffc.jit(lambda x: np.sum(f(x))),
}


def reverse(f, x):
    return diffc.grad(f)(x)


def forward(f, x):
    return diffc.jacfwd(f)(x)


def by_series(f, x):
    x = np.asarray(x)
    units = np.eye(x.size).reshape(x.size, *x.shape)
    found = [diffc.jet(f, (x,), ([unit],))[1][0] for unit in units]
    return np.reshape(found, x.shape)


MODES = {"reverse": reverse, "forward": forward, "series": by_series}


@pytest.mark.filterwarnings("ignore::diffc.StructuralZeroWarning")  # sign, on purpose
@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions(name):
    f, choices, x, expected = CONVENTIONS[name]
    for mode in MODES.values():
        found = mode(PLACES["plain"](diffc.kinks(**choices)(f)), x)
        np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.parametrize("place", ["scan", "cond", "compiled"])
@pytest.mark.parametrize(
    "name", ["relu", "relu = 1", "abs = 1", "max, first", "maximum, all", "norm", "sqrt = 0"]
)
def test_conventions_in_control_flow(name, place):
    f, choices, x, expected = CONVENTIONS[name]
    for mode in (reverse, forward):
        found = mode(PLACES[place](diffc.kinks(**choices)(f)), x)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_choices_keep_values(name):
    f, choices, x, _ = CONVENTIONS[name]
    points = [x, np.array([1.5, NAN]), np.array([INF, INF]), np.array([-0.5, 0.25])]
    for point in points:
        with np.errstate(invalid="ignore"):
            expected = f(point)
        found = diffc.jit(diffc.kinks(**choices)(f))(point)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_batches_follow():
    f = diffc.vmap(diffc.grad(diffc.kinks(relu=1)(relu)))
    np.testing.assert_array_equal(f(np.array([0.0, -1.0, 1.0])), [1, 0, 1])


def test_a_part_of_a_function():
    def f(x):
        with diffc.kinks(relu=1):
            first = relu(x)
            with diffc.kinks(abs=-1):
                second = relu(x) + 10 * np.abs(x)
        return first + 100 * second + 10000 * relu(x) + 100000 * np.abs(x)

    assert diffc.grad(f)(0.0) == 1 + 100 * (1 - 10)


def test_choices_are_written_in_the_graph():
    def text(f):
        return diffc.jit(f).stages(1.0, until="trace").stage("trace").text

    assert "select" in text(diffc.kinks(relu=1)(relu))
    assert "select" not in text(relu)


def test_integers_have_no_kinks():
    f = diffc.kinks(relu=1, abs=1, tie="first")(lambda x: np.maximum(np.abs(x), 3))
    np.testing.assert_array_equal(diffc.jit(f)(np.array([-5, 3])), [5, 3])


def test_a_name_survives():
    assert diffc.kinks(relu=1)(relu).__name__ == "relu"


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"relu": INF}, "a finite number"),
        ({"relu": "1"}, "a finite number"),
        ({"abs": NAN}, "a finite number"),
        ({"tie": "last"}, "one of split, first, all"),
        ({"sqrt": NAN}, "inf or a finite number"),
        ({"norm": 1}, "0 or nan"),
    ],
)
def test_unknown_choices(choices, words):
    with pytest.raises(diffc.UsageError, match=words):
        diffc.kinks(**choices)


def test_what_would_not_follow_is_an_error():
    """Compiled code doesn't change with where it is called from."""
    slope = diffc.grad(relu)
    assert slope(0.0) == 0
    for late in (
        slope,
        lambda x: slope(x),
        diffc.jit(slope),
        lambda x: diffc.jvp(relu, (x,), (x,)),
    ):
        chosen = diffc.kinks(relu=1)(late)
        with pytest.raises(diffc.UsageError, match="would not follow its conventions"):
            chosen(0.0)
    assert diffc.jit(diffc.kinks(relu=1)(slope))(0.0) == 1
    assert slope(0.0) == 0


def test_values_outside_a_trace():
    f = diffc.kinks(relu=1)(lambda x: relu(diffc.scan(lambda c, v: (c + v, ()), 0.0, x)[0]))
    assert f(np.ones(3)) == 3


def test_one_compiled_function_in_two_places():
    inner = diffc.jit(relu)

    def f(x):
        first = inner(x)
        with diffc.kinks(relu=1):
            second = inner(x)
        return first + 10 * second + 100 * inner(x)

    assert diffc.grad(f)(0.0) == 10


def test_outside_a_trace_nothing_is_entered():
    with pytest.raises(diffc.UsageError, match="outside a trace"), diffc.kinks(relu=1):
        pass
    assert diffc.grad(relu)(0.0) == 0
