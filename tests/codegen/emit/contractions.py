"""Kernels of contractions for tests: from specs, with epilogues and forced tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from diffc.codegen.loops import interpret
from diffc.codegen.loops.contraction import workspace
from diffc.codegen.loops.nodes import (
    Buffer,
    Contract,
    Expr,
    Kernel,
    Load,
    Par,
    Scalar,
    Store,
    Tile,
)
from diffc.codegen.targets import Target
from diffc.codegen.tile.contract import tile_contractions
from diffc.ir.aval import is_float
from diffc.ir.index import Var
from tests.codegen.emit.kernels import HOST, buffer


def einsum(
    spec: str,
    extents: Mapping[str, int],
    dtype: str = "f32",
    order: str = "",
    epilogue: Callable[[Scalar, dict[str, Var]], Expr] | None = None,
    extra: tuple[Buffer, ...] = (),
) -> Kernel:
    """The kernel of a contraction; `order` are the axes of the stored result, if they differ."""
    operands, result = spec.split("->")
    left, right = operands.split(",")
    vars = {letter: Var(f"v_{letter}", extents[letter]) for letter in sorted({*left, *right})}
    shape = {name: tuple(extents[k] for k in name) for name in (left, right, order or result)}
    lhs, rhs = buffer("lhs", dtype, shape[left]), buffer("rhs", dtype, shape[right])
    out = buffer("out", dtype, shape[order or result], "out")
    total = Scalar("total", dtype)
    summed = tuple(vars[k] for k in left if k not in result)
    value = total if epilogue is None else epilogue(total, vars)
    body = (
        Contract(
            total,
            summed,
            Load(lhs, tuple(vars[k] for k in left)),
            Load(rhs, tuple(vars[k] for k in right)),
        ),
        Store(out, tuple(vars[k] for k in order or result), value),
    )
    nest = (Par(tuple(vars[k] for k in result), body),) if result else body
    return Kernel("contraction", (lhs, rhs, *extra, out), (), nest)


def tiled_as(kernel: Kernel, target: Target = HOST, **sizes: int | bool) -> Kernel:
    """The kernel tiled, with some of the sizes replaced."""
    tiled = tile_contractions(kernel, target)
    (nest,) = (stmt for stmt in tiled.body if isinstance(stmt, Par) and _how(stmt) is not None)
    first = nest.body[0]
    assert isinstance(first, Contract)
    how = replace(_how(nest), **sizes)
    changed = replace(nest, body=(replace(first, how=how), *nest.body[1:]))
    body = tuple(changed if stmt is nest else stmt for stmt in tiled.body)
    copies = tuple(b for b in tiled.scratch if b.name.endswith("_copy"))
    return replace(tiled, body=body, scratch=(*kernel.scratch, *copies, *workspace(changed)))


def _how(par: Par) -> Tile | None:
    first = par.body[0]
    return first.how if isinstance(first, Contract) else None


def how_of(kernel: Kernel, target: Target = HOST) -> Tile:
    """The tile that a kernel's contraction gets."""
    tiled = tile_contractions(kernel, target)
    return next(how for stmt in tiled.body if isinstance(stmt, Par) and (how := _how(stmt)))


def operands(kernel: Kernel, seed: int = 5) -> list[np.ndarray]:
    """Drawn values for the parameters that are read."""
    rng = np.random.default_rng(seed)
    found = []
    for one in kernel.params:
        if one.mode == "out":
            continue
        kind = interpret.DTYPES[one.dtype]
        if is_float(kind):
            found.append(rng.standard_normal(one.shape).astype(kind))
        elif kind.kind == "b":
            found.append(rng.integers(0, 2, one.shape).astype(bool))
        else:
            found.append(rng.integers(-9 if kind.kind == "i" else 0, 10, one.shape).astype(kind))
    return found
