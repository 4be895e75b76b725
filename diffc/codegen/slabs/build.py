"""The nest of kernels that run together: around each slab, the nests of its parts on its rows.

::

    par head in 8 {
      for slab in 32 {                                 # par, where nobody sums over the rows
        par local in 64, c in 2048 { s = contract(...); scores[c, local] = ... }
        par local in 64 { m = reduce max ...; sweep c in 2048 { ... } }
        par local in 64, e in 64 { s = contract(scores[c, local], ...); out[...] = ... }
      }
    }

Values that only parts read are scratch of a slab's size. One that is written over another where
that is read for the last time lies in the same place. Sums over the rows go on from slab to slab,
in the result itself; it is zero before the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from diffc.codegen.loops.nodes import Buffer as Param
from diffc.codegen.loops.nodes import (
    Const,
    Contract,
    For,
    Load,
    Mode,
    Order,
    Par,
    Stmt,
    Store,
)
from diffc.codegen.loops.nodes import Kernel as Nest
from diffc.codegen.loops.overlap import Overlap
from diffc.codegen.loops.walk import map_body
from diffc.codegen.slabs.find import Slabs
from diffc.codegen.slabs.part import Part
from diffc.codegen.targets import FLOATS
from diffc.errors import InternalError
from diffc.ir.graph import Builder, Graph, Operand, prune
from diffc.ir.index import Dim, Guard, Var, substitute
from diffc.plan.program import Buffer, Kernel

__all__ = ["Joiner", "Places", "joined_kernel", "ordered", "places"]


# --- order and memory of what is handed on ----------------------------------------------------


def ordered(slabs: Slabs, overlap: Overlap) -> list[Part]:
    """The parts in an order in which they can run.

    A part that can write over a value waits for the others that read it.
    """
    makers = {buffer: part for part in slabs.parts for buffer in part.node.writes}
    before = {
        part: {makers[b] for b in part.node.reads if b in makers} - {part} for part in slabs.parts
    }
    found: list[Part] = []
    waiting = list(slabs.parts)
    while waiting:
        ready = [part for part in waiting if before[part] <= set(found)]
        if not ready:
            raise InternalError("parts of a slab wait for each other")
        patient = [
            part
            for part in ready
            if not any(
                other is not part and other in ready
                for buffer in _overwritten(slabs, part, overlap)
                for other in waiting
                if buffer in other.node.reads
            )
        ]
        part = (patient or ready)[0]
        found.append(part)
        waiting.remove(part)
    return found


def _overwritten(slabs: Slabs, part: Part, overlap: Overlap) -> list[Buffer]:
    """The inner values over which a part can write one of its own."""
    return [
        source
        for source in dict.fromkeys(part.node.reads)
        if source in slabs.inner
        and any(_may_overwrite(slabs, part, source, t, overlap) for t in part.node.writes)
    ]


def _may_overwrite(
    slabs: Slabs, part: Part, source: Buffer, target: Buffer, overlap: Overlap
) -> bool:
    if target not in slabs.inner or _form(slabs, source) != _form(slabs, target):
        return False
    params = [param for param, buffer in part.buffers.items() if buffer is source]
    (written,) = (param for param, buffer in part.buffers.items() if buffer is target)
    return overlap.can_overwrite(part.kernel, params, written)


def _form(slabs: Slabs, buffer: Buffer) -> tuple[str, tuple[int, ...]]:
    """Dtype of an inner value and its extents along what are no dims."""
    axes = slabs.handed[buffer]
    shape = (dim for axis, dim in enumerate(buffer.aval.shape) if axis not in axes)
    return buffer.aval.dtype, tuple(dim for dim in shape if isinstance(dim, int))


@dataclass(slots=True, eq=False)
class Places:
    """Where inner values lie: the number of a place for each, and the form of each place."""

    of: dict[Buffer, int] = field(default_factory=dict)
    forms: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)


def places(slabs: Slabs, order: Sequence[Part], overlap: Overlap) -> Places:
    """Deals places to inner values: a free one, or that of an operand that is written over."""
    found = Places()
    last = {buffer: k for k, part in enumerate(order) for buffer in part.node.reads}
    last_use: dict[int, int] = {}
    for position, part in enumerate(order):
        for target in part.node.writes:
            if target not in slabs.inner:
                continue
            number = None
            for source, place in found.of.items():
                is_free = last_use[place] < position
                is_last = last_use[place] == last.get(source) == position
                if is_last and source in part.node.reads:
                    is_free = _may_overwrite(slabs, part, source, target, overlap)
                if is_free and found.forms[place] == _form(slabs, target):
                    number = place
                    break
            if number is None:
                number = len(found.forms)
                found.forms.append(_form(slabs, target))
            found.of[target] = number
            last_use[number] = last.get(target, position)
    return found


# --- the nest ---------------------------------------------------------------------------------


class Joiner:
    """Makes the nests of parts on a slab.

    Attributes:
        rows: Rows of a slab.
        dims: The variables around a slab, but for the row.
        slab: The number of a slab.
        params: The parameters of the joined kernel by buffers of the program.
        scratch: Its scratch.
    """

    def __init__(
        self,
        slabs: Slabs,
        found: Places,
        rows: int,
        turned: Mapping[int, bool],
        orders: Mapping[Part, Order],
    ) -> None:
        self.slabs = slabs
        self.rows = rows
        self.turned = turned
        self.orders = orders
        *around, extent = slabs.extents
        self.dims = tuple(Var(f"at{k}", n) for k, n in enumerate(around))
        self.count, self.rest = divmod(extent, rows)
        self.slab = Var("slab", self.count)
        self.places = found
        self.scratch: list[Param] = []
        self._new_scratch("slab", rows)
        self.params: dict[tuple[Buffer, tuple[int, ...]], Param] = {}
        self._numbers = {part: k for k, part in enumerate(slabs.parts)}
        self._written = {buffer for part in slabs.parts for buffer in part.node.writes}

    def _new_scratch(self, name: str, rows: int) -> None:
        """From now on, parts have scratch that none had before: other threads may run these."""
        self.name = name
        self._own: dict[tuple[Part, Param], Param] = {}
        self._inner: list[Param] = []
        for number, (dtype, shape) in enumerate(self.places.forms):
            whole = (*shape, rows) if self.turned.get(number) else (rows, *shape)
            self._inner.append(Param(f"{name}{number}", dtype, whole, "scratch"))
        self.scratch += self._inner

    def part(self, part: Part, first: Dim, rows: int) -> tuple[Stmt, ...]:
        """The nest of a part for rows from `first` on."""
        dims = self.slabs.parts[part]
        local = Var("local", rows)
        mapping: dict[Var, Dim] = dict(zip(dims[:-1], self.dims, strict=True))
        mapping[dims[-1]] = first + local
        nest = part.nest
        vars = tuple(local if v is dims[-1] else v for v in nest.vars if v not in dims[:-1])
        body = nest.body
        contract, *stores = body
        if isinstance(contract, Contract):
            body = (replace(contract, order=self.orders[part]), *stores)
        if self.slabs.sums_rows(part):
            body = self._going_on(body, dims[-1], local)
        body = map_body(
            body,
            lambda index: substitute(index, mapping),
            lambda guard: _substituted(guard, mapping),
            lambda buffer, indices: self._access(part, first, buffer, indices),
            lambda scalar: replace(scalar, name=self._named(part, scalar.name)),
        )
        return (Par(vars, body),) if vars else body

    def _going_on(self, body: tuple[Stmt, ...], row: Var, local: Var) -> tuple[Stmt, ...]:
        """A contraction over the rows of one slab that goes on with what is in the result."""
        contract, store = body
        assert isinstance(contract, Contract) and isinstance(store, Store)
        vars = tuple(local if var is row else var for var in contract.vars)
        start = Load(store.buffer, store.indices) if self.count + bool(self.rest) > 1 else None
        return replace(contract, vars=vars, start=start), store

    def _access(
        self, part: Part, first: Dim, param: Param, indices: tuple[Dim, ...]
    ) -> tuple[Param, tuple[Dim, ...]]:
        buffer = part.buffers.get(param)
        if buffer is None:
            return self._private(part, param), indices
        number = self.places.of.get(buffer)
        if number is None:
            return self._param(buffer, param), indices
        axes = self.slabs.handed[buffer]
        row = indices[axes[-1]] - first
        rest = tuple(index for axis, index in enumerate(indices) if axis not in axes)
        return self._inner[number], (*rest, row) if self.turned.get(number) else (row, *rest)

    def _param(self, buffer: Buffer, param: Param) -> Param:
        """The parameter for a value of the program, under the shape that a part sees."""
        found = self.params.get((buffer, param.shape))
        if found is None:
            mode: Mode = "out" if buffer in self._written else "in"
            count = sum(known is buffer for known, _ in self.params)
            name = f"{buffer.name}_{count}" if count else buffer.name
            found = replace(param, name=name, mode=mode)
            self.params[buffer, param.shape] = found
        return found

    def _named(self, part: Part, name: str) -> str:
        """The name of what a part has for itself."""
        return f"{self.name}_p{self._numbers[part]}{name}"

    def _private(self, part: Part, param: Param) -> Param:
        """The scratch of a part under a name of its own."""
        found = self._own.get((part, param))
        if found is None:
            found = replace(param, name=self._named(part, param.name))
            self._own[part, param] = found
            self.scratch.append(found)
        return found

    def cleared(self, part: Part) -> tuple[Stmt, ...]:
        """Zeroes the result of a part that sums over the rows."""
        contract, store = part.nest.body
        assert isinstance(contract, Contract) and isinstance(store, Store)
        dims = self.slabs.parts[part]
        mapping: dict[Var, Dim] = dict(zip(dims[:-1], self.dims, strict=True))
        vars = tuple(var for var in part.nest.vars if var not in dims[:-1])
        indices = tuple(substitute(index, mapping) for index in store.indices)
        param = self._param(part.buffers[store.buffer], store.buffer)
        zero = Store(param, indices, Const(param.dtype, 0.0 if param.dtype in FLOATS else 0))
        return (Par(vars, (zero,)),) if vars else (zero,)

    def body(self, order: Sequence[Part]) -> tuple[Stmt, ...]:
        """All slabs."""

        def slab(first: Dim, rows: int) -> tuple[Stmt, ...]:
            return tuple(stmt for part in order for stmt in self.part(part, first, rows))

        summing = [part for part in order if self.slabs.sums_rows(part)]
        whole = slab(self.rows * self.slab if self.count > 1 else 0, self.rows)
        if self.rest and not summing:
            self._new_scratch("rest", self.rest)
        rest = slab(self.count * self.rows, self.rest) if self.rest else ()
        if summing and self.count + bool(self.rest) > 1:
            cleared = tuple(stmt for part in summing for stmt in self.cleared(part))
            loop = (For(self.slab, whole),) if self.count > 1 else whole
            return _par(self.dims, (*cleared, *loop, *rest))
        dims = (*self.dims, self.slab) if self.count > 1 else self.dims
        return (*_par(dims, whole), *(_par(self.dims, rest) if rest else ()))


def _par(vars: tuple[Var, ...], body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    return (Par(vars, body),) if vars else body


def _substituted(guard: Guard, mapping: Mapping[Var, Dim]) -> Guard:
    return guard.substitute(mapping)


def joined_kernel(joiner: Joiner, order: Sequence[Part], name: str) -> tuple[Kernel, Nest]:
    """The kernel in the program, and its nest."""
    body = joiner.body(order)
    written = [b for part in order for b in part.node.writes if b not in joiner.slabs.inner]
    read = [pair for pair in joiner.params.items() if pair[0][0] not in written]
    wrote = {buffer: param for (buffer, _), param in joiner.params.items() if param.mode == "out"}
    reads = tuple(buffer for (buffer, _), _ in read)
    params = (*(param for _, param in read), *(wrote[buffer] for buffer in written))
    nodes = tuple(part.node for part in order)
    graph = _graph(nodes, reads, written, name)
    node = Kernel(graph, reads, tuple(written), nodes[0].loc, nodes)
    return node, Nest(name, params, tuple(joiner.scratch), body)


def _graph(
    nodes: Iterable[Kernel], reads: Sequence[Buffer], writes: Sequence[Buffer], name: str
) -> Graph:
    """What the kernels compute together, as one graph."""
    builder = Builder(name)
    known: dict[Buffer, Operand] = {}
    for buffer in reads:
        found = builder.input(buffer.aval, buffer.name)
        known.setdefault(buffer, found)
    for node in nodes:
        graph = prune(node.graph)  # what it does not need is not read
        pairs = zip(graph.inputs, node.reads, strict=True)
        env: dict[Operand, Operand] = {value: known[b] for value, b in pairs if b in known}
        for eqn in graph.eqns:
            builder.copy(eqn, env)
        outputs = (env.get(output, output) for output in graph.outputs)
        known.update(zip(node.writes, outputs, strict=True))
    return builder.build([known[buffer] for buffer in writes])
