"""The list of stages on real programs: every value has a text; the same one each time."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import diffc
import diffc.ops
from diffc.codegen.loops.text import parse_kernel, print_kernel
from diffc.errors import InternalError, UsageError
from diffc.ir.graph import graphs_of
from diffc.ir.text import parse, print_graph
from diffc.pipeline import STAGES, compile_graph
from tests.pipeline.workloads import programs

PROGRAMS = programs()


def compiled(name):
    function, args = PROGRAMS[name]
    return diffc.jit(function).compile(*args)


def texts(name) -> dict[str, str]:
    program = compiled(name)
    return {stage: program.stage(stage).text for stage in STAGES}


every = pytest.mark.parametrize("name", PROGRAMS)


@every
def test_every_stage_has_a_text(name):
    program = compiled(name)
    assert tuple(program.compilation.stages) == STAGES
    for stage in STAGES:
        text = program.stage(stage).text
        assert isinstance(text, str) and text.strip(), stage
        assert str(program.stage(stage)) == text
        assert " at 0x" not in text, f"{stage} shows an address of memory"
    assert PROGRAMS[name][0].__name__ in program.stage("trace").text
    assert "define i64 @diffc_" in program.stage("emit").text


@every
def test_graphs_parse_back(name):
    program = compiled(name)
    for stage in ("trace", "outline", "transform", "optimize"):
        text = print_graph(program.stage(stage).value)
        assert print_graph(parse(text, diffc.ops.table())) == text
        located = program.stage(stage).text
        again = parse(located, diffc.ops.table())
        assert print_graph(again) == text


@every
def test_kernels_parse_back(name):
    program = compiled(name)
    for stage in ("lower", "tile"):
        for kernel in program.stage(stage).value.values():
            text = print_kernel(kernel)
            assert text in program.stage(stage).text
            assert print_kernel(parse_kernel(text)) == text


@every
def test_compiling_twice_gives_the_same_texts(name):
    assert texts(name) == texts(name)


HASHES = """
import hashlib, json
from tests.pipeline.test_pipeline import PROGRAMS, texts
found = {
    f"{name} {stage}": hashlib.sha256(text.encode()).hexdigest()
    for name in PROGRAMS
    for stage, text in texts(name).items()
}
print(json.dumps(found))
"""


def test_other_processes_give_the_same_texts(request):
    here = {
        f"{name} {stage}": hashlib.sha256(text.encode()).hexdigest()
        for name in PROGRAMS
        for stage, text in texts(name).items()
    }
    for seed in ("1", "4242"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(request.config.rootpath)}
        answer = subprocess.run(
            [sys.executable, "-c", HASHES], env=env, capture_output=True, text=True, check=True
        )
        there = json.loads(answer.stdout)
        assert [key for key in here if here[key] != there[key]] == []


@every
def test_peak_is_what_a_run_allocates(name):
    function, args = PROGRAMS[name]
    program = diffc.jit(function).compile(*args)
    memory, executable = program.memory(), program.executable
    assert memory.least <= memory.peak == executable.arena_bytes
    copies = tuple({k: v.copy() for k, v in a.items()} if isinstance(a, dict) else a for a in args)
    program(*copies)
    assert executable.resident <= executable.pool.resident
    arena = executable.pool.take()
    assert (0 if arena is None else arena.nbytes) == memory.peak
    executable.pool.give(arena)
    for entry in memory.entries:
        assert entry.offset % 64 == 0 and entry.offset + entry.nbytes <= memory.peak
        assert entry.first <= entry.last
    overlapping = [
        (a.name, b.name)
        for k, a in enumerate(memory.entries)
        for b in memory.entries[:k]
        if a.first <= b.last and b.first <= a.last
        and a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes
    ]  # fmt: skip
    in_place = {frozenset(pair) for pair in memory.in_place}
    assert [pair for pair in overlapping if frozenset(pair) not in in_place] == []


def test_timings():
    timings = compiled("train").timings()
    assert tuple(timings) == STAGES
    assert all(seconds >= 0 for seconds in timings.values())
    assert timings["trace"] > 0 and sum(timings.values()) < 60


def test_stages_up_to_one():
    function, args = PROGRAMS["train"]
    found = diffc.jit(function).stages(*args, until="plan")
    assert tuple(found.stages) == STAGES[: STAGES.index("plan") + 1]
    with pytest.raises(UsageError, match="stages: trace, outline"):
        found.stage("emit")


def test_rules_by_name():
    f = diffc.jit(lambda x: np.negative(-x) * 1.0)
    assert not f.stages(np.ones(3), until="optimize").graph.eqns
    one = f.stages(np.ones(3), until="optimize", rules=("neg_neg",)).graph
    assert [eqn.op.name for eqn in one.eqns] == ["mul"]
    none = f.stages(np.ones(3), until="optimize", rules=()).graph
    assert [eqn.op.name for eqn in none.eqns] == ["neg", "neg", "mul"]


def test_a_stage_that_fails_names_itself():
    graph = diffc.jit(lambda x: x + 1).stages(np.ones(3), until="trace").stage("trace").value

    def broken(graph):
        raise ZeroDivisionError("oops")

    with pytest.raises(InternalError, match="stage transform failed") as info:
        compile_graph(graph, name="f", transform=broken)
    assert isinstance(info.value.__cause__, ZeroDivisionError)


def test_values_keep_the_users_lines():
    program = compiled("train")
    for stage in ("trace", "outline", "transform", "optimize"):
        for graph in graphs_of(program.stage(stage).value):
            files = {eqn.loc.file for eqn in graph.eqns if eqn.loc is not None}
            assert files == {PROGRAMS["train"][0].__code__.co_filename}
    assert "workloads.py:" in program.stage("transform").text


def test_one_step_is_one_kernel_for_each_weight():
    # the gradient of a weight never lies in memory: it is subtracted where it is computed
    program = compiled("train")
    names = {entry.aval for entry in program.memory().entries}
    assert not names & {"f32[13,32]", "f32[32,5]"}
