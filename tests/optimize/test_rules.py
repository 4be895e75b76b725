"""Every rule of the table: proved by SymPy, exact where it says so, stable, ordered, needed."""

import itertools

import numpy as np
import pytest

import diffc.ops
from diffc.ir.aval import BOOLS, DTYPES, FLOATS, INTEGERS, is_float
from diffc.optimize import default_rules, rule_names
from diffc.optimize.driver import COMMUTATIVE
from diffc.optimize.rule import EXACT, FINITE, REALS, Node, Number, Variable, always, rule, rules
from diffc.optimize.table import ARITHMETIC, CHOICES, STABLE, TABLE
from diffc.symbolic.rules import (
    booleans,
    counterexample,
    dtypes_to_try,
    errors_in_f32,
    prove_rule,
    variables,
)
from tests.ops.samples import special_values

RULES = list(TABLE.values())
FLAGS = np.array([False, True])

every_rule = pytest.mark.parametrize("tested", RULES, ids=lambda tested: tested.name)


def values_of(dtype):
    """All integers of 8 bits, booleans; of floats the special values and some drawn ones."""
    if DTYPES[dtype].kind == "b":
        return FLAGS
    if DTYPES[dtype].kind in "iu":
        return np.arange(256).astype(np.uint8).view(DTYPES[dtype])
    drawn = np.random.default_rng(5).normal(size=6) * np.array([1e-3, 1, 1, 30, 1e3, 1])
    return np.concatenate([special_values(dtype), drawn.astype(DTYPES[dtype])])


# --- truth ------------------------------------------------------------------------------------


@every_rule
def test_rule_is_proved(tested):
    if tested.dtypes <= INTEGERS:
        return  # every value of 8 bits is tried below
    check = prove_rule(tested)
    assert check.verdict == "proved", check


