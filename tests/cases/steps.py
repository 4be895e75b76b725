"""What ``# run:`` may say: passes by name, from graph to graph or to the text of a later stage."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

from diffc.codegen.targets import X86_AVX2
from diffc.ir.graph import Builder, Graph
from diffc.ir.text import print_graph
from diffc.ops.registry import find
from diffc.optimize import optimize
from diffc.pipeline import compile_graph
from diffc.transforms import batch, jvp, linearize, taylor, transpose, vjp
from tests.cases import meaning
from tests.cases.rules import RULES

LATER = ("plan", "lower", "tile", "allocate", "emit")

assert RULES  # case files name them


def run(graph: Graph, steps: str, verify: bool = False) -> tuple[str, Graph]:
    """The text that the steps give, and the last graph among them.

    Args:
        graph: what is run on.
        steps: the line of the case.
        verify: whether the numbers of each transform are compared with what it is to mean.
    """
    for position, step in enumerate(steps.split("|")):
        words = shlex.split(step)
        if words[0] in LATER:
            assert position == steps.count("|"), f"{words[0]} gives no graph: it comes last"
            return _stage(graph, *words), graph
        if words[:2] == ["transform", "linearize"]:
            assert position == steps.count("|"), "linearize gives two graphs: it comes last"
            return _linearized(graph, words[2:], verify)
        if words[0] == "transform":
            graph = _transform(graph, words[1:], verify)
        else:
            assert words[0] == "optimize", step
            graph = _optimize(graph, words[1:])
    return _text(graph), graph


def _text(*graphs: Graph) -> str:
    """The text, without the numbers that tell apart rules of batched custom functions."""
    text = "\n".join(map(print_graph, graphs))
    return re.sub(r'rule="(\w+)\.\d+"', r'rule="\1"', text)


def _optimize(graph: Graph, words: list[str]) -> Graph:
    options: dict[str, Any] = {}
    for flag, names in zip(words[::2], words[1::2], strict=True):
        options[{"--only": "only", "--without": "without"}[flag]] = tuple(names.split(","))
    return optimize(graph, **options)


def _mask(graph: Graph, positions: str) -> list[bool]:
    """``0,2``: which inputs are meant."""
    chosen = {int(part) for part in positions.split(",")}
    return [position in chosen for position in range(len(graph.inputs))]


def _linearized(graph: Graph, words: list[str], verify: bool) -> tuple[str, Graph]:
    """Both graphs; the linear one is that of ``# value:``."""
    (positions,) = words
    mask = _mask(graph, positions)
    made = linearize(graph, mask)
    if verify:
        meaning.of_linearize(graph, mask, made)
    return _text(made.primal, made.linear), made.linear


def _transform(graph: Graph, words: list[str], verify: bool) -> Graph:
    kind, positions, *rest = words
    options = {"": "", **dict(zip(rest[::2], rest[1::2], strict=True))}
    mask = _mask(graph, positions)
    found = TRANSFORMS[kind](graph, mask, options)
    if verify:
        MEANINGS[kind](graph, mask, found)
    return found if isinstance(found, Graph) else found.graph


def _checkpoint(graph: Graph, mask: list[bool], options: dict[str, str]) -> Graph:
    """The whole graph as one checkpoint, all inputs its operands."""
    assert all(mask)
    builder = Builder(graph.name)
    inputs = [builder.input(value.aval, value.name) for value in graph.inputs]
    return builder.build(
        builder.emit(find("checkpoint"), inputs, {"policy": options["--policy"]}, (graph,))
    )


TRANSFORMS: dict[str, Callable[[Graph, list[bool], dict[str, str]], Any]] = {
    "jvp": lambda graph, mask, options: jvp(graph, mask),
    "vjp": lambda graph, mask, options: vjp(graph, mask),
    "transpose": lambda graph, mask, options: transpose(graph, mask),
    "batch": lambda graph, mask, options: batch(graph, mask, int(options["--size"])),
    "taylor": lambda graph, mask, options: taylor(graph, mask, int(options["--order"])),
    "checkpoint": _checkpoint,
}
MEANINGS: dict[str, Callable[[Graph, list[bool], Any], None]] = {
    "jvp": meaning.of_jvp,
    "vjp": meaning.of_vjp,
    "transpose": meaning.of_transpose,
    "batch": meaning.of_batch,
    "taylor": meaning.of_taylor,
    "checkpoint": meaning.of_checkpoint,
}


def _stage(graph: Graph, name: str, *rules: str) -> str:
    """The text of a stage; no rewrite rule is used unless it is named."""
    made = compile_graph(graph, name=graph.name, until=name, rules=rules, target=X86_AVX2)
    return made.stage(name).text
