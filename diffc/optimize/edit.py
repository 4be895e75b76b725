"""What rewrites of whole graphs share: emitting one equation, keeping another."""

from __future__ import annotations

from typing import Any

from diffc.ir.graph import Builder, Eqn, Operand, Value
from diffc.ops.registry import find


def emit_one(builder: Builder, op: str, *operands: Operand, **params: Any) -> Value:
    """The only result of an op."""
    return builder.emit(find(op), operands, params)[0]


def keep(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
    """The equation as it is, on what its operands became."""
    if any(operand in env for operand in eqn.operands):
        builder.copy(eqn, env)
        return
    adopted = builder.adopt(eqn)
    env.update((old, new) for old, new in zip(eqn.results, adopted, strict=True) if new is not old)
