"""A contraction gets rows, columns, a tile and its workspace.

Before: ``Par(vars, (Contract, Store...))`` as lowered, variables of the result in any number.
After: ``Par((outer..., row, column), ...)`` where only lhs moves along the row and only rhs along
the column, neighbouring variables which move together are one, and ``Contract.how`` is filled in.
Operands that are not plain loads with constant strides are copied to scratch by a ``Par`` before.

The order of summation does not change: contracted variables merge in their order, and operands swap
sides (a product commutes) where columns run better along the lanes that way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import inf, prod

from diffc.codegen.loops.contraction import (
    Access,
    access,
    extent_of,
    is_contraction,
    is_tiled,
    workspace,
)
from diffc.codegen.loops.nodes import (
    Buffer,
    Contract,
    For,
    Kernel,
    Load,
    Order,
    Par,
    Stmt,
    Store,
    Vector,
)
from diffc.codegen.loops.walk import (
    buffers,
    expressions,
    map_body,
    map_statement,
    operands,
    rewrite,
    variables,
)
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.codegen.tile.contract_costs import costs
from diffc.codegen.tile.contract_model import Choice, Operand, Problem, choose, column_block
from diffc.codegen.tile.contract_price import lanes_of
from diffc.errors import InternalError
from diffc.ir.index import Dim, Guard, Var, coefficient, ravel, substitute

__all__ = ["Tiled", "contract_price", "tile_contract", "tile_contractions"]

FEW = 32
"""More columns than these fill vectors well enough."""
Chooser = Callable[[Problem, Target], Choice | None]
Chain = tuple[Var, ...]
"""Variables that move together, the outermost first."""


@dataclass(frozen=True, slots=True)
class Tiled:
    """What a statement became: statements in order, and the scratch that they need."""

    body: tuple[Stmt, ...]
    scratch: tuple[Buffer, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to run a contraction: who is row and column, which tile.

    Attributes:
        lhs: Moves along the row.
        rhs: Moves along the column.
        is_swapped: Whether these are the contraction's rhs and lhs.
        row: The row's variables (none: extent 1).
        column: The column's variables.
        outer: The other chains: those that move rhs first.
        choice: Tile and price.
        block: Columns of a run, where the column is cut into runs (0: it is not).
    """

    lhs: Access
    rhs: Access
    is_swapped: bool
    row: Chain
    column: Chain
    outer: tuple[Chain, ...]
    choice: Choice
    block: int = 0


def tile_contractions(kernel: Kernel, target: Target) -> Kernel:
    """The kernel with every contraction tiled that stands in no loop of vectors.

    What is left are loops over points; those of a contraction are not to be touched again.
    """
    scratch: list[Buffer] = []
    body = _tiled_body(kernel.body, target, scratch)
    if body == kernel.body:
        return kernel
    return replace(kernel, body=body, scratch=(*kernel.scratch, *_largest(scratch)))


def _apart(tiled: Tiled, names: Collection[str]) -> Tiled:
    """The same with other names for copies where a copy has one: sums of two nests share theirs."""
    used = buffers(tiled.body)
    renamed: dict[Buffer, Buffer] = {}
    for buffer in tiled.scratch:
        if buffer in used and buffer.name in names:
            other = next(n for k in count(1) if (n := f"{buffer.name}{k}") not in names)
            renamed[buffer] = replace(buffer, name=other)
    if not renamed:
        return tiled
    body = map_body(
        tiled.body,
        lambda index: index,
        lambda guard: guard,
        lambda buffer, indices: (renamed.get(buffer, buffer), indices),
    )
    return Tiled(body, tuple(renamed.get(buffer, buffer) for buffer in tiled.scratch))


def _largest(scratch: Iterable[Buffer]) -> Iterable[Buffer]:
    """One panel of each name: nests whose sums have one name run one after the other."""
    found: dict[str, Buffer] = {}
    for buffer in scratch:
        other = found.setdefault(buffer.name, buffer)
        if prod(other.shape) < prod(buffer.shape):
            found[buffer.name] = buffer
    return found.values()


def _tiled_body(body: Sequence[Stmt], target: Target, scratch: list[Buffer]) -> tuple[Stmt, ...]:
    found: list[Stmt] = []
    position = 0
    while position < len(body):
        stmt = body[position]
        position += 1
        if isinstance(stmt, Contract) and stmt.how is None:  # a lone sum: no point, no loop
            stores: list[Stmt] = []
            while position < len(body) and isinstance(body[position], Store):
                stores.append(body[position])
                position += 1
            stmt = Par((), (stmt, *stores))
        if is_contraction(stmt) and not is_tiled(stmt):
            assert isinstance(stmt, Par)
            tiled = _apart(tile_contract(stmt, target), {buffer.name for buffer in scratch})
            found += tiled.body
            scratch += tiled.scratch
        elif isinstance(stmt, For) or (isinstance(stmt, Par) and not is_contraction(stmt)):
            inner = _tiled_body(stmt.body, target, scratch)
            found.append(stmt if inner == stmt.body else replace(stmt, body=inner))
        else:
            found.append(stmt)
    return tuple(found)


