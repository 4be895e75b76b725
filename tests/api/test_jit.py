"""``jit``: signatures, arguments of every kind, captures, nesting, threads."""

import collections
import dataclasses
import threading

import numpy as np
import pytest

import diffc
import diffc.jitted
from diffc.errors import DtypeError, TraceError, UsageError


def close(found, expected, tolerance=1e-12):
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def double(x):
    return x * 2


# --- signatures -------------------------------------------------------------------------------


def test_specializes_by_shape_and_dtype():
    f = diffc.jit(double)
    for dtype in ("f4", "f8", "i4", "i8", "u1", "f2"):
        for shape in ((), (0,), (1,), (3,), (2, 3), (0, 3)):
            x = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
            close(f(x), np.asarray(x * 2))
    assert repr(f) == "<jitted double: 36 signatures>"


def test_all_signatures_stay_native(monkeypatch):
    f = diffc.jit(double)
    inputs = [np.arange(n, dtype=dtype) for n in range(6) for dtype in ("f4", "f8")]
    for x in inputs:
        f(x)
    slow = []
    bind = diffc.jitted.Jitted._bind
    monkeypatch.setattr(diffc.jitted.Jitted, "_bind", lambda *args: slow.append(1) or bind(*args))
    for x in inputs:
        close(f(x), x * 2)
    assert not slow
    close(f(np.arange(7.0)), np.arange(7.0) * 2)
    assert slow


def test_traces_once_for_a_signature():
    count = []

    @diffc.jit
    def f(x, n):
        count.append(1)
        return x + n

    for k in range(3):
        close(f(np.ones(3), float(k)), np.ones(3) + k)
    assert len(count) == 1
    f(np.ones(4), 1.0)
    f(np.ones(3, "f4"), 1.0)
    f(np.ones(3), 1)  # an int is another signature
    assert len(count) == 4


def test_python_scalars_stay_weak():
    f = diffc.jit(lambda x, s: x * s)
    x = np.ones(3, np.float32)
    assert f(x, 2.0).dtype == np.float32
    assert f(x, 2).dtype == np.float32
    assert f(x, np.float64(2)).dtype == np.float64
    assert f(np.arange(3), 2.5).dtype == np.float64
    close(f(np.arange(3, dtype="i4"), True), np.arange(3, dtype="i4"))


def test_two_hundred_signatures():
    f = diffc.jit(lambda x: np.sum(x * x))
    for n in range(200):
        close(f(np.arange(float(n))), np.sum(np.arange(float(n)) ** 2))
    for n in (0, 7, 199):
        close(f(np.arange(float(n))), np.sum(np.arange(float(n)) ** 2))
    assert repr(f).endswith("200 signatures>")


def test_static_arguments():
    @diffc.jit(static_argnums=1, static_argnames=("flip",))
    def f(x, n, *, flip=False):
        for _ in range(n):
            x = x + 1
        return -x if flip else x

    close(f(np.zeros(2), 3), np.full(2, 3.0))
    close(f(np.zeros(2), 0), np.zeros(2))
    close(f(np.zeros(2), 2, flip=True), np.full(2, -2.0))
    close(f(np.zeros(2), 2, flip=False), np.full(2, 2.0))
    with pytest.raises(UsageError, match="can't be hashed"):
        f(np.zeros(2), [1])


def test_static_strings_and_functions():
    f = diffc.jit(lambda g, x: g(x), static_argnums=0)
    close(f(np.sin, np.ones(2)), np.sin(np.ones(2)))
    close(f(np.cos, np.ones(2)), np.cos(np.ones(2)))
    g = diffc.jit(lambda x, kind: x.sum() if kind == "sum" else x.max(), static_argnames="kind")
    x = np.arange(4.0)
    close(g(x, kind="sum"), np.asarray(6.0))
    close(g(x, kind="max"), np.asarray(3.0))


def test_static_values_that_are_equal_but_of_other_types():
    # 1 == 1.0 == True, and hash alike; the trace must not be shared
    f = diffc.jit(lambda x, s: x * s, static_argnums=1)
    x = np.arange(3)
    assert f(x, 1).dtype == np.int64
    assert f(x, 1.0).dtype == np.float64
    assert f(x, True).dtype == np.int64


