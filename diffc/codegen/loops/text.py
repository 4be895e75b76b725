"""The text form of kernels: printer and parser, which change together.

::

    kernel @dense(x: in f32[64,1000], w: in f32[1000,100], b: in f32[100], out: out f32[64,100]) {
      par i in 64, j in 100 {
        acc: f32 = contract(k in 1000: x[i, k], w[k, j])
        out[i, j] = maximum(add(acc, b[j]), 0.0:f32)
      }
    }

An expression that is used more than once is named by a ``let`` before its first use; a ``let`` is
a name for a formula, valid to the end of the kernel. Index expressions stand in brackets, or in
backticks where they are values. ``how`` settings follow ``with``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from diffc.codegen.loops import nodes as n
from diffc.codegen.loops.walk import children, operands, statements
from diffc.errors import UsageError
from diffc.ir.aval import FLOATS, as_dtype
from diffc.ir.index import TRUE, Dim, Expr, Guard, Var, free, parse_guard
from diffc.ir.index import parse as parse_index
from diffc.ir.text import scalar_text

#: ops whose result is bool whatever they are applied to.
TO_BOOL = frozenset(("eq", "ne", "lt", "le", "gt", "ge", "is_nan", "is_inf", "is_finite"))
TILE_FIELDS = ("rows", "vectors", "lanes", "unroll", "row_block", "column_block", "depth_block")
PREFETCHES = ("prefetch_lhs", "prefetch_rhs")
TILE_FLAGS = ("pack_lhs", "pack_rhs", "dot", "narrow", "turn", *PREFETCHES)
SPLIT_FIELDS = ("grain", "count", "most", "pack")


# --- printing ---------------------------------------------------------------------------------


def print_kernel(kernel: n.Kernel) -> str:
    """The text of a kernel."""
    return _Printer(kernel).text()


class _Printer:
    def __init__(self, kernel: n.Kernel) -> None:
        self.kernel = kernel
        self.counts: dict[n.Expr, int] = {}
        self.names: dict[n.Expr, str] = {}
        self.lines: list[str] = []
        self.scope: list[Var] = []
        for stmt in statements(kernel.body):
            for expr in operands(stmt):
                self._count(expr)

    def text(self) -> str:
        kernel = self.kernel
        params = ", ".join(f"{b.name}: {b.mode} {_shape(b)}" for b in kernel.params)
        self.lines.append(f"kernel @{kernel.name}({params}) {{")
        for buffer in kernel.scratch:
            self.lines.append(f"  scratch {buffer.name}: {_shape(buffer)}")
        self._body(kernel.body, "  ")
        self.lines.append("}")
        return "\n".join(self.lines) + "\n"

    def _count(self, expr: n.Expr) -> None:
        stack = [expr]
        while stack:
            current = stack.pop()
            self.counts[current] = self.counts.get(current, 0) + 1
            if self.counts[current] == 1:
                stack.extend(children(current))

    def _body(self, body: tuple[n.Stmt, ...], indent: str) -> None:
        for stmt in body:
            self._stmt(stmt, indent)

    def _inside(self, vars: tuple[Var, ...], body: tuple[n.Stmt, ...], indent: str) -> None:
        self.scope.extend(vars)
        self._body(body, indent)
        del self.scope[len(self.scope) - len(vars) :]

    def _stmt(self, stmt: n.Stmt, indent: str) -> None:
        for expr in operands(stmt):
            self._lets(expr, indent)
        match stmt:
            case n.Par():
                self.lines.append(f"{indent}par {_vars(stmt.vars)}{_how(stmt)} {{")
                self._inside(stmt.vars, stmt.body, indent + "  ")
                self.lines.append(indent + "}")
            case n.For():
                down = " reverse" if stmt.reverse else ""
                guard = "" if stmt.guard.is_true else f" if `{stmt.guard}`"
                self.lines.append(f"{indent}for {_vars((stmt.var,))}{down}{guard} {{")
                self._inside((stmt.var,), stmt.body, indent + "  ")
                self.lines.append(indent + "}")
            case n.Sweep():
                self.lines.append(f"{indent}sweep {_vars(stmt.vars)} {{")
                self._inside(stmt.vars, stmt.body, indent + "  ")
                self.lines.append(indent + "}")
            case n.Within():
                ends = f"{self._expr(stmt.first)} to {self._expr(stmt.stop)}"
                self.lines.append(f"{indent}within {_vars((stmt.var,))} from {ends} {{")
                self._body((stmt.body,), indent + "  ")
                self.lines.append(indent + "}")
            case n.Reduce():
                head = (
                    f"{stmt.target.name}: {stmt.target.dtype} = reduce {stmt.monoid} {stmt.order}"
                )
                self.lines.append(f"{indent}{head}({_vars(stmt.vars)}: {self._expr(stmt.value)})")
            case n.Contract():
                pair = f"{self._expr(stmt.lhs)}, {self._expr(stmt.rhs)}"
                if stmt.start is not None:
                    pair += f", {self._expr(stmt.start)}"
                head = f"{stmt.target.name}: {stmt.target.dtype} = contract"
                head += f" {stmt.order}" if stmt.order else ""
                how = "" if stmt.how is None else f" with {_tile(stmt.how)}"
                self.lines.append(f"{indent}{head}({_vars(stmt.vars)}: {pair}){how}")
            case n.Store():
                guard = "" if stmt.guard.is_true else f" if `{stmt.guard}`"
                place = f"{stmt.buffer.name}[{_indices(stmt.indices)}]"
                self.lines.append(f"{indent}{place} = {self._expr(stmt.value)}{guard}")
            case n.Fetch():
                place = f"{stmt.buffer.name}[{_indices(stmt.indices)}]"
                self.lines.append(f"{indent}fetch {'near ' * stmt.near}{place}")
            case n.Scatter():
                items = ", ".join(self._index(index) for index in stmt.indices)
                head = f"scatter {stmt.combine} {stmt.mode} {stmt.status}"
                place = f"{stmt.buffer.name}({items})"
                self.lines.append(f"{indent}{head} {place} = {self._expr(stmt.value)}")
            case n.Prefix():
                place = f"{stmt.buffer.name}[{_indices(stmt.indices)}]"
                inside = f"{_vars((stmt.var,))}: {place} = {self._expr(stmt.value)}"
                self.lines.append(f"{indent}prefix {stmt.monoid} {stmt.order}({inside})")
            case n.Sort():
                what = "positions" if stmt.positions else "values"
                place = f"{stmt.buffer.name}, {stmt.keys.name}[{_indices(stmt.indices)}]"
                self.lines.append(f"{indent}sort {what}({_vars((stmt.var,))}: {place})")

    def _lets(self, expr: n.Expr, indent: str) -> None:
        """Names the shared parts of an expression, innermost first."""
        order: list[n.Expr] = []
        stack: list[tuple[n.Expr, bool]] = [(expr, False)]
        seen: set[n.Expr] = set()
        while stack:
            current, done = stack.pop()
            if done:
                order.append(current)
            elif current not in seen and current not in self.names:
                seen.add(current)
                stack.append((current, True))
                stack.extend((part, False) for part in reversed(children(current)))
        for current in order:
            is_leaf = isinstance(current, (n.Const, n.Scalar, n.Load, n.IndexValue))
            if self.counts.get(current, 0) > 1 and not is_leaf:
                text = self._expr(current)
                self.names[current] = name = f"%{len(self.names)}"
                inner = tuple(var for var in _free(current) if var not in self.scope)
                over = f" over {_vars(inner)}" if inner else ""
                self.lines.append(f"{indent}let {name}{over} = {text}")

    def _index(self, index: Dim | n.Expr) -> str:
        return self._expr(index) if isinstance(index, n.Expr) else f"`{index}`"

    def _expr(self, expr: n.Expr) -> str:
        if expr in self.names:
            return self.names[expr]
        match expr:
            case n.Const():
                return f"{scalar_text(expr.value, expr.dtype)}:{expr.dtype}"
            case n.IndexValue():
                return f"index(`{expr.index}`):{expr.dtype}"
            case n.Load():
                return f"{expr.buffer.name}[{_indices(expr.indices)}]"
            case n.GatherLoad():
                items = ", ".join(self._index(index) for index in expr.indices)
                return f"gather {expr.mode} {expr.status} {expr.buffer.name}({items})"
            case n.Choose():
                branches = f"{self._expr(expr.on_true)}, {self._expr(expr.on_false)}"
                return f"choose(`{expr.guard}`, {branches})"
            case n.Scalar():
                return expr.name
            case n.Apply():
                text = f"{expr.name}({', '.join(map(self._expr, expr.args))})"
                return (
                    text if expr.dtype == _default(expr.name, expr.args) else f"{text}:{expr.dtype}"
                )
        raise TypeError(f"no text for {type(expr).__name__}")


def _shape(buffer: n.Buffer) -> str:
    return f"{buffer.dtype}[{','.join(map(str, buffer.shape))}]"


def _vars(vars: tuple[Var, ...]) -> str:
    return ", ".join(f"{var.name} in {var.extent}" for var in vars) or "()"


def _indices(indices: tuple[Dim, ...]) -> str:
    return ", ".join(map(str, indices))


def _how(par: n.Par) -> str:
    parts = []
    if par.how is not None:
        parts.append(f"{'turn' if isinstance(par.how, n.Turn) else 'vector'}={par.how.lanes}")
    if par.split is not None:
        parts.append(f"split={par.split.over}")
        parts += [
            f"{name}={getattr(par.split, name)}"
            for name in SPLIT_FIELDS
            if getattr(par.split, name)
        ]
    return f" with {' '.join(parts)}" if parts else ""


def _tile(tile: n.Tile) -> str:
    parts = [f"{name}={getattr(tile, name)}" for name in TILE_FIELDS]
    parts += [name for name in TILE_FLAGS if getattr(tile, name)]
    return " ".join(parts)


def _default(name: str, args: tuple[n.Expr, ...]) -> str:
    """The dtype that an op gives unless it is said otherwise."""
    if name in TO_BOOL:
        return "bool"
    return args[1 if name == "select" else 0].dtype


def _free(expr: n.Expr) -> tuple[Var, ...]:
    """The variables that an expression depends on, by name."""
    found: set[Var] = set()
    stack, seen = [expr], {expr}
    while stack:
        current = stack.pop()
        for part in children(current):
            if part not in seen:
                seen.add(part)
                stack.append(part)
        dims: tuple[object, ...] = ()
        match current:
            case n.Load() | n.GatherLoad():
                dims = current.indices
            case n.IndexValue():
                dims = (current.index,)
            case n.Choose():
                found.update(atom for atom in current.guard.free() if isinstance(atom, Var))
        for item in dims:
            if isinstance(item, Expr):
                found.update(atom for atom in free(item) if isinstance(atom, Var))
    return tuple(sorted(found, key=lambda var: var.name))


# --- parsing ----------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)|(?P<newline>\n)|(?P<index>`[^`]*`)
    |(?P<buffer>(?:bool|[iuf]\d+|bf16)\[[\d,]*\])|(?P<brackets>\[[^\]]*\])
    |(?P<number>-?(?:inf|nan)\b|-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)
    |(?P<name>[%@]?[A-Za-z_0-9][\w.]*)|(?P<mark>[(){}:,=])""",
    re.VERBOSE,
)


