import subprocess
import sys

import numpy as np
import pytest

from diffc.errors import InternalError, UsageError
from diffc.runtime import guard
from diffc.runtime.build import build
from diffc.runtime.executable import Executable, InputSpec, OutputSpec
from diffc.runtime.target import host
from tests.runtime.programs import F64, arena_program, base, step_text, sum_program

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
PAGE = guard.PAGE


@pytest.fixture(autouse=True)
def guarded(monkeypatch, no_guard):
    monkeypatch.setenv("DIFFC_GUARD", "1")


@pytest.mark.parametrize("size", [0, 1, 7, 511, 512, 513, 5000])
def test_programs_that_stay_inside_run_as_ever(size):
    x = np.arange(float(size))
    first, second = sum_program((size,), 2, 2).run([x, x])
    assert np.array_equal(first, 2 * x)
    assert np.array_equal(second, 2 * x + 1)


def test_donated_inputs_arrive():
    library = build(step_text(3, 2), ("program",), host())
    specs = [InputSpec(F64, (3,))] * 2
    program = Executable(library, "program", specs, [OutputSpec(F64, (3,), 0)])
    w = np.ones(6)[::2]
    assert program.run([w, np.full(3, 0.25)])[0] is w
    assert w.tolist() == [0.75] * 3


def poke(kind: str, offset: int, access: str) -> str:
    """A program of one f64[3] input and output that touches `offset` doubles into one of them."""
    touch = {
        "read": "%v = load volatile double, ptr %q",
        "write": "store volatile double 1.0, ptr %q",
    }[access]
    return f"""
define i64 @program(ptr %inputs, ptr %outputs, ptr %arena) {{
  {base("input", 0)}
  {base("output", 0)}
  %arena0 = getelementptr i8, ptr %arena, i64 0
  %q = getelementptr double, ptr %{kind}0, i64 {offset}
  {touch}
  ret i64 0
}}
"""


def run_poke(kind, offset, access, regions=(), arena_bytes=0):
    library = build(poke(kind, offset, access), ("program",), host())
    program = Executable(
        library,
        "program",
        [InputSpec(F64, (3,))],
        [OutputSpec(F64, (3,))],
        arena_bytes=arena_bytes,
        guard_regions=regions,
    )
    return program.run([np.ones(3)])


@pytest.mark.parametrize("kind", ["input", "output"])
@pytest.mark.parametrize("offset", [0, 2])
def test_inside(kind, offset):
    run_poke(kind, offset, "read")
    run_poke("output", offset, "write")


@pytest.mark.parametrize("kind", ["input", "output"])
@pytest.mark.parametrize("offset", [-1, -400])
def test_a_write_before_a_value_is_found(kind, offset):
    with pytest.raises(InternalError, match=f"wrote 8 bytes outside {kind} 0"):
        run_poke(kind, offset, "write")


def test_a_write_to_an_input_is_found():
    run_poke("input", 1, "write")  # the same value again
    library = build(poke("input", 1, "write"), ("program",), host())
    program = Executable(library, "program", [InputSpec(F64, (3,))], [OutputSpec(F64, (3,))])
    with pytest.raises(InternalError, match="wrote to its input 0"):
        program.run([np.zeros(3)])


CRASH = """
import faulthandler, os
os.environ["DIFFC_GUARD"] = "1"
from tests.runtime.test_guard import run_poke
run_poke({kind!r}, {offset}, {access!r}, {regions!r}, {arena_bytes})
print("still here")
"""


def is_crash(kind, offset, access, regions=(), arena_bytes=0):
    code = CRASH.format(
        kind=kind, offset=offset, access=access, regions=regions, arena_bytes=arena_bytes
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 or "Error" not in done.stderr, done.stderr
    return done.returncode < 0 and "still here" not in done.stdout


REGIONS = ((PAGE - 24, 24), (3 * PAGE - 64, 64))


@pytest.mark.parametrize(
    ("kind", "offset", "access"),
    [
        ("input", 3, "read"),
        ("output", 3, "read"),
        ("output", 3, "write"),
        ("input", -PAGE // 8, "read"),
        ("arena", PAGE // 8, "read"),
        ("arena", PAGE // 8, "write"),
        ("arena", 3 * PAGE // 8, "read"),
        ("arena", -1, "read"),
    ],
)
def test_straying_stops_the_process(kind, offset, access):
    assert is_crash(kind, offset, access, REGIONS, 3 * PAGE)


def test_the_arena_inside_its_regions():
    for offset in (PAGE // 8 - 1, PAGE // 8 - 3, 3 * PAGE // 8 - 1, 3 * PAGE // 8 - 8):
        run_poke("arena", offset, "write", REGIONS, 3 * PAGE)
    assert arena_program(100).run([1.0])[0] == 100


@pytest.mark.parametrize("offset", [0, PAGE // 8 - 4, 3 * PAGE // 8 - 9])
def test_a_write_before_a_value_of_the_arena_is_found(offset):
    with pytest.raises(InternalError, match="outside the arena"):
        run_poke("arena", offset, "write", REGIONS, 3 * PAGE)


def test_the_end_of_an_arena_without_regions():
    with pytest.raises(InternalError, match="outside the arena"):
        run_poke("arena", 100, "write", (), 800)
    run_poke("arena", 99, "write", (), 800)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (((0, 24),), "bytes before a page"),
        (((0, PAGE - 64),), "ends 64 bytes before a page"),
        (((PAGE, PAGE),), "leaves the arena"),
        (((-8, 8 + PAGE),), "leaves the arena"),
        (((0, PAGE), (PAGE, PAGE)), "lies on the guard page"),
    ],
)
def test_bad_regions(regions, message):
    with pytest.raises(InternalError, match=message):
        guard.GuardedArena(2 * PAGE if message[0] == "l" and "on" in message else PAGE, regions)


def test_values_may_end_at_their_alignment():
    """Three doubles at a multiple of 64: the bytes up to the page are watched by the canary."""
    regions = ((PAGE - 64, 24), (0, 0), (2 * PAGE, 0))
    for place in (0, 2):
        run_poke("arena", (PAGE - 64) // 8 + place, "write", regions, 3 * PAGE)
    for place in (-1, 3, 7):
        with pytest.raises(InternalError, match="outside the arena"):
            run_poke("arena", (PAGE - 64) // 8 + place, "write", regions, 3 * PAGE)


def test_where_there_is_no_mprotect(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UsageError, match="Windows"):
        guard.is_enabled()
    monkeypatch.setenv("DIFFC_GUARD", "0")
    assert not guard.is_enabled()
