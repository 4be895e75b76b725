"""Runs a native module's steps on real bytes, its kernels by the plain evaluator."""

import numpy as np

from diffc.codegen.loops.module import (
    Copy,
    Cycle,
    Invoke,
    Launch,
    Module,
    Repeat,
    Routine,
    Select,
    Sweep,
)
from diffc.codegen.loops.scratch import scratch_in_arena
from diffc.ir.aval import DTYPES, STORE_BYTES
from tests.codegen.lower.evaluate import execute

GARBAGE = 0xC5


def simulate(module: Module, inputs: list[np.ndarray], output_bytes: list[int]) -> list[np.ndarray]:
    """Output bytes; donated inputs are changed in place."""
    ins = [_bytes(array) for array in inputs]
    outs = [
        ins[module.aliases[k]] if k in module.aliases else np.full(n, GARBAGE, np.uint8)
        for k, n in enumerate(output_bytes)
    ]
    arena = np.full(module.entry.arena_bytes, GARBAGE, np.uint8)
    _Simulator(module).routine(module.entry, ins, outs, arena)
    return outs


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


class _Simulator:
    def __init__(self, module: Module) -> None:
        self.constants = [np.frombuffer(data, np.uint8) for data in module.constants]
        self.blocks: list[np.ndarray] = []

    def routine(self, routine: Routine, ins: list, outs: list, arena: np.ndarray) -> None:
        assert (len(ins), len(outs)) == (routine.inputs, routine.outputs)
        arena = arena[: routine.arena_bytes]

        def at(address, nbytes=None):
            base = {
                "input": lambda: ins[address.index],
                "output": lambda: outs[address.index],
                "constant": lambda: self.constants[address.index],
                "arena": lambda: arena,
            }[address.base]()
            found = base[address.offset :]
            if nbytes is not None:
                assert len(found) >= nbytes, f"{address} holds {len(found)} bytes, not {nbytes}"
                found = found[:nbytes]
            return found

        for step in routine.steps:
            if isinstance(step, Launch):
                self.launch(step, at)
            elif isinstance(step, Copy):
                at(step.target, step.nbytes)[...] = at(step.source, step.nbytes).copy()
            elif isinstance(step, Invoke):
                reads, writes = [at(a) for a in step.inputs], [at(a) for a in step.outputs]
                self.routine(step.routine, reads, writes, at(step.arena))
            elif isinstance(step, Repeat):
                self.repeat(step, at)
            elif isinstance(step, Select):
                index = at(step.index, 4 if step.is_wide else 1)
                index = int(index.view(np.int32 if step.is_wide else np.uint8)[0])
                arm = min(max(index, 0), len(step.routines) - 1)
                reads, writes = [at(a) for a in step.inputs], [at(a) for a in step.outputs]
                self.routine(step.routines[arm], reads, writes, at(step.arenas[arm]))
            elif isinstance(step, Cycle):
                self.cycle(step, at)
            else:
                self.sweep(step, at)

    def launch(self, step: Launch, at) -> None:
        kernel = step.kernel
        buffers = (*kernel.params, *scratch_in_arena(kernel))
        memory, spans = {}, []
        for buffer, address in zip(buffers, step.addresses, strict=True):
            dtype = DTYPES[buffer.dtype]
            nbytes = int(np.prod(buffer.shape)) * dtype.itemsize
            raw = at(address, nbytes)
            memory[buffer] = raw.view(dtype).reshape(buffer.shape)
            spans.append((buffer.mode != "in", raw))
        shares = any(
            written and np.shares_memory(one, other)
            for k, (written, one) in enumerate(spans)
            for j, (_, other) in enumerate(spans)
            if k != j and len(one) and len(other)
        )
        assert step.aliased or not shares, f"{kernel.name} shares memory and does not say so"
        assert execute(kernel, memory) == 0

    def cycle(self, step: Cycle, at) -> None:
        for target, source, nbytes in zip(step.final, step.initial, step.carry_bytes, strict=True):
            at(target, nbytes)[...] = at(source, nbytes).copy()
        now, later = [at(a) for a in step.final], [at(a) for a in step.spare]
        tests, constants = [at(a) for a in step.tests], [at(a) for a in step.constants]
        flag = at(step.flag, 1)
        kept: list[list[np.ndarray]] = [[] for _ in step.stores]
        while True:
            self.routine(step.test, [*tests, *now], [flag], at(step.test_arena))
            if not flag[0]:
                break
            rows = [np.full(nbytes, GARBAGE, np.uint8) for _, nbytes in step.stores]
            self.routine(step.body, [*constants, *now], [*later, *rows], at(step.arena))
            for stack, row in zip(kept, rows, strict=True):
                stack.append(row)
            now, later = later, now
        for (place, nbytes), stack in zip(step.stores, kept, strict=True):
            self.keep(at(place, STORE_BYTES), stack, nbytes)
        for target, found, nbytes in zip(step.final, now, step.carry_bytes, strict=True):
            at(target, nbytes)[...] = found[:nbytes].copy()

    def keep(self, place: np.ndarray, rows: list[np.ndarray], nbytes: int) -> None:
        """Makes a store: its rows in a block of their own, known by its number."""
        block = np.concatenate(rows) if rows else np.zeros(0, np.uint8)
        assert len(block) == nbytes * len(rows)
        self.blocks.append(block)
        place.view(np.int64)[:] = len(self.blocks), len(rows)

    def rows(self, place: np.ndarray, nbytes: int, count: int) -> np.ndarray:
        """The rows of a store; a store without memory has as many rows of zeros as are wanted."""
        number, known = place.view(np.int64)
        if not number:
            return np.zeros(count * nbytes, np.uint8)
        assert known >= count
        return self.blocks[number - 1]

    def sweep(self, step: Sweep, at) -> None:
        for target, source, nbytes in zip(step.final, step.initial, step.carry_bytes, strict=True):
            at(target, nbytes)[...] = at(source, nbytes).copy()
        now, later = [at(a) for a in step.final], [at(a) for a in step.spare]
        constants = [at(a) for a in step.constants]
        count = max(int(at(step.count, 8).view(np.int64)[0]), 0)
        slices = [
            (self.rows(at(place, STORE_BYTES), nbytes, count), nbytes)
            for place, nbytes in step.slices
        ]
        kept = [[np.full(n, GARBAGE, np.uint8) for _ in range(count)] for _, n in step.stores]
        for index in reversed(range(count)) if step.reverse else range(count):
            moving = [rows[index * nbytes :] for rows, nbytes in slices]
            written = [stack[index] for stack in kept]
            ins, outs = [*constants, *now, *moving], [*later, *written]
            self.routine(step.routine, ins, outs, at(step.arena))
            now, later = later, now
        for (place, nbytes), stack in zip(step.stores, kept, strict=True):
            self.keep(at(place, STORE_BYTES), stack, nbytes)
        for target, found, nbytes in zip(step.final, now, step.carry_bytes, strict=True):
            at(target, nbytes)[...] = found[:nbytes].copy()

    def repeat(self, step: Repeat, at) -> None:
        count = len(step.initial)
        read = [at(a) for a in step.initial]
        final, spare = [at(a) for a in step.final], [at(a) for a in step.spare]
        steps = range(step.length)
        for turn, index in enumerate(reversed(steps) if step.reverse else steps):
            write = final if (step.length - turn) % 2 else spare
            assert len(write) == count
            moving = [at(a)[index * stride :] for a, stride in step.slices]
            stacked = [at(a)[index * stride :] for a, stride in step.stacked]
            constants = [at(a) for a in step.constants]
            ins, outs = [*constants, *read, *moving], [*write, *stacked]
            self.routine(step.routine, ins, outs, at(step.arena))
            read = write
