"""The text of expressions and guards, read back: Python's syntax and precedence.

    sum    = term (("+" | "-") term)*
    term   = factor (("*" | "//" | "%") factor)*
    factor = "-" factor | "(" sum ")" | integer | name
    cond   = sum (">=" | ">" | "<" | "<=" | "==") sum
    guard  = cond ("&" cond)* | "true" | "false"

Names mean what the caller's lookup says: `Symbol` itself makes every name a dimension.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from diffc.ir.index.expr import Dim
from diffc.ir.index.guard import FALSE, TRUE, Guard, eq, ge, lt

Lookup = Callable[[str], Dim]
_TOKEN = re.compile(r"\s*(\d+|[A-Za-z_][\w.]*|//|>=|<=|==|[-+*%()<>&])")
_RELATIONS: dict[str, Callable[[Dim, Dim], Guard]] = {
    ">=": ge,
    "<": lt,
    "==": eq,
    "<=": lambda a, b: ge(b, a),
    ">": lambda a, b: lt(b, a),
}


def parse(text: str, lookup: Lookup) -> Dim:
    """Reads an expression.

    Raises:
        ValueError: the text is malformed, or lookup knows no such name (raises KeyError).

    >>> from diffc.ir.index.expr import Symbol
    >>> parse("4*(n + 1) // 2", Symbol)
    2*n + 2
    """
    reader = _Reader(text, lookup)
    result = reader.sum()
    reader.end()
    return result


def parse_guard(text: str, lookup: Lookup) -> Guard:
    """Reads a guard, such as `i >= 1 & i < 9`; errors as in `parse`."""
    if text.strip() in ("true", "false"):
        return TRUE if text.strip() == "true" else FALSE
    reader = _Reader(text, lookup)
    guard = reader.condition()
    while reader.accept("&"):
        guard = guard & reader.condition()
    reader.end()
    return guard


class _Reader:
    def __init__(self, text: str, lookup: Lookup) -> None:
        self.text = text
        self.lookup = lookup
        self.tokens: list[str] = []
        self.next = 0
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error(f"unexpected {text[position:].strip()[0]!r}")
            self.tokens.append(match[1])
            position = match.end()
        self.tokens.append("")

    def error(self, problem: str) -> ValueError:
        return ValueError(f"{problem} in the index expression {self.text!r}")

    def accept(self, *wanted: str) -> str:
        token = self.tokens[self.next]
        if token not in wanted:
            return ""
        self.next += 1
        return token

    def end(self) -> None:
        if self.tokens[self.next]:
            raise self.error(f"unexpected {self.tokens[self.next]!r}")

    def condition(self) -> Guard:
        left = self.sum()
        relation = self.accept(*_RELATIONS)
        if not relation:
            raise self.error(f"expected a comparison, not {self.tokens[self.next] or 'the end'!r}")
        return _RELATIONS[relation](left, self.sum())

    def sum(self) -> Dim:
        total = self.term()
        while sign := self.accept("+", "-"):
            total = total + self.term() if sign == "+" else total - self.term()
        return total

    def term(self) -> Dim:
        value = self.factor()
        while operation := self.accept("*", "//", "%"):
            factor = self.factor()
            if operation == "*":
                value = value * factor
            elif factor == 0:
                raise self.error("division by zero")
            else:
                value = value // factor if operation == "//" else value % factor
        return value

    def factor(self) -> Dim:
        if self.accept("-"):
            return -self.factor()
        if self.accept("("):
            value = self.sum()
            if not self.accept(")"):
                raise self.error("unclosed parenthesis")
            return value
        token = self.tokens[self.next]
        self.next += bool(token)
        if token.isdigit():
            return int(token)
        if not token or not (token[0].isalpha() or token[0] == "_"):
            raise self.error(f"expected a value, not {token or 'the end'!r}")
        try:
            return self.lookup(token)
        except KeyError:
            raise self.error(f"unknown name {token!r}") from None