def test_negative_static_and_donated_positions():
    f = diffc.jit(lambda x, n: x + np.ones(n), static_argnums=-1)
    close(f(np.zeros(2), 2), np.ones(2))


def test_keywords_and_defaults():
    @diffc.jit
    def f(x, scale=2.0, *, shift=0.0):
        return x * scale + shift

    x = np.arange(3.0)
    close(f(x), x * 2)
    close(f(x, 3.0), x * 3)
    close(f(x, shift=1.0), x * 2 + 1)
    close(f(shift=1.0, scale=0.5, x=x), x * 0.5 + 1)
    close(f(x, shift=x), x * 2 + x)
    with pytest.raises(TypeError):
        f(x, unknown=1.0)
    with pytest.raises(TypeError):
        f()


def test_methods():
    class Model:
        def __init__(self, w):
            self.w = w

        @diffc.jit(static_argnums=0)
        def apply(self, x):
            return x @ self.w

    x = np.arange(6.0).reshape(2, 3)
    first, second = Model(np.ones((3, 2))), Model(np.full((3, 1), 2.0))
    close(first.apply(x), x @ first.w)
    close(second.apply(x), x @ second.w)
    close(first.apply(x), x @ first.w)


def test_functools_and_builtins_can_be_jitted():
    import functools

    x = np.arange(3.0)
    close(diffc.jit(np.sin)(x), np.sin(x), 1e-15)
    close(diffc.jit(functools.partial(np.power, 2.0))(x), 2.0**x)
    with pytest.raises(UsageError, match="takes a function"):
        diffc.jit(3)


# --- arguments of every kind ------------------------------------------------------------------


class Sub(np.ndarray):
    """A subclass that adds nothing."""


class Tensor:
    """What other libraries' arrays look like."""

    def __init__(self, data):
        self.data = np.asarray(data)

    def __array__(self, dtype=None, copy=None):
        return self.data if dtype is None else self.data.astype(dtype)


BASE = np.arange(24.0).reshape(4, 6)
UNALIGNED = np.frombuffer(b"\0" + np.arange(5.0).tobytes(), np.uint8)[1:].view(np.float64)
READ_ONLY = np.arange(5.0)
READ_ONLY.flags.writeable = False

LAYOUTS = {
    "strided": BASE[::2, ::3],
    "negative": BASE[::-1, ::-2],
    "transposed": BASE.T,
    "fortran": np.asfortranarray(BASE),
    "broadcast": np.broadcast_to(np.arange(3.0), (4, 3)),
    "big endian": np.arange(5.0).astype(">f8"),
    "unaligned": UNALIGNED,
    "read only": READ_ONLY,
    "subclass": np.arange(5.0).view(Sub),
    "masked-like": np.ma.array([1.0, 2.0]).data,
    "list of none": np.float32(3),
    "zero-d": np.array(3.0),
    "empty": np.zeros((0, 3)),
    "tensor": Tensor([1.0, 2.0]),
    "float": 2.5,
    "int": 3,
    "bool": True,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name):
    given = LAYOUTS[name]
    plain = np.ascontiguousarray(np.asarray(given)) if np.ndim(given) else np.asarray(given)
    plain = plain.astype(plain.dtype.newbyteorder("="))
    found = diffc.jit(lambda x: (x + x, np.sum(x)))(given)
    for x, y in zip(found, (plain + plain, np.sum(plain)), strict=True):
        assert type(x) is np.ndarray
        if name != "bool":  # a Python bool is a number in Python's arithmetic
            close(x, y)
    # the same through the native entry, next to a plain argument
    f = diffc.jit(lambda x, y: x * y)
    for _ in range(3):
        np.testing.assert_array_equal(f(given, 2.0), plain * 2.0)


def test_results_are_fresh_arrays_of_their_own():
    f = diffc.jit(lambda x: (x, x, x[0], np.zeros(2), x.T))
    x = np.arange(6.0).reshape(2, 3)
    found = f(x)
    for array in found:
        assert array.flags.owndata and array.flags.writeable and array.flags.c_contiguous
        array[...] = -1
    close(x, np.arange(6.0).reshape(2, 3))
    for a, b in zip(f(x), (x, x, x[0], np.zeros(2), x.T), strict=True):
        close(a, np.ascontiguousarray(b))


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Layer:
    w: np.ndarray
    b: np.ndarray | None


