"""A transformed function as one object: it compiles itself outside a trace and adds to one within.

What the transform does is a method on the arguments, run in a trace; subclasses are ``vmap``, the
Jacobians and the Hessian. Calls, ``compile`` and ``stages`` are the same for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffc import tree
from diffc.concrete import Valued
from diffc.errors import UsageError
from diffc.gradient import paths_of, refuse_effects
from diffc.ir.graph import Graph
from diffc.jitted import Compiled
from diffc.optimize import optimize
from diffc.pipeline import Compilation
from diffc.trace import Abstract, Traced, active, kinks, line, trace_flat
from diffc.trace.run import name_of

Function = Callable[..., Any]


class Transformed:
    """A function made from another one.

    Attributes:
        inner: the function that is traced; it may be transformed itself.
        origin: the user's function at the bottom.
    """

    #: what the transform is called in messages
    title = "transform"

    def __init__(self, inner: Function) -> None:
        if not callable(inner):
            raise UsageError(f"{self.title} takes a function, found {inner!r}", location=line())
        self.inner = inner
        self.origin: Function = getattr(inner, "origin", inner)
        self.jitted = Valued(self)
        functools.update_wrapper(self, self.origin, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The transformed function's result."""
        if active():
            return self.apply(args, kwargs)
        kinks.refuse_waiting()
        return self.jitted(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Methods: the instance becomes the first argument."""
        return self if instance is None else functools.partial(self, instance)

    def apply(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result on arrays of the current trace."""
        raise NotImplementedError

    def compile(self, *args: Any, **kwargs: Any) -> Compiled:
        """As ``jit(f).compile``."""
        return self.jitted.compile(*args, **kwargs)

    def stages(self, *args: Any, **kwargs: Any) -> Compilation:
        """As ``jit(f).stages``."""
        return self.jitted.stages(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class Inner:
    """A function traced within the current trace.

    Attributes:
        traced: what the trace gave.
        graph: its graph, of the function's own results alone, optimized.
        hidden: the operands that follow the arguments.
    """

    traced: Traced
    graph: Graph
    hidden: tuple[Any, ...]


def trace_inner(
    function: Function,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    leaves: Sequence[Abstract],
) -> Inner:
    """Traces ``function`` on arguments of this structure, with these leaves.

    Values written to arguments are not written back; writes to arrays from outside are refused.
    """
    in_tree = tree.structure((tuple(args), dict(kwargs)))
    origin = getattr(function, "origin", function)

    def run(*given: Any) -> Any:
        positional, named = in_tree.build(given)
        return function(*positional, **named)

    traced = trace_flat(
        run,
        leaves,
        paths_of(origin, args, dict(kwargs)),
        name=name_of(origin),
        origin=origin,
    )
    refuse_effects(traced)
    graph = traced.graph
    own = Graph(graph.name, graph.inputs, graph.eqns, graph.outputs[: traced.num_results])
    hidden = tuple(c.array if c.tracer is None else c.tracer for c in traced.captured)
    return Inner(traced, optimize(own), hidden)
