"""A part of a program within calls, branches, loops and batches; and the same written out.

A step is a function ``step(s, xs)`` of a number and arrays that gives a number. Each border makes
another step of it, in two ways: with a region op, and by Python's own control flow. Both have the
same derivatives of all orders.
"""

import functools

import numpy as np

import diffc
from diffc.ir.aval import is_float
from diffc.ir.graph import Graph
from diffc.trace import inline, trace

FACTORS = (1.0, -0.5)
STARTS = (0.25, -0.75)


def step_of(graph: Graph):
    """A step that runs a graph on its arrays, moved a little by the number."""

    def step(s, xs):
        moved = [x + 0.002 * s if is_float(x.dtype) else x for x in xs]
        outs = [y for y in inline(graph, moved) if is_float(y.dtype)]
        sums = (np.sum(np.sin(y.astype(np.float64))) / max(y.size, 1) for y in outs)
        return 0.5 * np.sin(s) + sum(sums, 0.25 * s)

    return step


def stacked(xs):
    return [np.stack([x * f if is_float(x.dtype) else x for f in FACTORS]) for x in xs]


def called(step):
    return lambda s, xs: diffc.jit(step)(s, xs)


def outlined_twice(step):
    return lambda s, xs: called(step)(called(step)(s, xs), xs)


def twice(step):
    return lambda s, xs: step(step(s, xs), xs)


def checkpoint(step):
    return lambda s, xs: diffc.checkpoint(step)(s, xs)


def same(step):
    return step


def scan(step, **options):
    def run(s, xs):
        last, passed = diffc.scan(lambda c, _: (step(c, xs), c * c), s, length=3, **options)
        return last + np.sum(passed)

    return run


def scan_by_hand(step):
    def run(s, xs):
        total = 0.0
        for _ in range(3):
            total, s = total + s * s, step(s, xs)
        return s + total

    return run


def carries(step):
    """The arrays are carried, and change."""

    def run(s, xs):
        def body(c, _):
            s, xs = c
            s = step(s, xs)
            return (s, [x * (1 - 0.001 * s) if is_float(x.dtype) else x for x in xs]), None

        return diffc.scan(body, (s, xs), length=2)[0][0]

    return run


def carries_by_hand(step):
    def run(s, xs):
        first = step(s, xs)
        return step(first, [x * (1 - 0.001 * first) if is_float(x.dtype) else x for x in xs])

    return run


def slices(step):
    """Each trip has arrays of its own; backwards."""

    def run(s, xs):
        rows = [np.stack([x, x * 1.0 if is_float(x.dtype) else x]) for x in xs]
        return diffc.scan(lambda c, r: (step(c, r), None), s, rows, reverse=True, length=2)[0]

    return run


def branch(step):
    return lambda s, xs: diffc.cond(s * 0 == 0, step, lambda s, xs: s * s, s, xs)


def other_branch(step):
    return lambda s, xs: diffc.switch(
        (s * 0 == 1).astype(int), [lambda s, xs: s * step(s, xs), step], s, xs
    )


def other_branch_by_hand(step):
    return lambda s, xs: s * step(s, xs)


def while_(step, **options):
    def run(s, xs):
        body = lambda c: (c[0] + 1, step(c[1], xs))  # noqa: E731  # short
        return diffc.while_loop(lambda c: c[0] < 3, body, (0, s), **options)[1]

    return run


def repeated(count):
    def border(step):
        return lambda s, xs: functools.reduce(lambda c, _: step(c, xs), range(count), s)

    return border


def fori(step):
    return lambda s, xs: diffc.fori_loop(0, 2, lambda i, c: step(c, xs) + i * c, s)


def fori_by_hand(step):
    def run(s, xs):
        s = step(s, xs)
        return step(s, xs) + s

    return run


def map_(step):
    return lambda s, xs: np.sum(diffc.map(lambda k: step(s * k, xs), np.array(STARTS)))


def vmap(step):
    return lambda s, xs: np.sum(diffc.vmap(lambda k: step(s * k, xs))(np.array(STARTS)))


def each(step):
    return lambda s, xs: sum(step(s * k, xs) for k in STARTS)


def vmap_of_while(step):
    """The elements of the batch take two trips and one."""

    def one(s, xs, n):
        body = lambda c: (c[0] + 1, step(c[1], xs))  # noqa: E731  # short
        return diffc.while_loop(lambda c: c[0] < n, body, (0, s))[1]

    return lambda s, xs: np.sum(
        diffc.vmap(lambda k, n: one(s * k, xs, n))(np.array(STARTS), np.array([2, 1]))
    )


def vmap_of_while_by_hand(step):
    return lambda s, xs: step(step(s * STARTS[0], xs), xs) + step(s * STARTS[1], xs)


def vmap_of_cond(step):
    def one(s, xs, p):
        return diffc.cond(p, step, lambda s, xs: s * s, s, xs)

    return lambda s, xs: np.sum(
        diffc.vmap(lambda k, p: one(s * k, xs, p))(np.array(STARTS), np.array([True, False]))
    )


def vmap_of_cond_by_hand(step):
    return lambda s, xs: step(s * STARTS[0], xs) + (s * STARTS[1]) ** 2


def vmap_of_scan(step):
    inner = scan(step)
    return lambda s, xs: np.sum(diffc.vmap(lambda k: inner(s * k, xs))(np.array(STARTS)))


def vmap_of_scan_by_hand(step):
    inner = scan_by_hand(step)
    return lambda s, xs: sum(inner(s * k, xs) for k in STARTS)


#: a border, and the same by hand
BORDERS = {
    "call": (outlined_twice, twice),
    "checkpoint": (checkpoint, same),
    "scan": (scan, scan_by_hand),
    "carries": (carries, carries_by_hand),
    "slices": (slices, twice),
    "cond": (branch, same),
    "switch": (other_branch, other_branch_by_hand),
    "while": (while_, repeated(3)),
    "while with slots": (functools.partial(while_, slots=2), repeated(3)),
    "while with stores": (functools.partial(while_, store="grow"), repeated(3)),
    "fori": (fori, fori_by_hand),
    "map": (map_, each),
    "vmap": (vmap, each),
    "vmap of while": (vmap_of_while, vmap_of_while_by_hand),
    "vmap of cond": (vmap_of_cond, vmap_of_cond_by_hand),
    "vmap of scan": (vmap_of_scan, vmap_of_scan_by_hand),
}


def steps(graph: Graph, names):
    """The step of a graph within some borders, the last one outermost; and by hand."""
    native = by_hand = step_of(graph)
    for name in names:
        native, by_hand = BORDERS[name][0](native), BORDERS[name][1](by_hand)
    return native, by_hand


def graphs(graph: Graph, names, arrays) -> tuple[Graph, Graph]:
    """A program with some borders around a graph, the last one outermost; and by hand.

    Their inputs are a number and those of the graph, their output a number.
    """
    native, by_hand = steps(graph, names)
    given = [np.float64(0.3), *arrays]
    return traced(native, given), traced(by_hand, given)


def traced(step, given) -> Graph:
    return trace(lambda s, *xs: step(s, list(xs)), given).graph
