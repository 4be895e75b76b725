"""Batched graphs of every op, as native code: what batching emits is lowered like anything else."""

import numpy as np
import pytest

import diffc.ops
from diffc.programs import GraphProgram
from diffc.transforms import batch
from tests.ops.samples import CASES, fill, samples
from tests.programs.compare import agree, one_op_graph

SIZE = 3
OPS = [op for op in diffc.ops.every_op() if any(s.avals for s in samples(op, ("f32", "u32")))]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_compiled_is_interpreted(op):
    dtypes = ("f32",) if "f32" in op.dtypes or not op.dtypes else ("bool", "i32", "u32")
    some = samples(op, dtypes)
    draw = next((case.draw for case in CASES if case.op == op.name), None)
    columns = [
        list(zip(*(fill(s, draw, seed=seed).arrays for seed in range(SIZE)), strict=True))
        for s in some
    ]
    graph = one_op_graph(some, op.name)
    for offset in (0, 1):  # every operand batched, and every other one
        flat = [column for sample in columns for column in sample]
        mask = [offset == 0 or i % 2 == 0 for i in range(len(flat))]
        arrays = [
            np.stack(column) if on else column[0] for column, on in zip(flat, mask, strict=True)
        ]
        made = batch(graph, mask, SIZE)
        agree(GraphProgram(made.graph, f"{op.name}_batch")(arrays), made.graph, arrays)