def tile_contract(par: Par, target: Target, chooser: Chooser = choose) -> Tiled:
    """Tiles the nest of one contraction.

    Args:
        par: A contraction and stores at points of the result; `vars` may be empty.
        target: The machine.
        chooser: Picks a tile.

    Returns:
        The nest, perhaps after copies of operands, and its scratch buffers.

    Raises:
        InternalError: The body is not a contraction followed by stores.
    """
    if any(extent_of(var) == 0 for var in par.vars):
        return Tiled(())
    best = _best(par, target, chooser)
    assert best is not None, "every contraction has a tile, unless its order is given"
    tiled = _rebuilt(best.plan, best.depth, best.candidate.contract, best.stores)
    return Tiled((*best.candidate.copies, tiled), (*best.candidate.scratch, *workspace(tiled)))


def contract_price(par: Par, target: Target) -> tuple[float, Order]:
    """What the nest of one contraction costs with the tile that it gets, and how that sums.

    Infinitely much where no tile sums as it says.
    """
    best = _best(par, target, choose)
    if best is None:
        return inf, "sequence"
    return best.cycles, "lanes" if best.plan.choice.tile.dot else "sequence"


@dataclass(frozen=True, slots=True)
class _Best:
    """The cheapest way to run a contraction."""

    cycles: float
    candidate: _Candidate
    plan: Plan
    depth: tuple[Chain, ...]
    stores: list[Store]


def _best(par: Par, target: Target, chooser: Chooser) -> _Best | None:
    """The cheapest plan, also with operands that are copied first; None where no tile fits."""
    par = _without_units(par)
    first = par.body[0]
    stores = [stmt for stmt in par.body[1:] if isinstance(stmt, Store)]
    if not isinstance(first, Contract) or len(stores) != len(par.body) - 1:
        raise InternalError("a contraction's nest is one contraction followed by stores")
    base = _Candidate(first)
    for side in ("lhs", "rhs"):
        if _access_of(base.contract, par.vars, side) is None:
            base = _copied(base, par.vars, side, target)
    best: _Best | None = None
    for candidate in (base, *_along_depth(base, par.vars, target)):
        lhs, rhs = (_access_of(candidate.contract, par.vars, side) for side in ("lhs", "rhs"))
        assert lhs is not None and rhs is not None, "operands are plain loads now"
        depth = _depth_chains(first.vars, lhs, rhs)
        for plan in _plans(par.vars, depth, lhs, rhs, first, stores, target, chooser):
            cycles = plan.choice.cycles + candidate.cycles
            if best is None or cycles < best.cycles:
                best = _Best(cycles, candidate, plan, depth, stores)
    return best


# --- the operands


def _without_units(par: Par) -> Par:
    """The nest without variables of extent 1; an empty sum keeps one variable only."""
    first = par.body[0]
    inner = first.vars if isinstance(first, Contract) else ()
    units: dict[Var, Dim] = {var: 0 for var in (*par.vars, *inner) if extent_of(var) == 1}
    empty = next((var for var in inner if extent_of(var) == 0), None)
    if empty is not None:
        units |= {var: 0 for var in inner if var is not empty}
    if not units:
        return par
    vars = tuple(var for var in par.vars if var not in units)
    body = _substituted(par.body, units)
    first = body[0]
    if isinstance(first, Contract):
        kept = tuple(var for var in first.vars if var not in units)
        body = (replace(first, vars=kept), *body[1:])
    return Par(vars, body)


