"""Fit the costs of contractions to times on this machine and print them as a Python value.

    python tools/fit_contractions.py measure TIMES [--shapes 100] [--seed 1] [--least-mb 0]
    python tools/fit_contractions.py fit TIMES...

`measure` draws shapes, layouts and tiles (with what may be packed, blocked, prefetched), runs each
as native code and adds a line of JSON for each to the file TIMES. `fit` finds the figures of
`Costs` for which predicted and measured cycles differ least (Levenberg-Marquardt on logarithms of
ratios, large ones damped), and says how far the tile with the best prediction is from the fastest.
Nothing here runs where diffc is used: the result is copied to `contract_costs.py`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from diffc.codegen.emit.kernel import write_kernel
from diffc.codegen.emit.text import ModuleText
from diffc.codegen.loops.nodes import Buffer, Contract, Kernel, Load, Par, Scalar, Store, Tile
from diffc.codegen.loops.scratch import nbytes_of, scratch_in_arena
from diffc.codegen.targets import Target
from diffc.codegen.tile import contract_price
from diffc.codegen.tile.contract import tile_contract
from diffc.codegen.tile.contract_costs import Costs, costs
from diffc.codegen.tile.contract_model import (
    Choice,
    choose,
    dots,
    registers_for_tiles,
    unroll_of,
)
from diffc.codegen.tile.contract_price import Operand, Price, Problem, lanes_of
from diffc.ir.index import Var
from diffc.runtime import build
from diffc.runtime.target import host

DTYPES = {"f32": np.float32, "f64": np.float64}
FIXED = {"multiply_add", "half", "broadcast", "gather", "conflict", "kind", "code", "pack"}
FIXED |= {"depth_blocks", "pages"}
ROUNDS, CHUNK_S, QUANTILE = 25, 3e-4, 15
CALL_CYCLES = 60.0
"""What a call of a kernel takes besides."""

Shape = tuple[int, int, int, int, str]
"""Rows, depth, columns, layout (bit 0: lhs is transposed, bit 1: rhs is), dtype."""


def kernel_of(shape: Shape) -> Kernel:
    """The contraction of a shape."""
    m, k, n, layout, dtype = shape
    i, j, p = Var("i", m), Var("j", n), Var("p", k)
    lhs = Buffer("lhs", dtype, (k, m) if layout & 1 else (m, k), "in")
    rhs = Buffer("rhs", dtype, (n, k) if layout & 2 else (k, n), "in")
    out = Buffer("out", dtype, (m, n), "out")
    total = Scalar("total", dtype)
    left = Load(lhs, (p, i) if layout & 1 else (i, p))
    right = Load(rhs, (j, p) if layout & 2 else (p, j))
    body = (Contract(total, (p,), left, right), Store(out, (i, j), total))
    return Kernel("contraction", (lhs, rhs, out), (), (Par((i, j), body),))


def with_choices(kernel: Kernel, target: Target, chooser: Callable[..., Choice]) -> Kernel:
    """The kernel tiled, with choices made by a function of problem and target."""
    (par,) = kernel.body
    assert isinstance(par, Par)
    tiled = tile_contract(par, target, chooser)
    return replace(kernel, body=tiled.body, scratch=tiled.scratch)


def native(kernel: Kernel, target: Target) -> Callable[[int], None]:
    """A function that runs a kernel a number of times on drawn data."""
    module = ModuleText()
    write_kernel(module, kernel, "kernel", target, is_internal=False)
    arena = scratch_in_arena(kernel)
    names = [f"%a{number}" for number in range(len(kernel.params) + len(arena) + 1)]
    signature = ", ".join(f"ptr {name}" for name in names)
    repeat = [
        f"define void @repeat(i64 %n, {signature}) {{",
        "entry:",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
        f"  call void @kernel({signature})",
        "  %next = add i64 %i, 1",
        "  %again = icmp slt i64 %next, %n",
        "  br i1 %again, label %loop, label %done",
        "done:",
        "  ret void",
        "}",
    ]
    text = module.text() + "\n".join(repeat) + "\n"
    library = build.build(text, ("kernel", "repeat"), target, None)
    rng = np.random.default_rng(1)
    held = [rng.standard_normal(b.shape).astype(DTYPES[b.dtype]) for b in kernel.params]
    blocks = [np.zeros(nbytes_of(buffer) + 64, np.uint8) for buffer in arena]
    pointers = [array.ctypes.data for array in held]
    pointers += [block.ctypes.data + -block.ctypes.data % 64 for block in blocks]
    status = (ctypes.c_int64 * 2)()
    kinds = [ctypes.c_int64, *[ctypes.c_void_p] * len(names)]
    function = ctypes.CFUNCTYPE(None, *kinds)(library.address("repeat"))

    def run(times: int) -> None:
        function(times, *pointers, ctypes.addressof(status))
        assert library is not None and (held, blocks) is not None

    return run


# --- drawing


def draw_shape(rng: random.Random, least_mb: float) -> Shape:
    """A shape with extents up to 2048, uniform in their logarithms; a share are powers of two."""
    while True:
        m, k, n = (round(math.exp(rng.uniform(0, math.log(2048)))) for _ in range(3))
        if rng.random() < 0.4:
            m, k, n = (2 ** round(math.log2(extent)) for extent in (m, k, n))
        largest = max(m * k, k * n, m * n) * 6 / 1e6
        if 1e4 < m * k * n < 4e8 and largest >= least_mb:
            return m, k, n, rng.randrange(4), rng.choice(sorted(DTYPES))


def draw_tiles(problem: Problem, target: Target, rng: random.Random) -> Iterator[Tile]:
    """Some tiles for a problem, whatever they cost."""
    lanes, room = lanes_of(problem.dtype, target), registers_for_tiles(target)
    vectors = -(-problem.columns // lanes)
    sizes = [
        (height, width)
        for width in range(1, min(vectors, room // 2) + 1)
        for height in range(1, min(problem.rows, (room - 1 - width) // width) + 1)
    ]
    large = [size for size in sizes if size[0] * size[1] >= room // 3] or sizes
    for _ in range(8):
        height, width = rng.choice(large if rng.random() < 0.8 else sizes)
        unroll = unroll_of(problem.inner_depth, height * width)
        narrow = rng.random() < 0.5 and Price(problem, target).has_half
        how = Tile(height, width, lanes, unroll, narrow=narrow)
        how = replace(how, pack_rhs=problem.must_pack or rng.random() < 0.35)
        if rng.random() < 0.25:
            how = replace(how, pack_lhs=True)
        if problem.depth > 48 and rng.random() < 0.35:
            block = rng.choice([size for size in (32, 64, 128, 256, 512) if size < problem.depth])
            how = replace(how, depth_block=-(-block // unroll) * unroll)
        if problem.rows > 2 * height and rng.random() < 0.35:
            most = max(1, problem.rows // (2 * height))
            how = replace(how, row_block=height * rng.randint(1, most))
        if not how.pack_rhs and rng.random() < 0.45:
            how = replace(how, prefetch_rhs=True)
        if not (how.pack_lhs or problem.lhs.is_along) and rng.random() < 0.35:
            how = replace(how, prefetch_lhs=True)
        if problem.strided and rng.random() < 0.7:
            how = replace(how, turn=True)
        yield how
    several = list(dots(problem, target))
    yield from rng.sample(several, min(3, len(several)))


def best_tile(problem: Problem, target: Target) -> Tile:
    """The tile that is chosen."""
    found = choose(problem, target)
    assert found is not None, "no order of summation is given"
    return found.tile


def drawn(shape: Shape, target: Target, rng: random.Random) -> Iterator[tuple[Problem, Kernel]]:
    """Kernels of a shape with drawn tiles, for each way to pick rows and columns."""
    kernel = kernel_of(shape)
    problems: list[Problem] = []

    def note(problem: Problem, target: Target) -> Choice:
        problems.append(problem)
        return Choice(0.0, best_tile(problem, target))

    with_choices(kernel, target, note)
    for problem in dict.fromkeys(problems):
        for how in dict.fromkeys([best_tile(problem, target), *draw_tiles(problem, target, rng)]):

            def forced(other: Problem, target: Target, problem=problem, how=how) -> Choice:
                found = best_tile(other, target)
                return Choice(0.0, how) if other == problem else Choice(1e30, found)

            yield problem, with_choices(kernel, target, forced)


def tile_of(kernel: Kernel) -> Tile:
    """The tile of a kernel's contraction."""
    (par,) = (stmt for stmt in kernel.body if isinstance(stmt, Par) and is_contract(stmt))
    first = par.body[0]
    assert isinstance(first, Contract) and first.how is not None
    return first.how


