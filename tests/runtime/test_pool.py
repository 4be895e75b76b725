"""The pool: every unit once, for any number of threads; callers at once, forks, signals, exits."""

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from diffc.errors import UsageError
from diffc.runtime import build, pool, pool_code
from diffc.runtime.target import host
from tests.shares import needs_pool, steady

__all__ = ["steady"]

pytestmark = [needs_pool, pytest.mark.usefixtures("steady")]

# Adds 1 to each unit of an array of i64, after so many steps of nothing; notes the largest share.
BODY = """
define void @body(ptr %context, i64 %begin, i64 %end) {
entry:
  %array = load ptr, ptr %context
  %steps_at = getelementptr i64, ptr %context, i64 1
  %steps = load i64, ptr %steps_at
  %largest_at = getelementptr i64, ptr %context, i64 2
  %size = sub i64 %end, %begin
  %old = atomicrmw umax ptr %largest_at, i64 %size seq_cst
  br label %unit
unit:
  %i = phi i64 [%begin, %entry], [%i1, %add]
  br label %wait
wait:
  %k = phi i64 [0, %unit], [%k1, %wait]
  %k1 = add i64 %k, 1
  %again = icmp ult i64 %k1, %steps
  br i1 %again, label %wait, label %add
add:
  %at = getelementptr i64, ptr %array, i64 %i
  %value = load i64, ptr %at
  %more = add i64 %value, 1
  store i64 %more, ptr %at
  %i1 = add i64 %i, 1
  %go_on = icmp ult i64 %i1, %end
  br i1 %go_on, label %unit, label %done
done:
  ret void
}
define void @nested(ptr %context, i64 %begin, i64 %end) {
entry:
  %site_at = getelementptr i64, ptr %context, i64 3
  %site = load ptr, ptr %site_at
  br label %unit
unit:
  %i = phi i64 [%begin, %entry], [%i1, %unit]
  call void @diffc_parallel_for(ptr @body, ptr %context, ptr %site, i64 0)
  %i1 = add i64 %i, 1
  %go_on = icmp ult i64 %i1, %end
  br i1 %go_on, label %unit, label %done
done:
  ret void
}
declare void @diffc_parallel_for(ptr, ptr, ptr, i64)
"""
ADDRESS = ctypes.c_void_p


@pytest.fixture(scope="module")
def code():
    return build.build(BODY, ("body", "nested"), host(), pool.imports())


def parallel_for(address=None):
    kinds = [ADDRESS, ADDRESS, ADDRESS, ctypes.c_int64]
    return ctypes.CFUNCTYPE(None, *kinds)(address or pool.imports()[pool.PARALLEL_FOR])


class Call:
    """A call of the pool on an array of counts."""

    def __init__(self, code, units, grain=1, most=0, limit=0, steps=1, name="body", run=None):
        self.run_native = run or parallel_for()
        self.function = code.address(name)
        self.counts = np.zeros(units, np.int64)
        self.site = np.array([units, grain, most, 0, 0, 0], np.int64)
        words = [self.counts.ctypes.data, steps, 0, self.site.ctypes.data]
        self.context = np.array(words, np.int64)
        self.limit = limit

    def run(self):
        pointers = self.context.ctypes.data, self.site.ctypes.data
        self.run_native(self.function, *pointers, self.limit)

    @property
    def largest(self) -> int:
        return int(self.context[2])


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_unit_once(code, threads):
    rng = np.random.default_rng(threads)
    with pool.use_threads(threads):
        before = pool.pool().regions()
        for _ in range(800):
            units, grain, most = (int(x) for x in rng.integers(0, (300, 9, 40)))
            call = Call(code, units, grain, most, limit=int(rng.integers(0, 4)))
            call.run()
            assert (call.counts == 1).all()
            if most:
                assert call.largest <= most
        dealt = pool.pool().regions() - before
    assert (dealt > 300) if threads > 1 else (dealt == 0)


