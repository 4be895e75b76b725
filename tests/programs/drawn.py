"""Random programs over all ops: what the passes, the planner and native code are tried on.

``Drawer(seed).graph(count)`` draws one graph of about ``count`` equations: of every op of the
registry, over sizes 0, 1 and odd ones, with calls and loops. A graph of fewer equations from the
same seed is a prefix, so a failure shrinks by its count. ``smooth`` keeps to float64 and to ops
that have derivatives; values stay moderate there.
"""

import math
import random

import numpy as np

import diffc.ops
from diffc.ir.aval import FLOATS, INTEGERS, Aval, aval
from diffc.ir.graph import Builder, Graph, Literal, Value, literal, prune
from diffc.ops.declare import Undefined
from tests.ops.samples import special_values

SIZES = (0, 1, 1, 2, 3, 5, 7, 17, 33)
SMOOTH_SIZES = (1, 2, 3, 5, 17)
DTYPES = ("f64", "f64", "f64", "f32", "f32", "f32", "f16", "bf16", "i32", "i64", "u8", "bool")
#: elements of the largest value
LIMIT = 4000

ELEMENTWISE = [op.name for op in diffc.ops.every_op() if op.is_elementwise]
#: drawn more often than others
COMMON = ("add", "mul", "sub", "maximum", "tanh", "select", "exp", "div")
SMOOTH = (
    *("add", "sub", "mul", "neg", "tanh", "logistic", "sin", "cos", "erf", "arctan", "mul", "add"),
    *("integer_pow", "log1p", "exp"),
)
MOVES = ("reshape", "transpose", "broadcast", "slice", "reverse", "pad", "concat", "window")
FOLDS = ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin", "cumsum")
OTHERS = (
    *("contract", "contract", "gather", "scatter", "dynamic_slice", "dynamic_update_slice"),
    *("sort", "argsort", "iota", "constant", "random_bits", "overlap_add", "call", "scan", "row"),
)
SMOOTH_OTHERS = ("contract", "gather", "scatter_add", "overlap_add", "call", "scan", "row")


