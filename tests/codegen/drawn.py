"""Random graphs: elementwise, movement, reductions, contractions, calls, loops."""

import random

from diffc.ir.aval import aval
from diffc.ir.graph import Builder, Graph, Value, literal, prune
from diffc.ops.registry import find

KINDS = (
    *("unary", "binary", "binary", "literal", "transpose", "reshape", "spread", "reverse", "sum"),
    *("max", "contract", "cumsum", "scatter", "pad", "call", "scan", "costly", "gather", "start"),
    *("update", "argmax", "window", "overlap", "sort", "iota", "softmax", "concat", "bits"),
)
SHAPES = ((3, 4), (4,), (3,), (4, 3), (12,), (1, 4))


class Draw:
    """Draws one graph from a seed; small integers as floats, so sums are exact."""

    def __init__(self, seed: int, depth: int = 1) -> None:
        self.random = random.Random(seed)
        self.depth = depth

    def graph(self, count: int = 12, shapes: tuple = (), outputs: tuple = ()) -> Graph:
        builder = Builder("f")
        for shape in shapes or tuple(self.random.choice(SHAPES) for _ in range(3)):
            builder.input(aval("f64", shape))
        values: list[Value] = list(builder.inputs)
        for _ in range(count):
            values.extend(self.step(builder, values))
        if outputs:
            chosen = [self.of_shape(builder, values, shape) for shape in outputs]
        else:
            chosen = [self.random.choice(values) for _ in range(self.random.randint(1, 4))]
            if self.random.random() < 0.2:
                chosen.append(literal(2.0, aval("f64", (4,))))
        return prune(builder.build(chosen))

    def of_shape(self, builder: Builder, values: list[Value], shape: tuple) -> Value:
        """A late value of this shape, or a sum spread over it."""
        found = [value for value in values if value.aval.shape == shape]
        if found:
            return self.random.choice(found[-3:])
        last = values[-1]
        total = self.op(builder, "sum", last, axes=tuple(range(last.aval.ndim)))
        return self.op(builder, "broadcast", total, shape=shape, axes=())

    def op(self, builder: Builder, name: str, *operands, regions=(), **params) -> Value:
        return builder.emit(find(name), operands, params, regions)[0]

    def step(self, builder: Builder, values: list[Value]):
        pick = self.random.choice
        x = pick(values[-6:]) if self.random.random() < 0.7 else pick(values)
        ndim, shape = x.aval.ndim, x.aval.shape
        kind = pick(KINDS)
        if kind == "unary":
            yield self.op(builder, pick(["neg", "abs", "sign"]), x)
        elif kind == "costly":
            y = self.op(builder, "sqrt", self.op(builder, "abs", x))
            yield self.op(builder, "floor", y)
        elif kind == "binary":
            same = [y for y in values if y.aval == x.aval]
            yield self.op(builder, pick(["add", "sub", "maximum", "minimum"]), x, pick(same))
        elif kind == "literal":
            yield self.op(builder, "minimum", x, literal(7.0, x.aval))
        elif kind == "transpose" and ndim == 2:
            yield self.op(builder, "transpose", x, perm=(1, 0))
        elif kind == "reshape" and x.aval.size == 12:
            yield self.op(builder, "reshape", x, shape=pick([(12,), (3, 4), (4, 3), (2, 6)]))
        elif kind == "spread" and ndim == 1 and shape[0] in (3, 4):
            axis = 0 if shape[0] == 3 else 1
            yield self.op(builder, "broadcast", x, shape=(3, 4), axes=(axis,))
        elif kind == "reverse" and ndim:
            yield self.op(builder, "reverse", x, axes=(ndim - 1,))
        elif kind in ("sum", "max") and ndim:
            axes = tuple(k for k in range(ndim) if self.random.random() < 0.5) or (ndim - 1,)
            found = self.op(builder, kind, x, axes=axes)
            yield found
            if ndim - len(axes) == 1:
                kept = tuple(k for k in range(ndim) if k not in axes)
                spread = self.op(builder, "broadcast", found, shape=shape, axes=kept)
                yield self.op(builder, "sub", x, spread)
        elif kind == "contract" and ndim == 2:
            others = [y for y in values if y.aval.ndim == 2 and y.aval.shape[0] == shape[1]]
            if others:
                y = self.op(builder, "contract", x, pick(others), spec="ij,jk->ik")
                yield self.op(builder, "remainder", y, literal(5.0, y.aval))
        elif kind == "cumsum" and ndim:
            y = self.op(builder, "cumsum", x, axis=ndim - 1, reverse=pick([True, False]))
            yield self.op(builder, "remainder", y, literal(5.0, y.aval))
        elif kind == "scatter" and ndim == 2:
            index = literal(pick([0, 1, 9]), aval("i64", (2,)))
            updates = self.op(builder, "slice", x, start=(0, 0), stop=(1, shape[1]), step=(1, 1))
            row = self.op(builder, "reshape", updates, shape=(shape[1],))
            rows = self.op(builder, "broadcast", row, shape=(2, shape[1]), axes=(1,))
            combine = pick(["set", "add"])
            names = {"axes": (0,), "mode": "drop", "combine": combine}
            yield self.op(builder, "scatter", x, rows, index, **names)
        elif kind == "pad" and ndim == 1 and shape[0] == 3:
            value = literal(1.0, aval("f64"))
            yield self.op(builder, "pad", x, value, low=(1,), high=(0,), interior=(0,))
        elif kind == "gather" and ndim:
            index = self.index(builder, x, (pick([1, 3]),))
            mode = pick(["clip", "fill"])
            yield self.op(builder, "gather", x, index, axes=(ndim - 1,), mode=mode)
        elif kind == "start" and ndim == 1 and shape[0] >= 3:
            start = self.op(builder, "reshape", self.index(builder, x, (1,)), shape=())
            yield self.op(builder, "dynamic_slice", x, start, sizes=(3,))
        elif kind == "update" and ndim == 2 and shape[0] == 3:
            part = self.op(builder, "slice", x, start=(0, 0), stop=(2, shape[1]), step=(1, 1))
            start = self.op(builder, "reshape", self.index(builder, x, (1,)), shape=())
            zero = literal(0, aval("i64"))
            yield self.op(builder, "dynamic_update_slice", x, part, start, zero)
        elif kind == "argmax" and ndim:
            found = self.op(builder, pick(["argmax", "argmin"]), x, axis=pick(range(ndim)))
            yield self.op(builder, "convert", found, dtype="f64")
        elif kind in ("window", "overlap") and ndim and shape[-1] >= 3:
            names = {"axes": (ndim - 1,), "sizes": (2,), "strides": (1,), "dilations": (1,)}
            windows = self.op(builder, "window", x, **names)
            if kind == "window":
                yield self.op(builder, pick(["sum", "max"]), windows, axes=(ndim,))
            else:
                yield self.op(builder, "overlap_add", windows, shape=shape, **names)
        elif kind == "sort" and ndim:
            yield self.op(builder, "sort", x, axis=pick(range(ndim)))
        elif kind == "iota" and ndim:
            found = self.op(builder, "iota", dtype="f64", shape=shape, axis=ndim - 1)
            yield self.op(builder, "add", x, found)
        elif kind == "softmax" and ndim == 2:
            found = x
            for name in ("max", "sum"):
                kept = self.op(builder, name, found, axes=(1,))
                spread = self.op(builder, "broadcast", kept, shape=shape, axes=(0,))
                root = self.op(builder, "sqrt", self.op(builder, "abs", found))
                found = self.op(builder, "sub", self.op(builder, "floor", root), spread)
            yield found
            yield self.op(builder, "sum", found, axes=(0,))
        elif kind == "concat" and ndim:
            same = [y for y in values if y.aval == x.aval]
            both = self.op(builder, "concat", x, pick(same), axis=ndim - 1)
            low, high = (0,) * ndim, (*shape[:-1], shape[-1] + 1)
            part = self.op(builder, "slice", both, start=low, stop=high, step=(1,) * ndim)
            yield self.op(builder, "neg", part) if shape[-1] > 5 else part
        elif kind == "bits" and ndim:
            word = self.op(builder, "convert", self.op(builder, "abs", x), dtype="u32")
            flat = self.op(builder, "reshape", word, shape=(x.aval.size,))
            if x.aval.size >= 2:
                key = self.op(builder, "slice", flat, start=(0,), stop=(2,), step=(1,))
                bits = self.op(builder, "random_bits", key, shape=shape)
                few = self.op(builder, "shift_right", bits, literal(29, bits.aval))
                yield self.op(builder, "convert", few, dtype="f64")
        elif kind == "call" and self.depth:
            inner = Draw(self.random.randrange(10**9), self.depth - 1)
            graph = inner.graph(5, shapes=(shape, shape), outputs=(shape, (4,)))
            yield from builder.emit(find("call"), (x, x), {}, (graph,))
        elif kind == "scan" and self.depth:
            yield from self.scan(builder, values, x)

    def index(self, builder: Builder, x: Value, shape: tuple) -> Value:
        """Small integers, some out of bounds, that depend on ``x``."""
        total = self.op(builder, "max", x, axes=tuple(range(x.aval.ndim)))
        whole = self.op(builder, "convert", total, dtype=self.random.choice(["i64", "i32"]))
        spread = self.op(builder, "broadcast", whole, shape=shape, axes=())
        steps = {"dtype": whole.aval.dtype, "shape": shape, "axis": 0}
        return self.op(builder, "sub", spread, self.op(builder, "iota", **steps))

    def scan(self, builder: Builder, values: list[Value], x: Value):
        """One constant, two carries, one slice; the carries may be swapped or passed on."""
        matrices = [y for y in values if y.aval.ndim == 2]
        if not matrices:
            return ()
        xs = self.random.choice(matrices)
        length, *rest = xs.aval.shape
        shape = x.aval.shape
        inner = Draw(self.random.randrange(10**9), self.depth - 1)
        carries = (shape, shape)
        body = inner.graph(6, shapes=((4,), *carries, tuple(rest)), outputs=(*carries, (4,)))
        if self.random.random() < 0.3:
            a, b = body.inputs[1:3]
            body = prune(Graph("f", body.inputs, body.eqns, (b, a, body.outputs[2])))
        constant = self.of_shape(builder, values, (4,))
        other = self.random.choice([y for y in values if y.aval.shape == shape])
        params = {
            "consts": 1,
            "carry": 2,
            "length": length,
            "reverse": self.random.choice([True, False]),
        }
        return builder.emit(find("scan"), (constant, x, other, xs), params, (body,))
