"""What a rewrite rule is: a pattern, a condition and a replacement, with a name and a reason.

Patterns and replacements are text in Python's syntax: ``mul(x, 1)`` matches a product with a
literal 1; names bind operands, the same name twice the same operand; keywords bind params
(``sum(exp(x), axes=a)``). Commuted forms come from the driver. A replacement's literals take the
aval of their place.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from diffc.ir.aval import FLOATS

Exactness = Literal["exact", "finite", "reals"]

#: bit for bit
EXACT: Exactness = "exact"
#: equal without nan and inf
FINITE: Exactness = "finite"
#: equal up to rounding
REALS: Exactness = "reals"


@dataclass(frozen=True, slots=True)
class Variable:
    """Binds an operand."""

    name: str


@dataclass(frozen=True, slots=True)
class Number:
    """A literal of this value."""

    value: float


@dataclass(frozen=True, slots=True)
class Node:
    """An equation of op ``op``. ``params`` maps names to a bound name or a constant."""

    op: str
    args: tuple[Pattern, ...]
    params: tuple[tuple[str, Any], ...] = ()


Pattern = Variable | Number | Node
Condition = Callable[..., bool]


def always(**bound: Any) -> bool:
    """No condition."""
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """One rewrite.

    Attributes:
        name: unique; ``--only`` and ``without`` speak of it.
        pattern: what is replaced.
        replacement: by what.
        exactness: bit for bit, without nan and inf, or up to rounding.
        why: the case that it serves.
        dtypes: dtypes of the result for which it holds.
        when: a named predicate on what the pattern bound.
        stabilizes: lowers the error, so it is on although it is not exact.
    """

    name: str
    pattern: Pattern
    replacement: Pattern
    exactness: Exactness
    why: str
    dtypes: frozenset[str] = FLOATS
    when: Condition = always
    stabilizes: bool = False
    text: tuple[str, str] = field(default=("", ""))

    @property
    def is_on(self) -> bool:
        """Whether it is used unless the user says otherwise."""
        return self.exactness == "exact" or self.stabilizes

    @property
    def needs(self) -> tuple[frozenset[str], bool]:
        """What the operands of the root must be for a match: made by these ops; any literal."""
        assert isinstance(self.pattern, Node)
        ops = frozenset(arg.op for arg in self.pattern.args if isinstance(arg, Node))
        return ops, any(isinstance(arg, Number) for arg in self.pattern.args)

    @property
    def root(self) -> str:
        """The op at the root of the pattern."""
        assert isinstance(self.pattern, Node)
        return self.pattern.op


def rule(
    name: str,
    pattern: str,
    replacement: str,
    exactness: Exactness,
    *,
    why: str,
    dtypes: frozenset[str] = FLOATS,
    when: Condition = always,
    stabilizes: bool = False,
) -> Rule:
    """Declares a rule from text; see the module docstring."""
    return Rule(
        name,
        parse_pattern(pattern),
        parse_pattern(replacement),
        exactness,
        why,
        dtypes,
        when,
        stabilizes,
        (pattern, replacement),
    )


def rules(*table: Rule) -> Mapping[str, Rule]:
    """A table of rules by name.

    Raises:
        ValueError: two rules share a name.
    """
    found: dict[str, Rule] = {}
    for entry in table:
        if entry.name in found:
            raise ValueError(f"two rules are named {entry.name}")
        found[entry.name] = entry
    return found


def parse_pattern(text: str) -> Pattern:
    """The pattern that a text stands for."""
    return _convert(ast.parse(text, mode="eval").body)


def _convert(node: ast.expr) -> Pattern:
    match node:
        case ast.Name(id=name):
            return Variable(name)
        case ast.Constant(value=int() | float() as value):
            return Number(value)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return Number(-value)
        case ast.Call(func=ast.Name(id=op), args=args, keywords=keywords):
            params = tuple((str(k.arg), _param(k.value)) for k in keywords)
            return Node(op, tuple(map(_convert, args)), params)
    raise ValueError(f"not a pattern: {ast.unparse(node)}")


def _param(node: ast.expr) -> Any:
    return Variable(node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)
