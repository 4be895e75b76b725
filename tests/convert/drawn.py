"""Small programs with all of Python's control flow, drawn as text: arithmetic never leaves [-9, 9].

A program is a function of ``x`` (an array of three floats), ``a`` (a float) and ``n`` (an int). All
its variables are floats, except ``k`` and loop counters, so that branches agree in dtype.
"""

from __future__ import annotations

import linecache
from itertools import count

import numpy as np

_NUMBERS = count()


def squash(v):
    return 9 * np.tanh(v / 9)


class Drawn:
    """Draws one program; ``pick(options)`` chooses."""

    def __init__(self, draw):
        self.draw = draw
        self.lines = []
        self.loops = 0

    def integer(self, low, high):
        return self.draw(low, high)

    def pick(self, options):
        return options[self.draw(0, len(options) - 1)]

    def number(self, names):
        a, b = self.pick(names), self.pick(names)
        return self.pick(
            [
                f"squash({a} + {b})",
                f"squash({a} * {b})",
                f"np.sin({a})",
                f"{a} - 0.5",
                f"({a} if {self.test(names, 0)} else {b})",
                f"helper({a}, {b})",
            ]
        )

    def test(self, names, depth=1):
        a, b = self.pick(names), self.pick(names)
        kinds = [f"{a} > {b}", f"{a} < 0.25", f"-1 < {a} < {b}", f"not {a} > 0"]
        if depth:
            left, right = self.test(names, 0), self.test(names, 0)
            kinds += [f"{left} and {right}", f"{left} or {right}"]
        return self.pick(kinds)

    def emit(self, depth, text):
        self.lines.append("    " * depth + text)

    def block(self, depth, names, budget, *, in_loop=False):
        for _ in range(self.integer(1, 2)):
            self.statement(depth, names, budget, in_loop=in_loop)

    def statement(self, depth, names, budget, *, in_loop):
        kinds = ["assign", "assign", "store"]
        if budget > 0:
            kinds += ["if", "if", "else", "while", "range", "rows"]
        if in_loop:
            kinds += ["break", "continue"]
        if depth > 1:
            kinds += ["return"]
        kind = self.pick(kinds)
        if kind == "assign":
            self.emit(depth, f"{self.pick('bcd')} = {self.number(names)}")
        elif kind == "store":
            self.emit(depth, f"y[{self.integer(0, 2)}] = {self.number(names)}")
        elif kind in ("if", "else"):
            self.emit(depth, f"if {self.test(names)}:")
            self.block(depth + 1, names, budget - 1, in_loop=in_loop)
            if kind == "else":
                self.emit(depth, "else:")
                self.block(depth + 1, names, budget - 1, in_loop=in_loop)
        elif kind == "while":
            self.loops += 1
            i = f"i{self.loops}"
            self.emit(depth, f"{i} = 0")
            self.emit(depth, f"while {i} < 4 and {self.test(names, 0)}:")
            self.emit(depth + 1, f"{i} += 1")
            self.block(depth + 1, names, budget - 1, in_loop=True)
        elif kind == "range":
            self.loops += 1
            i = f"i{self.loops}"
            bound = self.pick(["n", "3", "1, n", "n, 0, -1"])
            self.emit(depth, f"for {i} in range({bound}):")
            self.emit(depth + 1, f"b = squash(b + {i})")
            self.block(depth + 1, names, budget - 1, in_loop=True)
            if self.integer(0, 3) == 0:
                self.emit(depth, "else:")
                self.block(depth + 1, names, budget - 1, in_loop=in_loop)
        elif kind == "rows":
            self.loops += 1
            r = f"r{self.loops}"
            over = self.pick(["x", "y.copy()", "reversed(x)"])
            self.emit(depth, f"for {r} in {over}:")
            self.block(depth + 1, [*names, r], budget - 1, in_loop=True)
        elif kind == "return":
            self.emit(depth, f"return y * {self.number(names)}, b")
        else:
            self.emit(depth, kind)

    def program(self, size=4):
        self.emit(0, "def f(x, a, n):")
        self.emit(1, "b, c, d = a * 1.0, 0.5 * a, x[1] * 1.0")
        self.emit(1, "y = x * 2.0")
        names = ["a", "b", "c", "d", "x[0]", "y[2]"]
        for _ in range(size):
            self.statement(1, names, 2, in_loop=False)
        self.emit(1, "return y + c * d, b + a")
        return "\n".join(self.lines) + "\n"


HELPER = """\
def helper(v, w):
    while v > 1.0:
        v = v * 0.5
        if v < w:
            return v - w
    return v if w > 0 else w
"""


def function_of(text):
    """The program as a function whose source can be found."""
    name = f"<drawn {next(_NUMBERS)}>"
    whole = HELPER + text
    linecache.cache[name] = (len(whole), None, whole.splitlines(keepends=True), name)
    scope = {"np": np, "squash": squash, "__name__": "drawn_programs"}
    exec(compile(whole, name, "exec"), scope)
    return scope["f"]
