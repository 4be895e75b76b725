"""Both branches of an ``if`` traced into the regions of one ``cond``.

Branches read the arrays around them as hidden operands. Results are the variables that may be read
later, and the arrays around that a branch wrote in place: these are written after the ``cond``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from diffc import tree
from diffc.convert.site import Site, Undefined
from diffc.convert.state import (
    Hidden,
    State,
    build,
    cast,
    common,
    inlined,
    is_dynamic,
    is_returned,
    label,
    mismatch,
    share,
    spell,
    wrapped,
)
from diffc.ir.aval import Aval
from diffc.ir.graph import Builder, Graph, Operand, literal
from diffc.trace import Traced, Tracer, emit, trace_flat
from diffc.trace.tracer import read, write

_PATHS = ("where the condition is true", "where it is false")


class Branch(NamedTuple):
    """One traced branch.

    Attributes:
        traced: its trace; the outputs are the dynamic leaves of the live variables, in order.
        values: the variables as it leaves them.
    """

    traced: Traced
    values: list[Any]


class Pick(NamedTuple):
    """One result: which output of each branch (None: zeros), and as what."""

    outputs: tuple[int | None, int | None]
    aval: Aval
    weak: bool
    is_scalar: bool
    leaves: tuple[Any, Any]


def staged_if(
    pred: Tracer, then: Callable[[], None], other: Callable[[], None], state: State
) -> None:
    """An ``if`` on a traced truth value: sets the variables to the chosen values."""
    state.check()
    before = state.read()

    def run(part: Callable[[], None]) -> list[Any]:
        state.put(tuple(before))
        part()
        return state.read()

    site = state.site
    try:
        values = _staged(
            pred, lambda: run(then), lambda: run(other), site.names, site.live, before, site
        )
    except BaseException:
        state.put(tuple(before))
        raise
    state.put(tuple(values))


def staged_cond(pred: Tracer, then: Callable[[], Any], other: Callable[[], Any], site: Site) -> Any:
    """An expression chosen by a traced truth value."""
    names = ("the expression",)
    (value,) = _staged(
        pred, lambda: [then()], lambda: [other()], names, (True,), [Undefined("")], site
    )
    return value


def _staged(
    pred: Tracer,
    then: Callable[[], list[Any]],
    other: Callable[[], list[Any]],
    names: Sequence[str],
    live: Sequence[bool],
    before: list[Any],
    site: Site,
) -> list[Any]:
    branches = (_traced(then, live, "then"), _traced(other, live, "else"))
    merge = _Merge(branches, site)
    values: list[Any] = []
    for i, name in enumerate(names):
        if live[i]:
            values.append(merge.variable(i, name, before[i]))
        else:
            values.append(Undefined(name, site, f"it is assigned within the `if` in {site.where}"))
    results = _emit(pred, branches, merge.picks)
    for pick, result in zip(merge.picks, results, strict=True):
        share(result, pick.leaves, site)
    return [merge.built(value, results) for value in values]


def _traced(run: Callable[[], list[Any]], live: Sequence[bool], name: str) -> Branch:
    values: list[Any] = []

    def body() -> list[Any]:
        values[:] = run()
        return [
            leaf
            for value, is_live in zip(values, live, strict=True)
            if is_live and type(value) is not Undefined
            for leaf in tree.leaves(value)
            if is_dynamic(leaf)
        ]

    return Branch(trace_flat(body, [], name=name), values)


class _Variable(NamedTuple):
    """A merged variable: a structure whose leaves are results (by number) or static."""

    structure: tree.TreeDef
    leaves: list[Any]


class _Result(NamedTuple):
    """A leaf that is a result of the ``cond``."""

    number: int


class _Merge:
    """Merges the variables of two branches, in order."""

    def __init__(self, branches: tuple[Branch, Branch], site: Site) -> None:
        self.branches = branches
        self.site = site
        self.picks: list[Pick] = []
        self._next = [0, 0]  # the next output of each branch

    def variable(self, i: int, name: str, before: Any) -> Any:
        """What a variable becomes."""
        left, right = (branch.values[i] for branch in self.branches)
        given = [type(value) is not Undefined for value in (left, right)]
        if left is right and not isinstance(left, Tracer):
            self._skip(left, right)
            return left
        if not any(given):
            return before
        if not all(given):
            if is_returned(name):
                return self._filled(left if given[0] else right, 0 if given[0] else 1)
            self._skip(left, right)
            missing = left if not given[0] else right
            path = "false" if given[0] else "true"
            reason = f"the `if` in {self.site.where} gives it none where its condition is {path}"
            return missing if missing.site else Undefined(name, self.site, reason)
        return self._both(name, left, right)

    def _skip(self, *values: Any) -> None:
        for side, value in enumerate(values):
            if type(value) is not Undefined:
                self._next[side] += sum(map(is_dynamic, tree.leaves(value)))

    def _both(self, name: str, left: Any, right: Any) -> Any:
        found, structure = tree.flatten(left)
        others, other_structure = tree.flatten(right)
        if structure is not other_structure:
            raise self._structures(name, left, right, structure, other_structure)
        paths = structure.paths(label(name))
        leaves = [self._leaf(path, a, b) for path, a, b in zip(paths, found, others, strict=True)]
        return _Variable(structure, leaves)

    def _structures(
        self, name: str, left: Any, right: Any, structure: tree.TreeDef, other: tree.TreeDef
    ) -> Exception:
        if is_returned(name) and (left is None or right is None):
            return self.site.error(
                "the function returns a value on one path and None on the other, and a traced "
                "value decides",
                "return a value at the end of the function too",
            )
        problem = tree.explain_mismatch(structure, other, label(name), "one value")
        return self.site.error(
            f"{label(name)} differs between the branches of the `if`: {problem}",
            "give it one structure in both",
        )

    def _leaf(self, path: str, left: Any, right: Any) -> Any:
        dynamic = (is_dynamic(left), is_dynamic(right))
        at: list[int | None] = []
        for side in (0, 1):
            at.append(self._next[side] if dynamic[side] else None)
            self._next[side] += dynamic[side]
        if left is right or _is_same_number(left, right):
            return left
        if not all(dynamic):
            if type(left) is type(right) and not any(dynamic) and left == right:
                return left
            raise mismatch(self.site, path, _text(left), _text(right), _PATHS)
        kinds = [self._kind(side, at[side]) for side in (0, 1)]
        found = common(kinds[0], kinds[1])
        if found is None:
            raise mismatch(self.site, path, spell(*kinds[0]), spell(*kinds[1]), _PATHS)
        scalar = all(
            branch.traced.out_scalar[k]  # type: ignore[index]  # no None here
            for branch, k in zip(self.branches, at, strict=True)
        )
        return self._pick((at[0], at[1]), *found, scalar, (left, right))

    def _filled(self, value: Any, side: int) -> Any:
        """A returned value, with zeros on the path that returns none yet."""
        leaves, structure = tree.flatten(value)
        built: list[Any] = []
        for leaf in leaves:
            if not is_dynamic(leaf):
                built.append(leaf)
                continue
            at = self._next[side]
            self._next[side] += 1
            outputs = (at, None) if side == 0 else (None, at)
            scalar = self.branches[side].traced.out_scalar[at]
            built.append(self._pick(outputs, *self._kind(side, at), scalar, (leaf, None)))
        return _Variable(structure, built)

    def _kind(self, side: int, at: int | None) -> tuple[Aval, bool]:
        traced = self.branches[side].traced
        assert at is not None
        return traced.graph.outputs[at].aval, traced.out_weak[at]

    def _pick(
        self,
        outputs: tuple[int | None, int | None],
        aval: Aval,
        weak: bool,
        scalar: bool,
        leaves: tuple[Any, Any],
    ) -> _Result:
        self.picks.append(Pick(outputs, aval, weak, scalar, leaves))
        return _Result(len(self.picks) - 1)

    def built(self, value: Any, results: list[Tracer]) -> Any:
        """A merged variable with the results in place."""
        if not isinstance(value, _Variable):
            return value
        return value.structure.build(
            results[leaf.number] if isinstance(leaf, _Result) else leaf for leaf in value.leaves
        )


def _is_same_number(left: Any, right: Any) -> bool:
    """Equal Python numbers stay Python's; zeros by their sign, and nan is like no other."""
    if type(left) is not type(right) or type(left) not in (bool, int, float):
        return False
    return bool(left == right) and str(left) == str(right)


