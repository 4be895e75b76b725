"""How compile time grows: CPU seconds of every stage, for programs of growing size.

``python -m benchmarks.compile_time`` prints one line a program: equations traced, in the
differentiated and in the optimized graph, nodes of the plan, kilobytes of LLVM text, and the CPU
time of tracing, of the stages in Python, and of LLVM. Four families:

- ``chain``: random elementwise operations, no two blocks equal; ``mixed``: with small contractions
  and reductions among them.
- ``blocks``: the residual network of ``workloads`` with 5, 50 and 500 layers in a Python loop;
  ``step``: its whole training step with momentum.
- ``rnn``: time steps of a recurrent cell in a Python loop.

Nothing is read from the object cache or written to it.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import objectives, workloads

Program = tuple[Callable[..., Any], tuple[Any, ...]]

_ELEMENTWISE: tuple[Callable[[Any, Any], Any], ...] = (
    lambda a, b: np.sin(a) + b,
    lambda a, b: a * b,
    lambda a, b: np.tanh(a - b),
    lambda a, b: a / (1 + b * b),
    lambda a, b: np.maximum(a, b) * 0.9,
    lambda a, b: np.sqrt(1 + a * a) - b,
)
_MIXING: tuple[Callable[[Any, Any], Any], ...] = (
    lambda a, b: np.tanh(a @ b),
    lambda a, b: a - np.mean(b, axis=0),
    lambda a, b: a / (1 + np.sum(b * b, axis=1, keepdims=True)),
)


def random_chain(count: int, *, mixing: bool, seed: int = 0) -> Callable[[Any], Any]:
    """A scalar function of ``count`` random operations, each on the last value and a recent one."""
    rng = np.random.default_rng(seed)
    table = _ELEMENTWISE + _MIXING if mixing else _ELEMENTWISE
    picks = rng.integers(0, len(table), count).tolist()
    distances = rng.integers(1, 30, count).tolist()

    def f(x: Any) -> Any:
        values = [x, x * 0.5]
        for pick, distance in zip(picks, distances, strict=True):
            values.append(table[pick](values[-1], values[-min(distance, len(values))]))
        return np.sum(values[-1])

    return f


def residual(layers: int) -> Program:
    """The residual network with this many layers, and its arguments."""
    rng = np.random.default_rng(0)
    params, batches = workloads.WORKLOADS["residual50"].make(rng)
    first = {k[:-1]: v for k, v in params.items() if k.endswith("0") and not k[-2].isdigit()}
    params = {k: v for k, v in params.items() if not k[-1].isdigit()}
    for layer in range(layers):
        params |= {f"{name}{layer}": value.copy() for name, value in first.items()}

    def loss(p: dict[str, Any], batch: dict[str, Any]) -> Any:
        return objectives.residual_mlp(p, batch, layers=layers)

    return loss, (params, batches[0])


def recurrent(steps: int) -> Program:
    """A recurrent cell, unrolled."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps, 8, 16))
    params = [rng.normal(size=shape) * 0.2 for shape in ((16, 32), (32, 32), (32,))]

    def loss(p: list[Any], x: Any) -> Any:
        h = np.zeros((8, 32))
        for t in range(steps):
            h = np.tanh(x[t] @ p[0] + h @ p[1] + p[2])
        return np.mean(h * h)

    return loss, (params, x)


def training_step(layers: int) -> Program:
    """Value, gradient and momentum updates of the residual network."""
    import diffc

    loss, (params, batch) = residual(layers)
    velocities = {name: np.zeros_like(value) for name, value in params.items()}

    def step(p: dict[str, Any], v: dict[str, Any], batch: dict[str, Any]) -> Any:
        value, gradient = diffc.value_and_grad(loss)(p, batch)
        moved = {name: 0.9 * v[name] + gradient[name] for name in p}
        return {name: p[name] - 0.01 * moved[name] for name in p}, moved, value

    return step, (params, velocities, batch)


def measure(name: str, compiled: Callable[[], Any]) -> str:
    """One line of figures about a program that is compiled now."""
    start = time.process_time()
    found = compiled()
    seconds = time.process_time() - start
    sizes = [len(found.stage(stage).value.eqns) for stage in ("trace", "transform", "optimize")]
    nodes = len(found.stage("plan").value.nodes)
    text = len(found.stage("emit").value) // 1000
    times = " ".join(f"{stage} {1e3 * t:.0f}" for stage, t in found.timings().items())
    return (
        f"{name:<12} eqns {sizes[0]:>6} {sizes[1]:>6} {sizes[2]:>6}  nodes {nodes:>5}  "
        f"text {text:>6} kB  cpu {seconds:7.2f} s  wall by stage, ms: {times}"
    )


def main() -> None:
    """Prints the figures of all programs, or of the families that are named."""
    os.environ["DIFFC_CACHE"] = "0"
    import diffc

    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile_time")
    parser.add_argument(
        "families", nargs="*", help="chain, mixed, blocks, step, rnn (default: all)"
    )
    wanted = parser.parse_args().families
    x = np.full((4, 4), 0.3)
    diffc.value_and_grad(random_chain(30, mixing=True)).compile(x)  # what is loaded once
    programs: list[tuple[str, str, Callable[[], Any]]] = []
    for count in (30, 300, 3000):
        for family in ("chain", "mixed"):
            f = random_chain(count, mixing=family == "mixed")
            jitted = diffc.value_and_grad(f)
            programs.append((family, f"{family} {count}", functools.partial(jitted.compile, x)))
    for layers in (5, 50, 500):
        loss, args = residual(layers)
        jitted = diffc.value_and_grad(loss)
        programs.append(("blocks", f"blocks {layers}", functools.partial(jitted.compile, *args)))
    step, args = training_step(50)
    whole = diffc.jit(step, donate_argnums=(0, 1))
    programs.append(("step", "step 50", functools.partial(whole.compile, *args)))
    for steps in (10, 100, 1000):
        loss, args = recurrent(steps)
        jitted = diffc.value_and_grad(loss)
        programs.append(("rnn", f"rnn {steps}", functools.partial(jitted.compile, *args)))
    for family, name, compiled in programs:
        if not wanted or family in wanted:
            print(measure(name, compiled), flush=True)


if __name__ == "__main__":
    main()
