"""What each ufunc is in primitives: one formula per ufunc, on operands of equal avals.

The dtype has been chosen by NumPy's own loop, so a formula sees bools, integers or floats and
never a mixture. What has no primitive is composed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from diffc.ir.aval import FLOATS, HALVES, UNSIGNED
from diffc.ir.graph import Operand
from diffc.trace import kinks
from diffc.trace import operands as o

Formula = Callable[..., Any]


def like(x: Operand, value: bool | int | float) -> Operand:
    """A constant of the aval of ``x``."""
    return o.fill(value, x.aval.dtype, x.aval.shape)


def _is(dtype: str) -> Callable[[Operand], bool]:
    return lambda x: x.aval.dtype == dtype


_is_bool = _is("bool")


def _op(name: str, on_bool: str | None = None, on_integers: bool = True) -> Formula:
    """The primitive ``name``; another one on bools; the identity on integers where it is one."""

    def apply(*xs: Operand) -> Operand:
        dtype = xs[0].aval.dtype
        if dtype == "bool" and on_bool is not None:
            return xs[0] if on_bool == "same" else o.emit(on_bool, *xs)
        if not on_integers and dtype not in FLOATS:
            return xs[0]
        return o.emit(name, *xs)

    return apply


def _logical(name: str) -> Formula:
    return lambda *xs: o.emit(name, *(o.cast(x, "bool") for x in xs))


def _then_cast(formula: Formula, dtype: str) -> Formula:
    return lambda *xs: o.cast(formula(*xs), dtype)


def _classify(name: str, of_integers: bool) -> Formula:
    def apply(x: Operand) -> Operand:
        if x.aval.dtype in FLOATS:
            return o.emit(name, x)
        return o.fill(of_integers, "bool", x.aval.shape)

    return apply


def _in_f32(formula: Formula) -> Formula:
    """A composition that would lose digits in 16 bits."""

    def apply(*xs: Operand) -> Operand:
        dtype = xs[0].aval.dtype
        if dtype not in HALVES:
            return formula(*xs)  # type: ignore[no-any-return]  # the table is untyped
        return o.cast(formula(*(o.cast(x, "f32") for x in xs)), dtype)

    return apply


def _square(x: Operand) -> Operand:
    return o.emit("bitwise_and", x, x) if _is_bool(x) else o.emit("mul", x, x)


def _reciprocal(x: Operand) -> Operand:
    """Of integers the whole part: 1, -1 and zeros."""
    if x.aval.is_float:
        return o.emit("div", like(x, 1), x)
    found = o.emit("floor_divide", like(x, 1), x)
    return o.select(_signbit(o.emit("add", x, like(x, 1))), like(x, 0), found)


def _scaled(factor: float) -> Formula:
    return lambda x: o.emit("mul", x, like(x, factor))


def _fmod(x: Operand, y: Operand) -> Operand:
    """The remainder with the sign of `x`; of integers without abs, which the least one lacks."""
    if not x.aval.is_float:
        rest = o.emit("remainder", x, y)
        turns = o.emit("bitwise_xor", _signbit(x), _signbit(y))
        turns = o.emit("bitwise_and", turns, o.emit("ne", rest, like(x, 0)))
        return o.select(turns, o.emit("sub", rest, y), rest)
    rest = o.emit("remainder", o.emit("abs", x), o.emit("abs", y))
    return o.select(_signbit(x), o.emit("neg", rest), rest)


def _divmod(x: Operand, y: Operand) -> tuple[Operand, Operand]:
    return o.emit("floor_divide", x, y), o.emit("remainder", x, y)


def _signbit(x: Operand) -> Operand:
    zero = like(x, 0)
    below = o.emit("lt", x, zero)
    if not x.aval.is_float:
        return below
    negative_zero = o.emit("lt", o.emit("div", like(x, 1), x), zero)
    return o.emit("bitwise_or", below, o.emit("bitwise_and", o.emit("eq", x, zero), negative_zero))


def _copysign(x: Operand, y: Operand) -> Operand:
    size = o.emit("abs", x)
    return o.select(_signbit(y), o.emit("neg", size), size)


def _hypot(x: Operand, y: Operand) -> Operand:
    """sqrt(x² + y²) without overflow: the larger one times sqrt(1 + (smaller / larger)²)."""
    x, y = o.emit("abs", x), o.emit("abs", y)
    large, small = o.emit("maximum", x, y), o.emit("minimum", x, y)
    ratio = o.emit("div", small, large)
    plain: Operand = o.emit("mul", large, o.emit("sqrt", o.emit("add", like(x, 1), _square(ratio))))
    # large == 0: 0/0; one infinite: the other may be nan, and the result is still infinite.
    plain = o.select(o.emit("eq", large, like(x, 0)), large, plain)
    infinite = o.emit("bitwise_or", o.emit("is_inf", x), o.emit("is_inf", y))
    return o.select(infinite, like(x, math.inf), plain)


def _log_add(exp: str, log1p: Callable[[Operand], Operand]) -> Formula:
    def apply(x: Operand, y: Operand) -> Operand:
        """The larger one plus log(1 + exp(-|x - y|)); equal infinities would give inf - inf.

        Chosen by the sign of x - y, not by max and abs, whose kinks would give the gradient at a
        tie, where this function is smooth.
        """
        infinite = o.emit("bitwise_and", o.emit("eq", x, y), o.emit("is_inf", x))
        gap = o.select(infinite, like(x, 0), o.emit("sub", x, y))
        greater = o.emit("gt", gap, like(x, 0))
        folded = o.select(greater, o.emit("neg", gap), gap)
        return o.emit("add", o.select(greater, x, y), log1p(o.emit(exp, folded)))

    return apply


def _log2_1p(x: Operand) -> Operand:
    return o.emit("mul", o.emit("log1p", x), like(x, 1 / math.log(2)))


def _prefer(name: str) -> Formula:
    """fmax, fmin: a nan loses against a number."""

    def apply(x: Operand, y: Operand) -> Operand:
        if _is_bool(x):
            return o.emit("bitwise_or" if name == "maximum" else "bitwise_and", x, y)
        chosen: Operand = kinks.extremum(name, x, y)
        if not x.aval.is_float:
            return chosen
        chosen = o.select(o.emit("is_nan", x), y, chosen)
        return o.select(o.emit("is_nan", y), x, chosen)

    return apply


def _heaviside(x: Operand, at_zero: Operand) -> Operand:
    zero, one = like(x, 0), like(x, 1)
    step: Operand = o.select(o.emit("lt", x, zero), zero, one)
    step = o.select(o.emit("eq", x, zero), at_zero, step)
    return o.select(o.emit("is_nan", x), x, step)


def _arcsinh(x: Operand) -> Operand:
    """sign(x) log1p(t + t²/(1 + sqrt(1 + t²))), t = |x|: exact near 0; large t by log t + log 2."""
    t = o.emit("abs", x)
    square = _square(t)
    root = o.emit("sqrt", o.emit("add", like(x, 1), square))
    inner = o.emit("add", t, o.emit("div", square, o.emit("add", like(x, 1), root)))
    big = o.emit("add", o.emit("log", t), like(x, math.log(2)))
    limit = {"f32": 1e8, "f64": 1e16}[x.aval.dtype]
    return _copysign(o.select(o.emit("gt", t, like(x, limit)), big, o.emit("log1p", inner)), x)


def _arccosh(x: Operand) -> Operand:
    """log1p(t + sqrt(t (t + 2))), t = x - 1; large x by log x + log 2."""
    t = o.emit("sub", x, like(x, 1))
    root = o.emit("sqrt", o.emit("mul", t, o.emit("add", t, like(x, 2))))
    big = o.emit("add", o.emit("log", x), like(x, math.log(2)))
    limit = {"f32": 1e8, "f64": 1e16}[x.aval.dtype]
    return o.select(o.emit("gt", x, like(x, limit)), big, o.emit("log1p", o.emit("add", t, root)))


def _arctanh(x: Operand) -> Operand:
    """(log1p(x) - log1p(-x)) / 2."""
    pair = o.emit("sub", o.emit("log1p", x), o.emit("log1p", o.emit("neg", x)))
    return o.emit("mul", pair, like(x, 0.5))


def _cbrt(x: Operand) -> Operand:
    """The root of |x| by pow, one Newton step, and the sign."""
    t = o.emit("abs", x)
    root = o.emit("pow", t, like(x, 1 / 3))
    cube = o.emit("mul", root, root)
    better = o.emit(
        "sub",
        root,
        o.emit("div", o.emit("sub", root, o.emit("div", t, cube)), like(x, 3)),
    )
    usable = o.emit("bitwise_and", o.emit("gt", t, like(x, 0)), o.emit("is_finite", t))
    return _copysign(o.select(usable, better, t), x)


def _float_power(x: Operand, y: Operand) -> Operand:
    return o.emit("pow", x, y)


def _sign(x: Operand) -> Operand:
    return o.emit("sign", x)


def _absolute(x: Operand) -> Operand:
    return x if _is_bool(x) or x.aval.dtype in UNSIGNED else kinks.absolute(x)


def _greater(name: str, on_bool: str) -> Formula:
    return lambda x, y: o.emit(on_bool, x, y) if _is_bool(x) else kinks.extremum(name, x, y)


FORMULAS: dict[np.ufunc, Formula] = {
    np.add: _op("add", "bitwise_or"),
    np.subtract: _op("sub"),
    np.multiply: _op("mul", "bitwise_and"),
    np.true_divide: _op("div"),
    np.floor_divide: _op("floor_divide"),
    np.remainder: _op("remainder"),
    np.fmod: _fmod,
    np.divmod: _divmod,
    np.power: _op("pow"),
    np.float_power: _float_power,
    np.negative: _op("neg"),
    np.positive: lambda x: x,
    np.conjugate: lambda x: x,
    np.absolute: _absolute,
    np.fabs: kinks.absolute,
    np.sign: _sign,
    np.sqrt: kinks.root,
    np.cbrt: _in_f32(_cbrt),
    np.square: _square,
    np.reciprocal: _reciprocal,
    np.exp: _op("exp"),
    np.exp2: _op("exp2"),
    np.expm1: _op("expm1"),
    np.log: _op("log"),
    np.log2: _op("log2"),
    np.log10: _op("log10"),
    np.log1p: _op("log1p"),
    np.logaddexp: _in_f32(_log_add("exp", lambda x: o.emit("log1p", x))),
    np.logaddexp2: _in_f32(_log_add("exp2", _log2_1p)),
    np.sin: _op("sin"),
    np.cos: _op("cos"),
    np.tan: _op("tan"),
    np.arcsin: _op("arcsin"),
    np.arccos: _op("arccos"),
    np.arctan: _op("arctan"),
    np.arctan2: _op("arctan2"),
    np.sinh: _op("sinh"),
    np.cosh: _op("cosh"),
    np.tanh: _op("tanh"),
    np.arcsinh: _in_f32(_arcsinh),
    np.arccosh: _in_f32(_arccosh),
    np.arctanh: _in_f32(_arctanh),
    np.deg2rad: _scaled(math.pi / 180),
    np.radians: _scaled(math.pi / 180),
    np.rad2deg: _scaled(180 / math.pi),
    np.degrees: _scaled(180 / math.pi),
    np.hypot: _in_f32(_hypot),
    np.copysign: _copysign,
    np.signbit: _signbit,
    np.heaviside: _heaviside,
    np.maximum: _greater("maximum", "bitwise_or"),
    np.minimum: _greater("minimum", "bitwise_and"),
    np.fmax: _prefer("maximum"),
    np.fmin: _prefer("minimum"),
    np.floor: _op("floor", "same", on_integers=False),
    np.ceil: _op("ceil", "same", on_integers=False),
    np.trunc: _op("trunc", "same", on_integers=False),
    np.rint: _op("round"),
    np.isnan: _classify("is_nan", of_integers=False),
    np.isinf: _classify("is_inf", of_integers=False),
    np.isfinite: _classify("is_finite", of_integers=True),
    np.equal: _op("eq"),
    np.not_equal: _op("ne"),
    np.less: _op("lt"),
    np.less_equal: _op("le"),
    np.greater: _op("gt"),
    np.greater_equal: _op("ge"),
    np.logical_and: _logical("bitwise_and"),
    np.logical_or: _logical("bitwise_or"),
    np.logical_xor: _logical("bitwise_xor"),
    np.logical_not: _logical("bitwise_not"),
    np.bitwise_and: _op("bitwise_and"),
    np.bitwise_or: _op("bitwise_or"),
    np.bitwise_xor: _op("bitwise_xor"),
    np.invert: _op("bitwise_not"),
    np.left_shift: _op("shift_left"),
    np.right_shift: _op("shift_right"),
}
