"""``jit``: functions that compile themselves for the shapes and dtypes they are called with.

A :class:`Jitted` keeps one :class:`Compiled` for each signature: structure of the arguments, dtypes
and shapes, which are Python scalars, and values of static arguments. The common call goes from
CPython straight into an emitted entry, which checks the signature natively; everything else comes
through :meth:`Jitted.call`. Within a trace, a jitted function becomes a ``call`` of its graph.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffc import tree
from diffc.arguments import Static, arguments_of, places
from diffc.codegen.allocate import Memory
from diffc.errors import UsageError
from diffc.ir.graph import Graph
from diffc.ir.note import Note
from diffc.leaves import (
    Leaf,
    abstract_leaf,
    as_leaf,
    as_leaves,
    identifier,
    signature_of,
    valued_leaf,
)
from diffc.pipeline import PAUSE, Compilation, Stage, Transform, compile_graph
from diffc.plan.donate import match_donations
from diffc.programs import KINDS, make_executable
from diffc.runtime import pool
from diffc.runtime.entry import native_entry
from diffc.runtime.executable import Executable
from diffc.trace import (
    Abstract,
    Captured,
    Traced,
    Tracer,
    active,
    current,
    emit,
    kinks,
    line,
    trace_flat,
)
from diffc.trace.loops import checked_store, default_store, storing
from diffc.trace.run import name_of, parameter_names
from diffc.trace.tracer import read, write

__all__ = ["Bound", "Compiled", "Derivation", "Jitted"]

#: so many signatures of one function are told apart natively
ENTRIES = 256

Signature = tuple[Any, ...]


class Derivation:
    """What a transform does to a traced function when it is compiled: graph, and result structure.

    Attributes:
        graph: from the (optimized) traced graph to the transformed one, with the same inputs.
        out_tree: structure of the transformed function's result.
    """

    __slots__ = ("graph", "out_tree")

    def __init__(self, graph: Transform, out_tree: tree.TreeDef) -> None:
        self.graph = graph
        self.out_tree = out_tree


class Compiled:
    """A function compiled for one signature. Call it with arguments of just that signature.

    Example:
        >>> import numpy as np, diffc
        >>> compiled = diffc.jit(lambda x: np.sum(x * x)).compile(np.ones(3))
        >>> float(compiled(np.arange(3.0)))
        5.0
        >>> compiled.memory().peak
        0
    """

    def __init__(
        self,
        compilation: Compilation,
        executable: Executable,
        out_tree: tree.TreeDef,
        captured: tuple[Captured, ...],
        in_tree: tree.TreeDef,
        signature: Signature,
    ) -> None:
        self.compilation = compilation
        self.executable = executable
        self.out_tree = out_tree
        self.captured = captured
        self.in_tree = in_tree
        self.signature = signature
        self._moving = tuple(c for c in captured if c.place is not None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program.

        Raises:
            UsageError: the arguments have another structure, dtype or shape.
        """
        leaves, in_tree = tree.flatten((args, kwargs))
        leaves = [as_leaf(leaf) for leaf in leaves]
        if in_tree is not self.in_tree:
            problem = tree.explain_mismatch(self.in_tree, in_tree, "args")
            raise UsageError(f"compiled for other arguments: {problem}", location=line())
        if tuple(map(signature_of, leaves)) != self.signature:
            found = ", ".join(str(abstract_leaf(leaf).aval) for leaf in leaves)
            wanted = ", ".join(str(a) for a in self.compilation.stage("trace").value.input_avals)
            raise UsageError(
                f"compiled for {wanted}, called with {found}",
                location=line(),
                hint="call the jitted function itself, which compiles for each signature",
            )
        return self.run(leaves)

    def run(self, leaves: Sequence[Leaf]) -> Any:
        """The result for flat arguments."""
        outputs = self.executable.run(leaves)
        return self.out_tree.build(outputs[: self.out_tree.num_leaves])

    def stage(self, name: str) -> Stage:
        """What a stage made: its ``value`` and ``text``.

        Raises:
            UsageError: no stage has this name.
        """
        return self.compilation.stage(name)

    def memory(self) -> Memory:
        """The memory plan; ``peak``: bytes that a run takes beside arguments and results."""
        return self.compilation.memory

    def timings(self) -> dict[str, float]:
        """Seconds that each stage took."""
        return self.compilation.timings()

    @property
    def notes(self) -> tuple[Note, ...]:
        """What there is to say of the code: each a ``message`` and the user's ``location``.

        A choice between branches of which a batch computes all, a loop in which its elements wait
        for each other.
        """
        return self.compilation.notes

    @property
    def has_moving_captures(self) -> bool:
        """Whether globals or closure cells must be looked up at each call."""
        return bool(self._moving)

    def rebound(self) -> bool | None:
        """Whether captured names hold other arrays now; None if these need a new trace."""
        changed = False
        for captured in self._moving:
            current = captured.current()
            if current is None:
                return None
            changed |= current is not captured.array
        return changed