@every_rule
def test_exact_rule_keeps_every_bit(tested):
    if tested.exactness != EXACT:
        return
    dtypes = dtypes_to_try(tested)
    assert dtypes
    for dtype in dtypes:
        values = values_of(dtype)
        if len(variables(tested.pattern)) - len(booleans(tested)) > 2:
            values = values[:: len(values) // 24 + 1]
        assert counterexample(tested, dtype, values, FLAGS) is None, dtype


@every_rule
def test_finite_rule_holds_without_nan_and_inf_and_needs_that(tested):
    if tested.exactness != FINITE:
        return
    values = values_of("f64")
    finite = values[np.isfinite(values) & (values > 0)]
    assert counterexample(tested, "f64", finite, FLAGS) is None
    assert counterexample(tested, "f64", values, FLAGS) is not None, "it is exact: say so"


@every_rule
def test_reals_rule_is_not_exact(tested):
    if tested.exactness == REALS:
        assert counterexample(tested, "f32", values_of("f32"), FLAGS) is not None, "say EXACT"


def test_a_false_rule_is_found():
    wrong = rule("wrong", "add(x, 0)", "x", EXACT, why="-0.0 + 0.0 is 0.0")
    assert "-0.0" in counterexample(wrong, "f32", values_of("f32"), FLAGS)
    assert prove_rule(wrong).verdict == "proved"  # of real numbers it holds
    false = rule("false", "sin(add(x, y))", "add(sin(x), sin(y))", REALS, why="no")
    assert prove_rule(false).verdict == "failed"
    hard = rule("hard", "mul(x, 1)", "mul(x, 1.0000001)", REALS, why="no")
    assert prove_rule(hard).verdict == "failed"


# --- stability --------------------------------------------------------------------------------

FAR = [(x,) for x in (-800.0, -90.0, -20.0, -1.0, 0.5, 17.0, 20.0, 90.0, 800.0)]
NEAR = [(x,) for x in (1e-12, 1e-8, -1e-8, 3e-4)]
POINTS = {
    "log1p": NEAR,
    "expm1": NEAR,
    "log_quotient_exp": [(x, y) for (x,) in FAR for y in (0.5, 3.0)],
}


@every_rule
def test_stabilizing_rule_lowers_the_error(tested):
    if not tested.stabilizes:
        return
    assert tested.exactness == REALS
    before, after = errors_in_f32(tested, POINTS.get(tested.name, FAR))
    assert after < 2e-6
    assert before > 1e3 * after


# --- the table --------------------------------------------------------------------------------


def test_names_are_unique():
    assert len(rule_names()) == len(set(rule_names()))
    assert len(TABLE) == len(ARITHMETIC) + len(CHOICES) + len(STABLE)
    twice = rule("twice", "mul(x, 1)", "x", EXACT, why="")
    with pytest.raises(ValueError, match="two rules are named twice"):
        rules(twice, twice)


def test_on_by_default_are_exact_and_stabilizing_ones():
    for tested in RULES:
        wanted = tested.exactness == EXACT or tested.stabilizes
        assert (tested.name in default_rules()) is wanted


@every_rule
def test_rule_has_its_reason_and_known_ops(tested):
    assert tested.why
    for side in (tested.pattern, tested.replacement):
        for node in nodes(side):
            assert diffc.ops.find(node.op)
    assert set(variables(tested.replacement)) <= set(variables(tested.pattern))


def nodes(pattern):
    """The nodes of a pattern."""
    if not isinstance(pattern, Node):
        return []
    return [pattern, *(node for arg in pattern.args for node in nodes(arg))]


#: what equations cost in the one order in which every rule goes down
COSTS = {"log": 100, "log1p": 10, "exp": 10, "expm1": 10, "logistic": 8, "sqrt": 8, "div": 6}
COSTS |= {"mul": 2, "add": 2, "sub": 2, "maximum": 2, "minimum": 2, "select": 2}
COSTS |= {"neg": 1, "abs": 1, "gt": 1, "cos": 4}
COSTS |= {"bitwise_not": 1, "bitwise_and": 1, "bitwise_or": 1}


def cost(pattern):
    """Sum of the costs of a pattern's equations, equal ones once; operands are shared.

    ``exp`` of ``-|x|``, written as a select by the sign, is at most 1 and nothing stabilizes it: it
    costs little.
    """
    total = 0
    for node in set(nodes(pattern)):
        tame = node.op == "exp" and [n.op for n in nodes(node)[1:]] == ["select", "gt", "neg"]
        total += 1 if tame else COSTS[node.op]
    return total


@every_rule
def test_rule_goes_down(tested):
    assert cost(tested.replacement) < cost(tested.pattern)


def matches(general, special):
    """Whether every term of the special pattern is one of the general pattern."""

    def match(one, other, bound):
        match one:
            case Variable(name):
                return bound.setdefault(name, other) == other
            case Number():
                return one == other
            case Node(op, args, _):
                same = isinstance(other, Node) and op == other.op and len(args) == len(other.args)
                return same and all(
                    match(a, b, bound) for a, b in zip(args, other.args, strict=True)
                )

    return match(general, special, {})


def test_no_rule_is_subsumed_by_an_earlier_one():
    for earlier, later in itertools.combinations(RULES, 2):
        if earlier.when is always and later.dtypes <= earlier.dtypes:
            hidden = matches(earlier.pattern, later.pattern) and (earlier.is_on or not later.is_on)
            assert not hidden, f"{later.name} never fires: {earlier.name} does"


@pytest.mark.parametrize("name", sorted(COMMUTATIVE))
def test_commutative_ops_commute(name):
    op = diffc.ops.find(name)
    for dtype in ("f32", "f64", "i8", "u8", "bool"):
        if dtype not in op.dtypes:
            continue
        x, y = (axis.ravel() for axis in np.meshgrid(values_of(dtype), values_of(dtype)))
        with np.errstate(all="ignore"):
            left, right = op.numpy(x, y), op.numpy(y, x)
        if name in ("maximum", "minimum"):  # zeros of different sign compare equal
            apart = ~((x == 0) & (y == 0))
            left, right = left[apart], right[apart]
        np.testing.assert_array_equal(left, right)
        if is_float(left.dtype):
            known = ~np.isnan(left)
            np.testing.assert_array_equal(np.signbit(left[known]), np.signbit(right[known]))


def test_ops_that_do_not_commute_are_not_said_to():
    assert not COMMUTATIVE & {"sub", "div", "pow", "lt", "shift_left", "arctan2", "remainder"}


def test_families_of_dtypes_are_tried():
    assert dtypes_to_try(TABLE["mul_one"]) == [*sorted(FLOATS), "i8", "u8"]
    assert dtypes_to_try(TABLE["not_not"]) == sorted(BOOLS)
