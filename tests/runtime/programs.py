"""Small hand-written programs with the native ABI, and what their executables need."""

import numpy as np

from diffc.runtime.build import build
from diffc.runtime.executable import Executable, InputSpec, OutputSpec
from diffc.runtime.target import host

F64 = np.dtype(np.float64)


def loop(name: str, size: int, body: str, before: str = "", after: str = "ret i64 0") -> str:
    """A program that runs `body` for `%i` from 0 to size."""
    return f"""
define i64 @{name}(ptr %inputs, ptr %outputs, ptr %arena) {{
entry:
  {before}
  %some = icmp sgt i64 {size}, 0
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  {body}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, {size}
  br i1 %more, label %loop, label %done
done:
  {after}
}}
"""


def base(kind: str, index: int) -> str:
    """Loads the pointer of input or output `index`."""
    return f"""%{kind}s_{index} = getelementptr ptr, ptr %{kind}s, i64 {index}
  %{kind}{index} = load ptr, ptr %{kind}s_{index}
  """


def get(name: str, pointer: str, place: str = "%i") -> str:
    return f"""%{name}_p = getelementptr double, ptr {pointer}, i64 {place}
  %{name} = load double, ptr %{name}_p
  """


def put(value: str, pointer: str, place: str = "%i") -> str:
    name = f"{pointer[1:]}_{place[1:]}_to"
    return f"""%{name} = getelementptr double, ptr {pointer}, i64 {place}
  store double {value}, ptr %{name}
  """


def sum_text(size: int, inputs: int, outputs: int = 1) -> str:
    """Output j is the sum of all inputs, plus j."""
    before = "".join(base("input", k) for k in range(inputs))
    before += "".join(base("output", k) for k in range(outputs))
    body = "%s0 = fadd double 0.0, 0.0\n  "
    for k in range(inputs):
        body += get(f"x{k}", f"%input{k}") + f"%s{k + 1} = fadd double %s{k}, %x{k}\n  "
    for k in range(outputs):
        body += f"%r{k} = fadd double %s{inputs}, {k}.0\n  " + put(f"%r{k}", f"%output{k}")
    return loop("program", size, body, before)


def sum_program(
    shape: tuple[int, ...], inputs: int, outputs: int = 1, captured=(), **more
) -> Executable:
    size = int(np.prod(shape, dtype=int))
    library = build(sum_text(size, inputs + len(captured), outputs), ("program",), host())
    ins = more.pop("specs", [InputSpec(F64, shape)] * inputs)
    outs = [OutputSpec(F64, shape)] * outputs
    return Executable(library, "program", ins, outs, captured=captured, **more)


def reverse_text(size: int) -> str:
    """Writes `input0[i] = input1[size - 1 - i] + 1`: wrong where the two share memory."""
    body = f"%back = sub i64 {size - 1}, %i\n  " + get("x", "%input1", "%back")
    body += "%r = fadd double %x, 1.0\n  " + put("%r", "%input0")
    return loop("program", size, body, base("input", 0) + base("input", 1))


def step_text(size: int, inputs: int) -> str:
    """Subtracts the last input from each of the others, in place."""
    before = "".join(base("input", k) for k in range(inputs))
    body = get("g", f"%input{inputs - 1}")
    for k in range(inputs - 1):
        body += get(f"x{k}", f"%input{k}") + f"%r{k} = fsub double %x{k}, %g\n  "
        body += put(f"%r{k}", f"%input{k}")
    return loop("program", size, body, before)


STATUS_TEXT = """
define i64 @program(ptr %inputs, ptr %outputs, ptr %arena) {
  %p = load ptr, ptr %inputs
  %x = load double, ptr %p
  %o = load ptr, ptr %outputs
  store double %x, ptr %o
  %status = fptosi double %x to i64
  ret i64 %status
}
"""

ARENA_TEXT = """
define i64 @program(ptr %inputs, ptr %outputs, ptr %arena) {{
entry:
  %p = load ptr, ptr %inputs
  %x = load double, ptr %p
  br label %fill
fill:
  %i = phi i64 [0, %entry], [%next, %fill]
  %to = getelementptr double, ptr %arena, i64 %i
  store volatile double %x, ptr %to
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, {size}
  br i1 %more, label %fill, label %sum
sum:
  %k = phi i64 [0, %fill], [%k_next, %sum]
  %s = phi double [0.0, %fill], [%s_next, %sum]
  %from = getelementptr double, ptr %arena, i64 %k
  %v = load volatile double, ptr %from
  %s_next = fadd double %s, %v
  %k_next = add i64 %k, 1
  %again = icmp slt i64 %k_next, {size}
  br i1 %again, label %sum, label %done
done:
  %o = load ptr, ptr %outputs
  store double %s_next, ptr %o
  ret i64 0
}}
"""


def arena_program(size: int, **more) -> Executable:
    """Fills an arena of `size` doubles with the input and sums it up."""
    library = build(ARENA_TEXT.format(size=size), ("program",), host())
    spec = InputSpec(F64, ())
    more.setdefault("arena_bytes", 8 * size)
    return Executable(library, "program", [spec], [OutputSpec(F64, ())], **more)


def status_program(**more) -> Executable:
    """Returns its input as status."""
    library = build(STATUS_TEXT, ("program",), host())
    return Executable(library, "program", [InputSpec(F64, ())], [OutputSpec(F64, ())], **more)
