"""Every op of the registry: each facet against another one."""

import itertools
import math
import warnings

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

import diffc.ops
from diffc.ir.aval import FLOATS, aval, aval_of, is_float, wide
from diffc.ir.index import Symbol, Var, evaluate, substitute
from diffc.ops.declare import (
    ByParams,
    Fold,
    Linear,
    Map,
    Move,
    Partials,
    Regional,
    Routes,
    Undefined,
    Waived,
    Zero,
    plain,
)
from diffc.ops.term import ArrayTerm
from tests.ops.local import jvp, run, transposed, transposed_aval
from tests.ops.samples import Sample, cases, elementwise_avals, fill, op_dtypes, samples, specials
from tests.ops.symbols import NAMES, SymbolTerm, meaning

OPS = list(diffc.ops.every_op())


def of(*kinds):
    return [op for op in OPS if isinstance(op.derivative, kinds)]


def every(ops):
    return pytest.mark.parametrize("op", ops, ids=lambda op: op.name)


def same(found, expected):
    """Bit for bit, but one nan is like another."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if is_float(found.dtype):
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        kept = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found[kept]), np.signbit(expected[kept]))
    np.testing.assert_array_equal(*(x.astype(wide(x.dtype)) for x in (found, expected)))


# --- avals ------------------------------------------------------------------------------------


@every(OPS)
def test_aval_is_that_of_numpy(op):
    # the interpreter raises unless the facet gives exactly the inferred avals
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sample in [*samples(op), *specials(op)]:
            inferred = op.infer(sample.avals, sample.params, sample.regions)
            found = tuple(map(aval_of, run(sample)))
            assert found == inferred, sample


def at(dim, n):
    return substitute(dim, {Symbol("n"): n}) if not isinstance(dim, int) else dim


@every(OPS)
def test_aval_of_a_symbol_holds_for_its_sizes(op):
    n = Symbol("n")
    if op.is_elementwise:
        for dtype in op_dtypes(op):
            params = next(samples(op, (dtype,)).__iter__()).params
            (result,) = op.infer(elementwise_avals(op, dtype, (n, 4)), params, ())
            assert result.shape == (n, 4)
    for case in cases(op):
        dtype = min(case.dtypes & {"f32", "bool"} or case.dtypes)
        general = case.sample(dtype, n)
        symbolic = op.infer(general.avals, general.params, general.regions)
        for size in (s for s in (*case.sizes, 17) if s >= case.least):
            special = case.sample(dtype, size)
            known = op.infer(special.avals, special.params, special.regions)
            for left, right in zip(symbolic, known, strict=True):
                assert left.dtype == right.dtype
                assert tuple(at(dim, size) for dim in left.shape) == right.shape, general


# --- meanings ---------------------------------------------------------------------------------


@every([op for op in OPS if isinstance(op.sympy, str)])
def test_numpy_is_sympy(op):
    dtype = "f64" if "f64" in op.dtypes else "bool"
    for sample in samples(op, (dtype,)):
        (found,) = run(sample)
        for point in np.ndindex(found.shape):
            exact = [sympy.sympify(a[point].item(), rational=True) for a in sample.arrays]
            answer = meaning(op, tuple(exact), sample.params)
            if found.dtype == np.bool_:
                assert bool(answer) == found[point], (sample, point)
            else:
                expected = float(sympy.N(answer, 30))
                assert math.isclose(found[point], expected, rel_tol=1e-14, abs_tol=1e-300), sample


def test_numpy_runs_on_symbols():
    # Python integers as objects stand for symbols: exact, and any shortcut by dtype would show
    for op in OPS:
        if op.is_elementwise or not isinstance(op.sympy, Waived) or not cases(op):
            continue
        if op.name in ("iota", "constant", "random_bits"):
            continue
        dtypes = ("bool",) if op.dtypes == frozenset({"bool"}) else ("i64",)
        for sample in samples(op, dtypes):
            free = [a.ndim > 0 and a.dtype == sample.avals[0].numpy for a in sample.arrays]
            if op.name in ("gather", "dynamic_slice"):
                free = [k == 0 for k in range(len(free))]
            if op.name in ("scatter", "dynamic_update_slice"):
                free = [k < 2 for k in range(len(free))]
            arrays = [
                a.astype(object) if f else a for a, f in zip(sample.arrays, free, strict=True)
            ]
            objects = Sample(op, sample.avals, sample.params, sample.regions, tuple(arrays))
            for found, expected in zip(run(objects), run(sample), strict=True):
                assert found.tolist() == expected.tolist(), sample


# --- bodies -----------------------------------------------------------------------------------


@every([op for op in OPS if isinstance(op.body, Map)])
def test_map_is_numpy(op):
    for sample in [*samples(op), *specials(op)]:
        terms = [ArrayTerm(array) for array in sample.arrays]
        same(op.body.formula(*terms, **sample.params).array, run(sample)[0])


@every([op for op in OPS if isinstance(op.body, Move)])
def test_move_is_numpy(op):
    for sample in samples(op, ("f64", "bool")):
        (expected,) = run(sample)
        indices = [Var(f"i{k}", length) for k, length in enumerate(expected.shape)]
        read = op.body.access(tuple(indices), sample.avals, sample.params)
        assert read[-1][2].is_true
        grid = np.indices(expected.shape)
        env = dict(zip(indices, grid, strict=True))
        open_, found = np.ones(expected.shape, bool), np.zeros(expected.shape, expected.dtype)
        for operand, where, guard in read:
            array = sample.arrays[operand]
            assert len(where) == array.ndim
            chosen = open_ & np.broadcast_to(guard.evaluate(env), expected.shape)
            at_ = [np.broadcast_to(evaluate(w, env), expected.shape)[chosen] for w in where]
            for position, length in zip(at_, array.shape, strict=True):
                assert ((position >= 0) & (position < length)).all(), sample
            found[chosen] = array[tuple(at_)]
            open_ &= ~chosen
        assert not open_.any(), sample
        same(found, expected)


@given(st.permutations([1, 2, 2, 3, 5]), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_reshape_reads_by_position(factors, cuts, other_cuts):
    def shape(places):
        ends = sorted(places | {0, 5})
        return tuple(math.prod(factors[i:j]) for i, j in itertools.pairwise(ends))

    source, target = shape(cuts), shape(other_cuts)
    op = diffc.ops.find("reshape")
    indices = tuple(Var(f"i{k}", length) for k, length in enumerate(target))
    ((_, where, _),) = op.body.access(indices, (aval("f32", source),), {"shape": target})
    env = dict(zip(indices, np.indices(target), strict=True))
    read = tuple(np.broadcast_to(evaluate(w, env), target) for w in where)
    expected = np.arange(60).reshape(target)
    np.testing.assert_array_equal(np.arange(60).reshape(source)[read], expected)


@every([op for op in OPS if isinstance(op.body, Move)])
def test_move_of_a_symbol_holds_for_its_sizes(op):
    n = Symbol("n")
    for case in cases(op):
        general, size = case.sample("f32", n), max(*case.sizes, 7)
        special = case.sample("f32", size)
        reads, envs = [], []
        for use in (general, special):
            (result,) = op.infer(use.avals, use.params, ())
            indices = tuple(Var(f"i{k}", dim) for k, dim in enumerate(result.shape))
            reads.append(op.body.access(indices, use.avals, use.params))
            envs.append(indices)
        grid = np.indices(result.shape)
        envs = [{n: size, **dict(zip(indices, grid, strict=True))} for indices in envs]
        for (left, where, guard), (right, known, decided) in zip(*reads, strict=True):
            assert left == right
            np.testing.assert_array_equal(guard.evaluate(envs[0]), decided.evaluate(envs[1]))
            for mine, other in zip(where, known, strict=True):
                found, expected = evaluate(mine, envs[0]), evaluate(other, envs[1])
                np.testing.assert_array_equal(found, expected, err_msg=str(general))


@every([op for op in OPS if isinstance(op.body, Fold)])
def test_fold_knows_its_axes(op):
    assert op.body.monoid == op.name
    assert op.params in (("axes",), ("axis",))


# --- derivatives ------------------------------------------------------------------------------


#: partials that SymPy can't prove equal to its own; these are checked to 50 digits.
UNPROVED = {"pow"}


def draw_points(op, params, count=8):
    dtype = "f64"
    sample = fill(Sample(op, elementwise_avals(op, dtype, (count,)), params))
    for k in range(count):
        yield [sympy.Rational(a[k].item()) for a in sample.arrays]


@every(of(Partials))
def test_partials_are_those_of_sympy(op):
    for params in {str(s.params): s.params for s in samples(op, ("f64",))}.values():
        positive = op.domain == "x > 0"
        xs = [sympy.Symbol(n, real=True, positive=positive or None) for n in NAMES[: op.arity]]
        out = meaning(op, tuple(xs), params)
        partials = op.derivative.formula(*map(SymbolTerm, xs), SymbolTerm(out), **params)
        partials = [plain(partial) for partial in partials]
        assert len(partials) == op.arity
        for x, partial in zip(xs, partials, strict=True):
            mine = partial.expr if isinstance(partial, SymbolTerm) else sympy.sympify(partial)
            if op.name == "remainder":  # floor has no derivative in SymPy; here it is constant
                quotient = sympy.Symbol("q", real=True)
                floor = sympy.floor(xs[0] / xs[1])
                truth, mine = sympy.diff(out.subs(floor, quotient), x), mine.subs(floor, quotient)
            else:
                truth = sympy.diff(out, x)
            gap = sympy.simplify(truth - mine)
            if gap != 0:
                gap = sympy.simplify((truth - mine).rewrite(sympy.exp))
            if gap == 0:
                continue
            assert op.name in UNPROVED, f"{op.name} by {x}: {truth} or {mine}?"
            for point in draw_points(op, params):
                env = dict(zip(xs, point, strict=True))
                assert abs(sympy.N((truth - mine).subs(env), 50)) < 1e-45


@every(of(Routes))
def test_routes_are_those_of_sympy(op):
    xs = [sympy.Symbol(n, real=True) for n in NAMES[: op.arity]]
    values = xs
    if op.name == "select":
        xs[0] = sympy.Symbol("x")
        values = xs[1:]
    out = meaning(op, tuple(xs), {})
    for sample in samples(op, ("f64",)):
        terms = [ArrayTerm(a) for a in sample.arrays]
        routes = op.derivative.formula(*terms, ArrayTerm(run(sample)[0]))
        for x, route in zip(xs, routes, strict=True):
            if route is None:
                assert x not in values
                continue
            taken = sum(c.array.astype(int) for c, _ in route)
            assert np.max(taken, initial=0) <= 1  # conditions exclude one another
            found = sum(c.array * f for c, f in route)
            slope = sympy.diff(out, x)
            for point in np.ndindex(sample.arrays[0].shape):
                env = {
                    s: sympy.sympify(a[point].item())
                    for s, a in zip(xs, sample.arrays, strict=True)
                }
                assert found[point] == slope.subs(env).doit(), (sample, point)


@every(of(Partials))
def test_bounded_partials_are_finite(op):
    if not op.derivative.bounded:
        return
    for sample in specials(op, tuple(FLOATS)):
        terms = [ArrayTerm(a) for a in sample.arrays]
        out = ArrayTerm(run(sample)[0])
        for partial in op.derivative.formula(*terms, out, **sample.params):
            array = partial.array if isinstance(partial, ArrayTerm) else np.array(partial)
            assert np.isfinite(array).all()


def perturbed(sample, tangents, step):
    arrays = tuple(
        a if t is None else a + step * t for a, t in zip(sample.arrays, tangents, strict=True)
    )
    return run(Sample(sample.op, sample.avals, sample.params, sample.regions, arrays))[0]


def differentiable(op):
    fact = op.derivative
    if isinstance(fact, Regional):
        return False
    return "f64" in op.dtypes or op.dtypes == frozenset()


def float_samples(op, whole=False):
    for sample in samples(op, ("f64",), whole=whole):
        fact = op.fact(sample.params)
        results = op.infer(sample.avals, sample.params, sample.regions)
        if results[0].dtype == "f64" and not isinstance(fact, Undefined):
            yield sample


@every([op for op in OPS if differentiable(op)])
def test_jvp_is_finite_difference(op):
    if op.name == "stop_gradient":
        return  # its derivative is not that of its value, on purpose
    rng = np.random.default_rng(7)
    for sample in float_samples(op):
        tangents = [
            rng.uniform(-1, 1, a.shape) if a.dtype == np.float64 else None for a in sample.arrays
        ]
        step = 1e-5
        difference = perturbed(sample, tangents, step) - perturbed(sample, tangents, -step)
        expected = difference / (2 * step)
        if isinstance(op.derivative, Zero):
            np.testing.assert_array_equal(expected, 0)
            continue
        found = jvp(sample, tangents)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6, err_msg=str(sample))
        for k, tangent in enumerate(tangents):  # absent tangents are zeros
            if tangent is not None:
                alone = [t if j == k else None for j, t in enumerate(tangents)]
                zeros = [
                    t if j == k or t is None else np.zeros_like(t) for j, t in enumerate(tangents)
                ]
                np.testing.assert_array_equal(jvp(sample, alone), jvp(sample, zeros))


@every(of(Linear, ByParams))
def test_transpose_is_adjoint(op):
    rng = np.random.default_rng(3)
    seen = 0
    for sample in float_samples(op, whole=True):
        fact = op.fact(sample.params)
        if not isinstance(fact, Linear):
            continue
        places = range(len(sample.avals)) if fact.operands is None else fact.operands
        ct = rng.integers(-4, 5, run(sample)[0].shape).astype(np.float64)
        for k in places:
            tangent = rng.integers(-4, 5, sample.arrays[k].shape).astype(np.float64)
            tangents = [tangent if j == k else None for j in range(len(sample.avals))]
            left = np.sum(ct * jvp(sample, tangents))
            found = transposed(sample, ct, k)
            assert found.shape == tangent.shape
            assert np.sum(found * tangent) == left, (sample, k)  # integers: exactly
            seen += 1
    assert seen


@every(of(Linear, ByParams))
def test_transpose_of_a_symbol(op):
    for case in cases(op):
        sample = case.sample("f64", Symbol("n"))
        fact = op.fact(sample.params)
        if sample.params.get("mode") == "clip" or not isinstance(fact, Linear):
            continue  # clipping compares with the dimension, which must be known
        for k in range(len(sample.avals)) if fact.operands is None else fact.operands:
            assert transposed_aval(sample, k) == sample.avals[k], sample


@every(of(ByParams))
def test_params_choose_a_fact(op):
    for sample in samples(op, ("f32",)):
        assert not isinstance(op.fact(sample.params), ByParams)


@every(of(Zero, Undefined))
def test_absent_derivatives_have_reasons(op):
    assert op.derivative.reason


# --- one by one -------------------------------------------------------------------------------


@given(st.integers(-40, 40), st.floats(-1.5, 1.5, width=32))
def test_integer_pow_is_close_to_pow(exponent, x):
    array = np.array([x], np.float32)
    op = diffc.ops.find("integer_pow")
    with np.errstate(all="ignore"):
        found = op.numpy(array, exponent=exponent)
        expected = np.power(array.astype(np.float64), exponent).astype(np.float32)
    assert found.dtype == np.float32
    if 1e-30 < abs(expected[0]) < 1e30:
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_unknown_names_are_refused():
    with pytest.raises(KeyError, match="no op is named 'nope'"):
        diffc.ops.find("nope")
