"""The text form of graphs: printer and parser, which change together.

One generic syntax for every op::

    func @loss(x: f32[4], w: f32[4]) -> (f32[]) {
      %0: f32[4] = mul(x, w)
      %1: f32[] = sum(%0, axes=[0])
      return %1
    }

Results are numbered in order; regions stand as indented blocks behind the equation; what follows
``#`` is a comment (the printer can put source lines and the primal of a cotangent there).
``parse(print_graph(g))`` prints the same text again, and floats keep their bits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from diffc.errors import UsageError
from diffc.ir import bfloat16
from diffc.ir.aval import DTYPES, FLOATS, GROWING, Aval, as_dtype, aval
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, OpLike, Value, literal
from diffc.ir.index import Dim, Expr, Symbol
from diffc.ir.index import parse as parse_index

INDENT = "  "


# --- printing ---------------------------------------------------------------------------------


def print_graph(graph: Graph, *, locations: bool = False) -> str:
    """The text of a graph.

    Args:
        graph: what to print, regions included.
        locations: adds, as comments, the user's line and the primal value of each cotangent.
    """
    lines: list[str] = []
    _print(graph, "", lines, locations)
    return "\n".join(lines) + "\n"


def _print(graph: Graph, indent: str, lines: list[str], locations: bool) -> None:
    names: dict[Value, str] = {}
    for value in graph.inputs:
        names[value] = value.name
    header = ", ".join(f"{value.name}: {value.aval}" for value in graph.inputs)
    results = ", ".join(str(a) for a in graph.output_avals)
    lines.append(f"{indent}func @{graph.name}({header}) -> ({results}) {{")
    inner = indent + INDENT
    count = 0
    for eqn in graph.eqns:
        for result in eqn.results:
            names[result] = f"%{count}"
            count += 1
        left = ", ".join(f"{names[result]}: {result.aval}" for result in eqn.results)
        items = [operand_text(operand, names) for operand in eqn.operands]
        items += [f"{name}={param_text(value)}" for name, value in sorted(eqn.params.items())]
        line = f"{inner}{left} = {eqn.op.name}({', '.join(items)})"
        comment = _comment(eqn, names) if locations else ""
        if not eqn.regions:
            lines.append(line + comment)
            continue
        lines.append(line + " {" + comment)
        for region in eqn.regions:
            _print(region, inner + INDENT, lines, locations)
        lines.append(inner + "}")
    returned = ", ".join(operand_text(output, names) for output in graph.outputs)
    lines.append(f"{inner}return {returned}".rstrip())
    lines.append(indent + "}")


def _comment(eqn: Eqn, names: Mapping[Value, str]) -> str:
    parts = [
        f"{what}={value.name if what == 'name' else names.get(value, value.name)}"
        for result in eqn.results
        for what, value in (("name", result if result.name else None), ("of", result.of))
        if value is not None and (what == "name" or names.get(value) or value.name)
    ]
    if eqn.loc is not None:
        parts.append(str(eqn.loc))
    return f"  # {' '.join(parts)}" if parts else ""


def operand_text(operand: Operand, names: Mapping[Value, str]) -> str:
    """A value's name, or a literal as ``1.0:f32[4]``."""
    if isinstance(operand, Literal):
        return f"{scalar_text(operand.value, operand.aval.dtype)}:{operand.aval}"
    return names[operand]


def scalar_text(value: bool | int | float, dtype: str) -> str:
    """A scalar that parses back to the same bits (a NaN to a NaN)."""
    if dtype == "bool":
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if value != value else ("inf" if value > 0 else "-inf")
    if dtype == "bf16":
        return bfloat16.text(value)
    if dtype in ("f16", "f32"):
        text = str(DTYPES[dtype].type(value))
        return text if re.search(r"[.e]", text) else text + ".0"
    return repr(value)