def parse_kernel(text: str, source: str = "<text>") -> n.Kernel:
    """The kernel of a text.

    Raises:
        UsageError: with the line, for anything that is not a kernel.
    """
    return _Parser(text, source).kernel()


class _Parser:
    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.tokens = list(self._split(text))
        self.at = 0
        self.buffers: dict[str, n.Buffer] = {}
        self.vars: dict[str, Var] = {}
        self.exprs: dict[str, n.Expr] = {}

    def _split(self, text: str) -> Iterator[tuple[str, str, int]]:
        position, line = 0, 1
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise UsageError(f"unexpected {text[position]!r}", location=f"{self.source}:{line}")
            kind = match.lastgroup or ""
            if kind == "newline":
                line += 1
            elif kind != "space":
                yield kind, match.group(), line
            position = match.end()
        yield "end", "", line

    def fail(self, problem: str) -> NoReturn:
        raise UsageError(problem, location=f"{self.source}:{self.tokens[self.at][2]}")

    def peek(self, text: str) -> bool:
        return self.tokens[self.at][1] == text

    def accept(self, text: str) -> bool:
        if self.peek(text):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected {text!r}, found {self.tokens[self.at][1]!r}")

    def take(self, *kinds: str) -> str:
        found, text, _ = self.tokens[self.at]
        if found not in kinds:
            self.fail(f"expected a {kinds[0]}, found {text!r}")
        self.at += 1
        return text

    def kernel(self) -> n.Kernel:
        self.expect("kernel")
        name = self.take("name").removeprefix("@")
        params: list[n.Buffer] = []
        self.expect("(")
        while not self.accept(")"):
            params.append(self._buffer(self.take("name"), ""))
            self.accept(",")
        self.expect("{")
        scratch: list[n.Buffer] = []
        while self.accept("scratch"):
            scratch.append(self._buffer(self.take("name"), "scratch"))
        body = self._body()
        if self.tokens[self.at][0] != "end":
            self.fail("text after the kernel")
        return n.Kernel(name, tuple(params), tuple(scratch), body)

    def _buffer(self, name: str, mode: str) -> n.Buffer:
        self.expect(":")
        mode = mode or self.take("name")
        dtype, _, shape = self.take("buffer").partition("[")
        dims = tuple(int(dim) for dim in shape.rstrip("]").split(",") if dim)
        if mode not in ("in", "out", "mut", "scratch"):
            self.fail(f"{mode!r} is no mode of a buffer")
        self.buffers[name] = found = n.Buffer(name, dtype, dims, mode)  # type: ignore[arg-type]  # checked above
        return found

    def _body(self) -> tuple[n.Stmt, ...]:
        """Statements up to the closing brace."""
        body: list[n.Stmt] = []
        while not self.accept("}"):
            if self.accept("let"):
                name = self.take("name")
                if self.accept("over"):
                    self._take_vars()
                self.expect("=")
                self.exprs[name] = self._expr()
                continue
            body.append(self._stmt())
        return tuple(body)

    def _stmt(self) -> n.Stmt:
        if self.accept("par"):
            vars = self._take_vars()
            how, split = self._how() if self.accept("with") else (None, None)
            self.expect("{")
            return n.Par(vars, self._body(), how, split)
        if self.accept("for"):
            (var,) = self._take_vars()
            reverse = self.accept("reverse")
            guard = self._guard() if self.accept("if") else TRUE
            self.expect("{")
            return n.For(var, self._body(), reverse, guard)
        if self.accept("sweep"):
            vars = self._take_vars()
            self.expect("{")
            return n.Sweep(vars, tuple(self._part(stmt) for stmt in self._body()))
        if self.accept("fetch"):
            near = self.accept("near")
            return n.Fetch(self._known_buffer(), self._brackets(), near)
        if self.accept("within"):
            (var,) = self._take_vars()
            self.expect("from")
            first = self._expr()
            self.expect("to")
            stop = self._expr()
            self.expect("{")
            body = self._body()
            if len(body) != 1:
                self.fail("`within` holds one statement")
            return n.Within(var, first, stop, body[0])
        if self.accept("scatter"):
            combine: Any = self.take("name")
            mode: Any = self.take("name")
            status = int(self.take("number"))
            buffer = self._known_buffer()
            indices = self._items()
            self.expect("=")
            return n.Scatter(buffer, indices, self._expr(), combine, mode, status)
        if self.accept("prefix"):
            monoid: Any = self.take("name")
            order: Any = self.take("name")
            self.expect("(")
            (var,) = self._take_vars()
            self.expect(":")
            buffer = self._known_buffer()
            indices = self._brackets()
            self.expect("=")
            value = self._expr()
            self.expect(")")
            return n.Prefix(buffer, indices, var, monoid, value, order)
        if self.accept("sort"):
            positions = self.take("name") == "positions"
            self.expect("(")
            (var,) = self._take_vars()
            self.expect(":")
            buffer = self._known_buffer()
            self.expect(",")
            keys = self._known_buffer()
            indices = self._brackets()
            self.expect(")")
            return n.Sort(buffer, keys, indices, var, positions)
        name = self.take("name")
        if self.accept(":"):
            return self._fold(n.Scalar(name, self.take("name")))
        if name not in self.buffers:
            self.fail(f"{name} is no buffer")
        indices = self._brackets()
        self.expect("=")
        value = self._expr()
        guard = TRUE
        if self.accept("if"):
            guard = self._guard()
        return n.Store(self.buffers[name], indices, value, guard)

    def _part(self, stmt: n.Stmt) -> n.Reduce | n.Store | n.Fetch:
        if not isinstance(stmt, (n.Reduce, n.Store, n.Fetch)):
            self.fail("a sweep holds reductions, stores and fetches")
        return stmt

    def _fold(self, target: n.Scalar) -> n.Stmt:
        self.exprs[target.name] = target
        self.expect("=")
        if self.accept("reduce"):
            monoid: Any = self.take("name")
            order: Any = self.take("name")
            self.expect("(")
            vars = self._take_vars()
            self.expect(":")
            value = self._expr()
            self.expect(")")
            return n.Reduce(target, monoid, vars, value, order)
        self.expect("contract")
        summing: Any = None if self.peek("(") else self.take("name")
        self.expect("(")
        vars = self._take_vars()
        self.expect(":")
        lhs = self._expr()
        self.expect(",")
        rhs = self._expr()
        start = self._expr() if self.accept(",") else None
        self.expect(")")
        how = self._tile() if self.accept("with") else None
        return n.Contract(target, vars, lhs, rhs, how, start, summing)

    def _how(self) -> tuple[n.Vector | n.Turn | None, n.Split | None]:
        how: n.Vector | n.Turn | None = None
        if self.peek("vector"):
            how = n.Vector(self._setting("vector"))
        elif self.peek("turn"):
            how = n.Turn(self._setting("turn"))
        if not self.accept("split"):
            return how, None
        self.expect("=")
        over: Any = self.take("name")
        settings: dict[str, int] = {}
        while self.tokens[self.at][1] in SPLIT_FIELDS:
            name = self.tokens[self.at][1]
            settings[name] = self._setting(name)
        return how, n.Split(over, **settings)

    def _setting(self, name: str) -> int:
        self.expect(name)
        self.expect("=")
        return int(self.take("number"))

    def _tile(self) -> n.Tile:
        settings: dict[str, Any] = {}
        while self.tokens[self.at][1] in (*TILE_FIELDS, *TILE_FLAGS):
            name = self.take("name")
            settings[name] = int(self.take("number")) if self.accept("=") else True
        return n.Tile(**settings)

    def _take_vars(self) -> tuple[Var, ...]:
        found: list[Var] = []
        if self.accept("("):
            self.expect(")")
            return ()
        while True:
            name = self.take("name")
            self.expect("in")
            var = Var(name, int(self.take("number")))
            self.vars[name] = var
            found.append(var)
            if not self.accept(","):
                return tuple(found)

    def _known_buffer(self) -> n.Buffer:
        name = self.take("name")
        if name not in self.buffers:
            self.fail(f"{name} is no buffer")
        return self.buffers[name]

    def _lookup(self, name: str) -> Expr:
        if name not in self.vars:
            self.fail(f"{name} is no variable")
        return self.vars[name]

    def _dim(self, text: str) -> Dim:
        return parse_index(text.strip(), self._lookup)

    def _guard(self) -> Guard:
        return parse_guard(self.take("index")[1:-1], self._lookup)

    def _brackets(self) -> tuple[Dim, ...]:
        text = self.take("brackets")[1:-1]
        return tuple(self._dim(part) for part in text.split(",") if part.strip())

    def _items(self) -> tuple[Dim | n.Expr, ...]:
        items: list[Dim | n.Expr] = []
        self.expect("(")
        while not self.accept(")"):
            is_index = self.tokens[self.at][0] == "index"
            items.append(self._dim(self.take("index")[1:-1]) if is_index else self._expr())
            self.accept(",")
        return tuple(items)

    def _expr(self) -> n.Expr:
        kind, text, _ = self.tokens[self.at]
        if kind == "number" or text in ("true", "false"):
            self.at += 1
            self.expect(":")
            return n.Const(dtype := self.take("name"), _scalar(text, dtype))
        name = self.take("name")
        if name == "index" and self.accept("("):
            index = self._dim(self.take("index")[1:-1])
            self.expect(")")
            self.expect(":")
            return n.IndexValue(self.take("name"), index)
        if name == "gather":
            mode: Any = self.take("name")
            status = int(self.take("number"))
            buffer = self._known_buffer()
            return n.GatherLoad(buffer, self._items(), mode, status)
        if name == "choose" and self.accept("("):
            guard = self._guard()
            self.expect(",")
            on_true = self._expr()
            self.expect(",")
            on_false = self._expr()
            self.expect(")")
            return n.Choose(guard, on_true, on_false)
        if name in self.buffers and self.tokens[self.at][0] == "brackets":
            return n.Load(self.buffers[name], self._brackets())
        if name in n.SCALARS and self.accept("("):
            args: list[n.Expr] = []
            while not self.accept(")"):
                args.append(self._expr())
                self.accept(",")
            if len(args) != n.SCALARS[name]:
                self.fail(f"{name} takes {n.SCALARS[name]} arguments, found {len(args)}")
            dtype = self.take("name") if self.accept(":") else _default(name, tuple(args))
            return n.Apply(dtype, name, tuple(args))
        if name not in self.exprs:
            self.fail(f"{name} is not defined")
        return self.exprs[name]


def _scalar(text: str, dtype: str) -> bool | int | float:
    if dtype == "bool":
        return text == "true"
    if dtype in FLOATS:
        return float(as_dtype(float(text), dtype))
    return int(text)
