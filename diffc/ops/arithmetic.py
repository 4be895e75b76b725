"""Arithmetic of one and two operands, element by element: what NumPy's operators do.

Integers wrap around; a quotient or remainder of integers by zero is 0, as in NumPy. Among equal
zeros of different sign ``maximum`` and ``minimum`` give their second operand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.errors import ShapeError
from diffc.ir.aval import FLOATS, NUMBERS, Aval, wide
from diffc.ops.avals import elementwise, need_dtype
from diffc.ops.declare import Map, Over, Partials, Routes, Waived, Zero, op
from diffc.ops.term import power, select, unary

log = unary("log")

add = op(
    "add",
    doc="Sum of two arrays, element by element.",
    aval=elementwise(NUMBERS, 2),
    numpy=np.add,
    sympy="x + y",
    derivative=Partials(lambda x, y, out: (1, 1), bounded=True),
    body=Map(lambda x, y: x + y),
)

sub = op(
    "sub",
    doc="Difference of two arrays, element by element.",
    aval=elementwise(NUMBERS, 2),
    numpy=np.subtract,
    sympy="x - y",
    derivative=Partials(lambda x, y, out: (1, -1), bounded=True),
    body=Map(lambda x, y: x - y),
)

mul = op(
    "mul",
    doc="Product of two arrays, element by element.",
    aval=elementwise(NUMBERS, 2),
    numpy=np.multiply,
    sympy="x*y",
    derivative=Partials(lambda x, y, out: (y, x)),
    body=Map(lambda x, y: x * y),
)

div = op(
    "div",
    doc="True quotient of two float arrays, element by element.",
    aval=elementwise(FLOATS, 2),
    numpy=np.true_divide,
    sympy="x/y",
    domain="Ne(y, 0)",
    derivative=Partials(lambda x, y, out: (Over(y), -(out / y))),
    body=Map(lambda x, y: x / y, price=2.0),
)

neg = op(
    "neg",
    doc="Negative of each element.",
    aval=elementwise(NUMBERS),
    numpy=np.negative,
    sympy="-x",
    derivative=Partials(lambda x, out: (-1,), bounded=True),
    body=Map(lambda x: -x),
)

abs_ = op(
    "abs",
    doc="Absolute value of each element; its derivative at 0 is 0.",
    aval=elementwise(NUMBERS),
    numpy=np.abs,
    sympy="Abs(x)",
    domain="Ne(x, 0)",
    derivative=Routes(lambda x, out: (((x > 0, 1), (x < 0, -1)),)),
    body=Map(lambda x: x.call("abs")),
)

sign = op(
    "sign",
    doc="-1, 0 or 1 by the sign of each element; nan stays nan.",
    aval=elementwise(NUMBERS),
    numpy=lambda x: np.sign(x.astype(wide(x.dtype), copy=False)).astype(x.dtype, copy=False),
    sympy="sign(x)",
    domain="Ne(x, 0)",
    derivative=Zero("it is constant on both sides of 0"),
    body=Map(lambda x: x.call("sign")),
)

sqrt = op(
    "sqrt",
    doc="Square root of each element; its derivative at 0 is inf.",
    aval=elementwise(FLOATS),
    numpy=np.sqrt,
    sympy="sqrt(x)",
    domain="x > 0",
    derivative=Partials(lambda x, out: (0.5 / out,)),
    body=Map(lambda x: x.call("sqrt"), price=2.0),
)

rsqrt = op(
    "rsqrt",
    doc="Reciprocal square root of each element: 1 / sqrt(x), both steps rounded.",
    aval=elementwise(FLOATS),
    numpy=lambda x: np.true_divide(x.dtype.type(1), np.sqrt(x)),
    sympy="1/sqrt(x)",
    domain="x > 0",
    derivative=Partials(lambda x, out: (-0.5 * (out * out * out),)),
    body=Map(lambda x: 1 / x.call("sqrt"), price=2.0),
)

floor_divide = op(
    "floor_divide",
    doc="Quotient rounded towards minus infinity; integers by zero give 0.",
    aval=elementwise(NUMBERS, 2),
    numpy=np.floor_divide,
    sympy="floor(x/y)",
    domain="Ne(y, 0) & Ne(x/y, floor(x/y))",
    derivative=Zero("it is constant between the jumps"),
    body=Map(lambda x, y: x.call("floor_divide", y), price=4.0),
)

remainder = op(
    "remainder",
    doc="Remainder with the sign of the divisor: x - floor(x/y)*y; integers by zero give 0.",
    aval=elementwise(NUMBERS, 2),
    numpy=np.remainder,
    sympy="x - y*floor(x/y)",
    domain="Ne(y, 0) & Ne(x/y, floor(x/y))",
    derivative=Partials(lambda x, y, out: (1, -x.call("floor_divide", y))),
    body=Map(lambda x, y: x.call("remainder", y), price=4.0),
)


def _pow_partials(x: Any, y: Any, out: Any) -> tuple[Any, Any]:
    """``y * x**(y-1)`` and ``x**y * log(x)``, with 0 for ``x**0`` by x and for ``0**y`` by y."""
    by_x = select(y.eq(0), 0, y * x.call("pow", y - 1))
    by_y = out * log(select(x.eq(0), 1, x))
    return by_x, by_y


pow_ = op(
    "pow",
    doc="x to the power y, element by element; nan for a negative x and a fractional y.",
    aval=elementwise(FLOATS, 2),
    numpy=np.power,
    sympy="x**y",
    domain="x > 0",
    derivative=Partials(_pow_partials),
    body=Map(lambda x, y: x.call("pow", y), price=16.0),
    ulp=2.0,
)


def _integer_pow_aval(x: Aval, *, exponent: int) -> Aval:
    need_dtype(0, x, NUMBERS)
    if exponent < 0 and not x.is_float:
        raise ShapeError(f"operand 0 is {x}; the exponent {exponent} needs floats")
    return x


def _integer_pow(x: np.ndarray[Any, Any], *, exponent: int) -> Any:
    result = power(x, exponent)
    return np.asarray(result, x.dtype)


def _integer_pow_partials(x: Any, out: Any, exponent: int) -> tuple[Any]:
    if exponent in (0, 1):
        return (exponent,)
    return (exponent * (x if exponent == 2 else x.call("integer_pow", exponent=exponent - 1)),)


integer_pow = op(
    "integer_pow",
    doc="x to a fixed integer power, by repeated squaring; a negative one is the reciprocal.",
    aval=_integer_pow_aval,
    numpy=_integer_pow,
    sympy="x**exponent",
    domain="(exponent >= 0) | Ne(x, 0)",
    derivative=Partials(_integer_pow_partials),
    body=Map(lambda x, exponent: power(x, exponent)),
    params=("exponent",),
    dtypes=NUMBERS,
)


def greater(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> Any:
    """The greater of two elements, nan if either is, the second of equal ones."""
    return np.where((x > y) | (x != x), x, y)


def less(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> Any:
    """The lesser of two elements, nan if either is, the second of equal ones."""
    return np.where((x < y) | (x != x), x, y)


maximum = op(
    "maximum",
    doc="The greater of two elements, nan if either is; ties share the derivative.",
    aval=elementwise(NUMBERS, 2),
    numpy=greater,
    sympy="Max(x, y)",
    domain="Ne(x, y)",
    derivative=Routes(
        lambda x, y, out: (((x > y, 1),), ((y > x, 1),)), ties=lambda x, y, out: x.eq(y)
    ),
    body=Map(lambda x, y: x.call("maximum", y)),
)

minimum = op(
    "minimum",
    doc="The lesser of two elements, nan if either is; ties share the derivative.",
    aval=elementwise(NUMBERS, 2),
    numpy=less,
    sympy="Min(x, y)",
    domain="Ne(x, y)",
    derivative=Routes(
        lambda x, y, out: (((x < y, 1),), ((y < x, 1),)), ties=lambda x, y, out: x.eq(y)
    ),
    body=Map(lambda x, y: x.call("minimum", y)),
)

floor = op(
    "floor",
    doc="Each element rounded towards minus infinity.",
    aval=elementwise(FLOATS),
    numpy=np.floor,
    sympy="floor(x)",
    domain="Ne(x, floor(x))",
    derivative=Zero("it is constant between integers"),
    body=Map(lambda x: x.call("floor")),
)

ceil = op(
    "ceil",
    doc="Each element rounded towards plus infinity.",
    aval=elementwise(FLOATS),
    numpy=np.ceil,
    sympy="ceiling(x)",
    domain="Ne(x, floor(x))",
    derivative=Zero("it is constant between integers"),
    body=Map(lambda x: x.call("ceil")),
)

round_ = op(
    "round",
    doc="Each element rounded to the nearest integer, halves to the even one.",
    aval=elementwise(FLOATS),
    numpy=np.rint,
    sympy="floor(x + 1/2)",
    domain="Ne(x + 1/2, floor(x + 1/2))",
    derivative=Zero("it is constant between halves"),
    body=Map(lambda x: x.call("round")),
)

trunc = op(
    "trunc",
    doc="Each element rounded towards zero.",
    aval=elementwise(FLOATS),
    numpy=np.trunc,
    sympy="sign(x)*floor(Abs(x))",
    domain="Ne(x, floor(x))",
    derivative=Zero("it is constant between integers"),
    body=Map(lambda x: x.call("trunc")),
)

stop_gradient = op(
    "stop_gradient",
    doc="The operand itself, as a constant to differentiation.",
    aval=lambda x: x,
    numpy=lambda x: x,
    sympy=Waived("as a function it is the identity, but its derivative is 0 on purpose"),
    derivative=Zero("that is what it is for"),
    body=Map(lambda x: x),
)