def param_text(value: Any) -> str:
    """A static parameter."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(param_text, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bytes):
        return f'x"{value.hex()}"'
    if isinstance(value, float) and not math.isfinite(value):
        return scalar_text(value, "f64")
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Expr):
        return f"`{value}`"
    raise TypeError(f"a param of type {type(value).__name__} has no text form")


# --- parsing ----------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)|(?P<newline>\n)
    |(?P<hex>x"[0-9a-f]*")|(?P<string>"(?:[^"\\]|\\.)*")|(?P<index>`[^`]*`)
    |(?P<aval>(?:bool|[iuf]\d+|bf16)\[[^\]]*\])
    |(?P<number>-?(?:inf|nan)\b|-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)
    |(?P<name>[%@]?[A-Za-z_0-9][\w.]*)
    |(?P<arrow>->)|(?P<mark>[(){}\[\],:=])""",
    re.VERBOSE,
)


class _Reader:
    """Tokens with positions; every complaint names the line."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.tokens = list(self._split(text))
        self.at = 0

    def _split(self, text: str) -> Iterator[tuple[str, str, int]]:
        position, line = 0, 1
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                self.fail(f"unexpected {text[position]!r}", line)
            kind = match.lastgroup or ""
            if kind == "newline":
                line += 1
            elif kind != "space":
                yield kind, match.group(), line
            position = match.end()
        yield "end", "", line

    def fail(self, problem: str, line: int | None = None) -> NoReturn:
        number = self.tokens[self.at][2] if line is None else line
        raise UsageError(problem, location=f"{self.source}:{number}")

    def peek(self, text: str) -> bool:
        return self.tokens[self.at][1] == text and self.tokens[self.at][0] != "string"

    def accept(self, text: str) -> bool:
        if self.peek(text):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected {text!r}, found {self.tokens[self.at][1]!r}")

    def take(self, kind: str) -> str:
        found, text, _ = self.tokens[self.at]
        if found != kind:
            self.fail(f"expected a {kind}, found {text!r}")
        self.at += 1
        return text

    @property
    def kind(self) -> str:
        return self.tokens[self.at][0]


def parse(text: str, ops: Mapping[str, OpLike], source: str = "<text>") -> Graph:
    """The graph of a text with one function.

    Args:
        text: what ``print_graph`` prints.
        ops: the ops by name (``diffc.ops.registry.table()``).
        source: name of the text in errors.

    Raises:
        UsageError: with the line, for anything that is not a graph.
    """
    graphs = parse_all(text, ops, source)
    if len(graphs) != 1:
        raise UsageError(f"expected one function, found {len(graphs)}", location=source)
    return graphs[0]


def parse_all(text: str, ops: Mapping[str, OpLike], source: str = "<text>") -> list[Graph]:
    """All functions of a text, in order; see :func:`parse`."""
    reader = _Reader(text, source)
    graphs = []
    while reader.kind != "end":
        graphs.append(_parse_function(reader, ops))
    return graphs


def parse_aval(text: str) -> Aval:
    """``f32[n,64]`` as an aval.

    Raises:
        ValueError: not an aval.
    """
    match = re.fullmatch(r"\s*(\w+)\s*\[([^\]]*)\]\s*", text)
    if match is not None and match.group(1) == "bf16" and bfloat16.DTYPE is None:
        raise bfloat16.missing()
    if match is None or match.group(1) not in DTYPES:
        raise ValueError(f"{text.strip()!r} is not an aval such as f32[64,10]")
    dims = [part for part in match.group(2).split(",") if part.strip()]
    return aval(match.group(1), tuple(_parse_dim(part) for part in dims))


def _parse_dim(text: str) -> Dim:
    return GROWING if text.strip() == GROWING.name else parse_index(text.strip(), Symbol)


def _parse_function(reader: _Reader, ops: Mapping[str, OpLike]) -> Graph:
    reader.expect("func")
    builder = Builder(reader.take("name").removeprefix("@"))
    names: dict[str, Operand] = {}
    reader.expect("(")
    while not reader.accept(")"):
        name = reader.take("name")
        reader.expect(":")
        names[name] = value = builder.input(_take_aval(reader), name)
        if value.name != name:
            reader.fail(f"two inputs are named {name}")
        if not reader.peek(")"):
            reader.expect(",")
    reader.expect("->")
    reader.expect("(")
    declared: list[Aval] = []
    while not reader.accept(")"):
        declared.append(_take_aval(reader))
        if not reader.peek(")"):
            reader.expect(",")
    reader.expect("{")
    eqns: list[Eqn] = []
    while not reader.accept("return"):
        eqns.append(_parse_eqn(reader, ops, names))
    outputs: list[Operand] = []
    while not reader.accept("}"):
        outputs.append(_parse_operand(reader, names))
        if not reader.peek("}"):
            reader.expect(",")
    graph = Graph(builder.name, tuple(builder.inputs), tuple(eqns), tuple(outputs))
    if list(graph.output_avals) != declared:
        reader.fail(f"@{graph.name} returns {list(graph.output_avals)}, declared {declared}")
    return graph


def _take_aval(reader: _Reader) -> Aval:
    try:
        return parse_aval(reader.take("aval"))
    except ValueError as error:
        reader.fail(str(error))


def _parse_eqn(reader: _Reader, ops: Mapping[str, OpLike], names: dict[str, Operand]) -> Eqn:
    targets: list[tuple[str, Aval]] = []
    while True:
        name = reader.take("name")
        reader.expect(":")
        targets.append((name, _take_aval(reader)))
        if not reader.accept(","):
            break
    reader.expect("=")
    op_name = reader.take("name")
    if op_name not in ops:
        reader.fail(f"no op is named {op_name!r}")
    operands: list[Operand] = []
    params: dict[str, Any] = {}
    reader.expect("(")
    while not reader.accept(")"):
        is_param = reader.kind == "name" and reader.tokens[reader.at + 1][1] == "="
        if is_param:
            key = reader.take("name")
            reader.expect("=")
            params[key] = _parse_param(reader)
        else:
            operands.append(_parse_operand(reader, names))
        if not reader.peek(")"):
            reader.expect(",")
    regions: list[Graph] = []
    if reader.accept("{"):
        while not reader.accept("}"):
            regions.append(_parse_function(reader, ops))
    op = ops[op_name]
    builder = Builder("eqn")
    try:
        results = builder.emit(op, operands, params, tuple(regions))
    except (ValueError, TypeError, KeyError) as error:
        reader.fail(str(error).splitlines()[0])
    eqn = builder.eqns[0]
    if [a for _, a in targets] != [result.aval for result in results]:
        found = ", ".join(str(result.aval) for result in results)
        reader.fail(f"{op_name} gives {found}, declared {', '.join(str(a) for _, a in targets)}")
    for (name, _), result in zip(targets, results, strict=True):
        if name in names:
            reader.fail(f"{name} is defined twice")
        names[name] = result
    return eqn


def _parse_operand(reader: _Reader, names: Mapping[str, Operand]) -> Operand:
    is_scalar = reader.kind == "number" or reader.peek("true") or reader.peek("false")
    if is_scalar and reader.tokens[reader.at + 1][1] == ":":
        text = reader.take(reader.kind)
        reader.expect(":")
        kind = _take_aval(reader)
        try:
            return literal(_scalar(text, kind.dtype), kind)
        except (ValueError, OverflowError) as error:
            reader.fail(str(error))
    name = reader.take("number" if reader.kind == "number" else "name")
    if name not in names:
        reader.fail(f"{name} is not defined")
    return names[name]


def _scalar(text: str, dtype: str) -> Any:
    if dtype == "bool":
        return text == "true"
    if dtype in FLOATS:
        return as_dtype(float(text), dtype)[()] if dtype == "bf16" else DTYPES[dtype].type(text)
    return int(text)


def _parse_param(reader: _Reader) -> Any:
    if reader.accept("["):
        items = []
        while not reader.accept("]"):
            items.append(_parse_param(reader))
            if not reader.peek("]"):
                reader.expect(",")
        return tuple(items)
    kind = reader.kind
    text = reader.take(kind)
    if kind == "number":
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    if kind == "string":
        return json.loads(text)
    if kind == "hex":
        return bytes.fromhex(text[2:-1])
    if kind == "index":
        return _parse_dim(text[1:-1])
    constants = {"true": True, "false": False, "none": None}
    if text not in constants:
        reader.fail(f"{text!r} is no value of a param")
    return constants[text]


def to_numpy(value: Literal) -> np.ndarray[Any, Any]:
    """The array that a literal of known shape stands for."""
    return np.full(value.aval.shape, value.value, DTYPES[value.aval.dtype])
