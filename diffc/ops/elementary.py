"""Elementary functions of float arrays, element by element.

Partials avoid cancellation where a form without it costs no more: ``logistic`` by
``out * logistic(-x)``, ``arcsin`` by ``(1-x)*(1+x)``. None is declared bounded: at nan (and of
``sin`` and ``cos`` at inf) they are nan.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diffc.ir.aval import FLOATS, wide
from diffc.ops.avals import elementwise
from diffc.ops.declare import Map, Partials, op
from diffc.ops.term import unary

Array = np.ndarray[Any, Any]

#: how far compiled code may be from the exact value, on any target; NumPy's own functions are off
#: by up to 4 themselves. The tests compare these with what ``codegen`` states and measure both.
ULP = {
    "exp": 1.5,
    "exp2": 1.5,
    "expm1": 2.5,
    "log": 1.5,
    "log2": 2.0,
    "log10": 2.0,
    "log1p": 2.5,
    "logistic": 3.0,
    "tanh": 3.5,
    "sinh": 2.5,
    "cosh": 2.0,
    "sin": 1.6,
    "cos": 1.6,
    "tan": 2.5,
    "arctan": 2.0,
    "arctan2": 2.5,
    "arcsin": 2.0,
    "arccos": 2.0,
    "erf": 2.0,
}

exp, cos, sin, sinh, cosh, logistic_, rsqrt = map(
    unary, ("exp", "cos", "sin", "sinh", "cosh", "logistic", "rsqrt")
)


def _declare(name: str, doc: str, sympy: str, partial: Any, domain: str = "True") -> None:
    op(
        name,
        doc=doc,
        aval=elementwise(FLOATS),
        numpy=NUMPY.get(name) or getattr(np, name),
        sympy=sympy,
        domain=domain,
        derivative=Partials(lambda x, out: (partial(x, out),)),
        body=Map(unary(name), price=4.0 if name in ("exp", "exp2", "log", "log2") else 8.0),
        ulp=ULP[name],
    )


def _logistic(x: Array) -> Array:
    number = np.asarray(x).astype(wide(x.dtype), copy=False)
    small = np.exp(-np.abs(number))  # never overflows
    one = number.dtype.type(1)
    return np.asarray(np.where(number >= 0, one, small) / (one + small), x.dtype)


def _erf(x: Array) -> Array:
    values = [math.erf(value) for value in x.ravel().tolist()]
    return np.array(values, np.float64).reshape(x.shape).astype(x.dtype)


NUMPY = {"logistic": _logistic, "erf": _erf}

_declare("exp", "e to the power of each element.", "exp(x)", lambda x, out: out)
_declare("exp2", "2 to the power of each element.", "2**x", lambda x, out: out * math.log(2))
_declare(
    "expm1",
    "exp(x) - 1 of each element, exact near 0.",
    "exp(x) - 1",
    lambda x, out: exp(x),
)
_declare("log", "Natural logarithm of each element.", "log(x)", lambda x, out: 1 / x, "x > 0")
_declare(
    "log2",
    "Logarithm to the base 2 of each element.",
    "log(x)/log(2)",
    lambda x, out: math.log2(math.e) / x,
    "x > 0",
)
_declare(
    "log10",
    "Logarithm to the base 10 of each element.",
    "log(x)/log(10)",
    lambda x, out: math.log10(math.e) / x,
    "x > 0",
)
_declare(
    "log1p",
    "log(1 + x) of each element, exact near 0.",
    "log(1 + x)",
    lambda x, out: 1 / (1 + x),
    "x > -1",
)
_declare("tanh", "Hyperbolic tangent of each element.", "tanh(x)", lambda x, out: 1 - out * out)
_declare(
    "logistic",
    "1 / (1 + exp(-x)) of each element, the sigmoid.",
    "1/(1 + exp(-x))",
    lambda x, out: out * logistic_(-x),
)
_declare(
    "erf",
    "Error function of each element.",
    "erf(x)",
    lambda x, out: (2 / math.sqrt(math.pi)) * exp(-(x * x)),
)
_declare("sin", "Sine of each element.", "sin(x)", lambda x, out: cos(x))
_declare("cos", "Cosine of each element.", "cos(x)", lambda x, out: -sin(x))
_declare("tan", "Tangent of each element.", "tan(x)", lambda x, out: 1 + out * out, "Ne(cos(x), 0)")
_declare("sinh", "Hyperbolic sine of each element.", "sinh(x)", lambda x, out: cosh(x))
_declare("cosh", "Hyperbolic cosine of each element.", "cosh(x)", lambda x, out: sinh(x))
_declare("arctan", "Inverse tangent of each element.", "atan(x)", lambda x, out: 1 / (1 + x * x))
_declare(
    "arcsin",
    "Inverse sine of each element.",
    "asin(x)",
    lambda x, out: rsqrt((1 - x) * (1 + x)),
    "(x > -1) & (x < 1)",
)
_declare(
    "arccos",
    "Inverse cosine of each element.",
    "acos(x)",
    lambda x, out: -rsqrt((1 - x) * (1 + x)),
    "(x > -1) & (x < 1)",
)


def _arctan2_partials(x: Any, y: Any, out: Any) -> tuple[Any, Any]:
    squared = x * x + y * y
    return y / squared, -(x / squared)


arctan2 = op(
    "arctan2",
    doc="Angle of the point (y, x) given first operand x as ordinate, second y as abscissa.",
    aval=elementwise(FLOATS, 2),
    numpy=np.arctan2,
    sympy="atan2(x, y)",
    domain="Ne(x, 0) | (y > 0)",
    derivative=Partials(_arctan2_partials),
    body=Map(lambda x, y: x.call("arctan2", y), price=16.0),
    ulp=ULP["arctan2"],
)
