"""Every scalar op on every dtype, with special values, at every number of lanes."""

import numpy as np
import pytest

from diffc.codegen.loops import interpret
from diffc.codegen.loops.nodes import SCALARS, Kernel, Load, Par, Store
from diffc.codegen.targets import X86_AVX2, X86_SSE2
from diffc.ir.aval import DTYPES, limits
from diffc.ir.index import Var
from tests.codegen.emit.kernels import HOST, apply, buffer, check, compiled, samples

INTS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
FLOATS = ("bf16", "f16", "f32", "f64")
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
EXACT_FLOAT = (
    *("neg", "abs", "sign", "sqrt", "floor", "ceil", "round", "trunc"),
    *("add", "sub", "mul", "div", "maximum", "minimum", "floor_divide", "remainder"),
)
EXACT_INT = (
    *("neg", "abs", "sign", "bitwise_not", "add", "sub", "mul", "floor_divide", "remainder"),
    *("maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor", "pow"),
    *("shift_left", "shift_right"),
)
BOOL = ("add", "mul", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor")
CLASSIFY = ("is_nan", "is_inf", "is_finite")
ELEMENTARY = tuple(
    name
    for name in SCALARS
    if name not in {*EXACT_FLOAT, *EXACT_INT, *COMPARE, *CLASSIFY, "convert", "bitcast"} - {"pow"}
    and name not in ("select", "fma")
)


def pairs(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of special values."""
    values = samples(dtype, 20)
    return np.repeat(values, 20), np.tile(values, 20)


def kernel_of(names: tuple[str, ...], dtype: str, result: str, count: int) -> Kernel:
    a, b = buffer("a", dtype, (count,)), buffer("b", dtype, (count,))
    outs = [buffer(name, result, (count,), "out") for name in names]
    i = Var("i", count)
    operands = Load(a, (i,)), Load(b, (i,))
    body = tuple(
        Store(out, (i,), apply(name, result, *operands[: SCALARS[name]]))
        for name, out in zip(names, outs, strict=True)
    )
    return Kernel("ops", (a, b, *outs), (), (Par((i,), body),))


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("dtype", [*FLOATS, *INTS, "bool"])
def test_exact_ops(dtype: str, tiled: bool) -> None:
    names = BOOL if dtype == "bool" else EXACT_FLOAT if dtype in FLOATS else EXACT_INT
    a, b = pairs(dtype)
    check(kernel_of(names, dtype, dtype, a.size), a, b, tiled=tiled)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTS, "bool"])
def test_exact_ops_without_wide_vectors(dtype: str) -> None:
    if X86_SSE2.family != HOST.family:
        pytest.skip("another machine's code")
    names = BOOL if dtype == "bool" else EXACT_FLOAT if dtype in FLOATS else EXACT_INT
    a, b = pairs(dtype)
    check(kernel_of(names, dtype, dtype, a.size), a, b, target=X86_SSE2)
    check(kernel_of(COMPARE, dtype, "bool", a.size), a, b, target=X86_SSE2)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTS, "bool"])
def test_comparisons(dtype: str) -> None:
    names = (*COMPARE, *CLASSIFY) if dtype in FLOATS else COMPARE
    a, b = pairs(dtype)
    check(kernel_of(names, dtype, "bool", a.size), a, b)


@pytest.mark.parametrize("source", [*FLOATS, *INTS, "bool"])
def test_convert(source: str) -> None:
    values = samples(source, 61)
    if source in FLOATS:
        edges = [2.0**31, -(2.0**31), 2.0**63, 2.0**64, 200.0, 300.0, 70000.0, 2.0**32, 1e10]
        with np.errstate(over="ignore"):
            values[-len(edges) :] = np.array(edges).astype(values.dtype)
    a, i = buffer("a", source, (61,)), Var("i", 61)
    for dtype in (*FLOATS, *INTS, "bool"):
        out = buffer("out", dtype, (61,), "out")
        body = Store(out, (i,), apply("convert", dtype, Load(a, (i,))))
        check(Kernel("convert", (a, out), (), (Par((i,), (body,)),)), values)


def conversion(source: str, dtype: str, count: int) -> Kernel:
    x, out, i = (
        buffer("x", source, (count,)),
        buffer("out", dtype, (count,), "out"),
        Var("i", count),
    )
    body = Store(out, (i,), apply("convert", dtype, Load(x, (i,))))
    return Kernel("convert", (x, out), (), (Par((i,), (body,)),))


@pytest.mark.parametrize("target", [HOST, X86_AVX2, X86_SSE2])
@pytest.mark.parametrize("half", ["bf16", "f16"])
def test_all_halves(half: str, target) -> None:
    if target.family != HOST.family or target.vector_bytes > HOST.vector_bytes:
        pytest.skip("another machine's code")
    n, kind = 1 << 16, DTYPES[half]
    halves = np.arange(n, dtype=np.uint16).view(kind)
    for dtype in ("f32", "f64", "bool"):
        check(conversion(half, dtype, n), halves, target=target)
    # around every half: the half itself, and both sides of the middle to the next
    with np.errstate(all="ignore"):
        up = np.nextafter(halves, kind.type(np.inf)).astype(np.float64)
        middle = (halves.astype(np.float64) + up) / 2
        for step in (-np.inf, 0.0, np.inf):
            for dtype in ("f32", "f64"):
                values = middle.astype(DTYPES[dtype])
                values = np.nextafter(values, values.dtype.type(step)) if step else values
                check(conversion(dtype, half, n), values, target=target)


@pytest.mark.parametrize("target", [HOST, X86_AVX2, X86_SSE2])
@pytest.mark.parametrize("half", ["bf16", "f16"])
def test_large_integers_as_halves(half: str, target) -> None:
    """Around the middles of neighbouring halves, where rounding twice would show."""
    if target.family != HOST.family or target.vector_bytes > HOST.vector_bytes:
        pytest.skip("another machine's code")
    rng = np.random.default_rng(0)
    for dtype in ("i32", "u32", "i64", "u64"):
        info = np.iinfo(DTYPES[dtype])
        bits, drawn = info.bits, []
        for _ in range(999):
            top, shift, off = (
                rng.integers(256, 4096),
                rng.integers(0, bits - 8),
                rng.integers(-2, 3),
            )
            value = (int(top) << int(shift)) + int(off)
            value = -value if info.min and rng.integers(2) else value
            drawn.append(min(max(value, int(info.min)), int(info.max)))
        values = np.array([*drawn, info.min, info.max], DTYPES[dtype])
        check(conversion(dtype, half, values.size), values, target=target)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_signs_of_all_halves(dtype: str) -> None:
    n = 1 << 16
    halves = np.arange(n, dtype=np.uint16).view(DTYPES[dtype])
    names = ("neg", "abs", "sign", "floor", "ceil", "round", "trunc", "sqrt")
    check(kernel_of(names, dtype, dtype, n), halves, halves[::-1].copy())
    check(kernel_of(CLASSIFY, dtype, "bool", n), halves, halves)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", [1, 37])
def test_elementary(dtype: str, count: int) -> None:
    x, y = samples(dtype, count, 1), samples(dtype, count, 2)
    limit = 700 if dtype == "f64" else 80
    x, y = (np.clip(np.where(np.isfinite(v), v, 1), -limit, limit).astype(v.dtype) for v in (x, y))
    names = ELEMENTARY
    assert len(names) == 20
    tolerance = {"bf16": 2e-2, "f16": 2e-3, "f32": 1e-5, "f64": 1e-12}[dtype]
    with np.errstate(all="ignore"):
        check(
            kernel_of(names, dtype, dtype, count),
            x,
            y,
            close={"rtol": tolerance, "atol": tolerance / 100, "equal_nan": True},
        )


@pytest.mark.parametrize("target", [HOST, X86_AVX2, X86_SSE2])
@pytest.mark.parametrize("half", ["bf16", "f16"])
def test_nan_of_all_halves(half: str, target) -> None:
    """Which results are nan, and which infinite or zero, of every operand."""
    if target.family != HOST.family or target.vector_bytes > HOST.vector_bytes:
        pytest.skip("another machine's code")
    n = 1 << 16
    x = np.arange(n, dtype=np.uint16).view(DTYPES[half])
    names = tuple(name for name in ELEMENTARY if SCALARS[name] == 1)
    kernel = kernel_of(names, half, half, n)
    results = [np.zeros(n, x.dtype) for _ in names]
    assert compiled(kernel, target)(x, x, *results) == 0
    for name, found in zip(names, results, strict=True):
        with np.errstate(all="ignore"):
            want = interpret.apply(name, half, (x,))
        np.testing.assert_array_equal(np.isnan(found), np.isnan(want), err_msg=name)
        large = np.abs(want.astype(np.float32)) > 0.99 * float(limits(x.dtype).max)
        np.testing.assert_array_equal(np.isinf(found) & ~large, False, err_msg=name)


def test_select_and_fma() -> None:
    a, b = pairs("f32")
    n = a.size
    x, y, i = buffer("x", "f32", (n,)), buffer("y", "f32", (n,)), Var("i", n)
    out, fused = buffer("out", "f32", (n,), "out"), buffer("fused", "f32", (n,), "out")
    left, right = Load(x, (i,)), Load(y, (i,))
    less = apply("lt", "bool", left, right)
    body = (
        Store(out, (i,), apply("select", "f32", less, left, right)),
        Store(fused, (i,), apply("fma", "f32", left, right, left)),
    )
    small = np.round(np.clip(np.nan_to_num(a), -9, 9), 1)
    check(Kernel("select", (x, y, out, fused), (), (Par((i,), body),)), small, np.abs(small))
    assert np.isnan(b).any()


@pytest.mark.parametrize(
    "source, dtype", [("f32", "bf16"), ("f32", "f16"), ("i32", "i16"), ("bf16", "f32")]
)
@pytest.mark.parametrize("tiled", [True, False])
def test_ends_of_rows_that_become_narrow(source: str, dtype: str, tiled: bool) -> None:
    """What is beyond the last element stays as it is, whatever LLVM makes of masks."""
    for count in range(1, 68):
        check(conversion(source, dtype, count), samples(source, count), tiled=tiled)
    for shape in ((5, 17), (3, 33), (4, 1), (2, 49)):
        x, out = buffer("x", source, shape), buffer("out", dtype, shape, "out")
        at = (Var("i", shape[0]), Var("j", shape[1]))
        flipped = (at[0], shape[1] - 1 - at[1])
        for place in (at, flipped):
            body = Store(out, place, apply("convert", dtype, Load(x, at)))
            values = samples(source, x.shape[0] * x.shape[1]).reshape(shape)
            check(Kernel("rows", (x, out), (), (Par(at, (body,)),)), values, tiled=tiled)