def test_many_more_units_than_chunks(code):
    with pool.use_threads(3):
        call = Call(code, 1_000_003, grain=7, most=11)
        call.run()
        assert (call.counts == 1).all()
        assert call.largest <= 16  # there are at most 65535 chunks, whatever `most` asks for


def test_a_share_has_the_grain_at_least(code):
    with pool.use_threads(2):
        for units in (10, 19):
            before = pool.pool().regions()
            Call(code, units, grain=units).run()
            assert pool.pool().regions() == before
        call = Call(code, 100, grain=50)
        call.run()
        assert call.largest == 50


def test_limits(code):
    state = pool.pool()
    with pool.use_threads(4):
        before = state.regions()
        Call(code, 100, limit=1).run()
        assert state.regions() == before
        Call(code, 100, limit=2).run()
        assert state.regions() == before + 1
        assert state.word("PARTIES") == 2
    assert pool.threads() >= 1


def test_the_setting_nests():
    first = pool.threads()
    with pool.use_threads(3):
        with pool.use_threads(1):
            assert pool.threads() == 1
        assert pool.threads() == 3
        assert pool.describe() == "3 (set by diffc.threads)"
    assert pool.threads() == first


@pytest.mark.parametrize("count", [0, -1, 1.5, True, None, "2"])
def test_what_is_no_number_of_threads(count):
    with pytest.raises(UsageError, match="no number of threads"):
        pool.checked(count)


def test_more_than_there_can_be():
    assert pool.checked(10**6) == pool.MAX_THREADS


def test_nested_regions_run_alone(code):
    inner = Call(code, 40)
    outer = np.array([8, 1, 0, 0, 0, 0], np.int64)
    with pool.use_threads(1):  # counts are added to by several threads otherwise
        parallel_for()(code.address("nested"), inner.context.ctypes.data, outer.ctypes.data, 0)
    assert (inner.counts == 8).all()
    inner.counts[:] = 0
    with pool.use_threads(3):
        outer[0] = 2
        outer[1] = 2  # one unit more than a share has: no region, but nested ones
        parallel_for()(code.address("nested"), inner.context.ctypes.data, outer.ctypes.data, 0)
    assert (inner.counts == 2).all()


def test_python_threads_at_once(code):
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(400):
            call = Call(code, int(rng.integers(1, 400)), steps=int(rng.integers(1, 50)))
            call.run()
            if not (call.counts == 1).all():
                wrong.append(seed)

    with pool.use_threads(3):
        callers = [threading.Thread(target=work, args=(seed,)) for seed in range(5)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert wrong == []


def test_workers_that_sleep_wake_up(code):
    with pool.use_threads(3):
        for _ in range(5):
            Call(code, 64, steps=100).run()
            deadline = time.monotonic() + 5
            while pool.pool().word("SLEEPERS") & 0b110 != 0b110 and time.monotonic() < deadline:
                time.sleep(0.001)
            assert pool.pool().word("SLEEPERS") & 0b110 == 0b110
            call = Call(code, 64, steps=3000)
            call.run()
            assert (call.counts == 1).all()


def test_the_caller_sleeps_until_helpers_are_done(code):
    """One share takes much longer than the caller spins."""
    with pool.use_threads(2):
        call = Call(code, 2, steps=60_000_000)
        call.run()
        assert (call.counts == 1).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own(code):
    with pool.use_threads(2):
        Call(code, 100).run()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                before = pool.pool().word("WORKERS")
                calls = [Call(code, 100) for _ in range(50)]
                for call in calls:
                    call.run()
                fine = all((call.counts == 1).all() for call in calls)
                status = 0 if fine and before == 0 and pool.pool().word("WORKERS") == 1 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        call = Call(code, 100)
        call.run()
        assert (call.counts == 1).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_region(code):
    """Another thread's region is under way: the child finds the lock taken by nobody."""
    with pool.use_threads(2):
        call = Call(code, 8, steps=10_000_000)
        caller = threading.Thread(target=call.run)
        caller.start()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                mine = Call(code, 100)
                mine.run()
                status = 0 if (mine.counts == 1).all() else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        caller.join()
        assert (call.counts == 1).all()


def test_signals_reach_the_main_thread(code):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        interrupt(code)
    finally:
        signal.signal(signal.SIGINT, before)


def interrupt(code) -> None:
    with pool.use_threads(2):
        call = Call(code, 64, steps=20_000)
        timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            for _ in range(100_000):
                call.run()
        timer.join()
        again = Call(code, 500)
        again.run()
        assert (again.counts == 1).all()


def run_python(text: str) -> subprocess.CompletedProcess:
    program = textwrap.dedent(text)
    environment = {**os.environ, "DIFFC_NUM_THREADS": "3", "PYTHONPATH": os.getcwd()}
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )


EXIT = """
    import atexit, sys, threading, time
    import numpy as np
    import diffc
    from diffc.runtime import pool
    f = diffc.jit(lambda x: np.sum(np.exp(x) * np.sin(x)))
    x = np.ones(1_000_000)
    {before}
    pool.imports()
    pool.pool().set_steady(True)
    f(x)
    print(pool.pool().word("WORKERS"), pool.describe())
    {after}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("", "time.sleep(0.05)  # they sleep"),
        ("atexit.register(lambda: print(float(f(x)) > 0))", ""),
        ("", "sys.exit(0)"),
        ("", "threading.Thread(target=lambda: [f(x) for _ in range(100)], daemon=True).start()"),
    ],
)
def test_exit(before, after):
    done = run_python(EXIT.format(before=before, after=after))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "2 3 (DIFFC_NUM_THREADS)"
    assert done.stderr == ""


def test_the_other_way_to_wait(code):
    """The code for macOS, where waiting is by mutex and condition variable, works here too."""
    text = pool_code.pool_text("condition").replace("@diffc_", "@other_")
    names = ("other_parallel_for", "other_pool", "other_pool_stop", "other_pool_reset")
    library = build.build(text, names, host())
    state = library.address("other_pool")
    ctypes.CFUNCTYPE(None)(library.address("other_pool_reset"))()
    ctypes.c_int64.from_address(state + pool_code.STATE["STEADY"]).value = 1
    ctypes.c_int64.from_address(state + pool_code.STATE["WORKER_SPINS"]).value = 50
    ctypes.c_int64.from_address(state + pool_code.STATE["CALLER_SPINS"]).value = 50
    ctypes.c_int32.from_address(state + pool_code.STATE["THREADS"]).value = 3
    run = parallel_for(library.address("other_parallel_for"))
    try:
        rng = np.random.default_rng(0)
        for _ in range(300):
            call = Call(code, int(rng.integers(0, 200)), steps=int(rng.integers(1, 9999)), run=run)
            call.run()
            assert (call.counts == 1).all()
        assert ctypes.c_int64.from_address(state + pool_code.STATE["REGIONS"]).value > 200
    finally:
        ctypes.CFUNCTYPE(None)(library.address("other_pool_stop"))()


def test_systems_without_a_pool(code, monkeypatch):
    monkeypatch.setattr(pool_code, "unsupported", lambda: "no thread pool on nowhere")
    text = pool_code.pool_text().replace("@diffc_", "@lone_")
    library = build.build(text, ("lone_parallel_for",), host())
    run = parallel_for(library.address("lone_parallel_for"))
    for units, most in ((0, 0), (1, 0), (100, 0), (100, 7), (7, 100)):
        call = Call(code, units, most=most, run=run)
        call.run()
        assert (call.counts == 1).all()
        assert call.largest <= (most or units)


def test_regions_that_do_not_pay_run_alone(code):
    """Where helpers only cost, the pool stops asking for them, and asks again later."""
    state = pool.pool()
    state.set_steady(False)
    with pool.use_threads(8):  # shares of nothing: dealing them out is all that they cost
        call = Call(code, 64)
        for _ in range(3000):
            call.run()
        before = state.regions()
        for _ in range(3000):
            call.run()
        assert state.regions() - before < 1500
    assert (call.counts == 6000).all()
