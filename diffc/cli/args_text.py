"""Text of arguments: ``"{w: f32[3], b: f32[]} f32[8,3] float"`` as pytrees of abstract leaves.

One item per argument, separated by blanks or commas. A leaf is an aval (``f32[64,10]``, ``i64[]``)
or a Python scalar (``float``, ``int``, ``bool``); containers are ``{name: item, ...}``,
``[item, ...]``, ``(item, ...)`` and ``None``. Dimensions are integers.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from diffc.errors import UsageError
from diffc.ir.aval import DTYPES, aval
from diffc.ir.text import parse_aval
from diffc.trace import Abstract

HINT = 'write avals such as "f32[64,10] {w: f32[3], b: f32[]} float"'

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<aval>[A-Za-z]\w*\[[^\]\[]*\])
    |(?P<string>'[^']*'|"[^"]*")
    |(?P<name>[A-Za-z_]\w*)|(?P<number>-?\d+)
    |(?P<mark>[{}()\[\],:])""",
    re.VERBOSE,
)
_CLOSES = {"[": "]", "(": ")", "{": "}"}

#: Python scalars: dtype and whether they promote weakly.
SCALARS = {"float": ("f64", True), "int": ("i64", True), "bool": ("bool", False)}


def parse_args(text: str) -> tuple[Any, ...]:
    """The arguments that a text describes.

    Raises:
        UsageError: names what was found and where.
    """
    reader = _Reader(text)
    found = []
    while reader.kind != "end":
        found.append(reader.item())
        reader.accept(",")
    return tuple(found)


class _Reader:
    """Tokens of the text and a position in them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                self.fail(f"unexpected {text[at]!r}", at)
            if match.lastgroup != "space":
                self.tokens.append((match.lastgroup or "", match.group(), at))
            at = match.end()
        self.tokens.append(("end", "", len(text)))
        self.at = 0

    @property
    def kind(self) -> str:
        return self.tokens[self.at][0]

    @property
    def token(self) -> str:
        return self.tokens[self.at][1]

    def fail(self, problem: str, position: int | None = None) -> NoReturn:
        place = self.tokens[self.at][2] if position is None else position
        raise UsageError(f"arguments {self.text!r}, column {place + 1}: {problem}", hint=HINT)

    def accept(self, mark: str) -> bool:
        if self.kind == "mark" and self.token == mark:
            self.at += 1
            return True
        return False

    def item(self) -> Any:
        """One leaf or container."""
        kind, token = self.kind, self.token
        if kind == "mark" and token in _CLOSES:
            self.at += 1
            return self.container(token)
        if kind == "aval":
            leaf = self.leaf(token)
        elif kind == "name" and token in SCALARS:
            dtype, weak = SCALARS[token]
            leaf = Abstract(aval(dtype), weak, True)
        elif kind == "name" and token == "None":
            leaf = None
        elif kind == "name" and token in DTYPES and self.tokens[self.at + 1][1] == "[":
            self.fail("a ']' is missing")
        elif kind == "name" and token in DTYPES:
            self.fail(f"{token} has no shape: write {token}[] for a scalar, {token}[3] for an axis")
        elif kind == "end":
            self.fail("it ends too early")
        else:
            self.fail(f"{token!r} is not an argument")
        self.at += 1
        return leaf

    def leaf(self, token: str) -> Abstract:
        dtype = token.partition("[")[0]
        if dtype not in DTYPES:
            self.fail(f"{dtype!r} is not a dtype; diffc knows {' '.join(DTYPES)}")
        dims = [dim.strip() for dim in token[len(dtype) + 1 : -1].split(",")]
        for dim in dims if dims != [""] else []:
            if not re.fullmatch(r"\d+", dim):
                self.fail(f"{dim or 'nothing'!r} is not a dimension: dimensions are integers")
        return Abstract(parse_aval(token))

    def container(self, opening: str) -> Any:
        closing = _CLOSES[opening]
        items: list[Any] = []
        names: list[Any] = []
        while not self.accept(closing):
            if opening == "{":
                names.append(self.key())
            items.append(self.item())
            if not self.accept(",") and self.token != closing:
                self.fail(f"expected ',' or {closing!r}, found {self.token or 'the end'!r}")
        if opening == "{":
            if len(set(names)) != len(names):
                self.fail("a key occurs twice")
            return dict(zip(names, items, strict=True))
        return items if opening == "[" else tuple(items)

    def key(self) -> Any:
        kind, token = self.kind, self.token
        if kind not in ("name", "string", "number"):
            self.fail(f"expected a key, found {token or 'the end'!r}")
        self.at += 1
        if not self.accept(":"):
            self.fail(f"expected ':' behind the key {token}")
        if kind == "number":
            return int(token)
        return token if kind == "name" else token[1:-1]
