"""A native entry under test, and programs that write to their inputs."""

from diffc.runtime.build import build
from diffc.runtime.entry import native_entry
from diffc.runtime.executable import Executable, InputSpec, OutputSpec, Writeback
from diffc.runtime.target import host
from tests.runtime.programs import F64, step_text


class Entry:
    """A native entry whose slow path counts its calls, and what it is called with."""

    def __init__(self, program, args_spec, out_spec, answer=None):
        self.program = program
        self.calls = []
        self.answer = answer
        self.function = native_entry(program, args_spec, out_spec, self.slow)
        assert program.entry_kind == "native", program.entry_reason

    def slow(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return "slow" if self.answer is None else self.answer(*args, **kwargs)

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)

    def fast(self, *args):
        before = len(self.calls)
        result = self.function(*args)
        assert len(self.calls) == before, "the call took the slow path"
        return result


def step_program(size, inputs, outputs=(), writebacks=(), **more):
    library = build(step_text(size, inputs), ("program",), host())
    return Executable(
        library,
        "program",
        [InputSpec(F64, (size,))] * inputs,
        [OutputSpec(F64, (size,), alias) for alias in outputs],
        writebacks=[Writeback(index) for index in writebacks],
        **more,
    )
