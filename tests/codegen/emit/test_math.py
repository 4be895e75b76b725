"""Elementary functions: stated errors, special values, the same bits for any number of lanes."""

import math

import mpmath as mp
import numpy as np
import pytest

from diffc.codegen.emit.math import FUNCTIONS, VectorMath
from diffc.codegen.emit.text import ModuleText
from diffc.codegen.targets import ARM_NEON, X86_AVX2, X86_AVX512, X86_SSE2, Target
from tests.codegen.emit.native_math import (
    HOST,
    NUMPY,
    RUNNABLE,
    TYPES,
    assembly,
    called_symbols,
    exact,
    module_of,
    native,
    ulps_f32,
)

POINTS_F32 = 20_000
POINTS_F64 = 300
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, math.inf, -math.inf, math.nan]
targets = pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.name)
dtypes = pytest.mark.parametrize("dtype", ["f32", "f64"])
functions = pytest.mark.parametrize("name", FUNCTIONS)

# Where each function is neither trivial nor an overflow: (start, end) drawn evenly.
RANGES: dict[str, list[tuple[float, float]]] = {
    "exp": [(-745, 709), (-104, 89), (-2, 2)],
    "exp2": [(-1074, 1024), (-150, 128), (-2, 2)],
    "expm1": [(-45, 709), (-20, 89), (-2, 2)],
    "log": [(0, 3), (0.9, 1.1)],
    "log2": [(0, 3), (0.7, 0.8), (0.9, 1.1)],
    "log10": [(0, 3), (0.7, 0.8), (0.9, 1.1)],
    "log1p": [(-1, 3), (-0.1, 0.1)],
    "logistic": [(-745, 40), (-104, 20), (-5, 5)],
    "tanh": [(-20, 20), (-2, 2)],
    "sinh": [(-710, 710), (-89, 89), (-2, 2)],
    "cosh": [(-710, 710), (-89, 89), (-2, 2)],
    "sin": [(-10, 10), (-1e5, 1e5), (-1e6, 1e6)],
    "cos": [(-10, 10), (-1e5, 1e5), (-1e6, 1e6)],
    "tan": [(-10, 10), (-1e5, 1e5), (-1e6, 1e6)],
    "arctan": [(-4, 4), (0.4, 0.5), (2, 3)],
    "arctan2": [(-4, 4)],
    "arcsin": [(-1, 1), (0.45, 0.55), (0.999, 1)],
    "arccos": [(-1, 1), (0.45, 0.55), (-1, -0.999)],
    "erf": [(-6, 6), (0.9, 1.2)],
    "pow": [(0.9, 1.1), (0, 10)],
}


def draw(name: str, dtype: str, count: int) -> list[np.ndarray]:
    """Operands over the ranges, over all exponents, and near multiples of pi/2."""
    rng = np.random.default_rng(abs(hash((len(name), name[0], dtype))) % 1000)
    info = np.finfo(TYPES[dtype])
    smallest = float(np.log2(float(info.smallest_subnormal)))
    groups = [rng.uniform(a, b, count) for a, b in RANGES[name]]
    signs = rng.choice([-1.0, 1.0], count)
    groups.append(signs * np.exp2(rng.uniform(smallest, float(info.maxexp), count)))
    if name in ("sin", "cos", "tan"):
        groups.append(np.round(np.exp2(rng.uniform(0, 30, count))) * (math.pi / 2))
    x = np.concatenate(groups).astype(info.dtype)
    x = x[np.isfinite(x)]
    if FUNCTIONS[name].arity == 1:
        return [x]
    if name == "arctan2":
        return [x, rng.permutation(x)]
    # Powers between underflow and overflow: y = t / log(x).
    x = np.abs(x)
    t = rng.uniform(info.minexp, info.maxexp, len(x)) * math.log(2) * rng.choice([1, 0.1], len(x))
    with np.errstate(all="ignore"):
        y = (t / np.log(x.astype(float))).astype(info.dtype)
    return [x, np.where(np.isfinite(y), y, info.dtype.type(2.0))]


