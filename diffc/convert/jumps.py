"""``break``, ``continue`` and early ``return`` removed: what follows them moves into branches.

Before::

    for x in xs:                        while True:
        if x < 0:                           if x > 9: return x
            continue                        x = f(x)
        s = s + x

After::

    for x in xs:                        did = False; stop = False
        if x < 0:                       while not stop and True:
            pass                            if x > 9: ret = x; did = True; stop = True
        else:                               else: x = f(x)
            s = s + x                   if did: return ret

A jump within ``with`` or ``try`` stays Python's own; so do the statements that it leaves, which are
then marked ``plain`` with the reason: they can't be steered by traced values.

Invariants: afterwards no statement that may be converted contains a jump, except ``return`` at the
top of the function.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

from diffc.convert.names import LOOPS, SCOPES

#: begins the names of returned values, which may be undefined while a flag says so
RETURNED = "_diffc_returned"
_JUMPS = (ast.Return, ast.Break, ast.Continue)
_GUARDS = (ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match, ast.AsyncFor)


def jumps(nodes: Iterable[ast.AST], *, in_loop: bool = False) -> list[ast.stmt]:
    """Jumps that leave these statements; ``in_loop``: only returns, as from within a loop."""
    found: list[ast.stmt] = []
    stack = [(node, in_loop) for node in nodes]
    while stack:
        node, inside = stack.pop()
        if isinstance(node, SCOPES):
            continue
        if isinstance(node, ast.Return) or (isinstance(node, _JUMPS) and not inside):
            found.append(node)
        inner = inside or isinstance(node, LOOPS)
        for child in ast.iter_child_nodes(node):
            is_else = isinstance(node, LOOPS) and child in node.orelse
            stack.append((child, inside if is_else else inner))
    return found


def _guarded(nodes: Iterable[ast.stmt], *, in_loop: bool = False) -> ast.stmt | None:
    """A jump that leaves these statements from within ``with``, ``try`` or ``match``."""
    stack = [(node, in_loop) for node in nodes]
    while stack:
        node, inside = stack.pop()
        if isinstance(node, SCOPES):
            continue
        if isinstance(node, _GUARDS):
            found = jumps([node], in_loop=inside)
            if found:
                return found[0]
        inner = inside or isinstance(node, LOOPS)
        stack.extend((c, inner) for c in ast.iter_child_nodes(node) if isinstance(c, ast.stmt))
    return None


def _exits(block: list[ast.stmt]) -> bool:
    """Whether the end of the block is never reached."""
    for s in block:
        if isinstance(s, (*_JUMPS, ast.Raise)):
            return True
        if isinstance(s, ast.If) and _exits(s.body) and _exits(s.orelse):
            return True
    return False


class _Level:
    """What jumps become: in a function's body or a loop's; ``flags`` are set by each jump."""

    def __init__(
        self, *, returned: str, did: str = "", stop: str = "", flags: tuple[str, ...] = ()
    ):
        self.returned = returned
        self.did = did
        self.stop = stop
        self.flags = flags

    def with_flag(self, flag: str) -> _Level:
        return _Level(
            returned=self.returned, did=self.did, stop=self.stop, flags=(*self.flags, flag)
        )

    def jump(self, s: ast.stmt) -> list[ast.stmt]:
        found: list[ast.stmt] = []
        names: list[str] = list(self.flags)
        if isinstance(s, ast.Return):
            value = s.value or ast.copy_location(ast.Constant(None), s)
            if not (isinstance(value, ast.Name) and value.id == self.returned):
                found.append(_assign(self.returned, value, s))
            names += [name for name in (self.did, self.stop) if name]
        elif isinstance(s, ast.Break):
            names.append(self.stop)
        found += [_assign(name, ast.Constant(True), s) for name in names]
        return found or [ast.copy_location(ast.Pass(), s)]


class _Natural(_Level):
    """Returns stand at the top of the function only, and stay."""

    def __init__(self) -> None:
        super().__init__(returned="")

    def jump(self, s: ast.stmt) -> list[ast.stmt]:
        return [s]


class Lowering:
    """Removes the jumps of one function's body."""

    def __init__(self) -> None:
        self._count = 0

    def function(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """The body without jumps, except where they stay Python's own."""
        returns = [s for s in jumps(body, in_loop=True) if s not in body]
        guarded = _guarded(body, in_loop=True)
        if not returns:
            return self._block(body, _Natural(), tail=False)
        if guarded is not None:
            return self._native(body, guarded)
        name = self._fresh(RETURNED)
        level = _Level(returned=name)
        lowered = self._block(body, level, tail=True)
        last = body[-1]
        final = ast.Return(ast.Name(name, ast.Load()))
        return [*lowered, ast.fix_missing_locations(ast.copy_location(final, last))]

    def _fresh(self, name: str) -> str:
        self._count += 1
        return f"{name}_{self._count}"

    def _block(self, body: list[ast.stmt], level: _Level, *, tail: bool) -> list[ast.stmt]:
        """The block with each jump last on its path; ``tail``: the function ends after it."""
        out: list[ast.stmt] = []
        for i, s in enumerate(body):
            rest = body[i + 1 :]
            if isinstance(s, _JUMPS):
                return [*out, *level.jump(s)]
            if isinstance(s, LOOPS):
                before, loop, after = self._loop(s)
                out += [*before, loop]
                if after:
                    return out + self._block([*after, *rest], level, tail=tail)
            elif isinstance(s, ast.If) and jumps([s]):
                return out + self._leaving(s, rest, level, tail=tail)
            else:
                out.append(self._inside(s, level))
        if tail:
            end = ast.Return(None)
            out += level.jump(ast.copy_location(end, body[-1]) if body else end)
        return out

    def _leaving(
        self, s: ast.If, rest: list[ast.stmt], level: _Level, *, tail: bool
    ) -> list[ast.stmt]:
        """An ``if`` that a jump may leave, and what follows it."""
        guarded = _guarded([s])
        if guarded is not None:
            return [*self._native([s], guarded), *self._block(rest, level, tail=tail)]
        if not rest or _exits(s.body) or _exits(s.orelse):
            then = s.body if _exits(s.body) else [*s.body, *rest]
            other = s.orelse if _exits(s.orelse) else [*s.orelse, *rest]
            s.body = self._block(then, level, tail=tail)
            s.orelse = self._block(other, level, tail=tail)
            return [_filled(s)]
        flag = self._fresh("_diffc_left")
        inner = level.with_flag(flag)
        s.body = self._block(s.body, inner, tail=False)
        s.orelse = self._block(s.orelse, inner, tail=False)
        test = ast.Name(flag, ast.Load())
        guard = ast.If(test, [ast.Pass()], self._block(rest, level, tail=tail))
        place = rest[0]
        return [
            _assign(flag, ast.Constant(False), s),
            _filled(s),
            ast.fix_missing_locations(ast.copy_location(_filled(guard), place)),
        ]

    def _loop(self, s: ast.While | ast.For) -> tuple[list[ast.stmt], ast.stmt, list[ast.stmt]]:
        """What comes before a loop, the loop without jumps, and what comes after it."""
        guarded = _guarded(s.body)
        if guarded is not None:
            s.plain = _reason(guarded)  # type: ignore[union-attr]  # our own mark
            s.body = self._native(s.body, guarded)
            s.orelse = self._native(s.orelse, guarded)
            return [], s, []
        own = jumps(s.body)
        returns = any(isinstance(jump, ast.Return) for jump in own)
        stop = self._fresh("_diffc_stop") if returns or _has_break(own) else ""
        did = self._fresh("_diffc_did") if returns else ""
        level = _Level(returned=f"{RETURNED}_1", did=did, stop=stop)
        s.body = self._block(s.body, level, tail=False) or [ast.Pass()]
        s.stop = stop  # type: ignore[union-attr]  # our own mark
        before = [_assign(name, ast.Constant(False), s) for name in (did, stop) if name]
        after: list[ast.stmt] = []
        if did:
            value = ast.Return(ast.Name(level.returned, ast.Load()))
            is_endless = isinstance(s, ast.While) and _is_true(s.test) and not _has_break(own)
            left = value if is_endless else ast.If(ast.Name(did, ast.Load()), [value], [])
            after.append(_at(left, s))
        if s.orelse and _has_break(own):
            orelse = ast.If(ast.Name(stop, ast.Load()), [ast.Pass()], s.orelse)
            after.append(_at(orelse, s))
        elif s.orelse:
            after += s.orelse
        s.orelse = []
        return before, s, after

    def _inside(self, s: ast.stmt, level: _Level) -> ast.stmt:
        """A statement that no jump leaves: its blocks on their own."""
        for name in ("body", "orelse", "finalbody"):
            block = getattr(s, name, None)
            if isinstance(block, list) and not isinstance(s, SCOPES):
                setattr(s, name, self._within(s, block, level))
        for part in (*getattr(s, "handlers", ()), *getattr(s, "cases", ())):
            part.body = self._within(s, part.body, level)
        return s

    def _within(self, s: ast.stmt, block: list[ast.stmt], level: _Level) -> list[ast.stmt]:
        found = jumps(block)
        if found and isinstance(s, _GUARDS):
            return self._native(block, found[0])
        return self._block(block, level, tail=False)

    def _native(self, body: list[ast.stmt], cause: ast.stmt) -> list[ast.stmt]:
        """Statements whose jumps stay: those that contain one are marked."""
        out: list[ast.stmt] = []
        for s in body:
            if isinstance(s, ast.If) and jumps([s]):
                s.plain = _reason(cause)  # type: ignore[attr-defined]  # our own mark
                s.body = self._native(s.body, cause)
                s.orelse = self._native(s.orelse, cause)
                out.append(s)
            elif isinstance(s, LOOPS) and (jumps([s]) or _guarded(s.body) is not None):
                s.plain = _reason(cause)  # type: ignore[union-attr]  # our own mark
                s.body = self._native(s.body, cause)
                s.orelse = self._native(s.orelse, cause)
                out.append(s)
            elif isinstance(s, LOOPS):
                before, loop, after = self._loop(s)
                out += [*before, loop, *self._native(after, cause)]
            elif isinstance(s, _GUARDS):
                for name in ("body", "orelse", "finalbody"):
                    if getattr(s, name, None):
                        setattr(s, name, self._native(getattr(s, name), cause))
                for part in (*getattr(s, "handlers", ()), *getattr(s, "cases", ())):
                    part.body = self._native(part.body, cause)
                out.append(s)
            elif isinstance(s, ast.If):
                out.append(self._inside(s, _Natural()))
            else:
                out.append(s)
        return out


def _has_break(found: Iterable[ast.stmt]) -> bool:
    return any(isinstance(jump, ast.Break) for jump in found)


def _is_true(test: ast.expr) -> bool:
    return isinstance(test, ast.Constant) and bool(test.value)


def _reason(jump: ast.stmt) -> str:
    word = type(jump).__name__.lower()
    return f"`{word}` in line {jump.lineno} leaves a `with`, `try` or `match`"


def _filled(s: ast.If) -> ast.If:
    """An ``if`` whose body is not empty."""
    s.body = s.body or [ast.copy_location(ast.Pass(), s)]
    return s


def _assign(name: str, value: ast.expr, place: ast.stmt) -> ast.stmt:
    return _at(ast.Assign([ast.Name(name, ast.Store())], value), place)


def _at(node: ast.stmt, place: ast.stmt) -> ast.stmt:
    """The statement, its new parts at the place of another one."""
    for part in ast.walk(node):
        if not hasattr(part, "lineno"):
            ast.copy_location(part, place)
    return ast.copy_location(node, place)
