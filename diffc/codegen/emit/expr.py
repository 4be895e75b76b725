"""Expressions at a point or at a vector of points: scalar trees to SSA values.

`Evaluator.value` computes an expression in a `Frame`: a vector along the frame's vector variable
where it depends on that, else one scalar, which is spread over the lanes only where a vector needs
it. Equal expressions (by structure) are computed once, at the outermost level that knows all they
depend on. Reading memory is in `memory.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from diffc.codegen.emit.frame import Frame, Value
from diffc.codegen.emit.math import VectorMath
from diffc.codegen.emit.memory import Computed, Condition, Memory
from diffc.codegen.emit.numbering import Numbering
from diffc.codegen.emit.registers import number, register
from diffc.codegen.emit.scalars import Ops
from diffc.codegen.emit.text import constant, vector_type
from diffc.codegen.loops.nodes import (
    Apply,
    Choose,
    Const,
    Expr,
    GatherLoad,
    IndexValue,
    Load,
    Scalar,
)
from diffc.codegen.loops.walk import children
from diffc.ir.index import FALSE, Cond, Dim, Guard, free

__all__ = ["Evaluator"]

ALWAYS = Condition()


@dataclass(slots=True)
class Evaluator:
    """Computes expressions of one kernel in its frame.

    Attributes:
        frame: The environment.
        numbering: Structural numbers of the kernel's expressions.
        memory: Reads buffers.
    """

    frame: Frame
    numbering: Numbering
    memory: Memory
    _turns: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def ops(self, lanes: int) -> Ops:
        """The scalar ops on values of `lanes` lanes."""
        return Ops(self.frame.fn, self.frame.target, lanes)

    # --- conditions

    def condition(self, guard: Guard, within: Condition = ALWAYS) -> Condition:
        """`within`, narrowed to where the guard holds."""
        frame = self.frame
        uniform, varying, depth = within.uniform, within.varying, within.depth
        for cond in guard:
            at = frame.depth_of(free(cond.expr))
            if frame.varies(cond.expr):
                lanes = frame.lanes
                assert lanes is not None
                at = max(at, frame.bound.lanes_depth)
                mask = frame.cached(("cond", cond), at, partial(self._lane_cond, cond))
                depth = max(depth, at)
                varying = self._both(varying, mask.text, lanes.count, depth)
            else:
                bit = frame.cached(("cond", cond), at, partial(self._cond, cond))
                depth = max(depth, at)
                uniform = self._both(uniform, bit.text, 1, depth)
        return Condition(uniform, varying, depth)

    def opposite(self, guard: Guard, within: Condition = ALWAYS) -> Condition:
        """`within`, narrowed to where the guard fails."""
        held = self.condition(guard)
        depth = max(held.depth, within.depth)
        if held.varying is None:
            assert held.uniform is not None
            failed = self._not(held.uniform, 1, held.depth)
            return Condition(self._both(within.uniform, failed, 1, depth), within.varying, depth)
        lanes = self.frame.lanes
        assert lanes is not None
        failed = self._not(self.holds(held).text, lanes.count, held.depth)
        varying = self._both(within.varying, failed, lanes.count, depth)
        return Condition(within.uniform, varying, depth)

    def holds(self, condition: Condition) -> Value:
        """The mask of a condition: an `i1`, or one for each lane."""
        if condition.varying is None:
            return Value("1" if condition.uniform is None else condition.uniform)
        lanes = self.frame.lanes
        assert lanes is not None
        if condition.uniform is None:
            return Value(condition.varying, lanes.count)
        spread = self.spread(Value(condition.uniform), "bool", condition.depth)
        mask = self._both(condition.varying, spread, lanes.count, condition.depth)
        return Value(mask, lanes.count)

    def _both(self, a: str | None, b: str, lanes: int, depth: int) -> str:
        if a is None or a == b:
            return b
        kind = vector_type("i1", lanes)
        fn = self.frame.fn
        make = lambda: Value(fn.value(f"and {kind} {a}, {b}"), lanes)  # noqa: E731  # read on the next line
        return self.frame.cached(("and", a, b), depth, make).text

    def _not(self, a: str, lanes: int, depth: int) -> str:
        kind, ones = vector_type("i1", lanes), constant(True, "i1", lanes)
        fn = self.frame.fn
        make = lambda: Value(fn.value(f"xor {kind} {a}, {ones}"), lanes)  # noqa: E731  # read on the next line
        return self.frame.cached(("not", a), depth, make).text

    def _cond(self, cond: Cond) -> Value:
        predicate = "sge" if cond.kind == "ge" else "eq"
        return Value(self.frame.fn.value(f"icmp {predicate} i64 {self.frame.dim(cond.expr)}, 0"))

    def _lane_cond(self, cond: Cond) -> Value:
        lanes = self.frame.lanes
        assert lanes is not None
        kind = self.frame.lane_kind(cond.expr)
        values = self.frame.lane_dim(cond.expr, kind)
        predicate = "sge" if cond.kind == "ge" else "eq"
        wide = vector_type(kind, lanes.count)
        mask = self.frame.fn.value(f"icmp {predicate} {wide} {values}, zeroinitializer")
        return Value(mask, lanes.count)

    # --- expressions

    def value(self, expr: Expr, where: Condition = ALWAYS) -> Value:
        """An expression's value.

        Args:
            expr: The expression.
            where: The lanes in which it is needed; elsewhere it reads no memory, and its value
                is anything.
        """
        stack = [(expr, where)]
        while True:
            node, at = stack[-1]
            found = self._find(node, at)
            if found is None:
                missing = [pair for pair in self._needs(node, at) if self._find(*pair) is None]
                if missing:
                    stack.extend(reversed(missing))
                    continue
                found = self._make(node, at)
            stack.pop()
            if not stack:
                return found

    def vector(self, expr: Expr, where: Condition = ALWAYS) -> str:
        """An expression's value in all lanes (a scalar where the frame has no vector variable)."""
        value = self.value(expr, where)
        lanes = self.frame.lanes
        if lanes is None or value.lanes > 1:
            return value.text
        return self.spread(value, expr.dtype, self._place(expr, where)[1])

    def spread(self, value: Value, dtype: str, depth: int) -> str:
        """A scalar in all lanes."""
        lanes = self.frame.lanes
        if lanes is None or value.lanes > 1:
            return value.text
        count, text, scalar = lanes.count, value.text, register(dtype)
        if not text.startswith("%"):
            return f"splat ({scalar} {text})"
        make = lambda: Value(self.frame.fn.broadcast(text, scalar, count), count)  # noqa: E731  # read on the next line
        return self.frame.cached(("splat", text, count), depth, make).text

    def _place(self, expr: Expr, where: Condition) -> tuple[object, int]:
        """Under which key and at which depth an expression is kept."""
        facts, frame = self.numbering.of(expr), self.frame
        depth = frame.depth_of(facts.vars, facts.scalars, facts.buffers)
        if not facts.buffers:
            return ("value", facts.number), depth
        key = ("value", facts.number, where.uniform, where.varying)
        depth = max(depth, where.depth)
        floor = frame.bound.load_floor
        if depth < floor and frame.known(key, depth) is None:
            depth = floor
        return key, depth

    def _find(self, expr: Expr, where: Condition) -> Value | None:
        if isinstance(expr, Const):
            return Value(number(expr.value, expr.dtype))
        if isinstance(expr, Scalar):
            return self.frame.bound.scalars[expr.name][0]
        key, depth = self._place(expr, where)
        return self.frame.known(key, depth)

    def _needs(self, expr: Expr, where: Condition) -> list[tuple[Expr, Condition]]:
        if not isinstance(expr, Choose):
            return [(child, where) for child in children(expr)]
        if expr.guard.is_true:
            return [(expr.on_true, where)]
        if expr.guard == FALSE:
            return [(expr.on_false, where)]
        on_true = self.condition(expr.guard, where)
        on_false = self.opposite(expr.guard, where)
        return [(expr.on_true, on_true), (expr.on_false, on_false)]

    def _make(self, expr: Expr, where: Condition) -> Value:
        key, depth = self._place(expr, where)
        buffers = self.numbering.of(expr).buffers
        return self.frame.cached(key, depth, lambda: self._compute(expr, where, depth), buffers)

    def _compute(self, expr: Expr, where: Condition, depth: int) -> Value:
        if isinstance(expr, Apply):
            return self._apply(expr, where)
        if isinstance(expr, Load):
            return self.memory.load(expr, where)
        if isinstance(expr, GatherLoad):
            return self._gather(expr, where)
        if isinstance(expr, Choose):
            return self._choose(expr, where)
        if isinstance(expr, IndexValue):
            return self._index_value(expr)
        raise TypeError(f"not an expression: {expr!r}")

    def _lifted(self, expr: Expr, where: Condition, lanes: int) -> str:
        """An operand that is known already, with as many lanes as its user."""
        value = self._find(expr, where)
        assert value is not None, "operands come first"
        if lanes == 1 or value.lanes > 1:
            return value.text
        return self.spread(value, expr.dtype, self._place(expr, where)[1])

    def _apply(self, expr: Apply, where: Condition) -> Value:
        found = [self._find(arg, where) for arg in expr.args]
        lanes = max((value.lanes for value in found if value is not None), default=1)
        args = [self._lifted(arg, where, lanes) for arg in expr.args]
        fits = lanes <= max(1, self.frame.target.lanes(expr.dtype))
        if fits and expr.name in ("sin", "cos") and expr.dtype in ("f32", "f64"):
            return Value(self._turned(expr, self._place(expr, where)[1], args[0], lanes), lanes)
        sources = [arg.dtype for arg in expr.args]
        return Value(self.ops(lanes).apply(expr.name, expr.dtype, sources, args), lanes)

    def _turned(self, expr: Apply, depth: int, x: str, lanes: int) -> str:
        """Sine or cosine: those of one argument share all but their last steps."""
        math = VectorMath(self.frame.fn, expr.dtype, lanes, self.frame.target)

        def make() -> Value:
            parts = math.turn(x)
            self._turns[parts[0]] = parts
            return Value(parts[0], lanes)

        sine = self.frame.cached(("turn", x, expr.dtype, lanes), depth, make)
        parts = self._turns[sine.text]
        return math.sin(x, parts) if expr.name == "sin" else math.cos(x, parts)

    def _choose(self, expr: Choose, where: Condition) -> Value:
        needs = self._needs(expr, where)
        if len(needs) == 1:
            found = self._find(*needs[0])
            assert found is not None, "operands come first"
            return found
        mask = self.holds(self.condition(expr.guard))
        values = [self._find(*pair) for pair in needs]
        lanes = max(mask.lanes, *(value.lanes for value in values if value is not None))
        on_true, on_false = (self._lifted(child, at, lanes) for child, at in needs)
        kind = vector_type(register(expr.dtype), lanes)
        bits = vector_type("i1", mask.lanes)
        text = f"select {bits} {mask.text}, {kind} {on_true}, {kind} {on_false}"
        return Value(self.frame.fn.value(text), lanes)

    def _index_value(self, expr: IndexValue) -> Value:
        frame = self.frame
        if not frame.varies(expr.index):
            text = frame.dim(expr.index)
            if not text.startswith("%"):
                return Value(number(int(text), expr.dtype))
            return Value(self.ops(1).convert(text, "i64", expr.dtype))
        lanes = frame.lanes
        assert lanes is not None
        kind = frame.lane_kind(expr.index)
        text = frame.lane_dim(expr.index, kind)
        return Value(self.ops(lanes.count).convert(text, kind, expr.dtype), lanes.count)

    def computed(self, indices: Sequence[Dim | Expr], where: Condition = ALWAYS) -> list[Computed]:
        """Value and depth of the indices that are expressions."""
        return [
            (self.value(index, where), self._place(index, where)[1])
            for index in indices
            if isinstance(index, Expr)
        ]

    def _gather(self, expr: GatherLoad, where: Condition) -> Value:
        return self.memory.gather(expr, self.computed(expr.indices, where), where)