class Jitted:
    """A function that compiles itself; made by :func:`jit`.

    Attributes:
        function: what is compiled.
        origin: the user's function, whose names are rebound while it is traced.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Jitted:
        """Each jitted function gets a class of its own, on which the native entry is installed."""
        own = type(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__})
        return object.__new__(own)

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        static_argnums: int | Sequence[int] = (),
        static_argnames: str | Sequence[str] = (),
        donate_argnums: int | Sequence[int] = (),
        donate_argnames: str | Sequence[str] = (),
        threads: int | None = None,
        store: str | None = None,
    ) -> None:
        if not callable(function):
            raise UsageError(f"jit takes a function, found {function!r}", location=line())
        self.function = function
        self.origin: Callable[..., Any] = getattr(function, "origin", function)
        statics = places(self.origin, static_argnums, static_argnames)
        donated = places(self.origin, donate_argnums, donate_argnames)
        self.static_argnums, self.static_argnames = statics
        self.donate_argnums, self.donate_argnames = donated
        if self.static_argnums & self.donate_argnums or self.static_argnames & self.donate_argnames:
            raise UsageError("an argument can't be static and donated", location=line())
        self.threads = 0 if threads is None else pool.checked(threads)
        self.store = None if store is None else checked_store(store, "jit")
        self._compiled: dict[Any, Compiled] = {}
        self._entries = 0
        self._traced: dict[Any, Traced] = {}
        functools.update_wrapper(self, self.origin, updated=())

    def __repr__(self) -> str:
        return f"<jitted {name_of(self.origin)}: {len(self._compiled)} signatures>"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Methods: the instance becomes the first argument."""
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program for these arguments, compiled first if need be."""
        return self.call(*args, **kwargs)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The call from Python: finds or compiles the program for these arguments and runs it."""
        if active():
            return self._call_in_trace(args, kwargs)
        bound = self._bind(args, kwargs)
        compiled = self._compiled.get(bound.key)
        if compiled is not None and compiled.has_moving_captures:
            compiled = self._refreshed(compiled, bound)
        if compiled is None:
            compiled = self._compile(bound)
            self._compiled[bound.key] = compiled
            self._install(compiled, bound)
        return compiled.run(bound.leaves)

    def compile(self, *args: Any, **kwargs: Any) -> Compiled:
        """Compiles for these arguments (arrays, numbers, or ``Abstract`` leaves) without a run."""
        bound = self._bind(args, kwargs)
        compiled = self._compiled.get(bound.key)
        if compiled is None:
            compiled = self._compiled[bound.key] = self._compile(bound)
            self._install(compiled, bound)
        return compiled

    def stages(
        self, *args: Any, until: str = "asm", rules: Sequence[str] | None = None, **kwargs: Any
    ) -> Compilation:
        """Runs the stages up to ``until`` anew, with the given rewrite rules only."""
        bound = self._bind(args, kwargs)
        with PAUSE:
            traced, derivation, seconds = self._trace(bound)
            return self._compilation(traced, derivation, seconds, bound, until=until, rules=rules)

    # --- arguments ----------------------------------------------------------------------------

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Bound:
        dynamic = tuple(x for i, x in enumerate(args) if i not in self.static_argnums)
        named = {k: v for k, v in kwargs.items() if k not in self.static_argnames}
        statics = tuple((i, x) for i, x in enumerate(args) if i in self.static_argnums)
        static_names = tuple(sorted((k, v) for k, v in kwargs.items() if k in self.static_argnames))
        leaves, in_tree = tree.flatten((dynamic, named))
        leaves = as_leaves(leaves, lambda: self.leaf_paths(args, kwargs))
        signature = tuple(map(signature_of, leaves))
        if any(isinstance(leaf, Abstract) for leaf in leaves):
            signature = tuple(
                (leaf.aval.numpy, leaf.aval.shape) if isinstance(leaf, Abstract) else s
                for leaf, s in zip(leaves, signature, strict=True)
            )
        typed = _typed(tuple(x for _, x in (*statics, *static_names)))
        key = (in_tree, signature, statics, static_names, typed)
        try:
            hash(key)
        except TypeError as error:
            raise UsageError(
                f"a static argument can't be hashed: {error}",
                location=line(),
                hint="static arguments are compared between calls; pass tuples, not lists",
            ) from None
        return Bound(args, dict(kwargs), leaves, in_tree, signature, key, self)

    def leaf_paths(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
        """What the user calls the leaves of the arguments: ``params['w1']``."""
        found: list[str] = []
        labels = parameter_names(self.origin, len(args))
        for i, (label, arg) in enumerate(zip(labels, args, strict=True)):
            if i not in self.static_argnums:
                found += tree.structure(arg).paths(label)
        for name in sorted(k for k in kwargs if k not in self.static_argnames):
            found += tree.structure(kwargs[name]).paths(name)
        return found

    # --- compiling ----------------------------------------------------------------------------

    def _trace(
        self, bound: Bound, concrete: bool = False
    ) -> tuple[Traced, Derivation | None, float]:
        start = time.perf_counter()
        function = self.function
        derive = getattr(function, "derivation", None)
        inner = getattr(function, "inner", function) if derive is not None else function

        def run(*leaves: Any) -> Any:
            args, kwargs = bound.rebuilt(leaves)
            return inner(*args, **kwargs)

        paths = self.leaf_paths(bound.args, bound.kwargs)
        abstracts = [
            leaf if isinstance(leaf, Abstract) else abstract_leaf(leaf, path)
            for leaf, path in zip(bound.leaves, paths, strict=True)
        ]
        with storing(self.store):
            traced = trace_flat(
                run,
                [valued_leaf(leaf) for leaf in bound.leaves] if concrete else abstracts,
                bound.paths(),
                name=name_of(self.origin),
                origin=self.origin,
                concrete=concrete,
            )
        derivation = None
        if derive is not None:
            derivation = derive(traced, *bound.rebuilt(abstracts, Static))
        return traced, derivation, time.perf_counter() - start

    def _compilation(
        self,
        traced: Traced,
        derivation: Derivation | None,
        seconds: float,
        bound: Bound,
        until: str = "asm",
        rules: Sequence[str] | None = None,
    ) -> Compilation:
        donated = self._donated_leaves(bound)
        written = () if derivation else traced.written
        count = derivation.out_tree.num_leaves if derivation else traced.num_results

        def pairs(graph: Graph) -> dict[int, int]:
            found = match_donations(graph, donated, count)
            return found | {count + i: given for i, given in enumerate(written)}

        return compile_graph(
            traced.graph,
            name=name_of(self.origin),
            transform=derivation.graph if derivation else None,
            donated=pairs if donated or written else None,
            trace_seconds=seconds,
            until=until,
            rules=None if rules is None else tuple(rules),
            notes=traced.notes,
        )

    def _compile(self, bound: Bound) -> Compiled:
        with PAUSE:
            traced, derivation, seconds = self._trace(bound)
            compilation = self._compilation(traced, derivation, seconds, bound)
            out_tree = derivation.out_tree if derivation else traced.out_tree
            executable = make_executable(
                compilation, traced.captured, bound.leaves, out_tree.num_leaves, self.threads
            )
        return Compiled(
            compilation, executable, out_tree, traced.captured, bound.in_tree, bound.signature
        )

    def _donated_leaves(self, bound: Bound) -> frozenset[int]:
        """The arrays whose memory is given; Python numbers have none to give."""
        places = self.donate_argnums | self.donate_argnames
        return frozenset(
            k
            for argument in arguments_of(self.origin, *bound.rebuilt(bound.leaves, Static))
            if argument.place in places
            for k in argument.leaves
            if not _is_number(bound.leaves[k])
        )

    def _refreshed(self, compiled: Compiled, bound: Bound) -> Compiled | None:
        """The compiled function with what captured names hold today; None: trace anew."""
        changed = compiled.rebound()
        if changed is None:
            return None
        if not changed:
            return compiled
        captured = tuple(
            Captured(c.aval, c.current(), c.tracer, c.place) for c in compiled.captured
        )
        count = compiled.out_tree.num_leaves
        executable = make_executable(
            compiled.compilation, captured, bound.leaves, count, self.threads
        )
        fresh = Compiled(
            compiled.compilation,
            executable,
            compiled.out_tree,
            captured,
            compiled.in_tree,
            compiled.signature,
        )
        self._compiled[bound.key] = fresh
        return fresh

    def _install(self, compiled: Compiled, bound: Bound) -> None:
        """Puts the native entry in front, where calls can be checked natively."""
        args, kwargs = bound.in_tree.children
        is_plain = bound.in_tree.is_plain and compiled.out_tree.is_plain
        if bound.has_statics or kwargs.num_leaves or not is_plain or compiled.has_moving_captures:
            return
        if kwargs.children or not bound.leaves:
            return
        # each entry hands what it does not know to the one before, the first to the Python call
        is_chained = 0 < self._entries < ENTRIES
        before: Any = type(self).__call__ if is_chained else self.call
        entry = native_entry(compiled.executable, args.spec(), compiled.out_tree.spec(), before)
        if entry is not before:
            self._entries = self._entries + 1 if is_chained else 1
            type(self).__call__ = entry  # type: ignore[method-assign]  # a builtin, not bound

    # --- in a trace ---------------------------------------------------------------------------

    def _call_in_trace(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if hasattr(self.function, "derivation"):
            with storing(self.store):
                return self.function(*args, **kwargs)
        bound = self._bind(args, kwargs)
        signature = tuple(
            (leaf.aval, leaf.weak) if type(leaf) is Tracer else s
            for leaf, s in zip(bound.leaves, bound.signature, strict=True)
        )
        store = self.store or default_store()
        key = (bound.in_tree, signature, bound.key[2:], kinks.current(), store)
        traced = self._traced.get(key)
        if traced is None:

            def run(*leaves: Any) -> Any:
                positional, named = bound.rebuilt(leaves)
                return self.function(*positional, **named)

            with storing(store):
                traced = trace_flat(
                    run,
                    [abstract_leaf(leaf) for leaf in bound.leaves],
                    bound.paths(),
                    name=name_of(self.origin),
                    origin=self.origin,
                )
            if not traced.captured and not traced.effects:
                self._traced[key] = traced
        current().note(traced.notes)
        hidden = [c.array if c.tracer is None else c.tracer for c in traced.captured]
        results = emit("call", *bound.leaves, *hidden, regions=(traced.graph,))
        for i, value in zip(traced.written, results[traced.num_results :], strict=False):
            write(bound.leaves[i], read(value))
        traced.apply_effects(results)
        return traced.out_tree.build(results[: traced.num_results])


def _typed(static: Any) -> Any:
    """What tells static values apart that are equal: ``1``, ``1.0`` and ``True``; zeros by sign."""
    if isinstance(static, tuple):
        return tuple(map(_typed, static))
    return (float, static.hex()) if type(static) is float else type(static)


class Bound:
    """Arguments of one call, split and flattened."""

    __slots__ = ("args", "in_tree", "key", "kwargs", "leaves", "owner", "signature")

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        leaves: list[Leaf],
        in_tree: tree.TreeDef,
        signature: Signature,
        key: Any,
        owner: Jitted,
    ) -> None:
        self.args = args
        self.kwargs = kwargs
        self.leaves = leaves
        self.in_tree = in_tree
        self.signature = signature
        self.key = key
        self.owner = owner

    @property
    def has_statics(self) -> bool:
        """Whether any argument is static."""
        return bool(self.key[2] or self.key[3])

    def rebuilt(
        self, leaves: Sequence[Any], static: Callable[[Any], Any] = lambda value: value
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with other leaves, and statics put back in place, as ``static`` of them."""
        dynamic, named = self.in_tree.build(leaves)
        statics = dict(self.key[2])
        rest = iter(dynamic)
        args = [static(statics[i]) if i in statics else next(rest) for i in range(len(self.args))]
        return args, {**named, **{name: static(value) for name, value in self.key[3]}}

    def paths(self) -> list[str]:
        """Names of the leaves, for the inputs of the graph: ``params_w1``."""
        return [identifier(path) for path in self.owner.leaf_paths(self.args, self.kwargs)]


def _is_number(leaf: Leaf) -> bool:
    """Whether a leaf is a Python number, or stands for one."""
    return leaf.scalar if isinstance(leaf, Abstract) else type(leaf) in KINDS
