"""Quasi-affine expressions over indices and dimensions, and conjunctions of conditions on them.

The same objects are the dimensions of avals, the maps of movement ops, the accesses and guards of
kernels, and the sizes in the arena. An int is an expression everywhere, and what is constant comes
back as an int:

>>> i, j = Var("i", 6), Var("j", 4)
>>> unravel(ravel((i, j), (6, 4)), (2, 3, 4))
(i//3, i%3, j)
"""

from diffc.ir.index.bounds import bounds, is_nonnegative
from diffc.ir.index.expr import (
    Atom,
    Dim,
    Expr,
    FloorDiv,
    Mod,
    Product,
    Quotient,
    Sum,
    Symbol,
    Var,
    dim,
)
from diffc.ir.index.guard import FALSE, TRUE, Cond, Guard, eq, ge, lt
from diffc.ir.index.maps import ravel, size, strides, unravel
from diffc.ir.index.query import (
    coefficient,
    divisible,
    evaluate,
    free,
    linear_in,
    substitute,
)
from diffc.ir.index.text import parse, parse_guard

__all__ = [
    "FALSE",
    "TRUE",
    "Atom",
    "Cond",
    "Dim",
    "Expr",
    "FloorDiv",
    "Guard",
    "Mod",
    "Product",
    "Quotient",
    "Sum",
    "Symbol",
    "Var",
    "bounds",
    "coefficient",
    "dim",
    "divisible",
    "eq",
    "evaluate",
    "free",
    "ge",
    "is_nonnegative",
    "linear_in",
    "lt",
    "parse",
    "parse_guard",
    "ravel",
    "size",
    "strides",
    "substitute",
    "unravel",
]