def is_contract(par: Par) -> bool:
    """Whether a nest is the contraction's."""
    return isinstance(par.body[0], Contract)


def timed(functions: list[Callable[[int], None]]) -> list[float]:
    """Seconds of a run of each: a low quantile of short chunks, in an order drawn anew."""
    order, rng = list(range(len(functions))), random.Random(0)
    counts = []
    for run in functions:
        run(1)
        start = time.perf_counter()
        run(2)
        counts.append(max(1, int(CHUNK_S / ((time.perf_counter() - start) / 2))))
    found: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        rng.shuffle(order)
        for index in order:
            functions[index](1)
            start = time.perf_counter()
            functions[index](counts[index])
            found[index].append((time.perf_counter() - start) / counts[index])
    return [float(np.percentile(times, QUANTILE)) for times in found]


def measure(path: Path, shapes: int, seed: int, least_mb: float) -> None:
    """Adds the times of drawn shapes to a file."""
    target, rng = host(), random.Random(seed)
    for number in range(shapes):
        shape = draw_shape(rng, least_mb)
        found = [
            (problem, tile_of(kernel), native(kernel, target))
            for problem, kernel in drawn(shape, target, rng)
        ]
        times = timed([run for *_, run in found])
        with path.open("a", encoding="utf-8") as file:
            for (problem, how, _), seconds in zip(found, times, strict=True):
                row = {"shape": shape, "problem": asdict(problem), "tile": asdict(how)}
                file.write(json.dumps({**row, "seconds": seconds}) + "\n")
        print(f"{number + 1}/{shapes}", *shape, flush=True)


