"""Statements and expressions rewritten into calls that decide while the function is traced.

Before::

    if x > 0:
        y = x
    else:
        y = -x

After (``K`` is the number of the statement's :class:`~diffc.convert.site.Site`)::

    def _diffc_then(): nonlocal y; y = x
    def _diffc_else(): nonlocal y; y = -x
    def _diffc_get(): return __diffc__.values(lambda: y)
    def _diffc_set(found): nonlocal y; (y,) = found
    __diffc__.if_(K, x > 0, _diffc_then, _diffc_else, _diffc_get, _diffc_set)

Each part keeps the user's line. Names that may hold no value after such a statement are read
through ``__diffc__.read``, whose error names the variable.
"""

from __future__ import annotations

import ast
from typing import Any, TypeVar

from diffc.convert import names
from diffc.convert.jumps import RETURNED, Lowering
from diffc.convert.site import Forbidden, Site

#: by which name generated code reaches :class:`diffc.convert.run.Run`
RUN = "__diffc__"
_COMPARED: dict[type[ast.cmpop], str] = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge",
    ast.Is: "is_", ast.IsNot: "is_not", ast.In: "in_", ast.NotIn: "not_in",
}  # fmt: skip
_FIXED = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)

N = TypeVar("N", bound=ast.AST)