def test_pytrees_in_and_out():
    given = {
        "b": [np.ones(2), (np.zeros(()), 3.0)],
        "a": Point(np.arange(3), None),
        "layer": Layer(np.ones((2, 2)), None),
    }

    @diffc.jit
    def f(t):
        return {
            "out": [t["b"][0] + 1, t["b"][1][1] * 2],
            "point": Point(y=t["a"].x * 2, x=t["a"].y),
            "layer": Layer(t["layer"].w @ t["b"][0], t["b"][1][0]),
            "none": None,
            "empty": (),
            "number": 3,
        }

    for _ in range(2):
        found = f(given)
        close(found["out"][0], np.full(2, 2.0))
        close(found["out"][1], np.asarray(6.0))
        assert type(found["point"]) is Point and found["point"].x is None
        close(found["point"].y, np.array([0, 2, 4]))
        assert type(found["layer"]) is Layer
        close(found["layer"].w, np.full(2, 2.0))
        assert found["none"] is None and found["empty"] == ()
        close(found["number"], np.asarray(3))
    assert set(found) == {"out", "point", "layer", "none", "empty", "number"}


def test_order_of_keys_is_no_new_meaning():
    f = diffc.jit(lambda t: t["a"] - t["b"])
    a, b = np.ones(2), np.full(2, 3.0)
    close(f({"a": a, "b": b}), a - b)
    close(f({"b": b, "a": a}), a - b)


def test_functions_without_arguments_or_results():
    close(diffc.jit(lambda: np.arange(3.0) + 1)(), np.arange(3.0) + 1)
    assert diffc.jit(lambda x: None)(np.ones(2)) is None
    assert diffc.jit(lambda x: ())(np.ones(2)) == ()
    close(diffc.jit(lambda: 2.0)(), np.asarray(2.0))


def test_what_is_no_array_is_named():
    f = diffc.jit(lambda x: x)
    with pytest.raises(UsageError, match="x is a str, neither an array nor a number"):
        f("text")
    with pytest.raises(UsageError, match="is a set"):
        f({1, 2})
    with pytest.raises(DtypeError, match="complex128"):
        f(np.ones(2, complex))
    with pytest.raises(DtypeError):
        f(np.array(["a"]))
    with pytest.raises(DtypeError):
        f(np.array([object()]))
    with pytest.raises(DtypeError):
        f(np.array(["2020-01-01"], "M8[D]"))
    close(f(np.ones(2)), np.ones(2))


def test_integers_that_no_64_bits_hold():
    f = diffc.jit(lambda n: n + 1)
    assert f(2**40) == 2**40 + 1
    with pytest.raises((OverflowError, DtypeError, UsageError)):
        f(2**70)


# --- captured arrays --------------------------------------------------------------------------

SCALE = np.array([2.0, 3.0])
TABLE = {"w": np.array([5.0, 7.0])}


def test_captured_arrays_are_read_at_each_call():
    w = np.ones(2)
    f = diffc.jit(lambda x: x * w)
    x = np.arange(2.0)
    close(f(x), x * w)
    w[:] = [4.0, 5.0]
    close(f(x), x * w)
    w = np.full(2, -1.0)  # the cell holds another array now
    close(f(x), x * w)
    w = np.full((2, 2), 3.0)  # of another shape
    close(f(x), x * w)


def test_rebinding_a_global_is_seen(monkeypatch):
    f = diffc.jit(lambda x: x * SCALE + TABLE["w"])
    x = np.ones(2)
    close(f(x), x * SCALE + TABLE["w"])
    SCALE[0] = 9.0
    close(f(x), x * SCALE + TABLE["w"])
    monkeypatch.setitem(globals(), "SCALE", np.array([-1.0, -2.0]))
    close(f(x), x * SCALE + TABLE["w"])
    monkeypatch.setitem(globals(), "SCALE", np.array([[1.0, 2.0]], np.float32))
    close(f(x), x * SCALE + TABLE["w"])
    SCALE[0, 0] = 2