# --- fitting


class Times:
    """Measured tiles, and how predictions compare with them."""

    def __init__(self, paths: list[Path], hertz: float) -> None:
        self.target = host()
        self.rows: list[tuple[Shape, Problem, Tile]] = []
        self.cycles: list[float] = []
        for path in paths:
            for line in path.read_text("utf-8").splitlines():
                row = json.loads(line)
                problem = row["problem"]
                sides = {side: Operand(**problem.pop(side)) for side in ("lhs", "rhs")}
                entry = tuple(row["shape"]), Problem(**problem, **sides), Tile(**row["tile"])
                self.rows.append(entry)
                self.cycles.append(row["seconds"] * hertz)
        self.names = [f.name for f in fields(Costs) if f.name not in FIXED]

    def predicted(self, figures: Costs) -> list[float]:
        """Cycles of each row."""
        prices: dict[Problem, Price] = {}
        found = []
        with mock.patch.object(contract_price, "costs", lambda target: figures):
            for _, problem, how in self.rows:
                if problem not in prices:
                    prices[problem] = Price(problem, self.target)
                price = prices[problem]
                found.append((price.dot if how.dot else price.register)(how) + CALL_CYCLES)
        return found

    def errors(self, point: np.ndarray) -> np.ndarray:
        """Logarithms of predicted by measured cycles, large ones damped."""
        ratio = np.log(self.predicted(self.figures(point))) - np.log(self.cycles)
        return np.sign(ratio) * 0.2 * np.sqrt(2 * (np.sqrt(1 + (ratio / 0.2) ** 2) - 1))

    def point(self, figures: Costs) -> np.ndarray:
        """The figures that are fitted, as logarithms."""
        return np.log([getattr(figures, name) for name in self.names])

    def figures(self, point: np.ndarray) -> Costs:
        """The figures at a point."""
        values = {name: float(np.exp(x)) for name, x in zip(self.names, point, strict=True)}
        return replace(costs(self.target), **values)

    def report(self, figures: Costs) -> str:
        """How far predictions are off, and what choosing by them costs."""
        by_shape: dict[Shape, list[tuple[float, float]]] = defaultdict(list)
        predicted = self.predicted(figures)
        for (shape, *_), cycles, guess in zip(self.rows, self.cycles, predicted, strict=True):
            by_shape[shape].append((guess, cycles))
        regret = {s: min(v)[1] / min(c for _, c in v) for s, v in by_shape.items()}
        mean = math.exp(sum(map(math.log, regret.values())) / len(regret))
        worst = sorted(regret.items(), key=lambda item: -item[1])[:6]
        off = np.sqrt(np.mean((np.log(predicted) - np.log(self.cycles)) ** 2))
        lines = [f"{len(self.rows)} tiles of {len(by_shape)} shapes: off by {off:.3f} (log, rms)"]
        lines.append(f"chosen by prediction: {mean:.3f} times the fastest (geometric mean)")
        return "\n".join([*lines, *(f"  {ratio:.2f} {shape}" for shape, ratio in worst)])


def fit(paths: list[Path], hertz: float, steps: int) -> None:
    """Prints the figures that fit best."""
    times = Times(paths, hertz)
    start = times.point(costs(times.target))
    print(times.report(times.figures(start)))
    point, damping, pull = start, 1.0, 0.3
    errors = times.errors(point)
    for _ in range(steps):
        slopes = np.stack(
            [(times.errors(point + move) - errors) / 1e-3 for move in 1e-3 * np.eye(len(point))], 1
        )
        while damping < 1e6:
            curve = slopes.T @ slopes + (pull + damping) * np.eye(len(point))
            move = np.linalg.solve(curve, -slopes.T @ errors - pull * (point - start))
            moved = times.errors(point + np.clip(move, -0.7, 0.7))
            now = moved @ moved + pull * np.sum((point + move - start) ** 2)
            before = errors @ errors + pull * np.sum((point - start) ** 2)
            if now < before:
                break
            damping *= 4
        else:
            break
        point, errors, damping = point + np.clip(move, -0.7, 0.7), moved, damping / 3
        if before - now < 1e-4 * before:
            break
    figures = times.figures(point)
    print(times.report(figures))
    for name in times.names:
        print(f"    {name}: float = {getattr(figures, name):.3g}")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure")
    one.add_argument("times", type=Path)
    one.add_argument("--shapes", type=int, default=100)
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--least-mb", type=float, default=0.0, help="of the largest array")
    other = commands.add_parser("fit")
    other.add_argument("times", type=Path, nargs="+")
    other.add_argument("--ghz", type=float, default=3.6)
    other.add_argument("--steps", type=int, default=12)
    given: Any = parser.parse_args()
    if given.command == "measure":
        measure(given.times, given.shapes, given.seed, given.least_mb)
    else:
        fit(given.times, given.ghz * 1e9, given.steps)


if __name__ == "__main__":
    main()