def _substituted(body: Sequence[Stmt], mapping: Mapping[Var, Dim]) -> tuple[Stmt, ...]:
    def on_index(index: Dim) -> Dim:
        return substitute(index, mapping)

    def on_guard(guard: Guard) -> Guard:
        return guard.substitute(mapping)

    known = rewrite((expr for stmt in body for expr in operands(stmt)), on_index, on_guard)
    return tuple(map_statement(stmt, on_index, on_guard, known) for stmt in body)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A contraction with operands that were copied before it.

    Attributes:
        contract: The contraction.
        copies: The nests that write the copies.
        scratch: The copies.
        cycles: What the copies cost which others do without.
    """

    contract: Contract
    copies: tuple[Stmt, ...] = ()
    scratch: tuple[Buffer, ...] = ()
    cycles: float = 0.0


def _access_of(contract: Contract, vars: Sequence[Var], side: str) -> Access | None:
    expr = contract.lhs if side == "lhs" else contract.rhs
    return access(expr, (*vars, *contract.vars))


def _copied(
    before: _Candidate,
    vars: Sequence[Var],
    side: str,
    target: Target,
    *,
    depth_last: bool = False,
) -> _Candidate:
    """The contraction with one operand copied to scratch first."""
    contract = before.contract
    expr = contract.lhs if side == "lhs" else contract.rhs
    used = variables(expr)
    kept = tuple(var for var in vars if var in used)
    summed = tuple(var for var in contract.vars if var in used)
    if side == "rhs" and not depth_last:  # columns last, but for those of a batch
        other = variables(contract.lhs)
        batch = tuple(var for var in kept if var in other)
        axes = (*batch, *summed, *(var for var in kept if var not in other))
    else:
        axes = (*kept, *summed)
    shape = tuple(extent_of(var) for var in axes)
    buffer = Buffer(f"{contract.target.name}.{side}_copy", expr.dtype, shape, "scratch")
    store = Store(buffer, axes, expr)
    lanes = target.lanes(expr.dtype)
    how = Vector(lanes) if axes and shape[-1] >= lanes else None
    load = Load(buffer, axes)
    return _Candidate(
        replace(contract, lhs=load) if side == "lhs" else replace(contract, rhs=load),
        (*before.copies, Par(axes, (store,), how) if axes else store),
        (*before.scratch, buffer),
        before.cycles + costs(target).gather * prod(shape),
    )


def _along_depth(base: _Candidate, vars: Sequence[Var], target: Target) -> Iterator[_Candidate]:
    """The contraction with an operand of few columns laid along the contracted index.

    So dot tiles run where a few columns would fill a vector badly; the other operand lies that way.
    """
    if len(base.contract.vars) != 1 or base.contract.start is not None:
        return
    (inner,) = base.contract.vars
    sides = {side: _access_of(base.contract, vars, side) for side in ("lhs", "rhs")}
    for side, other in (("lhs", "rhs"), ("rhs", "lhs")):
        one, fixed = sides[side], sides[other]
        assert one is not None and fixed is not None
        few = prod(extent_of(v) for v in vars if one.strides[v] and not fixed.strides[v])
        if one.strides[inner] != 1 and fixed.strides[inner] == 1 and few <= FEW:
            yield _copied(base, vars, side, target, depth_last=True)


# --- who moves along what


def _extent(chain: Chain) -> int:
    return prod(extent_of(var) for var in chain)


def _depth_chains(vars: Sequence[Var], lhs: Access, rhs: Access) -> tuple[Chain, ...]:
    """Contracted variables, neighbours joined where both operands run through them as one."""
    chains: list[Chain] = []
    for var in vars:
        if chains:
            before = chains[-1][-1]
            if all(one.strides[before] == one.strides[var] * extent_of(var) for one in (lhs, rhs)):
                chains[-1] = (*chains[-1], var)
                continue
        chains.append((var,))
    return tuple(chains)


def _chains(vars: Iterable[Var], strides: Mapping[Var, int]) -> list[Chain]:
    """Variables joined where the operand runs through them as one, whatever their order."""
    chains: list[Chain] = []
    for var in sorted(vars, key=lambda var: (-abs(strides[var]), var.name)):
        if chains and strides[chains[-1][-1]] == strides[var] * extent_of(var):
            chains[-1] = (*chains[-1], var)
        else:
            chains.append((var,))
    return chains


def _merged(chain: Chain, name: str) -> tuple[Var, dict[Var, Dim]]:
    """One variable for a chain, and the old ones in terms of it."""
    whole = Var(name, _extent(chain))
    mapping: dict[Var, Dim] = {}
    rest: Dim = whole
    for var in reversed(chain[1:]):
        mapping[var] = rest % extent_of(var)
        rest = rest // extent_of(var)
    if chain:
        mapping[chain[0]] = rest
    return whole, mapping


def _offsets(stores: Sequence[Store]) -> list[Dim]:
    """Element offsets of the stores, and of the loads in what they store."""
    nodes = expressions(store.value for store in stores)
    read = [ravel(n.indices, n.buffer.shape) for n in nodes if isinstance(n, Load)]
    return [*(ravel(store.indices, store.buffer.shape) for store in stores), *read]


def _column_chains(
    vars: Sequence[Var], rhs: Access, stores: Sequence[Store], lanes: int
) -> list[Chain]:
    """The chains along which lanes may run: what is stored must run along them too.

    A chain is cut where the stores would jump within a vector.
    """
    offsets = _offsets(stores)
    found: list[Chain] = []
    for chain in _chains(vars, rhs.strides):
        kept: Chain = chain[-1:]
        for var in reversed(chain[:-1]):
            longer = (var, *kept)
            whole, mapping = _merged(longer, "column")
            moved = [substitute(offset, mapping) for offset in offsets]
            smooth = all(coefficient(offset, whole) is not None for offset in moved)
            if smooth or _extent(kept) % lanes == 0:
                kept = longer
            else:
                found.append(kept)
                kept = (var,)
        found.append(kept)
    return found


def _jumps(offsets: Iterable[Dim], last: Var | None) -> int:
    """How many accesses have a stride other than 0 or 1 along a variable."""
    return sum(last is not None and coefficient(offset, last) not in (0, 1) for offset in offsets)


def _turned(offsets: Iterable[Dim], row: Chain) -> int:
    """How many accesses have such a stride along rows; -1 if lanes can't run along these."""
    if not row:
        return -1
    whole, mapping = _merged(row, "row")
    moved = [substitute(offset, mapping) for offset in offsets]
    if any(coefficient(offset, whole) is None for offset in moved):
        return -1
    return _jumps(moved, whole)