def test_captured_layouts():
    base = np.arange(12.0).reshape(3, 4)
    for w in (base[::2, ::-1], base.T[:3].T, base.astype(">f8"), np.asfortranarray(base)):
        x = np.ones(w.shape)
        f = diffc.jit(lambda x, w=w: x + 1)
        g = diffc.jit(lambda x: x + w)  # noqa: B023 called at once
        close(f(x), x + 1)
        close(g(x), x + np.asarray(w, float))
        if w.base is not None and w.dtype.isnative:
            w[0, 0] += 100
            close(g(x), x + w)


# --- nesting ----------------------------------------------------------------------------------


def test_nested_jit():
    inner = diffc.jit(lambda x, y: {"sum": x + y, "product": x * y})
    outer = diffc.jit(lambda x: inner(x, x)["sum"] * inner(x, 2.0)["product"])
    x = np.arange(3.0)
    close(outer(x), (x + x) * (x * 2.0))


def test_closures_over_outer_tracers():
    @diffc.jit
    def outer(x):
        y = x * 2

        @diffc.jit
        def inner(z):
            return z + y + x

        return inner(np.ones(3)) + inner(x)

    x = np.arange(3.0)
    close(outer(x), (1 + 2 * x + x) + (x + 2 * x + x))


def test_nested_jit_writes_in_place():
    @diffc.jit
    def bump(w):
        w += 1
        return w.sum()

    @diffc.jit
    def outer(w):
        total = bump(w)
        return total + bump(w)

    w = np.zeros(3)
    close(outer(w), np.asarray(9.0))
    close(w, np.full(3, 2.0))


# --- threads and leaks -------------------------------------------------------------------


def test_threads_call_one_function():
    w = np.arange(2000.0).reshape(20, 100)

    @diffc.jit
    def f(x, k):
        h = np.tanh(x @ w.T)
        return np.sum(h * k), h

    failures = []
    start = threading.Barrier(8)

    def work(k):
        try:
            start.wait()
            for n in (1, 3, 5, 3, 1):
                x = np.full((n, 100), k / 100)
                h = np.tanh(x @ w.T)
                total, found = f(x, float(k))
                np.testing.assert_allclose(found, h, rtol=1e-9)
                np.testing.assert_allclose(total, np.sum(h * k), rtol=1e-9)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_leaked_tracer_is_refused():
    leaked = []

    @diffc.jit
    def f(x):
        leaked.append(x)
        return x

    f(np.ones(2))
    with pytest.raises(TraceError, match="outside the trace"):
        leaked[0] + 1
    with pytest.raises((TraceError, UsageError)):
        f(leaked[0])


# --- compile ----------------------------------------------------------------------------------


def test_compiled_takes_only_its_signature():
    compiled = diffc.jit(lambda x, s: x * s).compile(np.ones(3), 2.0)
    close(compiled(np.arange(3.0), 4.0), np.arange(3.0) * 4)
    with pytest.raises(UsageError, match="called with"):
        compiled(np.ones(4), 2.0)
    with pytest.raises(UsageError, match="called with"):
        compiled(np.ones(3, "f4"), 2.0)
    with pytest.raises(UsageError, match="compiled for other arguments"):
        compiled(np.ones(3))
    with pytest.raises(UsageError, match="no stage"):
        compiled.stage("nonsense")


def test_dtypes_keep_numpys_rules():
    f = diffc.jit(lambda x, y: (x + y, x / y, x * 2, np.sin(x), x.sum(), x.mean(), x > y))
    for a in ("bool", "i1", "i4", "i8", "u1", "u4", "f2", "f4", "f8"):
        for b in ("i1", "i8", "u4", "f4", "f8"):
            x, y = np.ones(3, a), np.ones(3, b)
            expected = (x + y, x / y, x * 2, np.sin(x), x.sum(), x.mean(), x > y)
            for found, wanted in zip(f(x, y), expected, strict=True):
                assert found.dtype == np.asarray(wanted).dtype, (a, b)
