"""A native module to LLVM text: routines that run kernels on addresses; the entry and its ABI.

The entry is `i64 @NAME(ptr inputs, ptr outputs, ptr arena)`, where `inputs` and `outputs` are
arrays of pointers; it returns the status. Where threads share kernels it has a further argument,
`i64 threads`: how many may (0: as many as the pool is set to). Every other routine is an internal
function of its input pointers, output pointers, arena and status slot (see `stores` for what else
lies there). Kernels that are equal up to
the names of their buffers are one function. Constants are globals of this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from diffc.codegen.emit.call import ALIGNMENT, Call, copy_bytes
from diffc.codegen.emit.inlining import is_short
from diffc.codegen.emit.kernel import write_kernel
from diffc.codegen.emit.memory import LINE, STATUS_LIMIT
from diffc.codegen.emit.runs import Run, Table, find_runs
from diffc.codegen.emit.shares import THREADS_AT
from diffc.codegen.emit.stores import STATE_WORDS, drop, hand_over, released, start_list
from diffc.codegen.emit.text import FunctionText, ModuleText
from diffc.codegen.emit.trips import write_cycle, write_sweep
from diffc.codegen.loops.failure import stops
from diffc.codegen.loops.key import kernel_key
from diffc.codegen.loops.module import (
    Address,
    Copy,
    Cycle,
    Invoke,
    Launch,
    Module,
    Repeat,
    Routine,
    Select,
    Step,
)
from diffc.codegen.loops.nodes import Buffer, Kernel, Load, Par, Sweep
from diffc.codegen.loops.scratch import nbytes_of
from diffc.codegen.loops.walk import expressions, operands, statements, stored
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.errors import InternalError

__all__ = ["emit"]

#: a result is large that is one part in so many of the least kernel that stores past the caches
STREAMED_PART = 8
#: how bytes other than plain characters are written in a constant
_ESCAPES = {
    byte: f"\\{byte:02X}" for byte in range(256) if not 32 <= byte < 127 or byte in (34, 92)
}


def emit(module: Module, name: str, target: Target) -> str:
    """The LLVM text of a module.

    Args:
        module: What is run, with every address decided.
        name: Symbol of the entry.
        target: The machine that the code is for.
    """
    return _Writer(ModuleText(), module, target).write(name)


@dataclass(slots=True)
class _Writer:
    """Writes one module."""

    text: ModuleText
    module: Module
    target: Target
    kernels: dict[object, str] = field(default_factory=dict)
    routines: dict[int, str] = field(default_factory=dict)
    keys: dict[Kernel, object] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)

    def write(self, name: str) -> str:
        for number, data in enumerate(self.module.constants):
            self._constant(number, data)
        entry = self.module.entry
        parameters = [
            ("ptr noalias readonly", "%inputs"),
            ("ptr noalias readonly", "%outputs"),
            ("ptr", "%arena"),
        ]
        is_shared, has_stores = self.module.has_shares, self.module.has_stores
        if is_shared:
            parameters.append(("i64", "%threads"))
        fn = self.text.function(name, "i64", parameters, attributes=self.target.attributes)
        words = STATE_WORDS if has_stores else 2 if is_shared else 1
        status = fn.value(f"alloca {f'[{words} x i64]' if words > 1 else 'i64'}, align 8")
        fn.store("i64", "0", status, 8)
        if is_shared:
            fn.store("i64", "%threads", fn.gep(status, THREADS_AT), 8)
        if has_stores:
            start_list(fn, status)
        first, block = fn.divert([], fn.block)  # the pointers that turn out to be needed
        inputs, outputs = _Pointers(fn, "%inputs", first), _Pointers(fn, "%outputs", first)
        call = Call(
            fn, inputs, outputs, "%arena", status, True, {"input": "%inputs", "output": "%outputs"}
        )
        self._steps(call, entry.steps, stops(self.module))
        code = fn.load("i64", status, 8)
        self._end_stores(call, code)
        following, block = fn.divert(first, block)
        first += following
        fn.block = block
        fn.ret("i64", _number(fn, code) if self.module.messages else code)
        return self.text.text()

    def _constant(self, number: int, data: bytes) -> None:
        self._global(f"constant{number}", data)

    def _global(self, name: str, data: bytes) -> None:
        content = data.decode("latin-1").translate(_ESCAPES)
        kind = f"[{len(data)} x i8]"
        definition = f'internal unnamed_addr constant {kind} c"{content}", align {ALIGNMENT}'
        self.text.add_global(name, definition)

    def _routine(self, routine: Routine) -> str:
        """The function of a routine other than the entry."""
        known = self.routines.get(id(routine))
        if known is not None:
            return known
        name = self.text.fresh_name(f"routine_{len(self.routines)}")
        self.routines[id(routine)] = name
        inputs = [f"%in{number}" for number in range(routine.inputs)]
        outputs = [f"%out{number}" for number in range(routine.outputs)]
        parameters = [("ptr", text) for text in (*inputs, *outputs, "%arena", "%status")]
        place = "alwaysinline" if is_short(routine) else "noinline"
        attributes = f"{place} {self.target.attributes}"
        fn = self.text.function(name, "void", parameters, attributes=attributes, internal=True)
        call = Call(fn, inputs, outputs, "%arena", "%status", aligned=False)
        if routine.frees:
            with released(fn, call.status):
                self._steps(call, routine.steps)
        else:
            self._steps(call, routine.steps)
        fn.ret()
        return name

    def _steps(
        self, call: Call, steps: Sequence[Step], stops_at: frozenset[int] = frozenset()
    ) -> None:
        """Writes the steps; runs of equal ones as loops."""
        names = [
            None if position in stops_at else self._function(call, step)
            for position, step in enumerate(steps)
        ]
        runs = {run.start: run for run in find_runs(names)}
        at = 0
        while at < len(steps):
            run = runs.get(at)
            if run is not None:
                self._run(call, run, steps, names)
                at = run.stop
                continue
            if at in stops_at:
                self._stop_on_failure(call)
            self._step(call, steps[at])
            at += 1

    def _function(self, call: Call, step: Step) -> str | None:
        """The function that a step calls with one pointer after another, if it does no more."""
        if isinstance(step, Invoke):
            return self._routine(step.routine)
        if not isinstance(step, Launch) or self._streamed(call, step):
            return None
        return self._launched(call, step)

    def _run(
        self, call: Call, run: Run, steps: Sequence[Step], names: Sequence[str | None]
    ) -> None:
        """A loop that makes the calls of a run."""
        fn = call.fn
        parts = [_addresses(step) for step in steps[run.start : run.stop]]
        rows = [
            [at for part in parts[first : first + run.period] for at in part]
            for first in range(0, len(parts), run.period)
        ]
        table = Table(fn, rows, call.pointer, call.arrays)
        name = f"table{len(self.tables)}"
        with fn.loop(run.count) as loop:
            pointers = iter(table.pointers(fn.index(f"@{name}", "i64", loop.index)))
            for n in range(run.period):
                given = [("ptr", next(pointers)) for _ in parts[n]]
                function = str(names[run.start + n])
                fn.call("void", function, *given, ("ptr", call.status), declare=False)
        self.tables.append(name)
        self._global(name, table.data())

    def _step(self, call: Call, step: Step) -> None:
        if isinstance(step, Launch):
            self._launch(call, step)
        elif isinstance(step, Copy):
            self._copy(call, step)
        elif isinstance(step, Invoke):
            pointers = [call.pointer(at) for at in (*step.inputs, *step.outputs, step.arena)]
            self._invoke(call, step.routine, pointers)
        elif isinstance(step, Repeat):
            self._repeat(call, step)
        elif isinstance(step, Select):
            self._select(call, step)
        elif isinstance(step, Cycle):
            write_cycle(call, step, lambda *given: self._invoke(call, *given))
        else:
            write_sweep(call, step, lambda *given: self._invoke(call, *given))

    def _copy(self, call: Call, step: Copy) -> None:
        if step.target == step.source or not step.nbytes:
            return
        copy_bytes(call.fn, call.pointer(step.target), call.pointer(step.source), step.nbytes)

    def _invoke(self, call: Call, routine: Routine, pointers: Sequence[str]) -> None:
        arguments = [("ptr", pointer) for pointer in (*pointers, call.status)]
        call.fn.call("void", self._routine(routine), *arguments, declare=False)

    def _launch(self, call: Call, step: Launch) -> None:
        pointers = [("ptr", call.pointer(at)) for at in step.addresses]
        pointers.append(("ptr", call.status))
        streamed = self._streamed(call, step)
        if not streamed:
            call.fn.call("void", self._launched(call, step), *pointers, declare=False)
            return
        fn = call.fn
        bits = [fn.value(f"ptrtoint ptr {pointers[k][1]} to i64") for k in streamed]
        joined = bits[0]
        for other in bits[1:]:
            joined = fn.value(f"or i64 {joined}, {other}")
        low = fn.value(f"and i64 {joined}, {LINE - 1}")
        aligned, other, after = map(fn.fresh_label, ("lines", "elements", "launched"))
        fn.branch(fn.value(f"icmp eq i64 {low}, 0"), aligned, other)
        for label, lines in ((aligned, streamed), (other, ())):
            fn.label(label)
            fn.call("void", self._launched(call, step, lines), *pointers, declare=False)
            fn.jump(after)
        fn.label(after)

    def _streamed(self, call: Call, step: Launch) -> tuple[int, ...]:
        """The parameters of a kernel that are large results, stored past the caches."""
        least = self.target.stream_bytes
        if not least or not call.aligned or step.aliased:
            return ()
        if sum(map(nbytes_of, step.kernel.params)) < least:
            return ()
        written = _written_once(step.kernel)
        return tuple(
            k
            for k, (at, buffer) in enumerate(zip(step.addresses, step.kernel.params, strict=False))
            if at.base == "output" and not at.offset and nbytes_of(buffer) * STREAMED_PART >= least
            if buffer in written
        )

    def _launched(self, call: Call, step: Launch, streamed: tuple[int, ...] = ()) -> str:
        """The function of a kernel on these addresses."""
        alignments = tuple(
            LINE if k in streamed else call.alignment(at, ITEM_BYTES[buffer.dtype])
            for k, (at, buffer) in enumerate(zip(step.addresses, step.kernel.params, strict=False))
        )
        return self._kernel(step.kernel, alignments, step.aliased, streamed)

    def _kernel(
        self,
        kernel: Kernel,
        alignments: tuple[int, ...],
        is_aliased: bool,
        streamed: tuple[int, ...],
    ) -> str:
        structure = self.keys.get(kernel)
        if structure is None:
            structure = self.keys[kernel] = kernel_key(kernel)
        key = structure, alignments, is_aliased, streamed
        known = self.kernels.get(key)
        if known is None:
            stem = "".join(char if char.isalnum() else "_" for char in kernel.name) or "kernel"
            known = self.kernels[key] = self.text.fresh_name(f"kernel_{stem}")
            write_kernel(
                self.text,
                kernel,
                known,
                self.target,
                alignments,
                is_aliased=is_aliased,
                streamed=frozenset(kernel.params[k] for k in streamed),
            )
        return known

    def _repeat(self, call: Call, step: Repeat) -> None:
        """Calls the body in a loop; carries alternate between two places and end in `final`."""
        fn, length = call.fn, step.length
        initial = [call.pointer(at) for at in step.initial]
        final = [call.pointer(at) for at in step.final]
        if length == 0:
            if len(step.carry_bytes) != len(final):
                raise InternalError("a loop of no steps has to know the sizes of its carries")
            for target, source, nbytes in zip(final, initial, step.carry_bytes, strict=True):
                if target != source and nbytes:
                    copy_bytes(fn, target, source, nbytes)
            return
        spare = [call.pointer(at) for at in step.spare]
        constants = [call.pointer(at) for at in step.constants]
        arena = call.pointer(step.arena)
        slices = [(call.pointer(at), stride) for at, stride in step.slices]
        stacked = [(call.pointer(at), stride) for at, stride in step.stacked]
        first, second = (final, spare) if length % 2 else (spare, final)
        carried = [("ptr", text) for text in (*initial, *first, *second)]
        with fn.loop(length, carried) as loop:
            index = loop.index
            if step.reverse:
                index = fn.value(f"sub nuw nsw i64 {length - 1}, {index}")
            count = len(initial)
            read, write = loop.carried[:count], loop.carried[count : 2 * count]
            other = loop.carried[2 * count :]
            moving = [fn.gep(at, fn.scaled(index, stride)) for at, stride in slices]
            written = [fn.gep(at, fn.scaled(index, stride)) for at, stride in stacked]
            self._invoke(call, step.routine, [*constants, *read, *moving, *write, *written, arena])
            loop.next = [*write, *other, *write]

    def _select(self, call: Call, step: Select) -> None:
        """Switches to the routine; what is out of range goes to the first or the last one."""
        fn, last = call.fn, len(step.routines) - 1
        pointers = [call.pointer(at) for at in (*step.inputs, *step.outputs)]
        arenas = [call.pointer(at) for at in step.arenas]
        kind = "i32" if step.is_wide else "i8"
        index = fn.load(kind, call.pointer(step.index), 4 if step.is_wide else 1)
        if last == 0:
            self._invoke(call, step.routines[0], [*pointers, *arenas])
            return
        if step.is_wide:
            positive = fn.call(kind, f"llvm.smax.{kind}", (kind, index), (kind, "0"))
            index = fn.call(kind, f"llvm.umin.{kind}", (kind, positive), (kind, str(last)))
        labels = [fn.fresh_label("arm") for _ in step.routines]
        after = fn.fresh_label("joined")
        cases = " ".join(f"{kind} {k}, label %{label}" for k, label in enumerate(labels[:-1]))
        fn.emit(f"switch {kind} {index}, label %{labels[-1]} [ {cases} ]")
        for label, routine, arena in zip(labels, step.routines, arenas, strict=True):
            fn.label(label)
            self._invoke(call, routine, [*pointers, arena])
            fn.jump(after)
        fn.label(after)

    def _end_stores(self, call: Call, code: str) -> None:
        """Frees all stores, or hands them over to the caller."""
        if self.module.returns_stores:
            hand_over(call.fn, call.status, code, call.outputs[self.module.entry.outputs])
        elif self.module.has_stores:
            drop(call.fn, call.status)

    def _stop_on_failure(self, call: Call) -> None:
        """Ends the entry with the status if it is not zero."""
        fn = call.fn
        code = fn.load("i64", call.status, 8)
        stop, go_on = fn.fresh_label("stop"), fn.fresh_label("go")
        fn.branch(fn.value(f"icmp ne i64 {code}, 0"), stop, go_on)
        fn.label(stop)
        self._end_stores(call, code)
        fn.ret("i64", _number(fn, code))
        fn.label(go_on)


def _number(fn: FunctionText, code: str) -> str:
    """The status that the slot stands for."""
    number = fn.value(f"sub i64 {STATUS_LIMIT}, {code}")
    is_fine = fn.value(f"icmp eq i64 {code}, 0")
    return fn.value(f"select i1 {is_fine}, i64 0, i64 {number}")


class _Pointers(Sequence[str]):
    """The pointers of an ABI array, each loaded where the entry begins when it is first used."""

    def __init__(self, fn: FunctionText, array: str, lines: list[str]) -> None:
        self._fn = fn
        self._array = array
        self._lines = lines
        self._known: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, number: Any) -> Any:
        found = self._known.get(number)
        if found is None:
            before = self._fn.divert(self._lines, "entry")
            found = self._known[number] = _element(self._fn, self._array, number)
            self._fn.divert(*before)
        return found


def _written_once(kernel: Kernel) -> frozenset[Buffer]:
    """The buffers that a kernel writes in vectors and doesn't read."""
    found: set[Buffer] = set()
    for stmt in statements(kernel.body):
        if isinstance(stmt, Sweep) or (isinstance(stmt, Par) and stmt.how is not None):
            found |= stored((stmt,))
    roots = (expr for stmt in statements(kernel.body) for expr in operands(stmt))
    return frozenset(found - {e.buffer for e in expressions(roots) if isinstance(e, Load)})


def _addresses(step: Step) -> tuple[Address, ...]:
    """The pointers that a step's function is given."""
    if isinstance(step, Launch):
        return step.addresses
    assert isinstance(step, Invoke)
    return (*step.inputs, *step.outputs, step.arena)


def _element(fn: FunctionText, array: str, number: int) -> str:
    return fn.load("ptr", fn.index(array, "ptr", number), 8)