def _text(leaf: Any) -> str:
    return "an array or number" if is_dynamic(leaf) else f"{leaf!r:.60}"


def _emit(pred: Tracer, branches: tuple[Branch, Branch], picks: list[Pick]) -> list[Tracer]:
    """The ``cond``; writes what the branches wrote in place, and gives the results."""
    hidden = Hidden()
    places = [[hidden.position(c) for c in branch.traced.captured] for branch in branches]
    targets: dict[int, Tracer] = {}
    for branch in branches:
        for target in branch.traced.effects:
            targets.setdefault(id(target._cell), target)
            hidden.cell(target)
    if not picks and not targets:
        return []
    regions = [
        _region(side, branch, places[side], picks, list(targets.values()), hidden)
        for side, branch in enumerate(branches)
    ]
    found = emit("cond", pred, *hidden.operands, regions=(regions[1], regions[0]))
    for target, value in zip(targets.values(), found[len(picks) :], strict=True):
        write(target, read(value))
    return [
        wrapped(read(value), weak=pick.weak, is_scalar=pick.is_scalar)
        for value, pick in zip(found, picks, strict=False)
    ]


def _region(
    side: int,
    branch: Branch,
    places: list[int],
    picks: list[Pick],
    targets: list[Tracer],
    hidden: Hidden,
) -> Graph:
    builder = Builder("then" if side == 0 else "else")
    inputs: list[Operand] = [builder.input(aval) for aval in hidden.avals()]
    found = inlined(builder, branch.traced, [inputs[k] for k in places])
    outputs: list[Operand] = []
    for pick in picks:
        at = pick.outputs[side]
        outputs.append(literal(0, pick.aval) if at is None else cast(builder, found[at], pick.aval))
    count = branch.traced.num_results
    written = {id(t._cell): found[count + k] for k, t in enumerate(branch.traced.effects)}
    for target in targets:
        outputs.append(written.get(id(target._cell), inputs[hidden.cell(target)]))
    return build(builder, outputs)
