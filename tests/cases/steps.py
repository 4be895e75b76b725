"""What ``# run:`` may say: passes by name, from graph to graph or to the text of a later stage."""

from __future__ import annotations

import shlex
from typing import Any

from diffc.codegen.targets import X86_AVX2
from diffc.ir.graph import Graph
from diffc.ir.text import print_graph
from diffc.optimize import optimize
from diffc.pipeline import compile_graph
from diffc.transforms import jvp, vjp

LATER = ("plan", "lower", "tile", "allocate", "emit")


def run(graph: Graph, steps: str) -> tuple[str, Graph]:
    """The text that the steps give, and the last graph among them."""
    for position, step in enumerate(steps.split("|")):
        words = shlex.split(step)
        if words[0] in LATER:
            assert position == steps.count("|"), f"{words[0]} gives no graph: it comes last"
            return _stage(graph, *words), graph
        graph = {"optimize": _optimize, "transform": _transform}[words[0]](graph, words[1:])
    return print_graph(graph), graph


def _optimize(graph: Graph, words: list[str]) -> Graph:
    options: dict[str, Any] = {}
    for flag, names in zip(words[::2], words[1::2], strict=True):
        options[{"--only": "only", "--without": "without"}[flag]] = tuple(names.split(","))
    return optimize(graph, **options)


def _transform(graph: Graph, words: list[str]) -> Graph:
    kind, wanted = words
    chosen = {int(part) for part in wanted.split(",")}
    active = [position in chosen for position in range(len(graph.inputs))]
    return {"vjp": vjp, "jvp": jvp}[kind](graph, active).graph


def _stage(graph: Graph, name: str, *rules: str) -> str:
    """The text of a stage; no rewrite rule is used unless it is named."""
    made = compile_graph(graph, name=graph.name, until=name, rules=rules, target=X86_AVX2)
    return made.stage(name).text