class Drawer:
    """Draws programs from a seed."""

    def __init__(self, seed: int, smooth: bool = False, depth: int = 1) -> None:
        self.random = random.Random(seed)
        self.smooth = smooth
        self.depth = depth
        self.values: list[Value] = []

    # --- graphs -------------------------------------------------------------------------------

    def graph(self, count: int, inputs: tuple[Aval, ...] = (), outputs: tuple[Aval, ...] = ()):
        """A graph; outputs are what nothing else uses, unless their avals are given."""
        self.builder = Builder("drawn")
        for a in inputs or [self.input_aval() for _ in range(self.random.randint(1, 4))]:
            self.builder.input(a)
        self.values = list(self.builder.inputs)
        for _ in range(count):
            self.step()
        if outputs:
            return prune(self.builder.build([self.fit(a) for a in outputs]))
        used = {id(x) for eqn in self.builder.eqns for x in eqn.operands}
        free = [v for v in self.values if id(v) not in used and v.eqn is not None]
        if self.random.random() < 0.15:  # outputs may be inputs, literals, and repeat
            free += [self.values[0], *free[:1]]
            if not self.smooth:
                free.append(literal(2, aval("f32", (3,))))
        return prune(self.builder.build(free or self.values[-1:]))

    def input_aval(self) -> Aval:
        dtype = "f64" if self.smooth else self.random.choice(DTYPES)
        return aval(dtype, self.shape())

    def shape(self) -> tuple[int, ...]:
        sizes = SMOOTH_SIZES if self.smooth else SIZES
        shape = [self.random.choice(sizes) for _ in range(self.random.choice((0, 1, 1, 2, 2, 3)))]
        while math.prod(shape) > LIMIT:
            shape.pop()
        return tuple(shape)

    # --- operands -----------------------------------------------------------------------------

    def emit(self, name: str, *operands, regions=(), **params) -> Value:
        results = self.builder.emit(diffc.ops.find(name), operands, params, regions)
        self.values += [r for r in results if r not in self.values[-8:]]
        return results[0]

    def pick(self, accept=lambda a: True) -> Value:
        """A value, late ones more often; a converted one where none is accepted."""
        found = [v for v in self.values if accept(v.aval) and v.aval.size <= LIMIT]
        if self.smooth:
            found = [v for v in found if v.aval.is_float]
        if found:
            late = self.random.random() < 0.7
            return self.random.choice(found[-5:] if late else found)
        value = self.random.choice(self.values)
        for dtype in ("f64", "i32", "bool"):
            if accept(aval(dtype, value.aval.shape)):
                return self.convert(value, dtype)
        return self.emit("iota", dtype="f64", shape=(3, 5), axis=1)

    def convert(self, value, dtype: str):
        if value.aval.dtype == dtype:
            return value
        return self.emit("convert", value, dtype=dtype)

    def fit(self, a: Aval):
        """A value of an aval: one that is there, or a cut, padded, spread one, or a literal."""
        same = [v for v in self.values if v.aval is a]
        if same and self.random.random() < 0.7:
            return self.random.choice(same)
        spread = [
            v
            for v in self.values
            if v.aval.dtype == a.dtype
            and v.aval.ndim <= a.ndim
            and v.aval.ndim
            and v.aval.shape == a.shape[a.ndim - v.aval.ndim :]
            and v.aval is not a
        ]
        if spread and self.random.random() < 0.6:
            value = self.random.choice(spread)
            axes = tuple(range(a.ndim - value.aval.ndim, a.ndim))
            return self.emit("broadcast", value, shape=a.shape, axes=axes)
        if same:
            return self.random.choice(same)
        whole = self.random.choice(self.values)
        if self.random.random() < 0.4 and whole.aval.size:
            flat = self.emit("reshape", self.convert(whole, a.dtype), shape=(whole.aval.size,))
            if flat.aval.size >= a.size:
                cut = self.emit("slice", flat, start=(0,), stop=(a.size,), step=(1,))
                return self.emit("reshape", cut, shape=a.shape)
        return self.number(a)

    def number(self, a: Aval) -> Literal:
        if a.dtype == "bool":
            return literal(self.random.random() < 0.5, a)
        if a.dtype in INTEGERS:
            return literal(self.random.choice((0, 1, 2, 3)), a)
        return literal(self.random.choice((0.0, 1.0, -1.0, 0.5, 2.0, -0.75)), a)

    # --- steps --------------------------------------------------------------------------------

    def step(self) -> None:
        kind = self.random.random()
        if kind < 0.5:
            self.elementwise()
        elif kind < 0.68:
            getattr(self, self.random.choice(MOVES))()
        elif kind < 0.84:
            self.fold()
        else:
            getattr(self, self.random.choice(SMOOTH_OTHERS if self.smooth else OTHERS))()

    def elementwise(self) -> None:
        if self.smooth:
            name = self.random.choice(SMOOTH)
        else:
            name = self.random.choice(COMMON if self.random.random() < 0.4 else ELEMENTWISE)
        op = diffc.ops.find(name)
        if name == "select":
            x = self.pick()
            mask = self.emit("gt", x, self.number(x.aval)) if x.aval.dtype != "bool" else x
            self.emit(name, mask, x, self.fit(x.aval))
            return
        x = self.pick(lambda a: a.dtype in op.dtypes)
        params = {}
        if name == "convert":
            params["dtype"] = self.random.choice(DTYPES)
        elif name == "integer_pow":
            params["exponent"] = self.random.choice((2, 3) if self.smooth else (-2, 0, 1, 2, 3, 5))
            if x.aval.dtype not in FLOATS:
                params["exponent"] = abs(params["exponent"])
        if self.smooth and name in ("integer_pow", "exp", "log1p"):
            x = self.emit("tanh", x)
            if name == "log1p":
                x = self.emit("mul", x, literal(0.5, x.aval))
        if self.smooth and name == "mul":
            x = self.emit("sin", x)
        self.emit(name, x, *(self.fit(x.aval) for _ in range(op.arity - 1)), **params)

    def fold(self) -> None:
        x = self.pick(lambda a: a.ndim > 0)
        name = self.random.choice(FOLDS)
        if self.smooth:
            name = self.random.choice(("sum", "sum", "cumsum"))
        axis = self.random.randrange(x.aval.ndim or 1)
        if not x.aval.ndim:
            return
        if name in ("any", "all"):
            x = self.convert(x, "bool")
        elif x.aval.dtype == "bool":
            x = self.convert(x, "i32")
        if name == "cumsum":
            self.emit(name, x, axis=axis, reverse=self.random.random() < 0.5)
            return
        if name in ("argmax", "argmin"):
            if x.aval.shape[axis]:
                self.emit(name, x, axis=axis)
            return
        axes = tuple(k for k in range(x.aval.ndim) if k == axis or self.random.random() < 0.4)
        if name in ("max", "min") and not math.prod(x.aval.shape[k] for k in axes):
            return
        self.emit(name, x, axes=axes)

    def row(self) -> None:
        """A row's statistic, spread over the row again."""
        x = self.pick(lambda a: a.ndim > 0 and a.dtype in FLOATS)
        if not x.aval.ndim:
            return
        axis = self.random.randrange(x.aval.ndim)
        kind = "sum" if self.smooth or not x.aval.shape[axis] else "max"
        total = self.emit(kind, x, axes=(axis,))
        kept = tuple(k for k in range(x.aval.ndim) if k != axis)
        spread = self.emit("broadcast", total, shape=x.aval.shape, axes=kept)
        self.emit("sub", x, spread)

    # --- movement -----------------------------------------------------------------------------

    def reshape(self) -> None:
        x = self.pick()
        size, shape = x.aval.size, []
        for factor in (2, 3, 5, 7):
            while size and size % factor == 0 and self.random.random() < 0.5 and len(shape) < 3:
                shape.append(factor)
                size //= factor
        shape.append(size)
        if self.random.random() < 0.3:
            shape.append(1)
        self.random.shuffle(shape)
        self.emit("reshape", x, shape=tuple(shape))

    def transpose(self) -> None:
        x = self.pick()
        perm = list(range(x.aval.ndim))
        self.random.shuffle(perm)
        self.emit("transpose", x, perm=tuple(perm))

    def broadcast(self) -> None:
        x = self.pick(lambda a: a.ndim < 3 and a.size < 300)
        if x.aval.ndim > 3:
            return
        shape, axes = list(x.aval.shape), list(range(x.aval.ndim))
        at = self.random.randint(0, len(shape))
        shape.insert(at, self.random.choice((1, 2, 3, 5)))
        axes = [k + (k >= at) for k in axes]
        self.emit("broadcast", x, shape=tuple(shape), axes=tuple(axes))

    def slice(self) -> None:
        x = self.pick()
        start = [self.random.randint(0, dim // 2) for dim in x.aval.shape]
        stop = [self.random.randint(low, dim) for low, dim in zip(start, x.aval.shape, strict=True)]
        if self.random.random() < 0.7:
            stop = list(x.aval.shape)
        step = tuple(self.random.choice((1, 1, 2, 3)) for _ in start)
        self.emit("slice", x, start=tuple(start), stop=tuple(stop), step=step)

    def reverse(self) -> None:
        x = self.pick()
        axes = tuple(k for k in range(x.aval.ndim) if self.random.random() < 0.6)
        self.emit("reverse", x, axes=axes)

    def pad(self) -> None:
        x = self.pick(lambda a: a.size < 500)
        low, high, interior = (
            tuple(self.random.choice((0, 0, 1, 2)) for _ in x.aval.shape) for _ in range(3)
        )
        value = self.number(aval(x.aval.dtype))
        self.emit("pad", x, value, low=low, high=high, interior=interior)

    def concat(self) -> None:
        x = self.pick(lambda a: a.ndim > 0 and a.size < 1000)
        if x.aval.ndim:
            others = [self.fit(x.aval) for _ in range(self.random.randint(0, 2))]
            self.emit("concat", x, *others, axis=self.random.randrange(x.aval.ndim))

    def _windows(self, shape):
        axes = tuple(k for k in range(len(shape)) if self.random.random() < 0.7)
        sizes = tuple(self.random.randint(1, max(1, min(3, shape[k]))) for k in axes)
        dilations = tuple(
            self.random.choice((1, 2)) if (size - 1) * 2 < shape[k] else 1
            for k, size in zip(axes, sizes, strict=True)
        )
        strides = tuple(self.random.choice((1, 2, 3)) for _ in axes)
        return {"axes": axes, "sizes": sizes, "strides": strides, "dilations": dilations}

    def window(self) -> None:
        x = self.pick(lambda a: 0 < a.size < 400 and a.ndim < 3)
        if x.aval.size:
            self.emit("window", x, **self._windows(x.aval.shape))

    def overlap_add(self) -> None:
        x = self.pick(lambda a: 0 < a.size < 200 and a.ndim < 3 and a.dtype != "bool")
        if x.aval.size:
            params = self._windows(x.aval.shape)
            (pieces,) = diffc.ops.find("window").infer((x.aval,), params, ())
            if pieces.size < LIMIT:
                self.emit("overlap_add", self.fit(pieces), shape=x.aval.shape, **params)

    # --- the rest -----------------------------------------------------------------------------

    def contract(self) -> None:
        x = self.pick(lambda a: a.ndim > 0 and a.dtype != "bool")
        if x.aval.dtype == "bool":
            return
        left = "abcdefgh"[: x.aval.ndim]
        roles = [self.random.choice("bsk") for _ in left]  # batch, summed, kept
        right = "".join(c for c, role in zip(left, roles, strict=True) if role != "k")
        dims = dict(zip(left, x.aval.shape, strict=True))
        if self.random.random() < 0.7:
            right += "z"
            dims["z"] = self.random.choice((1, 2, 3, 7, 17))
        right = "".join(self.random.sample(right, len(right)))
        if math.prod(dims[c] for c in right) > LIMIT:
            return
        y = self.fit(aval(x.aval.dtype, tuple(dims[c] for c in right)))
        summed = [c for c, role in zip(left, roles, strict=True) if role == "s"]
        result = [c for c in dict.fromkeys(left + right) if c not in summed]
        if math.prod(dims[c] for c in result) > LIMIT:
            return
        self.random.shuffle(result)
        self.emit("contract", x, y, spec=f"{left},{right}->{''.join(result)}")

    def _index(self, shape, bound: int):
        """Integers in and a little out of bounds."""
        if self.random.random() < 0.3:
            return self.number(aval("i64", shape))
        x = self.fit(aval("i32", shape))
        if isinstance(x, Literal) and shape:
            x = self.emit("iota", dtype="i32", shape=shape, axis=0)
        x = self.emit("remainder", x, literal(bound + 2, x.aval))
        return self.emit("sub", x, literal(1, x.aval))

    def gather(self) -> None:
        x = self.pick(lambda a: a.ndim > 0 and a.size > 0)
        if not x.aval.size or not x.aval.ndim:
            return
        axis = self.random.randrange(x.aval.ndim)
        shape = self.random.choice(((), (3,), (2, 5), (0,)))
        index = self._index(shape, x.aval.shape[axis])
        mode = self.random.choice(("clip", "fill"))
        self.emit("gather", x, index, axes=(axis,), mode=mode)

    def scatter_add(self) -> None:
        self.scatter(("add",))

    def scatter(self, combines=("set", "add", "mul", "min", "max")) -> None:
        x = self.pick(lambda a: a.ndim > 0 and a.size > 0 and a.dtype != "bool")
        if not x.aval.size or not x.aval.ndim or x.aval.dtype == "bool":
            return
        axis = self.random.randrange(x.aval.ndim)
        shape = self.random.choice(((), (3,), (2, 5), (0,)))
        index = self._index(shape, x.aval.shape[axis])
        rest = tuple(dim for k, dim in enumerate(x.aval.shape) if k != axis)
        updates = self.fit(aval(x.aval.dtype, (*shape, *rest)))
        combine = self.random.choice(combines)
        self.emit("scatter", x, updates, index, axes=(axis,), mode="drop", combine=combine)

    def dynamic_slice(self) -> None:
        x = self.pick()
        sizes = tuple(self.random.randint(0, dim) for dim in x.aval.shape)
        starts = [self._index((), dim) for dim in x.aval.shape]
        self.emit("dynamic_slice", x, *starts, sizes=sizes)

    def dynamic_update_slice(self) -> None:
        x = self.pick()
        sizes = tuple(self.random.randint(0, dim) for dim in x.aval.shape)
        starts = [self._index((), dim) for dim in x.aval.shape]
        update = self.fit(aval(x.aval.dtype, sizes))
        self.emit("dynamic_update_slice", x, update, *starts)

    def sort(self, name="sort") -> None:
        x = self.pick(lambda a: a.ndim > 0)
        if x.aval.ndim:
            self.emit(name, x, axis=self.random.randrange(x.aval.ndim))

    def argsort(self) -> None:
        self.sort("argsort")

    def iota(self) -> None:
        shape = self.shape() or (5,)
        dtype = self.random.choice(DTYPES[:-1])
        self.emit("iota", dtype=dtype, shape=shape, axis=self.random.randrange(len(shape)))

    def constant(self) -> None:
        like = aval(self.random.choice(DTYPES), (3, 5))
        data = np.arange(15).astype(like.numpy).tobytes()
        self.emit("constant", dtype=like.dtype, shape=like.shape, data=data)

    def random_bits(self) -> None:
        key = self.emit("convert", self.fit(aval("u8", (2,))), dtype="u32")
        self.emit("random_bits", key, shape=self.shape())

    def inner(self) -> "Drawer":
        return Drawer(self.random.randrange(2**32), self.smooth, self.depth - 1)

    def call(self) -> None:
        if not self.depth:
            return
        operands = [self.pick() for _ in range(self.random.randint(1, 3))]
        graph = self.inner().graph(self.random.randint(0, 6), tuple(v.aval for v in operands))
        self.emit("call", *operands, regions=(graph,))

    def scan(self) -> None:
        if not self.depth:
            return
        pick = self.random.choice
        fixed = [self.pick() for _ in range(pick((0, 1)))]
        carry = [self.pick() for _ in range(pick((0, 1, 2)))]
        length = pick((0, 1, 2, 5))
        wanted = (length, *(pick((1, 3)) for _ in range(pick((0, 1)))))
        xs = [self.fit(aval(pick(("f64",) if self.smooth else DTYPES), wanted))]
        rows = [x.aval.with_shape(x.aval.shape[1:]) for x in xs]
        carried = tuple(v.aval for v in carry)
        outputs = (*carried, *(pick(rows + list(carried)) for _ in range(pick((0, 1, 2)))))
        if not outputs:
            return
        inputs = (*(v.aval for v in fixed), *carried, *rows)
        body = self.inner().graph(self.random.randint(0, 6), inputs, outputs)
        params = {"consts": len(fixed), "carry": len(carry), "length": length}
        params["reverse"] = self.random.random() < 0.5
        self.emit("scan", *fixed, *carry, *xs, regions=(body,), **params)


def operands_for(avals, seed: int, special: bool = False) -> list[np.ndarray]:
    """Arrays for the inputs of a drawn graph; ``special``: nan, inf and extremes among them."""
    rng = np.random.default_rng(seed)
    found = []
    for a in avals:
        if a.dtype == "bool":
            x = rng.integers(0, 2, a.shape).astype(a.numpy)
        elif a.is_float:
            x = np.asarray(rng.uniform(-2, 2, a.shape)).astype(a.numpy)
        else:
            x = np.asarray(rng.integers(0 if a.dtype[0] == "u" else -9, 10, a.shape))
            x = x.astype(a.numpy)
        if special:
            mixed = rng.choice(special_values(a.dtype), a.shape)
            x = np.where(rng.random(a.shape) < 0.2, mixed, x).astype(a.numpy)
        found.append(x)
    return found


def is_differentiable(graph: Graph) -> bool:
    """Whether no equation refuses to be differentiated."""
    return not any(
        isinstance(eqn.op.fact(eqn.params), Undefined)
        or any(not is_differentiable(region) for region in eqn.regions)
        for eqn in graph.eqns
    )


__all__ = ["Drawer", "is_differentiable", "operands_for"]
