"""Quasi-affine integer expressions in one normal form.

An expression is a Python int or an `Expr`: `const + Σ coef·atom` with nonzero coefs and atoms in a
fixed order. Atoms are `Symbol` (a named dimension, >= 0), `Var` (a loop index, 0 <= v < extent),
`FloorDiv` and `Mod` by an int >= 2, and `Product` (sizes times at most one atom that has a `Var`).

Invariants: a constant is an int, never an `Expr`; a lone atom with coef 1 is that atom itself, any
other expression is a `Sum`; atoms are interned, so equality of atoms is identity and equality of
expressions is structural. Every result holds for all values in the declared ranges: of an index
whose extent is 0 there are none. How quotients are simplified is in `divide.py`, which also says
what `//` and `%` do here; questions about expressions are in `query.py`.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TypeVar, cast
from weakref import WeakValueDictionary

Terms = tuple[tuple["Atom", int], ...]
Bounds = tuple[int | None, int | None]


class Expr:
    """A nonconstant expression; the operators `+ - * // %` take ints and expressions."""

    __slots__ = ("__weakref__", "_range", "const", "terms")

    const: int
    terms: Terms
    _range: Bounds | None

    def __add__(self, other: Dim) -> Dim:
        if not isinstance(other, Expr):
            number = _index(other)
            return NotImplemented if number is None else add_constant(self, number)
        merged = dict(self.terms)
        for atom, coef in other.terms:
            merged[atom] = merged.get(atom, 0) + coef
        return linear(self.const + other.const, merged)

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return scale(self, -1)

    def __sub__(self, other: Dim) -> Dim:
        if not isinstance(other, Expr):
            number = _index(other)
            return NotImplemented if number is None else add_constant(self, -number)
        merged = dict(self.terms)
        for atom, coef in other.terms:
            merged[atom] = merged.get(atom, 0) - coef
        return linear(self.const - other.const, merged)

    def __rsub__(self, other: Dim) -> Dim:
        return scale(self, -1) + other

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, Expr):
            return _multiply(self, other)
        number = _index(other)
        return NotImplemented if number is None else scale(self, number)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return _divide(self, other)[0]

    def __rfloordiv__(self, other: Dim) -> Dim:
        return _divide(other, self)[0]

    def __mod__(self, other: Dim) -> Dim:
        return _divide(self, other)[1]

    def __rmod__(self, other: Dim) -> Dim:
        return _divide(other, self)[1]

    def __divmod__(self, other: Dim) -> tuple[Dim, Dim]:
        return _divide(self, other)

    def __str__(self) -> str:
        return _text(self)

    def __repr__(self) -> str:
        return _text(self)


Dim = int | Expr


class Sum(Expr):
    """Two or more terms, or one with a coef or a constant. Built by `linear` alone."""

    __slots__ = ("_hash",)

    def __init__(self, const: int, terms: Terms) -> None:
        self.const = const
        self.terms = terms
        self._range = None
        self._hash = hash((const, terms))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(other) is not Sum or self._hash != other._hash:
            return False
        return self.const == other.const and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        return Sum, (self.const, self.terms)


class Atom(Expr):
    """An indivisible factor. `key` orders atoms; `is_size` says that no `Var` occurs inside."""

    __slots__ = ("is_size", "key")

    key: tuple[bool, str]
    is_size: bool

    @property
    def factors(self) -> tuple[Atom, ...]:
        """The atoms of which this one is the product."""
        return (self,)


AtomT = TypeVar("AtomT", bound=Atom)
_atoms: WeakValueDictionary[tuple[object, ...], Atom] = WeakValueDictionary()
_lock = threading.Lock()


def _intern(identity: tuple[object, ...], atom: AtomT, label: str, is_size: bool) -> AtomT:
    if len(label) > 160:  # keeps keys short where a quotient of a quotient doubles its text
        label = label[:80] + blake2b(label.encode(), digest_size=12).hexdigest()
    atom.key = (is_size, label)
    atom.is_size = is_size
    atom.const = 0
    atom.terms = ((atom, 1),)
    atom._range = None
    with _lock:
        return cast(AtomT, _atoms.setdefault(identity, atom))


class Symbol(Atom):
    """A named dimension, an integer >= 0."""

    __slots__ = ("name",)

    name: str

    def __new__(cls, name: str) -> Symbol:
        """Returns the one object with this name."""
        found = _atoms.get((cls, name))
        if found is not None:
            return cast(Symbol, found)
        self = object.__new__(cls)
        self.name = name
        return _intern((cls, name), self, name, True)

    def __reduce__(self) -> tuple[object, ...]:
        return Symbol, (self.name,)


class Var(Atom):
    """A loop index, 0 <= v < extent. Equal name and extent make equal variables."""

    __slots__ = ("extent", "name")

    name: str
    extent: Dim

    def __new__(cls, name: str, extent: Dim) -> Var:
        """Returns the one object with this name and extent."""
        extent = dim(extent)
        found = _atoms.get((cls, name, extent))
        if found is not None:
            return cast(Var, found)
        if isinstance(extent, int) and extent < 0:
            raise ValueError(f"index {name} has the negative extent {extent}")
        self = object.__new__(cls)
        self.name = name
        self.extent = extent
        return _intern((cls, name, extent), self, f"{name} {extent}", False)

    def __reduce__(self) -> tuple[object, ...]:
        return Var, (self.name, self.extent)


class Quotient(Atom):
    """What `FloorDiv` and `Mod` share: a base and an int divisor >= 2. Built by `divide` alone."""

    __slots__ = ("base", "divisor")

    base: Expr
    divisor: int
    sign = ""

    def __new__(cls, base: Expr, divisor: int) -> Quotient:
        """Returns the one object with this base and divisor."""
        found = _atoms.get((cls, base, divisor))
        if found is not None:
            return cast(Quotient, found)
        self = object.__new__(cls)
        self.base = base
        self.divisor = divisor
        label = "+".join(f"{coef}*{atom.key[1]}" for atom, coef in base.terms)
        label = label.removeprefix("1*") + f"{base.const:+d}" * bool(base.const)
        is_size = all(atom.is_size for atom, _ in base.terms)
        return _intern((cls, base, divisor), self, f"{label}{cls.sign}{divisor}", is_size)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.base, self.divisor)


class FloorDiv(Quotient):
    """`base // divisor`, rounded towards minus infinity."""

    __slots__ = ()
    sign = "//"


class Mod(Quotient):
    """`base % divisor`, in 0 .. divisor - 1."""

    __slots__ = ()
    sign = "%"


class Product(Atom):
    """A product of atoms, all sizes but at most one. Built by `*` alone."""

    __slots__ = ("_factors",)

    _factors: tuple[Atom, ...]

    def __new__(cls, factors: tuple[Atom, ...]) -> Product:
        """Returns the one object with these factors, which stand in their order."""
        found = _atoms.get((cls, factors))
        if found is not None:
            return cast(Product, found)
        self = object.__new__(cls)
        self._factors = factors
        label = "*".join(factor.key[1] for factor in factors)
        is_size = all(factor.is_size for factor in factors)
        return _intern((cls, factors), self, label, is_size)

    @property
    def factors(self) -> tuple[Atom, ...]:
        """The atoms of which this one is the product."""
        return self._factors

    def __reduce__(self) -> tuple[object, ...]:
        return Product, (self._factors,)


def dim(value: object) -> Dim:
    """Returns an `Expr` as it is and any integer (NumPy's too) as an int; else TypeError."""
    if isinstance(value, Expr):
        return value
    return operator.index(value)  # type: ignore[arg-type]  # raises the TypeError for us


def _index(value: object) -> int | None:
    if type(value) is int:
        return value
    try:
        return operator.index(value)  # type: ignore[arg-type]  # the TypeError is the answer
    except TypeError:
        return None


# --- the normal form of sums and products


def _order(term: tuple[Atom, int]) -> tuple[bool, str]:
    return term[0].key


# Set by `divide`: they need sums, and sums need them once a quotient is among the terms.
_divide: Callable[[Dim, Dim], tuple[Dim, Dim]]
_recombine: Callable[[int, dict[Atom, int]], Dim | None]


def install(
    divide: Callable[[Dim, Dim], tuple[Dim, Dim]],
    recombine: Callable[[int, dict[Atom, int]], Dim | None],
) -> None:
    """Gives the operators their division; called once, by `divide.py`, at import."""
    global _divide, _recombine
    _divide, _recombine = divide, recombine


def linear(const: int, coefs: dict[Atom, int]) -> Dim:
    """Returns the normal form of `const + Σ coef·atom`."""
    items = [term for term in coefs.items() if term[1]]
    if not items:
        return const
    if len(items) == 1:
        atom, coef = items[0]
        return atom if coef == 1 and const == 0 else Sum(const, ((atom, coef),))
    for atom, _ in items:
        if isinstance(atom, Quotient):
            merged = _recombine(const, dict(items))
            if merged is not None:
                return merged
            break
    items.sort(key=_order)
    return Sum(const, tuple(items))


def add_constant(expr: Expr, number: int) -> Dim:
    """Returns `expr + number`."""
    if number == 0:
        return expr
    const = expr.const + number
    if const == 0 and len(expr.terms) == 1 and expr.terms[0][1] == 1:
        return expr.terms[0][0]
    return Sum(const, expr.terms)


def scale(expr: Expr, number: int) -> Dim:
    """Returns `number * expr`."""
    if number == 1:
        return expr
    if number == 0:
        return 0
    terms = tuple((atom, coef * number) for atom, coef in expr.terms)
    const = expr.const * number
    if const == 0 and len(terms) == 1 and terms[0][1] == 1:
        return terms[0][0]
    return Sum(const, terms)


def product(factors: Iterable[Atom]) -> Atom | int:
    """Returns the product of atoms as one atom (1 for none).

    Raises:
        ValueError: two of them contain a loop index.
    """
    ordered = tuple(sorted(factors, key=lambda atom: atom.key))
    if len(ordered) == 1:
        return ordered[0]
    if len(ordered) > 1 and not ordered[1].is_size:
        raise ValueError(f"{ordered[0]} * {ordered[1]}: a product of two indices is not affine")
    return Product(ordered) if ordered else 1


def _multiply(a: Expr, b: Expr) -> Dim:
    const = a.const * b.const
    coefs: dict[Atom, int] = {}
    for left, p in (*a.terms, (None, a.const)):
        for right, q in (*b.terms, (None, b.const)):
            factors = (left.factors if left else ()) + (right.factors if right else ())
            if p * q and factors:
                atom = cast(Atom, product(factors))
                coefs[atom] = coefs.get(atom, 0) + p * q
    return linear(const, coefs)


# --- text


def _factor_text(atom: Atom) -> str:
    return f"({atom})" if isinstance(atom, Quotient) else _text(atom)


def _text(expr: Expr) -> str:
    if isinstance(expr, Symbol | Var):
        return expr.name
    if isinstance(expr, Quotient):
        base = _text(expr.base)
        if not isinstance(expr.base, Symbol | Var):
            base = f"({base})"
        return f"{base}{expr.sign}{expr.divisor}"
    if isinstance(expr, Product):
        return "*".join(_factor_text(factor) for factor in expr.factors)
    parts = [
        (coef < 0, _text(atom) if abs(coef) == 1 else f"{abs(coef)}*{_factor_text(atom)}")
        for atom, coef in expr.terms
    ]
    if expr.const:
        leads = expr.const > 0 and parts[0][0]  # `3 - i`, not `-i + 3`
        parts.insert(0 if leads else len(parts), (expr.const < 0, str(abs(expr.const))))
    text = ""
    for negative, part in parts:
        text += (" - " if negative else " + ") + part
    if not parts[0][0]:
        return text[3:]
    # `-i//4` would read (-i)//4, so a leading quotient is set in parentheses
    head = parts[0][1]
    lone = abs(expr.terms[0][1]) == 1 and isinstance(expr.terms[0][0], Quotient)
    return "-" + (f"({head})" if lone else head) + text[3 + len(head) :]
