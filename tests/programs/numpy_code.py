"""NumPy code, drawn: functions of arrays as text, every line of which NumPy has run.

``Code(seed)`` draws arguments and lines; ``function`` is what they define. A line is a template
with values, axes and indices filled in; those that NumPy refuses, and results that are large, not
finite or of other dtypes, are left out.
"""

from __future__ import annotations

import linecache
import random
from typing import Any

import numpy as np

SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 100, 129, 300)
SMALL = (1, 1, 2, 2, 3, 4, 5)
DTYPES = ("f8", "f8", "f8", "f4", "f4", "i4", "u1", "?", "i8")
#: elements of the largest value, and its largest number
LIMIT, GREATEST = 40_000, 1e4

#: {v} and {w} are values, {axis} and {perm} axes of v, {places} positions along its first axis
TEMPLATES = (
    *("{v} + {w}", "{v} - {w}", "{v} * {w}", "np.{unary}({v})", "np.{binary}({v}, {w})"),
    *("np.where({v} > {number}, {v}, {w})", "{v}[{index}]", "{v}[{index}]", "{v} @ {w}"),
    *("np.{fold}({v}, axis={axis})", "np.{fold}({v})", "np.{fold}({v}, axis={axis})"),
    *("np.{along}({v}, axis={axis})", "np.argsort({v}, axis={axis}, kind='stable')"),
    *("{v}.transpose({perm})", "{v}.reshape({shape})", "np.concatenate([{v}, {w}], axis={axis})"),
    *("np.pad({v}, {few}, mode='{mode}')", "np.roll({v}, {few} - 1, axis={axis})"),
    *("np.repeat({v}, {few}, axis={axis})", "np.tile({v}, {few})", "np.diff({v}, axis={axis})"),
    *("np.take({v}, {places}, axis=0)", "np.{triangle}({v}, {few} - 1)", "np.trace({v})"),
    *("{v} - np.{fold}({v}, axis={axis}, keepdims=True)", "np.broadcast_to({v}, (3, *{v}.shape))"),
    *(
        "{v}.astype(np.{dtype})",
        "np.concatenate([{v}[:{few}], {w}[{few}:]])",
        "put({v}, {few}, {w})",
    ),
    *("np.convolve({v}, np.arange({few} + 1.0), '{overlap}')", "added({v}, {places}, {w})"),
)
CHOICES = {
    "unary": ("tanh", "sin", "exp", "cos", "arctan", "abs", "square", "negative", "sign"),
    "binary": ("maximum", "minimum", "hypot", "arctan2", "fmax", "copysign", "logaddexp"),
    "fold": ("sum", "mean", "max", "min", "prod", "std", "any", "argmax", "median"),
    "along": ("cumsum", "cumprod", "sort", "maximum.accumulate"),
    "mode": ("constant", "edge", "reflect", "wrap"),
    "shape": ("-1", "-1, 1", "2, -1", "-1, 2", "3, -1", "-1, 4"),
    "triangle": ("tril", "triu"),
    "overlap": ("full", "same", "valid"),
    "dtype": ("float32", "float64", "float16", "int32", "bool_"),
    "number": ("0", "1", "0.3", "-2"),
    "few": ("0", "1", "2", "3"),
}
HELPERS = """
def put(x, start, value):
    x = x.copy()
    x[start::2] = value[:1]
    return x

def added(x, places, value):
    x = x.copy()
    np.add.at(x, places, value[0])
    return x
"""


