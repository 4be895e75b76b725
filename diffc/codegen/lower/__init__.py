"""Kernels as nests: what each computes, from its graph.

:func:`lower` takes one fused kernel's graph (its inputs are read, its outputs written) and gives a
nest of the loop IR. The planner decides which equations stand in one kernel; the forms it may send
are described in ``points``, ``rows``, ``columns``, ``chunks`` and ``solo``.
"""

from __future__ import annotations

from diffc.codegen.loops.nodes import Kernel, Stmt
from diffc.codegen.lower.chunks import is_chunked, lower_chunks
from diffc.codegen.lower.coalesce import coalesce
from diffc.codegen.lower.columns import lower_columns
from diffc.codegen.lower.frame import Frame
from diffc.codegen.lower.messages import Messages
from diffc.codegen.lower.points import is_contraction, lower_contract, lower_map
from diffc.codegen.lower.rows import is_fold, lower_rows
from diffc.codegen.lower.solo import is_solo, lower_solo
from diffc.errors import InternalError
from diffc.ir.graph import Graph
from diffc.plan.forms import is_column_fold

__all__ = ["Messages", "coalesce", "lower"]


def lower(graph: Graph, name: str, messages: Messages, *, is_whole: bool = True) -> Kernel:
    """The nest of a kernel. Parameters: the graph's inputs (in), then its outputs (out).

    Args:
        graph: one fused kernel, all dimensions integers.
        name: the kernel's name.
        messages: gets the messages of what can go wrong in it (indices out of bounds).
        is_whole: whether its loops may become as few as there can be: nobody joins it to others.

    Raises:
        InternalError: the equations don't make one of the known forms.
    """
    frame = Frame(graph, messages)
    body = _body(frame)
    params = (*frame.inputs, *frame.outputs)
    kernel = Kernel(name, params, tuple(frame.scratch), body)
    return coalesce(kernel) if is_whole else kernel


def _body(frame: Frame) -> tuple[Stmt, ...]:
    graph = frame.graph
    if not graph.outputs:
        return ()
    contracts = [eqn for eqn in graph.eqns if is_contraction(eqn)]
    folds = [eqn for eqn in graph.eqns if is_fold(eqn)]
    solos = [eqn for eqn in graph.eqns if is_solo(eqn)]
    if len(contracts) + len(solos) + bool(folds) > 1:
        names = ", ".join(eqn.op.name for eqn in (*contracts, *solos, *folds))
        raise InternalError(f"kernel @{graph.name} mixes what can't share loops: {names}")
    if contracts:
        return lower_contract(frame, contracts[0])
    if solos:
        return lower_solo(frame, solos[0])
    if any(map(is_column_fold, folds)):
        return lower_columns(frame, folds)
    if folds:
        return lower_chunks(frame, folds) if is_chunked(folds) else lower_rows(frame, folds)
    return lower_map(frame)
