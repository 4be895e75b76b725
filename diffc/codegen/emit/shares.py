"""Nests that threads share: a function for a share of them, and the call that deals shares out.

A *part* is a function of its own: pointers, values, and the units `begin` ... `end - 1` that it
computes (one at least). What calls it writes pointers and values to a context on its stack and
hands both to the pool, which runs shares in any threads, or all of them in this one. There is one
copy of the code, whatever the number of threads. Scratch that is private lies on the part's stack;
what is lent lies there in helpers only, the caller has it in the arena.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffc.codegen.emit.frame import Frame, Value, is_literal
from diffc.codegen.emit.registers import register
from diffc.codegen.emit.text import FunctionText
from diffc.codegen.loops.nodes import Buffer, Par, Scalar, Split
from diffc.codegen.loops.scratch import lent_scratch, nbytes_of, private_scratch, scratch_of
from diffc.codegen.loops.walk import buffers, expressions, operands, statements

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["PARALLEL_FOR", "THREADS_AT", "Part", "part", "part_of_nest"]

PARALLEL_FOR = "diffc_parallel_for"
"""The symbol of the pool: function, context, site, number of threads that are allowed."""
SITE_WORDS = 6
"""Words of a site: units, least and most units of a share; the others belong to the pool."""
THREADS_AT = 8
"""Bytes from the status slot to the number of threads that the caller allows (0: any)."""
WORD = 8

Values = Sequence[tuple[str, str]]
"""Types and names of values."""


@dataclass(frozen=True, slots=True)
class Part:
    """The inside of a part.

    Attributes:
        writer: Writes the part; its frame has the pointers and the scalars of the outside.
        values: The values that were given, as the part knows them.
        begin: The first unit, an `i64`.
        end: Behind the last unit; larger than `begin`.
    """

    writer: KernelWriter
    values: list[str]
    begin: str
    end: str


@contextmanager
def part_of_nest(writer: KernelWriter, stmt: Par, units: int) -> Iterator[Part]:
    """A part that runs units of a nest which stands directly in the kernel."""
    assert stmt.split is not None
    used = buffers((stmt,)) | set(scratch_of(writer.kernel, stmt))
    lent = lent_scratch(writer.kernel, stmt)
    private = [b for b in private_scratch(writer.kernel, stmt) if b not in lent]
    passed = [b for b in writer.frame.pointers if b in used and b not in private]
    names: dict[str, Scalar] = {}
    for inner in statements((stmt,)):
        for node in expressions(operands(inner)):
            if isinstance(node, Scalar) and node.name in writer.frame.bound.scalars:
                names[node.name] = node
    scalars = [writer.frame.bound.scalars[name][0].text for name in names]
    kinds = [register(scalar.dtype) for scalar in names.values()]
    values = list(zip(kinds, scalars, strict=True))
    with part(writer, passed, values, units, stmt.split, private, lent) as inside:
        for name, text in zip(names, inside.values, strict=True):
            inside.writer.frame.bind_scalar(name, Value(text))
        yield inside


@contextmanager
def part(
    writer: KernelWriter,
    passed: Iterable[Buffer],
    values: Values,
    units: int,
    split: Split,
    private: Iterable[Buffer] = (),
    lent: Iterable[Buffer] = (),
) -> Iterator[Part]:
    """Writes a part, and behind it the call that runs all its units.

    Args:
        writer: The writer of the function from which the part is called.
        passed: The buffers that it uses and the outside has.
        values: What else it needs: scalars and pointers.
        units: The number of units.
        split: Says how large shares may be.
        private: Scratch of its own.
        lent: Those of the buffers that are scratch of its own in helpers.
    """
    outer = writer.frame.fn
    module, target = outer.module, writer.frame.target
    known = list(passed)
    fresh = [pair for pair in dict.fromkeys(values) if not is_literal(pair[1])]
    inner = {text: f"%u{number}" for number, (_, text) in enumerate(fresh)}
    arguments = [("ptr", writer.frame.pointers[buffer]) for buffer in known]
    arguments += [*fresh, ("ptr", writer.frame.status)]
    parameters = [
        (writer.attributes.get(buffer, "ptr"), f"%p{number}") for number, buffer in enumerate(known)
    ]
    parameters += [(kind, inner[text]) for kind, text in fresh]
    parameters += [("ptr noalias", "%status"), ("i64", "%begin"), ("i64", "%end")]
    parameters.append(("i64", "%party"))
    signature = ", ".join(f"{kind} {name}" for kind, name in parameters)
    fn = FunctionText(
        module, f"define internal void @SELF({signature}) noinline {target.attributes} {{"
    )
    pointers = {buffer: f"%p{number}" for number, buffer in enumerate(known)}
    for buffer in private:
        pointers[buffer] = fn.value(f"alloca [{max(1, nbytes_of(buffer))} x i8], align 64")
    for buffer in lent:
        pointers[buffer] = _lent(fn, pointers[buffer], nbytes_of(buffer))
    made = writer.inside(Frame(fn, target, pointers))
    yield Part(made, [inner.get(text, text) for _, text in values], "%begin", "%end")
    made.memory.finish()
    fn.ret()
    name = module.add_once("part", fn.text())
    trampoline = module.add_once("share", _trampoline(name, arguments))
    _launch(writer, trampoline, arguments, units, split)


def _lent(fn: FunctionText, pointer: str, nbytes: int) -> str:
    """What the caller lends, or as much on the stack of a helper."""
    is_caller = fn.value("icmp eq i64 %party, 0")
    size = fn.value(f"select i1 {is_caller}, i64 0, i64 {nbytes}")
    own = fn.value(f"alloca i8, i64 {size}, align 64")
    return fn.value(f"select i1 {is_caller}, ptr {pointer}, ptr {own}")


def _trampoline(name: str, arguments: Values) -> str:
    """The function that the pool calls: it reads the context."""
    units = ["i64 %begin", "i64 %end", "i64 %party"]
    lines = [f"define internal void @SELF(ptr %context, {', '.join(units)}) nounwind {{"]
    passed: list[str] = []
    for number, (kind, _) in enumerate(arguments):
        lines.append(f"  %at{number} = getelementptr i8, ptr %context, i64 {number * WORD}")
        lines.append(f"  %a{number} = load {kind}, ptr %at{number}, align {WORD}")
        passed.append(f"{kind} %a{number}")
    listed = ", ".join([*passed, *units])
    return "\n".join([*lines, f"  call void @{name}({listed})", "  ret void", "}"])


def _launch(
    writer: KernelWriter, function: str, arguments: Values, units: int, split: Split
) -> None:
    """Writes the context and calls the pool."""
    fn = writer.frame.fn
    context = fn.stack("context", WORD * len(arguments))
    for number, (kind, text) in enumerate(arguments):
        fn.store(kind, text, fn.gep(context, number * WORD), WORD)
    limit = fn.load("i64", fn.gep(writer.frame.status, THREADS_AT), WORD)
    pointers = [("ptr", f"@{function}"), ("ptr", context), ("ptr", _site(fn, units, split))]
    fn.call("void", PARALLEL_FOR, *pointers, ("i64", limit))


def _site(fn: FunctionText, units: int, split: Split) -> str:
    """What the pool knows of a place from which parts are called."""
    known = (units, split.grain, split.most)
    words = ", ".join(f"i64 {word}" for word in (*known, *[0] * (SITE_WORDS - len(known))))
    name = fn.module.fresh_global("site")
    definition = f"internal global [{SITE_WORDS} x i64] [{words}], align 64"
    return fn.module.add_global(name, definition)