class Code:
    """A drawn function.

    Attributes:
        arguments: by name.
        values: what NumPy gives for each name.
        lines: the assignments.
        function: of all arguments; returns a tuple.
    """

    def __init__(self, seed: int, sizes: tuple[int, ...] = SIZES) -> None:
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.arguments = {f"x{k}": self._argument(sizes) for k in range(self.random.randint(1, 3))}
        self.values: dict[str, np.ndarray[Any, Any]] = dict(self.arguments)
        self.lines: list[str] = []
        self._names: dict[str, Any] = {"np": np}
        exec(HELPERS, self._names)
        for _ in range(self.random.randint(2, 14)):
            self._line()
        made = [name for name in self.values if name not in self.arguments]
        self.outputs = self.random.sample(made, min(len(made), 3)) or ["x0"]
        body = "".join(f"    {line}\n" for line in self.lines)
        head = f"def function({', '.join(self.arguments)}):\n"
        self.text = f"{head}{body}    return ({', '.join(self.outputs)},)\n"
        file = f"<code {seed}>"
        linecache.cache[file] = (len(self.text), None, self.text.splitlines(True), file)
        exec(compile(self.text, file, "exec"), self._names)
        self.function = self._names["function"]

    def draw(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """An array of moderate numbers."""
        if np.dtype(dtype).kind == "f":
            return np.asarray(self.rng.uniform(-2, 2, shape)).astype(dtype)
        return np.asarray(self.rng.integers(0, 4, shape)).astype(dtype)

    def _argument(self, sizes: tuple[int, ...]) -> np.ndarray[Any, Any]:
        shape = [self.random.choice(sizes) for _ in range(self.random.choice((0, 1, 1, 2, 2, 3)))]
        while np.prod(shape) > LIMIT // 2:
            shape.pop()
        x = self.draw(tuple(shape), self.random.choice(DTYPES))
        if x.ndim and self.random.random() < 0.3:
            return x[::-1]
        return np.asfortranarray(x) if self.random.random() < 0.3 else x

    def _index(self, dim: int) -> str:
        low = self.random.randint(0, dim // 2)
        one = [str(self.random.randrange(-dim, dim))] if dim else []
        return self.random.choice(
            [":", "None", f"{low}:", f":{-1 - low}", "::-1", "::2", "1::3", *one]
        )

    def _line(self) -> None:
        names = list(self.values)
        late = names[-4:] if self.random.random() < 0.6 else names
        v, w = self.random.choice(late), self.random.choice(names)
        shape = self.values[v].shape
        first, rank = (shape or (1,))[0] or 1, len(shape)
        places = [
            self.random.randrange(-first, first) for _ in range(self.random.choice((1, 3, 9)))
        ]
        fields = {name: self.random.choice(options) for name, options in CHOICES.items()}
        template = self.random.choice(TEMPLATES)
        if self._is_refused(template, self.values[v]):
            return
        text = template.format(
            v=v,
            w=w,
            axis=self.random.randrange(-rank, rank) if rank else 0,
            perm=", ".join(map(str, self.random.sample(range(rank), rank))),
            index=", ".join(map(self._index, shape)) or "...",
            places=f"np.array({places})",
            **fields,
        )
        try:
            with np.errstate(all="ignore"):
                value = np.asarray(eval(text, self._names, dict(self.values)))
        except (TypeError, ValueError, IndexError):
            return
        if value.size > LIMIT or value.dtype.str[1:] not in (*DTYPES, "f2", "b1"):
            return
        if value.dtype.kind == "f" and not (np.abs(value) < GREATEST).all():
            return
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        self.values[name] = value

    def _is_refused(self, template: str, x: np.ndarray[Any, Any]) -> bool:
        """Whether NumPy takes what diffc says it does not: axes of numbers, sums of bools."""
        is_odd = x.ndim == 0 and "axis" in template
        is_odd |= x.ndim != 1 and "convolve" in template
        return is_odd or (x.dtype == bool and ("convolve" in template or "added" in template))

    @property
    def rounding(self) -> float:
        """What the least dtype of all values may be off, by the largest number."""
        floats = [x for x in self.values.values() if x.dtype.kind == "f"]
        eps = max((float(np.finfo(x.dtype).eps) for x in floats), default=1e-16)
        return 2e3 * eps * max((float(np.abs(x).max(initial=1)) for x in floats), default=1.0)