def _plans(
    vars: Sequence[Var],
    depth: tuple[Chain, ...],
    lhs: Access,
    rhs: Access,
    contract: Contract,
    stores: Sequence[Store],
    target: Target,
    chooser: Chooser,
) -> list[Plan]:
    """Every way to pick a row and a column."""
    found: list[Plan] = []
    dtype = contract.target.dtype
    lanes = lanes_of(dtype, target)
    offsets = _offsets(stores)
    size = prod(_extent(chain) for chain in depth)
    inner = depth[-1][-1] if depth else None

    def operand(one: Access, last: Var | None, outer: Iterable[Chain]) -> Operand:
        item = ITEM_BYTES[one.buffer.dtype]
        runs = prod(_extent(chain) for chain in outer if one.strides[chain[-1]])
        return Operand(
            one.buffer.dtype,
            item * (one.strides[last] if last else 1),
            item * (one.strides[inner] if inner else 1),
            runs,
        )

    for is_swapped in (False, True):
        left, right = (rhs, lhs) if is_swapped else (lhs, rhs)
        rows = _chains((v for v in vars if left.strides[v] and not right.strides[v]), left.strides)
        column_vars = [v for v in vars if right.strides[v] and not left.strides[v]]
        columns = _column_chains(column_vars, right, stores, lanes)
        others = [(v,) for v in vars if bool(left.strides[v]) == bool(right.strides[v])]
        for row in rows or [()]:
            for column in columns or [()]:
                around = [chain for chain in (*rows, *columns) if chain not in (row, column)]
                around += others
                outer = sorted(around, key=lambda chain: not right.strides[chain[0]])
                last = column[-1] if column else None
                problem = Problem(
                    rows=_extent(row),
                    columns=_extent(column),
                    depth=size,
                    inner_depth=_extent(depth[-1]) if depth else 1,
                    outer=prod(_extent(chain) for chain in outer),
                    dtype=dtype,
                    lhs=operand(left, row[-1] if row else None, outer),
                    rhs=operand(right, last, outer),
                    strided=_jumps(offsets, last),
                    turned=_turned(offsets, row),
                    is_single_depth=len(depth) == 1,
                    goes_on=contract.start is not None,
                    order=contract.order,
                )
                block = column_block(problem, target) if len(column) == 1 else 0
                if block:
                    count = problem.columns // block
                    problem = replace(
                        problem,
                        columns=block,
                        outer=problem.outer * count,
                        rhs=replace(problem.rhs, runs=problem.rhs.runs * count),
                        packs_rhs=True,
                    )
                choice = chooser(problem, target)
                chains = tuple(outer)
                if choice is not None:
                    found.append(Plan(left, right, is_swapped, row, column, chains, choice, block))
    return found


def _rebuilt(
    plan: Plan, depth: tuple[Chain, ...], contract: Contract, stores: Sequence[Store]
) -> Par:
    """The nest with the variables of a plan."""
    row, mapping = _merged(plan.row, "row")
    column, more = _merged(plan.column, "column")
    mapping |= more
    outer: list[Var] = []
    if plan.block:
        run = Var("run", _extent(plan.column) // plan.block)
        column = Var("column", plan.block)
        mapping[plan.column[0]] = run * plan.block + column
        outer.append(run)
    for number, chain in enumerate(plan.outer):
        var, more = _merged(chain, f"outer{number}")
        outer.append(var)
        mapping |= more
    summed: list[Var] = []
    for number, chain in enumerate(depth):
        var, more = _merged(chain, f"depth{number}")
        summed.append(var)
        mapping |= more
    sides = (contract.rhs, contract.lhs) if plan.is_swapped else (contract.lhs, contract.rhs)
    made = tuple(summed), *sides, plan.choice.tile, contract.start, contract.order
    moved = Contract(contract.target, *made)
    body = _substituted((moved, *stores), mapping)
    return Par((*outer, row, column), body)