class Rewriter(ast.NodeTransformer):
    """Rewrites functions; ``sites`` collects what is known of each converted statement."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.sites: list[Site] = []
        self._maybe: list[frozenset[str]] = [frozenset()]
        self._globals: list[set[str]] = [set()]
        self._nonlocals: list[set[str]] = [set()]
        self._first: list[str | None] = []
        self._depth = [0]

    # --- functions ----------------------------------------------------------------------------

    def function(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """A function's body rewritten; decorators and defaults are the caller's business."""
        if any(isinstance(x, ast.Yield | ast.YieldFrom) for x in names.walk(node.body)):
            return node
        node.body = Lowering().function(node.body)
        names.Liveness(node.body)
        held = self._held(node.body)
        self._maybe.append(self._maybe[-1] | held)
        self._globals.append(names.declared(node.body, ast.Global))
        self._nonlocals.append(names.declared(node.body, ast.Nonlocal))
        self._first.append(node.args.args[0].arg if node.args.args else None)
        self._depth.append(0)
        own = held - self._nonlocals[-1] - self._globals[-1]
        body = self._block(node.body)
        if own:
            body.insert(_after_header(body), self._bound(sorted(own), node))
        node.body = body
        stacks: tuple[list[Any], ...] = (
            self._maybe, self._globals, self._nonlocals, self._first, self._depth,
        )  # fmt: skip
        for stack in stacks:
            stack.pop()
        return node

    def _held(self, body: list[ast.stmt]) -> frozenset[str]:
        """Names that a converted statement of this scope assigns."""
        found: set[str] = set()
        for s in names.walk(body):
            if isinstance(s, ast.If | ast.While | ast.For) and not hasattr(s, "plain"):
                found |= names.assigned([s])
        return frozenset(found)

    def _bound(self, held: list[str], place: ast.AST) -> ast.stmt:
        """Makes the names local to the function, and binds nothing."""
        targets: list[ast.expr] = [ast.Name(name, ast.Store()) for name in held]
        body: list[ast.stmt] = [ast.Assign(targets, ast.Constant(None))]
        return _at(ast.If(ast.Constant(0), body, []), place)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """A function within the function."""
        node.args = self.visit(node.args)
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        return self.function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        """Stays."""
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Stays."""
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """A function of one expression."""
        if any(isinstance(x, _FIXED) for x in names.walk([node.body])):
            return node
        node.args = self.visit(node.args)
        own = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
        self._maybe.append(self._maybe[-1] - own)
        node.body = self.visit(node.body)
        self._maybe.pop()
        return node

    # --- statements ---------------------------------------------------------------------------

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for s in body:
            found = self.visit(s)
            out.extend(found if isinstance(found, list) else [found])
        return out

    def visit_If(self, node: ast.If) -> list[ast.stmt] | ast.stmt:
        """An ``if``, by :meth:`Run.if_`."""
        reason = getattr(node, "plain", None)
        if reason is not None:
            site = self._site("if", node, set(), set(), reason)
            node.test = self._call("known", node.test, ast.Constant(site), self.visit(node.test))
            node.body, node.orelse = self._block(node.body), self._block(node.orelse)
            return node
        live: set[str] = node.live  # type: ignore[attr-defined]  # Liveness marked it
        held = names.assigned([*node.body, *node.orelse])
        site = self._site("if", node, held, held & live)
        test = self.visit(node.test)
        then = self._part("then", node.body, node)
        other = self._part("else", node.orelse, node)
        return self._staged(node, "if_", site, [test], [then, other])

    def visit_While(self, node: ast.While) -> list[ast.stmt] | ast.stmt:
        """A ``while``, by :meth:`Run.while_`."""
        reason = getattr(node, "plain", None)
        if reason is None and any(isinstance(x, _FIXED) for x in ast.walk(node.test)):
            reason = "its test assigns with `:=`"
        if reason is not None:
            return self._plain_loop(node, reason)
        stop: str = node.stop  # type: ignore[attr-defined]  # Lowering marked it
        if stop:
            go_on = ast.UnaryOp(ast.Not(), ast.Name(stop, ast.Load()))
            node.test = _at(ast.BoolOp(ast.And(), [go_on, node.test]), node.test)
        held = names.assigned(node.body)
        live: set[str] = node.live_head  # type: ignore[attr-defined]  # Liveness marked it
        site = self._site("while", node, held, held & live)
        test = self._function("test", [], [ast.Return(self.visit(node.test))], node.test)
        body = self._part("body", node.body, node)
        return self._staged(node, "while_", site, [], [test, body])

    def visit_For(self, node: ast.For) -> list[ast.stmt] | ast.stmt:
        """A ``for``, by :meth:`Run.for_`."""
        reason = getattr(node, "plain", None)
        if reason is not None:
            return self._plain_loop(node, reason)
        stop: str = node.stop  # type: ignore[attr-defined]  # Lowering marked it
        held = names.assigned([node.target, *node.body])
        live: set[str] = node.live_head  # type: ignore[attr-defined]  # Liveness marked it
        after: set[str] = node.live  # type: ignore[attr-defined]  # as above
        targets = names.assigned([node.target])
        kept = held & ((live - targets) | (targets & after))
        site = self._site("for", node, held, kept)
        item = self._name("item", node)
        target = _at(ast.Assign([node.target], ast.Name(item, ast.Load())), node.target)
        body = self._part("body", [target, *node.body], node, [item])
        ended: ast.expr = ast.Constant(None)
        if stop:
            nothing = ast.arguments([], [], None, [], [], None, [])
            ended = ast.Lambda(nothing, ast.Name(stop, ast.Load()))
        return self._staged(node, "for_", site, [self.visit(node.iter), ended], [body])

    def _plain_loop(self, node: ast.While | ast.For, reason: str) -> ast.stmt:
        word = "while" if isinstance(node, ast.While) else "for"
        site = ast.Constant(self._site(word, node, set(), set(), reason))
        if isinstance(node, ast.While):
            node.test = self._call("known", node.test, site, self.visit(node.test))
        else:
            node.iter = self._call("items", node.iter, site, self.visit(node.iter))
        node.body, node.orelse = self._block(node.body), self._block(node.orelse)
        return node

    def _staged(
        self,
        node: ast.stmt,
        method: str,
        site: int,
        values: list[ast.expr],
        parts: list[ast.stmt],
    ) -> list[ast.stmt]:
        """The parts as functions, and the call that takes them."""
        held = self.sites[site].names
        getters: list[ast.expr] = [
            ast.Lambda(ast.arguments([], [], None, [], [], None, []), ast.Name(name, ast.Load()))
            for name in (*held, *(name for name, _ in self.sites[site].mutated))
        ]
        got = ast.Return(self._call("values", node, *getters))
        get = self._function("get", [], [got], node)
        found = self._name("found", node)
        target = ast.Tuple([ast.Name(name, ast.Store()) for name in held], ast.Store())
        assign: list[ast.stmt] = [ast.Assign([target], ast.Name(found, ast.Load()))]
        put = self._function("set", [found], [*self._outer(held), *(assign if held else [])], node)
        functions = [*parts, get, put]
        given = [ast.Name(f.name, ast.Load()) for f in functions]  # type: ignore[attr-defined]  # as above
        call = self._call(method, node, ast.Constant(site), *values, *given)
        return [*functions, _at(ast.Expr(call), node)]

    def _part(
        self, kind: str, body: list[ast.stmt], place: ast.stmt, args: list[str] | None = None
    ) -> ast.stmt:
        """A block as a function that rebinds the names around it."""
        held = sorted(names.assigned(body))
        self._depth[-1] += 1
        inner = self._block(body)
        self._depth[-1] -= 1
        return self._function(kind, args or [], [*self._outer(held), *inner], place)

    def _outer(self, held: list[str] | tuple[str, ...]) -> list[ast.stmt]:
        """Declarations for names that a block rebinds."""
        known = self._globals[-1]
        out: list[ast.stmt] = []
        for kind, found in (
            (ast.Global, [name for name in held if name in known]),
            (ast.Nonlocal, [name for name in held if name not in known]),
        ):
            if found:
                out.append(kind(found))
        return out

    def _function(
        self, kind: str, args: list[str], body: list[ast.stmt], place: ast.AST
    ) -> ast.stmt:
        arguments = ast.arguments([], [ast.arg(a) for a in args], None, [], [], None, [])
        node = ast.FunctionDef(
            self._name(kind, place), arguments, body or [ast.Pass()], [], None, None
        )
        return _at(node, place)

    def _name(self, kind: str, place: ast.AST) -> str:
        return f"_diffc_{kind}_{place.lineno}_{place.col_offset}"  # type: ignore[attr-defined]  # as above

    def _site(
        self, kind: str, node: ast.stmt, held: set[str], live: set[str], plain: str = ""
    ) -> int:
        hidden = [name for name in held if name.startswith("_diffc_") and not _is_state(name)]
        kept = sorted(held - set(hidden) - self._globals[-1])
        blocks = [*node.body, *getattr(node, "orelse", ())]  # type: ignore[attr-defined]  # as above
        forbidden = [] if plain else _forbidden(blocks, self._globals[-1] | self._nonlocals[-1])
        changed = {name: n for name, n in names.mutated(blocks).items() if name not in held}
        self.sites.append(
            Site(
                kind,
                self.file,
                node.lineno,
                tuple(kept),
                tuple(name in live for name in kept),
                plain,
                tuple(forbidden),
                tuple(changed.items()),
            )
        )
        return len(self.sites) - 1

    # --- expressions --------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """A name, which may have no value."""
        if not isinstance(node.ctx, ast.Load) or node.id not in self._maybe[-1]:
            return node
        return self._call("read", node, node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        """``and`` and ``or``: operands are computed when they decide."""
        if _is_fixed(node):
            return self.generic_visit(node)
        first, *rest = [self.visit(value) for value in node.values]
        method = "and_" if isinstance(node.op, ast.And) else "or_"
        return self._call(method, node, first, *map(_later, rest))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        """``not``."""
        if not isinstance(node.op, ast.Not):
            return self.generic_visit(node)
        return self._call("not_", node, self.visit(node.operand))

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """``a if c else b``."""
        if _is_fixed(node):
            return self.generic_visit(node)
        site = self._site("if", ast.copy_location(ast.If(node.test, [], []), node), set(), set())
        then, other = _later(self.visit(node.body)), _later(self.visit(node.orelse))
        return self._call("either", node, ast.Constant(site), self.visit(node.test), then, other)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Chains of comparisons, and ``in``."""
        is_single = len(node.ops) == 1 and not isinstance(node.ops[0], ast.In | ast.NotIn)
        if is_single or _is_fixed(node):
            return self.generic_visit(node)
        words: list[ast.expr] = [ast.Constant(_COMPARED[type(op)]) for op in node.ops]
        others = [_later(self.visit(other)) for other in node.comparators]
        return self._call("compare", node, ast.Tuple(words, ast.Load()), self.visit(node.left),
                          *others)  # fmt: skip

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A call, of the converted callee."""
        is_super = isinstance(node.func, ast.Name) and node.func.id == "super"
        if is_super and not node.args and self._first and self._first[-1]:
            if self._depth[-1]:
                me = ast.Name(self._first[-1], ast.Load())
                node.args = [_at(ast.Name("__class__", ast.Load()), node), _at(me, node)]
            return node
        found = self.generic_visit(node)
        assert isinstance(found, ast.Call)
        found.func = self._call("of", found.func, found.func)
        return found

    def _call(self, method: str, place: ast.AST, *args: ast.expr) -> ast.Call:
        function = ast.Attribute(ast.Name(RUN, ast.Load()), method, ast.Load())
        return _at(ast.Call(function, list(args), []), place)


def _later(node: ast.expr) -> ast.expr:
    """An operand that is computed when it is needed."""
    return _at(ast.Lambda(ast.arguments([], [], None, [], [], None, []), node), node)


def _is_fixed(node: ast.AST) -> bool:
    """Whether parts of an expression can't move into a function of their own."""
    return any(isinstance(x, _FIXED) for x in names.walk([node]))


def _is_state(name: str) -> bool:
    """Whether a generated name holds a value of the program: a flag, or what is returned."""
    return name.startswith((RETURNED, "_diffc_stop", "_diffc_did", "_diffc_left"))


def _forbidden(blocks: list[ast.stmt], outer: set[str]) -> list[Forbidden]:
    """What must not stand in a statement that traced values steer."""
    found: list[Forbidden] = []
    for node in names.walk(blocks):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            what = f"an assignment to the attribute `{ast.unparse(node)}`"
            hint = "assign to a local variable, and to the attribute after the statement"
            found.append(Forbidden(node.lineno, what, hint))
        elif isinstance(node, ast.Name) and node.id in outer:
            if isinstance(node.ctx, ast.Load):
                continue
            what = f"an assignment to `{node.id}`, which is a variable of an outer scope"
            hint = "assign to a local variable, and return it"
            found.append(Forbidden(node.lineno, what, hint))
    for s in _direct(blocks):
        if isinstance(s, ast.Raise):
            what = "a `raise`: whether it happens is known only at run time"
            hint = "check the arguments before the compiled function is called, or return a flag"
            found.append(Forbidden(s.lineno, what, hint))
    return sorted(found, key=lambda f: f.line)


def _direct(blocks: list[ast.stmt]) -> list[ast.stmt]:
    """Statements that no inner ``if`` or loop steers."""
    out: list[ast.stmt] = []
    for s in blocks:
        out.append(s)
        if isinstance(s, ast.With | ast.Try):
            out += _direct(s.body)
    return out


def _after_header(body: list[ast.stmt]) -> int:
    """Where statements may be put in: behind the docstring and declarations."""
    at = 0
    for s in body:
        is_text = isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)
        if not isinstance(s, ast.Global | ast.Nonlocal) and not (at == 0 and is_text):
            break
        at += 1
    return at


def _at(node: N, place: ast.AST) -> N:
    """The node at the first line of another one, as are its parts that have no place yet.

    Not at all its lines: calls are said to happen at the end of what names the function.
    """
    stack: list[ast.AST] = [node]
    while stack:
        part = stack.pop()
        if "lineno" not in part._attributes:
            stack.extend(ast.iter_child_nodes(part))
        elif not hasattr(part, "lineno"):
            part.lineno = part.end_lineno = place.lineno  # type: ignore[attr-defined]  # as above
            part.col_offset = part.end_col_offset = place.col_offset  # type: ignore[attr-defined]  # as above
            stack.extend(ast.iter_child_nodes(part))
    return node
