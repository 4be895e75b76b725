"""The text of a program: its buffers, and its nodes in order with the graphs of kernels."""

from __future__ import annotations

from diffc.ir.aval import GROWING
from diffc.ir.text import print_graph, scalar_text
from diffc.plan.program import (
    Branch,
    Buffer,
    Call,
    Copy,
    Fill,
    Kernel,
    Loop,
    Node,
    Program,
    While,
    callees_first,
)


def print_program(program: Program) -> str:
    """The text of a program and of the programs that it runs, each once, callees first."""
    return "\n".join(map(_print, callees_first(program)))


def _print(program: Program) -> str:
    results = _declared(program.outputs)
    lines = [f"program @{program.name}({_declared(program.inputs)}) -> ({results}) {{"]
    if program.temporaries:
        lines.append(f"  temporaries {_declared(program.temporaries)}")
    for output, given in sorted(program.donated.items()):
        lines.append(f"  donate {program.inputs[given].name} to {program.outputs[output].name}")
    for output, given in sorted(program.offered.items()):
        lines.append(f"  offer {program.inputs[given].name} to {program.outputs[output].name}")
    for node in program.nodes:
        lines += ["  " + line for line in _node(node)]
    lines.append("}")
    return "\n".join(lines) + "\n"


def _declared(buffers: tuple[Buffer, ...]) -> str:
    return ", ".join(f"{buffer.name}: {buffer.aval}" for buffer in buffers)


def _names(buffers: tuple[Buffer, ...]) -> str:
    return ", ".join(buffer.name for buffer in buffers)


def _node(node: Node) -> list[str]:
    match node:
        case Kernel():
            head = f"{_names(node.writes)} = kernel({_names(node.reads)})"
            where = "" if node.loc is None else f"  # {node.loc}"
            return [f"{head} {{{where}", *_indented(print_graph(node.graph)), "}"]
        case Copy():
            return [f"{node.target.name} = copy({node.source.name})"]
        case Fill():
            value = scalar_text(node.value, node.target.aval.dtype)
            return [f"{node.target.name} = fill({value})"]
        case Call():
            return [f"{_names(node.writes)} = call @{node.program.name}({_names(node.reads)})"]
        case Loop():
            length = GROWING if node.length is None else node.length
            settings = (
                f"length={length}, reverse={str(node.reverse).lower()}, "
                f"constants={node.constants}, carries={node.carries}"
            )
            run = f"loop @{node.body.name}({_names(node.reads)}; {settings})"
            return [f"{_names(node.writes)} = {run}"]
        case Branch():
            names = ", ".join(f"@{branch.name}" for branch in node.branches)
            given = ", ".join(
                f"mut {buffer.name}" if i in node.updated.values() else buffer.name
                for i, buffer in enumerate(node.reads[1:])
            )
            run = f"branch {node.reads[0].name} to {names} ({given})"
            return [f"{_names(node.writes)} = {run}"]
        case While():
            settings = f"tests={node.tests}, constants={node.constants}"
            names = f"@{node.test.name} @{node.body.name}"
            return [f"{_names(node.writes)} = while {names}({_names(node.reads)}; {settings})"]


def _indented(text: str) -> list[str]:
    return ["  " + line for line in text.splitlines()]