def same(got: np.ndarray, want: np.ndarray) -> bool:
    """Equal bits, except that every NaN is the same."""
    both_nan = np.isnan(got) & np.isnan(want)
    return bool(np.all(both_nan | ((got == want) & (np.signbit(got) == np.signbit(want)))))


@targets
@functions
def test_f32_error_is_as_stated(name: str, target: Target) -> None:
    operands = draw(name, "f32", POINTS_F32 // 4)
    got = native(name, "f32", target.lanes("f32"), target)(*operands)
    with np.errstate(all="ignore"):
        want = NUMPY[name](*[operand.astype(np.float64) for operand in operands])
    error = ulps_f32(got, want)
    worst = int(np.argmax(error))
    stated = FUNCTIONS[name].ulps("f32", target.has_fma)
    shown = [operand[worst] for operand in operands]
    assert error[worst] <= stated, (shown, got[worst], want[worst])


@targets
@functions
def test_f64_error_is_as_stated(name: str, target: Target) -> None:
    operands = draw(name, "f64", POINTS_F64)
    got = native(name, "f64", target.lanes("f64"), target)(*operands)
    stated = FUNCTIONS[name].ulps("f64", target.has_fma)
    limits = {"log": 0.0, "log2": 0.0, "log10": 0.0, "log1p": -1.0}
    largest = mp.mpf(np.finfo(np.float64).max)
    for index, result in enumerate(got):
        point = [float(operand[index]) for operand in operands]
        if point[0] <= limits.get(name, -math.inf):
            continue
        if name in ("arcsin", "arccos") and abs(point[0]) > 1:
            continue
        if name in ("exp", "exp2", "expm1", "sinh", "cosh") and abs(point[0]) > 2000:
            point[0] = math.copysign(2000.0, point[0])  # mpmath need not form the huge value
        want = exact(name, *point)
        if abs(want) > largest:
            assert math.isinf(result) and (result > 0) == (want > 0), point
            continue
        error = abs(mp.mpf(float(result)) - want) / float(np.spacing(abs(float(want))))
        assert error <= stated, (point, result, float(want))


@targets
@dtypes
@functions
def test_special_values_are_numpys(name: str, dtype: str, target: Target) -> None:
    kind = TYPES[dtype]
    info = np.finfo(kind)
    values = np.array([*SPECIAL, info.max, -info.max, info.tiny, -info.smallest_subnormal], kind)
    operands = [values]
    if FUNCTIONS[name].arity == 2:
        grid = np.meshgrid(np.concatenate([values, np.array([3.0, 1e30], kind)]), values)
        operands = [part.ravel() for part in grid]
    got = native(name, dtype, target.lanes(dtype), target)(*operands)
    with np.errstate(all="ignore"):
        want = NUMPY[name](*operands).astype(kind)
    # Exactly the same class and sign; finite values are near (their error is tested elsewhere).
    assert np.array_equal(np.isnan(got), np.isnan(want)), (got, want)
    number = ~np.isnan(want)
    assert np.array_equal(np.signbit(got[number]), np.signbit(want[number])), (got, want)
    assert np.array_equal(np.isinf(got), np.isinf(want)), (got, want)
    assert np.array_equal(got == 0, want == 0), (got, want)
    finite = np.isfinite(want)
    close = 8 * float(info.eps)
    np.testing.assert_allclose(
        got[finite], want[finite], rtol=close, atol=4 * float(info.smallest_subnormal)
    )


@targets
@dtypes
def test_bits_do_not_depend_on_lanes(dtype: str, target: Target) -> None:
    width = target.lanes(dtype)
    for name in FUNCTIONS:
        operands = [x[:3001] for x in draw(name, dtype, 1000)]
        values = np.array([*SPECIAL, 1e-40, -1e-40, 1e30], TYPES[dtype])
        operands = [np.concatenate([x, np.roll(values, i)]) for i, x in enumerate(operands)]
        want = native(name, dtype, 1, target)(*operands)
        for lanes in (3, width, 2 * width):
            assert same(native(name, dtype, lanes, target)(*operands), want), (name, lanes)


@targets
@dtypes
@pytest.mark.parametrize("name", ["exp", "exp2", "sinh", "cosh", "expm1"])
def test_overflow_starts_where_it_must(name: str, dtype: str, target: Target) -> None:
    kind = TYPES[dtype]
    largest = mp.mpf(float(np.finfo(kind).max))
    inverse = {
        "exp": mp.log,
        "exp2": lambda v: mp.log(v) / mp.log(2),
        "sinh": mp.asinh,
        "cosh": mp.acosh,
        "expm1": mp.log1p,
    }[name]
    edge = kind(float(inverse(largest)))
    far = [edge]
    for _ in range(8):
        far = [np.nextafter(far[0], kind(0)), *far, np.nextafter(far[-1], kind(np.inf))]
    x = np.array(far, kind)
    got = native(name, dtype, target.lanes(dtype), target)(x)
    for point, result in zip(x, got, strict=True):
        want = exact(name, float(point)) / largest
        slack = float(np.finfo(kind).eps)
        if want > 1 + 2 * slack:
            assert np.isinf(result), point
        if want < 1 - 2 * slack:
            assert np.isfinite(result), point


@targets
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_arguments_closest_to_multiples_of_half_pi(name: str, target: Target) -> None:
    # The double that comes closest to a multiple of pi/2, some huge ones, and the limits.
    x = [6381956970095103 * 2.0**797, 1.7976931348623157e308, 2.0**1000, 1e22, 5e15, 2.0**27]
    x += [2.0**19, math.pi, 3 * math.pi / 2, 1e5, float(np.nextafter(1e5, np.inf)), 2.0**31]
    operand = np.array(x + [-value for value in x])
    got = native(name, "f64", target.lanes("f64"), target)(operand)
    for point, result in zip(operand, got, strict=True):
        with mp.workprec(1300):
            want = getattr(mp, name)(mp.mpf(float(point)))
        error = abs(mp.mpf(float(result)) - want) / float(np.spacing(abs(float(want))))
        assert error <= FUNCTIONS[name].ulps("f64", target.has_fma), (point, result)


@targets
@dtypes
def test_exact_where_the_result_is_exact(dtype: str, target: Target) -> None:
    lanes, kind = target.lanes(dtype), TYPES[dtype]
    info = np.finfo(kind)
    powers = np.arange(info.minexp - info.nmant, info.maxexp)
    values = np.ldexp(kind(1), powers).astype(kind)
    assert same(native("exp2", dtype, lanes, target)(powers.astype(kind)), values)
    assert same(native("log2", dtype, lanes, target)(values), powers.astype(kind))
    base = np.array([2, 3, -5, 7, 10, -0.5, 1.5], kind)
    for exponent in (0, 1, 2, 3):
        y = np.full_like(base, exponent)
        assert same(native("pow", dtype, lanes, target)(base, y), base**exponent)
    assert native("logistic", dtype, lanes, target)(np.zeros(1, kind))[0] == 0.5


@pytest.mark.parametrize("target", [X86_SSE2, X86_AVX2, X86_AVX512, ARM_NEON], ids=lambda t: t.name)
@dtypes
def test_no_target_needs_a_library(dtype: str, target: Target) -> None:
    own = f"diffc.reduce_half_pi.{dtype}"
    for lanes in (1, target.lanes(dtype)):
        text = assembly(module_of(list(FUNCTIONS), dtype, lanes, target), target)
        assert called_symbols(text, target) == {own}
    short = module_of(["sin"], dtype, 1, target)
    assert own in short.text()


def test_called_symbols_finds_a_library_call() -> None:
    module = ModuleText()
    fn = module.function("f", "float", [("float", "%x")])
    fn.ret("float", fn.call("float", "llvm.sin.f32", ("float", "%x")))
    for target in (X86_SSE2, ARM_NEON):
        assert called_symbols(assembly(module, target), target) == {"sinf"}


def test_wrong_uses_are_errors() -> None:
    fn = ModuleText().function("f", "void", [])
    with pytest.raises(ValueError, match="f16"):
        VectorMath(fn, "f16", 8, HOST)
    emit = VectorMath(fn, "f32", 8, HOST)
    with pytest.raises(ValueError, match="gamma"):
        emit.call("gamma", "%x")
    with pytest.raises(ValueError, match="2 operands"):
        emit.call("pow", "%x")
