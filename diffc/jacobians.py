"""Whole derivatives as arrays: Jacobians in both modes, Hessians and products with them.

A Jacobian is a batch of directional derivatives: forward, one for each element of an argument;
backward, one for each element of a result. Either way the function itself is computed once, and all
directions in one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from diffc import linearized, tree
from diffc.arguments import Argnames, Argnums, Argument, Selection, arguments_of
from diffc.concrete import Valued
from diffc.errors import DtypeError, UsageError
from diffc.gradient import Gradient, paths_of, refuse_effects
from diffc.ir.aval import Aval, aval, dtype_name
from diffc.ir.graph import Graph, literal
from diffc.leaves import abstract_leaf, as_leaf, valued_leaf
from diffc.optimize import optimize
from diffc.programs import GraphProgram
from diffc.trace import Abstract, Tracer, active, emit, inline, line, trace_flat
from diffc.trace.run import name_of
from diffc.trace.tracer import wrap
from diffc.transformed import Function, Inner, Transformed, trace_inner
from diffc.transforms import Supports, batch, expand, explain_nonlinear, jvp, transpose, vjp

Mode = Literal["forward", "reverse", "cheaper"]
LAYOUTS = ("numerator", "denominator")


class Jacobian(Transformed):
    """``jacfwd(f)``, ``jacrev(f)`` or ``jacobian(f)``; see :func:`diffc.jacobian`.

    Attributes:
        selection: by which arguments.
        has_aux: whether the function returns ``(value, aux)``.
        mode: "forward", "reverse", or "cheaper": whichever needs fewer passes.
        layout: "numerator": axes of the result first; "denominator": axes of the argument first.
    """

    def __init__(
        self,
        inner: Function,
        argnums: Argnums = None,
        has_aux: bool = False,
        mode: Mode = "cheaper",
        layout: str = "numerator",
        argnames: Argnames = (),
        title: str | None = None,
    ) -> None:
        names = {"forward": "jacfwd", "reverse": "jacrev", "cheaper": "jacobian"}
        self.title = title or names[mode]
        super().__init__(inner)
        if layout not in LAYOUTS:
            raise UsageError(
                f"layout is {layout!r}; needs one of {', '.join(LAYOUTS)}", location=line()
            )
        self.selection = Selection(self.title, argnums, argnames)
        self.has_aux = has_aux
        self.mode: Mode = mode
        self.layout = layout

    def apply(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The Jacobian: for each leaf of the value, a tree like the arguments."""
        use = self._use(args, kwargs)
        blocks = self._forward(use) if self._choice(use)[0] == "forward" else self._reverse(use)
        rows = []
        for row in blocks:
            parts = [a.structure.build(row[k] for k in a.leaves) for a in use.arguments]
            rows.append(self.selection.packed(parts))
        out_tree = use.inner.traced.out_tree
        if not self.has_aux:
            return out_tree.build(rows)
        values, aux = out_tree.children
        rest = inline(use.inner.graph, [*use.leaves, *use.inner.hidden])[values.num_leaves :]
        return values.build(rows), aux.build(rest)

    def explain(self, *args: Any, **kwargs: Any) -> str:
        """Which mode these arguments take, and why."""
        use = self._use(args, kwargs)
        mode, why = self._choice(use)
        return f"{self.title} of {name_of(self.origin)}: {mode} mode, {why}"

    # --- what is differentiated by what -------------------------------------------------------

    def _use(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Use:
        found, _ = tree.flatten((args, dict(kwargs)))
        leaves = [as_leaf(leaf) for leaf in found]
        arguments = self.selection.among(arguments_of(self.origin, args, kwargs))
        for argument in arguments:
            paths = argument.structure.paths(argument.label)
            for k, path in zip(argument.leaves, paths, strict=True):
                self._need_float(abstract_leaf(leaves[k]).aval, path, "by")
        chosen = sorted({k for argument in arguments for k in argument.leaves})
        inner = trace_inner(self.inner, args, kwargs, [valued_leaf(leaf) for leaf in leaves])
        count = self._count_values(inner)
        values = inner.graph.output_avals[:count]
        paths = inner.traced.out_tree.paths("result")
        for value, path in zip(values, paths[:count], strict=True):
            self._need_float(value, path, "of")
        return _Use(leaves, inner, arguments, tuple(chosen), values)

    def _need_float(self, found: Aval, path: str, word: str) -> None:
        if not found.is_float:
            raise DtypeError(
                f"{self.title} {word} {path} is asked for, which is {found}; "
                "only floats have derivatives",
                location=line(),
                hint="pass floats (x.astype(float)), or leave it out",
            )

    def _count_values(self, inner: Inner) -> int:
        """How many outputs are differentiated: all, or those of the first of a pair."""
        out_tree = inner.traced.out_tree
        if not self.has_aux:
            return out_tree.num_leaves
        if out_tree.kind is None or len(out_tree.children) != 2:
            raise UsageError(
                "with has_aux the function returns a pair (value, aux)", location=line()
            )
        return out_tree.children[0].num_leaves

    def _choice(self, use: _Use) -> tuple[str, str]:
        inputs = sum(_size(use.inner.graph.inputs[k].aval) for k in use.chosen)
        outputs = sum(map(_size, use.values))
        counts = f"{inputs} elements of arguments, {outputs} of results"
        if self.mode != "cheaper":
            return self.mode, f"as asked ({counts})"
        if inputs <= outputs:
            return "forward", f"one direction for each element of the arguments ({counts})"
        return "reverse", f"one direction for each element of the results ({counts})"

    # --- both modes ---------------------------------------------------------------------------

    def _forward(self, use: _Use) -> list[dict[int, Tracer]]:
        """Columns: for each leaf of the arguments, all its directions in one pass."""
        graph = use.inner.graph
        rows: list[dict[int, Tracer]] = [{} for _ in use.values]
        for k in use.chosen:
            source = graph.inputs[k].aval
            mask = tuple(i == k for i in range(len(graph.inputs)))
            made = jvp(graph, mask, None, Supports(mask, (False,) * len(graph.outputs)))
            dots = _passes(made.graph, use, source)[len(graph.outputs) :]
            found = iter(dots)
            for row, value, is_on in zip(rows, use.values, made.active_outputs, strict=False):
                if is_on:
                    row[k] = self._block(next(found), value, source, is_column=True)
                else:
                    row[k] = self._zeros(value, source)
        return rows

    def _reverse(self, use: _Use) -> list[dict[int, Tracer]]:
        """Rows: for each leaf of the results, all its directions in one pass."""
        graph = use.inner.graph
        mask = [i in use.chosen for i in range(len(graph.inputs))]
        rows: list[dict[int, Tracer]] = []
        for n, value in enumerate(use.values):
            here = [i == n for i in range(len(graph.outputs))]
            made = vjp(graph, mask, here, with_supports=True)
            sources = {k: graph.inputs[k].aval for k in sorted(use.chosen)}
            if not made.active_outputs[n]:
                rows.append({k: self._zeros(value, source) for k, source in sources.items()})
                continue
            cts = _passes(made.graph, use, value)[len(graph.outputs) :]
            rows.append(
                {
                    k: self._block(ct, value, source, is_column=False)
                    for (k, source), ct in zip(sources.items(), cts, strict=True)
                }
            )
        return rows

    def _shape(self, value: Aval, source: Aval) -> tuple[Any, ...]:
        if self.layout == "numerator":
            return value.shape + source.shape
        return source.shape + value.shape

    def _zeros(self, value: Aval, source: Aval) -> Tracer:
        return wrap(literal(0, value.with_shape(self._shape(value, source))))

    def _block(self, found: Tracer, value: Aval, source: Aval, is_column: bool) -> Tracer:
        """One block from its directions, which come first; brought into the layout."""
        has_axis = _size(source if is_column else value) != 1
        if has_axis and is_column == (self.layout == "numerator"):
            ndim = found.aval.ndim
            (found,) = emit("transpose", found, perm=(*range(1, ndim), 0))
        (block,) = emit("reshape", found, shape=self._shape(value, source))
        return block


@dataclass(frozen=True, slots=True)
class _Use:
    """A function traced for a Jacobian: what is chosen of its inputs, and its values' avals."""

    leaves: Sequence[Any]
    inner: Inner
    arguments: Sequence[Argument]
    chosen: tuple[int, ...]
    values: tuple[Aval, ...]


def _size(a: Aval) -> int:
    size = a.size
    assert isinstance(size, int), "traces have integer dimensions"
    return size


def _passes(graph: Graph, use: _Use, seeded: Aval) -> list[Tracer]:
    """A derivative's outputs for every unit direction, directions first.

    The directions are its last input but one, their supports the last, so that an element that
    does not move contributes nothing, also where its partial derivative is infinite. A single
    direction has no axis.
    """
    count = _size(seeded)
    operands = [*use.leaves, *use.inner.hidden]
    if count == 1:
        everywhere = literal(True, seeded.with_dtype("bool"))
        return inline(graph, [*operands, wrap(literal(1, seeded)), wrap(everywhere)])
    mask = [i >= len(operands) for i in range(len(graph.inputs))]
    first = len(use.inner.graph.outputs)
    wanted = [i >= first for i in range(len(graph.outputs))]
    made = batch(graph, mask, count, wanted)
    return inline(made.graph, [*operands, *_units(seeded, count)])


def _units(of: Aval, count: int) -> tuple[Tracer, Tracer]:
    """All arrays of an aval with one 1 and zeros elsewhere, stacked; and where the ones are."""
    (rows,) = emit("iota", axis=0, dtype="i64", shape=(count, count))
    (columns,) = emit("iota", axis=1, dtype="i64", shape=(count, count))
    (diagonal,) = emit("eq", rows, columns)
    (units,) = emit("convert", diagonal, dtype=of.dtype)
    (shaped,) = emit("reshape", units, shape=(count, *of.shape))
    (support,) = emit("reshape", diagonal, shape=(count, *of.shape))
    return shaped, support


def hessian(
    function: Function, argnums: Argnums = None, has_aux: bool = False, argnames: Argnames = ()
) -> Jacobian:
    """See :func:`diffc.hessian`."""
    inner = Jacobian(function, argnums, has_aux, "reverse", argnames=argnames, title="hessian")
    return Jacobian(inner, argnums, has_aux, "forward", argnames=argnames, title="hessian")


# --- products ---------------------------------------------------------------------------------


class _Hvp:
    """``(primals, tangents) -> Hessian times tangents``, to be traced."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.origin: Function = getattr(function, "origin", function)

    def __call__(self, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        gradient = Gradient(self.function, tuple(range(len(primals))), False, with_value=False)
        _, product = linearized.jvp(gradient, primals, tangents)
        return product[0] if len(product) == 1 else product


_HVPS: WeakKeyDictionary[Any, Valued] = WeakKeyDictionary()


def hvp(function: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """See :func:`diffc.hvp`."""
    if active():
        return _Hvp(function)(primals, tangents)
    try:
        jitted = _HVPS.setdefault(function, Valued(_Hvp(function)))
    except TypeError:  # no weak references to it
        jitted = Valued(_Hvp(function))
    return jitted(primals, tangents)


def linear_transpose(function: Function, *avals: Any) -> Function:
    """See :func:`diffc.linear_transpose`."""
    leaves, in_tree = tree.flatten(avals)
    origin = getattr(function, "origin", function)
    abstracts = [_abstract(leaf) for leaf in leaves]
    traced = trace_flat(
        lambda *given: function(*in_tree.build(given)),
        abstracts,
        paths_of(origin, avals, {}),
        name=name_of(origin),
        origin=origin,
    )
    refuse_effects(traced)
    for path, leaf in zip(in_tree.paths("args"), abstracts, strict=True):
        if not leaf.aval.is_float:
            raise DtypeError(f"{path} is {leaf.aval}; only floats have cotangents", location=line())
    whole = traced.graph
    own = Graph(whole.name, whole.inputs, whole.eqns, whole.outputs[: traced.num_results])
    graph = optimize(expand(own))
    mask = [True] * len(leaves) + [False] * len(traced.captured)
    problem = explain_nonlinear(graph, mask)
    if problem is not None:
        raise UsageError(
            f"linear_transpose needs a linear function; {name_of(origin)} is not: {problem}",
            location=line(),
            hint="for a function that is not linear use diffc.vjp at a point",
        )
    turned = optimize(transpose(graph, mask))
    programs: list[GraphProgram] = []

    def transposed(ct: Any) -> Any:
        cts, ct_tree = tree.flatten(ct)
        if ct_tree is not traced.out_tree:
            problem = tree.explain_mismatch(traced.out_tree, ct_tree, "ct")
            raise UsageError(f"the cotangent differs from the result: {problem}", location=line())
        given = [
            linearized.like(c, output.aval) for c, output in zip(cts, graph.outputs, strict=True)
        ]
        if active():
            hidden = [c.array if c.tracer is None else c.tracer for c in traced.captured]
            return in_tree.build(inline(turned, [*hidden, *given]))
        if not programs:
            programs.append(GraphProgram(turned, f"{graph.name}_transpose"))
        return in_tree.build(programs[0]([*(c.current() for c in traced.captured), *given]))

    return transposed


def _abstract(leaf: Any) -> Abstract:
    """What is known of an argument: an array, a number, or anything with a shape and a dtype."""
    if isinstance(leaf, Abstract):
        return leaf
    if not isinstance(leaf, (np.ndarray, Tracer)) and hasattr(leaf, "shape"):
        return Abstract(aval(dtype_name(leaf.dtype), tuple(leaf.shape)))
    return abstract_leaf(as_leaf(leaf))
