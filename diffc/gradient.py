"""``value_and_grad`` and ``grad`` of a function, as one object that jits itself and nests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from diffc import tree
from diffc.arguments import Argnames, Argnums, Argument, Selection, arguments_of
from diffc.concrete import Valued
from diffc.diagnose import warn_of_detached, warn_of_zeros
from diffc.errors import DtypeError, ShapeError, TraceError, UsageError
from diffc.ir.graph import Builder, Graph, literal
from diffc.jitted import Compiled, Derivation
from diffc.leaves import abstract_leaf, as_leaf, identifier, valued_leaf
from diffc.optimize import compact
from diffc.pipeline import Compilation
from diffc.trace import Traced, active, inline, kinks, line, trace_flat
from diffc.trace.run import name_of
from diffc.transforms import vjp

Function = Callable[..., Any]


class Gradient:
    """``value_and_grad(f)`` or ``grad(f)``: compiles itself outside a trace, else adds to it.

    Attributes:
        inner: the function that is traced; it may be a gradient itself.
        origin: the user's function at the bottom.
        selection: by which arguments.
        has_aux: whether the function returns ``(value, aux)``.
        with_value: whether the value is returned too.
    """

    def __init__(
        self,
        inner: Any,
        argnums: Argnums,
        has_aux: bool,
        with_value: bool,
        argnames: Argnames = (),
    ) -> None:
        name = "value_and_grad" if with_value else "grad"
        if not callable(inner):
            raise UsageError(f"{name} takes a function, found {inner!r}", location=line())
        self.inner = inner
        self.origin: Function = getattr(inner, "origin", inner)
        self.selection = Selection(name, argnums, argnames)
        self.has_aux = has_aux
        self.with_value = with_value
        self.jitted = Valued(self)
        functools.update_wrapper(self, self.origin, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The gradient (and value) at these arguments."""
        if not active():
            kinks.refuse_waiting()
            return self.jitted(*args, **kwargs)
        leaves, in_tree = tree.flatten((args, kwargs))
        leaves = [as_leaf(leaf) for leaf in leaves]

        def run(*given: Any) -> Any:
            positional, named = in_tree.build(given)
            return self.inner(*positional, **named)

        abstracts = [abstract_leaf(leaf) for leaf in leaves]
        traced = trace_flat(
            run,
            [valued_leaf(leaf) for leaf in leaves],
            paths_of(self.origin, args, kwargs),
            name=name_of(self.origin),
            origin=self.origin,
        )
        positional, named = in_tree.build(abstracts)
        derivation = self.derivation(traced, positional, named)
        hidden = [c.array if c.tracer is None else c.tracer for c in traced.captured]
        graph = derivation.graph(compact(traced.graph))
        return derivation.out_tree.build(inline(graph, [*leaves, *hidden]))

    def compile(self, *args: Any, **kwargs: Any) -> Compiled:
        """As ``jit(f).compile``."""
        return self.jitted.compile(*args, **kwargs)

    def stages(self, *args: Any, **kwargs: Any) -> Compilation:
        """As ``jit(f).stages``."""
        return self.jitted.stages(*args, **kwargs)

    def derivation(self, traced: Traced, args: Sequence[Any], kwargs: dict[str, Any]) -> Derivation:
        """The gradient's graph: checks that inputs are floats and the output is one scalar."""
        refuse_effects(traced)
        arguments = arguments_of(self.origin, args, kwargs)
        chosen = self.selection.among(arguments)
        mask = _active(arguments, chosen)
        self._check_output(traced)
        warn_of_detached(traced, mask)
        count = traced.num_results

        def graph(optimized: Graph) -> Graph:
            plain = Graph(
                optimized.name, optimized.inputs, optimized.eqns, optimized.outputs[:count]
            )
            active_inputs = [*mask, *(False for _ in traced.captured)]
            made = vjp(plain, active_inputs, [i == 0 for i in range(count)])
            builder = Builder(f"{optimized.name}_grad")
            inputs = [builder.input(value.aval, value.name) for value in plain.inputs]
            seeds = [literal(1, plain.outputs[0].aval)] if made.active_outputs[0] else []
            outputs = builder.inline(made.graph, [*inputs, *seeds])
            values, gradients = outputs[:count], outputs[count:]
            positions = [i for i, is_on in enumerate(mask) if is_on]
            by_leaf = dict(zip(positions, gradients, strict=True))
            warn_of_zeros(plain, by_leaf)
            ordered = [by_leaf[k] for argument in chosen for k in argument.leaves]
            if self.with_value:
                return builder.build([*values, *ordered])
            return builder.build([*ordered, *values[1:]])  # the value is left out, aux is last

        return Derivation(graph, self._out_tree(traced, chosen))

    def _check_output(self, traced: Traced) -> None:
        value_tree = traced.out_tree
        if self.has_aux:
            if value_tree.num_leaves == 0 or len(value_tree.children) != 2:
                raise UsageError(
                    "with has_aux the function returns a pair (value, aux)", location=line()
                )
            value_tree = value_tree.children[0]
        if value_tree.num_leaves != 1:
            raise ShapeError(
                f"grad needs a function of one scalar; {name_of(self.origin)} returns "
                f"{value_tree.num_leaves} arrays",
                location=line(),
                hint="return one scalar, or (value, aux) with has_aux=True",
            )
        out = traced.graph.outputs[0].aval
        if out.shape != () or not out.is_float:
            raise ShapeError(
                f"grad needs a function of one float scalar; {name_of(self.origin)} returns {out}",
                location=line(),
                hint="reduce it with np.sum or np.mean, or use diffc.vjp",
            )

    def _out_tree(self, traced: Traced, chosen: Sequence[Argument]) -> tree.TreeDef:
        gradient = self.selection.packed([argument.value for argument in chosen])
        value, aux = 0, 0
        if self.has_aux:
            value, aux = traced.out_tree.build(range(traced.num_results))
        marks = {
            (True, False): (value, gradient),
            (True, True): ((value, aux), gradient),
            (False, False): gradient,
            (False, True): (gradient, aux),
        }[self.with_value, self.has_aux]
        return tree.structure(marks)


def _active(arguments: Sequence[Argument], chosen: Sequence[Argument]) -> list[bool]:
    """Which leaves the gradient is by.

    Raises:
        DtypeError: one of them is no float.
    """
    mask = [False] * sum(len(argument.leaves) for argument in arguments)
    for argument in chosen:
        found, _ = tree.flatten_with_paths(argument.value, argument.label)
        for k, (path, leaf) in zip(argument.leaves, found, strict=True):
            if not leaf.aval.is_float:
                raise DtypeError(
                    f"a gradient by {path} is asked for, which is {leaf.aval}; "
                    "only floats have gradients",
                    location=line(),
                    hint="pass floats (2.0, x.astype(float)), or leave it out of argnums",
                )
            mask[k] = True
    return mask


def refuse_effects(traced: Traced) -> None:
    """Raises if the function writes to arrays from outside, which a derivative can't."""
    if traced.effects:
        raise TraceError(
            "a function under a derivative writes to an array from outside",
            location=line(),
            hint="return the new array instead",
        )


def paths_of(origin: Function, args: Sequence[Any], kwargs: dict[str, Any]) -> list[str]:
    """Names of the leaves of arguments, for the inputs of a graph."""
    return [
        identifier(path)
        for argument in arguments_of(origin, args, kwargs)
        for path in argument.structure.paths(argument.label)
    ]
