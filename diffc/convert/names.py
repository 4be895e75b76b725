"""What statements assign, read and mutate, and which names are read later (liveness).

Liveness runs backwards over trees without jumps, or with jumps that stay Python's own; those are
followed exactly. Names that nested functions read are taken to be read always.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
LOOPS = (ast.While, ast.For)

#: methods of Python's containers that change them
MUTATORS = frozenset(
    [
        "append",
        "extend",
        "insert",
        "pop",
        "remove",
        "clear",
        "update",
        "setdefault",
        "popitem",
        "add",
        "discard",
        "appendleft",
        "popleft",
    ]
)


def walk(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes of a scope: functions and classes within are given, but not entered."""
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, SCOPES):
            stack.extend(ast.iter_child_nodes(node))


def assigned(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that the statements bind in their own scope."""
    found: set[str] = set()
    for node in walk(nodes):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update((a.asname or a.name).split(".")[0] for a in node.names)
        elif (isinstance(node, ast.ExceptHandler) and node.name) or (
            isinstance(node, ast.MatchAs | ast.MatchStar) and node.name
        ):
            found.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            found.add(node.rest)
    return found - _comprehended(nodes)


def _comprehended(nodes: Iterable[ast.AST]) -> set[str]:
    """Targets of comprehensions, which have scopes of their own, unless bound elsewhere too."""
    inner: set[int] = set()
    names: set[str] = set()
    for node in walk(nodes):
        if isinstance(node, ast.comprehension):
            for part in ast.walk(node.target):
                if isinstance(part, ast.Name):
                    inner.add(id(part))
                    names.add(part.id)
    for node in walk(nodes):
        is_store = isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
        if is_store and id(node) not in inner:
            names.discard(node.id)  # type: ignore[attr-defined]  # a name
    return names


def loads(node: ast.AST) -> set[str]:
    """Names that are read, in functions within too."""
    return {
        part.id
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)
    }


def of_inner_functions(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that functions within read or rebind, whenever they are called."""
    found: set[str] = set()
    for node in walk(nodes):
        if isinstance(node, SCOPES):
            for part in ast.walk(node):
                if isinstance(part, ast.Name):
                    found.add(part.id)
                elif isinstance(part, ast.Nonlocal):
                    found.update(part.names)
    return found


def declared(nodes: Iterable[ast.AST], kind: type[ast.Global] | type[ast.Nonlocal]) -> set[str]:
    """Names that the scope declares global, or nonlocal."""
    return {name for node in walk(nodes) if isinstance(node, kind) for name in node.names}


def mutated(nodes: Iterable[ast.AST]) -> dict[str, int]:
    """Names whose objects are changed in place (``x[i] = v``, ``x.append(v)``), with the line."""
    found: dict[str, int] = {}
    for node in walk(nodes):
        target: ast.expr | None = None
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            target = node.value
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in MUTATORS:
            target = node.func.value  # type: ignore[attr-defined]  # an attribute, which has one
        while isinstance(target, ast.Subscript):
            target = target.value
        if isinstance(target, ast.Name):
            found.setdefault(target.id, node.lineno)  # type: ignore[attr-defined]  # an expression
    return found


class Liveness:
    """Marks each ``if`` and loop with the names that are read later.

    Sets ``node.live`` (read after the statement) on ``If``, ``While`` and ``For``, and on loops
    ``node.live_head`` (read by the next trip, or after the loop).
    """

    def __init__(self, body: list[ast.stmt]) -> None:
        self._always = of_inner_functions(body)
        self._breaks: list[set[str]] = []
        self._heads: list[set[str]] = []
        self._block(body, set(self._always))

    def _block(self, body: list[ast.stmt], after: set[str]) -> set[str]:
        live = after
        for statement in reversed(body):
            live = self._statement(statement, live)
        return live

    def _statement(self, s: ast.stmt, after: set[str]) -> set[str]:
        match s:
            case ast.If():
                s.live = after  # type: ignore[attr-defined]  # our own mark
                return loads(s.test) | self._block(s.body, after) | self._block(s.orelse, after)
            case ast.While() | ast.For():
                return self._loop(s, after)
            case ast.Return():
                return self._always | (loads(s.value) if s.value else set())
            case ast.Raise():
                return self._always | loads(s)
            case ast.Break():
                return set(self._breaks[-1]) if self._breaks else after
            case ast.Continue():
                return set(self._heads[-1]) if self._heads else after
            case ast.With():
                inside = self._block(s.body, after)
                return inside.union(*(loads(item) for item in s.items))
            case ast.Try() | ast.TryStar() | ast.Match() | ast.AsyncWith() | ast.AsyncFor():
                return self._opaque(s, after)
            case ast.Assign() | ast.AnnAssign():
                return (after - assigned([s])) | loads(s)
            case ast.AugAssign():
                own = {s.target.id} if isinstance(s.target, ast.Name) else set()
                return after | loads(s) | own
            case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
                return (after - {s.name}) | loads(s)
            case ast.Delete():
                return after | assigned([s])
        return after | loads(s)

    def _loop(self, s: ast.While | ast.For, after: set[str]) -> set[str]:
        out = self._block(s.orelse, after)
        test = loads(s.test) if isinstance(s, ast.While) else set()
        targets = assigned([s.target]) if isinstance(s, ast.For) else set()
        stop = getattr(s, "stop", "")  # jumps marked it: read before each trip
        test |= {stop} if stop else set()
        head = out | test
        while True:
            self._breaks.append(after)
            self._heads.append(head)
            found = head | (self._block(s.body, head) - targets)
            self._breaks.pop()
            self._heads.pop()
            if found == head:
                break
            head = found
        s.live, s.live_head = out, head  # type: ignore[union-attr]  # our own marks
        return head | (loads(s.iter) if isinstance(s, ast.For) else set())

    def _opaque(self, s: ast.stmt, after: set[str]) -> set[str]:
        """Anything may happen within: nothing is surely assigned, everything may be read."""
        live = after | loads(s)
        for part in ast.iter_child_nodes(s):
            for block in (part, s) if part is not s else (s,):
                for name in ("body", "orelse", "finalbody"):
                    inner = getattr(block, name, None)
                    if isinstance(inner, list) and inner and isinstance(inner[0], ast.stmt):
                        self._block(inner, live)
        return live
