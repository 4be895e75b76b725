"""The driver: rewrites a graph by the rules that are on, folds constants, drops what is unused.

One walk emits every equation into a new builder, after folding and matching; what a rule emits is
folded and matched in turn. Walks repeat until nothing changes; then the rules for whole graphs have
their turn. Equal equations are found by the builder. Regions are optimized first, each once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from diffc.errors import InternalError
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, Value, literal, prune, rebuild
from diffc.ops.registry import find
from diffc.optimize.fold import fold
from diffc.optimize.rule import Node, Number, Pattern, Rule, Variable
from diffc.optimize.structure import STRUCTURE, Structure
from diffc.optimize.table import TABLE
from diffc.optimize.whole import GRAPH_RULES

#: ops whose operands may be swapped; ``tests/optimize`` holds this against their NumPy meaning.
COMMUTATIVE = frozenset(
    ("add", "mul", "maximum", "minimum", "eq", "ne", "bitwise_and", "bitwise_or", "bitwise_xor")
)
MAX_WALKS = 20

#: what a graph became, by the rules that were on; None: itself (which would keep its own key alive)
_KNOWN: WeakKeyDictionary[Graph, dict[frozenset[str], Graph | None]] = WeakKeyDictionary()


def rule_names() -> list[str]:
    """Names of all rules, in the order of the tables."""
    return [*TABLE, *STRUCTURE, *GRAPH_RULES]


def default_rules() -> frozenset[str]:
    """Names of the rules that are on by default."""
    tables: tuple[Mapping[str, Any], ...] = (TABLE, STRUCTURE, GRAPH_RULES)
    return frozenset(name for table in tables for name, rule in table.items() if rule.is_on)


def optimize(
    graph: Graph,
    *,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
    fired: Counter[str] | None = None,
) -> Graph:
    """Rewrites ``graph`` until no rule applies; the same object when none does.

    Args:
        graph: what to optimize, regions included.
        only: names of the rules to use (default: those that are on).
        without: names of rules to leave out.
        fired: counts, by rule, how often it was applied, to a region once however often it is
            used; given one, nothing is taken from memory.

    Raises:
        KeyError: a rule of that name does not exist.
    """
    names = default_rules() if only is None else frozenset(only)
    for name in (*names, *without):
        if name not in TABLE and name not in STRUCTURE and name not in GRAPH_RULES:
            raise KeyError(f"no rule is named {name!r}")
    names -= frozenset(without)
    known = _KNOWN.setdefault(graph, {})
    if fired is None and names in known:
        return known[names] or graph
    current = graph
    walker = _Walker(names, fired)
    for _ in range(MAX_WALKS):
        new = rebuild(prune(current), walker.step)
        if new is current:
            new = walker.whole(current)
        if new is current:
            break
        current = new
    known[names] = None if current is graph else current
    _KNOWN.setdefault(current, {})[names] = None
    return current


class _Walker:
    """Emits equations, rewritten."""

    def __init__(self, names: frozenset[str], fired: Counter[str] | None) -> None:
        self.names = names
        self.counts = fired is not None
        self.fired: Counter[str] = Counter() if fired is None else fired
        self.known: dict[Graph, Graph] = {}
        self.by_root: dict[str, list[tuple[Rule, frozenset[str], bool]]] = {}
        self.structures: dict[str, list[tuple[str, Structure]]] = {}
        for name in names:
            if name in TABLE:
                rule = TABLE[name]
                self.by_root.setdefault(rule.root, []).append((rule, *rule.needs))
            elif name in STRUCTURE:
                structure = STRUCTURE[name]
                for root in structure.roots:
                    self.structures.setdefault(root, []).append((name, structure))
        order = {name: i for i, name in enumerate(rule_names())}
        for found in self.by_root.values():
            found.sort(key=lambda entry: order[entry[0].name])
        for pairs in self.structures.values():
            pairs.sort(key=lambda pair: order[pair[0]])

    def whole(self, graph: Graph) -> Graph:
        """The rules for whole graphs, once each."""
        ops = {eqn.op.name for eqn in graph.eqns}
        for name, rule in GRAPH_RULES.items():
            if name in self.names and not ops.isdisjoint(rule.roots):
                new = rule.apply(graph)
                if new is not graph:
                    self.fired[name] += 1
                    ops = {eqn.op.name for eqn in new.eqns}
                graph = new
        return graph

    def step(self, builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        """One equation of the old graph."""
        operands = tuple([env.get(operand, operand) for operand in eqn.operands])
        kept = eqn if operands == eqn.operands else None
        if eqn.regions:
            regions = tuple(self._region(region) for region in eqn.regions)
            if kept is not None and regions == eqn.regions:
                results: Sequence[Operand] = builder.adopt(eqn)
            else:
                results = builder.emit(eqn.op, operands, eqn.params, regions)
        elif len(eqn.results) > 1:
            adopted = kept is not None
            results = builder.adopt(eqn) if adopted else builder.emit(eqn.op, operands, eqn.params)
        else:
            results = (self.emit(builder, eqn.op.name, operands, eqn.params, kept),)
        for old, new in zip(eqn.results, results, strict=True):
            if new is old:
                continue
            if new.aval is not old.aval:
                raise InternalError(
                    f"a rule turned {old.aval} into {new.aval}",
                    location=None if eqn.loc is None else str(eqn.loc),
                )
            env[old] = new
            if isinstance(new, Value) and new.eqn is not None:
                new.name = new.name or old.name
                new.of = new.of or old.of

    def _region(self, region: Graph) -> Graph:
        if region not in self.known:
            fired = self.fired if self.counts else None
            self.known[region] = optimize(region, only=tuple(self.names), fired=fired)
        return self.known[region]

    def emit(
        self,
        builder: Builder,
        op: str,
        operands: tuple[Operand, ...],
        params: Mapping[str, Any],
        kept: Eqn | None = None,
    ) -> Operand:
        """Emits one equation (``kept``, if it is this one), or what it folds or rewrites to."""
        declared = find(op)
        folded = fold(declared, operands, params)
        if folded is not None:
            return folded
        made_by, has_literal = _origins(operands)
        for rule, ops, literals in self.by_root.get(op, ()):
            if not ops <= made_by or (literals and not has_literal):
                continue
            bound = self._match_root(rule, operands, params)
            if bound is not None:
                aval = declared.infer(tuple(x.aval for x in operands), params, ())[0]
                if aval.dtype in rule.dtypes and rule.when(**bound):
                    self.fired[rule.name] += 1
                    return self._build(builder, rule.replacement, bound, aval)
        for name, structure in self.structures.get(op, ()):

            def emit_part(part: str, *parts: Operand, **settings: Any) -> Operand:
                return self.emit(builder, part, parts, settings)

            found = structure.apply(emit_part, op, operands, params)
            if found is not None:
                self.fired[name] += 1
                return found
        if kept is not None:
            return builder.adopt(kept)[0]
        return builder.emit(declared, operands, params)[0]

    def _match_root(
        self, rule: Rule, operands: tuple[Operand, ...], params: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        assert isinstance(rule.pattern, Node)
        found: dict[str, Any] | None = next(_match_args(rule.pattern, operands, params, {}), None)
        return found

    def _build(
        self, builder: Builder, pattern: Pattern, bound: Mapping[str, Any], aval: Any
    ) -> Operand:
        match pattern:
            case Variable(name):
                operand: Operand = bound[name]
                return operand
            case Number(value):
                return literal(value, aval)
            case Node(op, args, params):
                settings = {
                    key: bound[value.name] if isinstance(value, Variable) else value
                    for key, value in params
                }
                shape = _aval_of_args(args, bound, aval)
                operands = tuple(self._build(builder, arg, bound, shape) for arg in args)
                return self.emit(builder, op, operands, settings)


def _origins(operands: tuple[Operand, ...]) -> tuple[set[str], bool]:
    """The ops that make the operands, and whether any is a literal."""
    made_by: set[str] = set()
    has_literal = False
    for operand in operands:
        if isinstance(operand, Literal):
            has_literal = True
        elif operand.eqn is not None:
            made_by.add(operand.eqn.op.name)
    return made_by, has_literal


def _aval_of_args(args: Sequence[Pattern], bound: Mapping[str, Any], aval: Any) -> Any:
    """The aval of literals among the arguments: that of a bound sibling, else of the result."""
    for arg in args:
        if isinstance(arg, Variable):
            found = bound[arg.name].aval
            if found.dtype != "bool" or all(isinstance(x, Variable) for x in args):
                return found
    return aval


Bindings = Iterator[dict[str, Any]]


def _match(pattern: Pattern, operand: Operand, bound: dict[str, Any]) -> Bindings:
    """All ways (as bindings) in which the operand fits the pattern."""
    match pattern:
        case Variable(name):
            if name not in bound:
                yield {**bound, name: operand}
            elif bound[name] is operand:
                yield bound
        case Number(value):
            if isinstance(operand, Literal) and operand.value == value:
                yield bound
        case Node():
            if isinstance(operand, Value) and operand.eqn is not None:
                eqn = operand.eqn
                if eqn.op.name == pattern.op:
                    yield from _match_args(pattern, eqn.operands, eqn.params, bound)


def _match_args(
    pattern: Node, operands: tuple[Operand, ...], params: Mapping[str, Any], bound: dict[str, Any]
) -> Bindings:
    if len(operands) != len(pattern.args):
        return
    for key, wanted in pattern.params:
        if isinstance(wanted, Variable):
            bound = {**bound, wanted.name: params[key]}
        elif params[key] != wanted:
            return
    orders = [operands]
    if pattern.op in COMMUTATIVE:
        orders.append(operands[::-1])
    for order in orders:
        yield from _match_sequence(pattern.args, order, bound)


def _match_sequence(
    patterns: tuple[Pattern, ...], operands: tuple[Operand, ...], bound: dict[str, Any]
) -> Bindings:
    if not patterns:
        yield bound
        return
    for found in _match(patterns[0], operands[0], bound):
        yield from _match_sequence(patterns[1:], operands[1:], found)
