"""The reference pages: what the registries and the public face say about themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import diffc
import diffc.numpy
import diffc.ops
from diffc import nn, optim, train
from diffc.ops import declare
from diffc.ops.registry import every_op
from diffc.ops.term import Term
from diffc.optimize.structure import STRUCTURE
from diffc.optimize.table import TABLE
from diffc.optimize.whole import GRAPH_RULES
from diffc.pipeline import STAGES
from docs.command_line import command_line_page
from docs.kinks import kinks_page
from docs.pages import DOCS

NOTICE = "<!-- written by `make docs` from the registries; don't edit -->\n"


class Formula(Term):
    """A term that is its own text, with as few parentheses as Python needs."""

    __slots__ = ("strength", "text")

    INFIX = {  # noqa: RUF012  # constant
        "bitwise_or": ("|", 0),
        "bitwise_and": ("&", 1),
        "eq": ("==", 2),
        "ne": ("!=", 2),
        "lt": ("<", 2),
        "le": ("<=", 2),
        "gt": (">", 2),
        "ge": (">=", 2),
        "add": ("+", 3),
        "sub": ("-", 3),
        "mul": ("*", 4),
        "div": ("/", 4),
    }

    def __init__(self, text: str, strength: int = 9) -> None:
        self.text = text
        self.strength = strength

    def call(self, name: str, *others: Any, **params: Any) -> Formula:
        args = [self, *(x if isinstance(x, Formula) else self.lift(x) for x in others)]
        if name in self.INFIX and len(args) == 2:
            sign, strength = self.INFIX[name]
            left, right = args[0].within(strength), args[1].within(strength + 1)
            return Formula(f"{left} {sign} {right}", strength)
        if name == "neg":
            return Formula(f"-{args[0].within(4)}", 4)
        if name == "bitwise_not":
            return Formula(f"~{args[0].within(5)}", 5)
        named = [f"{key}={value}" for key, value in params.items()]
        return Formula(f"{name}({', '.join([*(x.text for x in args), *named])})")

    def lift(self, value: bool | int | float) -> Formula:
        return Formula(f"{value:.6g}" if isinstance(value, float) else str(value))

    def within(self, strength: int) -> str:
        return self.text if self.strength >= strength else f"({self.text})"

    def __str__(self) -> str:
        return self.text


def reference() -> dict[str, str]:
    """The text of each page in ``docs/reference``, by file name."""
    return {
        "api.md": api_page(),
        "cli.md": command_line_page(NOTICE),
        "kinks.md": kinks_page(NOTICE),
        "numpy.md": numpy_page(),
        "ops.md": ops_page(),
        "rules.md": rules_page(),
        "stages.md": stages_page(),
    }


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


# --- ops ----------------------------------------------------------------------------------------

KINDS: dict[type, str] = {
    declare.Map: "Elementwise",
    declare.Move: "Movement: each element of the result is an element of an operand",
    declare.Fold: "Reductions",
    declare.Generate: "Generated from indices",
    declare.Special: "With loops of their own",
    declare.Regional: "With regions",
}


def ops_page() -> str:
    ops = list(every_op())
    parts = [
        NOTICE,
        f"# Ops\n\nThe {len(ops)} primitives; everything else is composed of them. Operands are "
        "`x`, `y`, `z`; nothing broadcasts or promotes here, the trace has done that.\n\n"
        "- **smooth where**: outside, the derivative is a convention (`max` of equals) or a limit "
        "case.\n"
        "- **derivative**: partial derivatives by each operand (`out` is the result), routes of "
        "choices, or how the op is linear; jvp and vjp follow from it.\n"
        "- **ulp**: how far compiled code may be from NumPy's value, in units in the last place.\n",
    ]
    for kind, title in KINDS.items():
        chosen = [op for op in ops if isinstance(op.body, kind)]
        rows = (
            (
                code(op.name + (f"[{', '.join(op.params)}]" if op.params else "")),
                op.doc.replace("\n", " "),
                "" if op.domain == "True" else code(op.domain),
                derivative_text(op),
                f"{op.ulp:g}" if op.ulp else "",
            )
            for op in chosen
        )
        head = ("op[params]", "what it is", "smooth where", "derivative", "ulp")
        parts.append(f"\n## {title}\n\n{table(head, rows)}")
    return "".join(parts)


def derivative_text(op: declare.Op) -> str:
    match op.derivative:
        case declare.Partials(formula=formula):
            return ", ".join(
                code(str(declare.plain(p))) for p in applied(op, formula) if p is not None
            )
        case declare.Routes(formula=formula):
            return "; ".join(routes_text(routes) for routes in applied(op, formula))
        case declare.Linear(operands=None, jointly=jointly):
            return "linear" if op.arity == 1 else "linear in all" + (" jointly" * jointly)
        case declare.Linear(operands=operands):
            return "linear in " + " and ".join("xyz"[i] for i in operands)
        case declare.Linearized(source=source):
            return source
        case declare.Zero(reason=reason):
            return f"zero: {reason}"
        case declare.Undefined(reason=reason):
            return f"refused: {reason}"
        case declare.ByParams():
            return "by its params"
        case declare.Regional(reason=reason):
            return reason
    raise TypeError(op.derivative)


def applied(op: declare.Op, formula: Callable[..., Any]) -> Any:
    names = inspect.signature(formula).parameters
    params = {name: Formula(name) for name in op.params if name in names}
    operands = [Formula(letter) for letter in "xyz"[: op.arity]]
    try:
        return formula(*operands, Formula("out"), **params)
    except TypeError:  # the params decide which formula it is
        return (Formula("by its params"),)


def routes_text(routes: Any) -> str:
    if routes is None:
        return "none"
    signs = {1.0: "", -1.0: "-"}
    return ", ".join(f"{signs.get(f, f'{f}·')}ct where {code(str(c))}" for c, f in routes)


# --- rules --------------------------------------------------------------------------------------


def rules_page() -> str:
    rows = (
        (
            code(r.name),
            code(r.text[0]),
            code(r.text[1]),
            "" if r.when.__name__ == "always" else code(r.when.__name__),
            r.exactness,
            "on" if r.is_on else "off",
            r.why,
        )
        for r in TABLE.values()
    )
    structure = (
        (code(name), ", ".join(code(root) for root in s.roots), "on" if s.is_on else "off", s.why)
        for name, s in STRUCTURE.items()
    )
    graphs = ((code(name), "on" if g.is_on else "off", g.why) for name, g in GRAPH_RULES.items())
    head = ("rule", "pattern", "replacement", "if", "exactness", "default", "why")
    return (
        f"{NOTICE}# Rewrite rules\n\n"
        "`exact`: bit for bit; `finite`: without nan and inf; `reals`: up to rounding. Exact rules "
        "and rules that lower the error are on by default; `diffc dump --stage optimize` says "
        "which fired. Every rule of the first table is proved by SymPy in the tests.\n\n"
        f"## Algebra\n\n{table(head, rows)}\n"
        f"## Structure\n\n{table(('rewrite', 'looks at', 'default', 'why'), structure)}\n"
        "## Whole graphs\n\nThese look at sums of several equations. They change the order of a "
        "summation within the bound that holds for contractions.\n\n"
        f"{table(('rewrite', 'default', 'why'), graphs)}"
    )


# --- stages -------------------------------------------------------------------------------------


def stages_page() -> str:
    rows = []
    for number, name in enumerate(STAGES, start=1):
        page = DOCS / "internals" / f"{name}.md"
        idea = page.read_text(encoding="utf-8").split("\n\n")[1].replace("\n", " ")
        rows.append((str(number), f"[`{name}`](../internals/{name}.md)", idea))
    return (
        f"{NOTICE}# Stages\n\n"
        "From a function to native code. `diffc.jit(f).compile(*args).stage(name)` has the `value` "
        "and the `text` of each; `diffc dump --stage NAME` prints the text.\n\n"
        f"{table(('', 'stage', 'what it does'), rows)}"
    )


# --- the public face ----------------------------------------------------------------------------


def api_page() -> str:
    parts = [NOTICE, "# The public face\n"]
    for module in (diffc, diffc.random, nn, optim, train):
        parts.append(f"\n## `{module.__name__}`\n")
        names = getattr(module, "__all__", None) or [
            name
            for name, thing in vars(module).items()
            if inspect.isfunction(thing)
            and not name.startswith("_")
            and thing.__module__ == module.__name__
        ]
        for name in names:
            thing = getattr(module, name)
            if callable(thing) and not hasattr(thing, "__origin__"):
                parts.append(entry(name, thing))
    return "".join(parts)


def entry(name: str, thing: Any) -> str:
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return f"\n### `{name}`\n\n{first_line(thing)}\n"
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing)))
    text = inspect.getdoc(thing) or ""
    return f"\n### `{name}`\n\n```text\n{name}{signature}\n\n{text}\n```\n"


def first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n")[0]


def numpy_page() -> str:
    names = list(diffc.numpy.TRACED)
    plain = [name for name in names if "." not in name]
    dotted = [name for name in names if "." in name]

    def listed(chosen: list[str]) -> str:
        return ", ".join(code(name) for name in chosen)

    return (
        f"{NOTICE}# NumPy functions that can be traced\n\n"
        f"{len(names)} functions of `numpy`, as `np.NAME` in your code or from `diffc.numpy`; the "
        "operators, indexing, slicing and the usual methods of arrays besides. Anything else is an "
        f"error that names your line.\n\n{listed(plain)}\n\n{listed(dotted)}\n"
    )
