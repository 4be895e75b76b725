"""Python's control flow on traced values, turned into ``cond``, ``while`` and ``scan``.

:func:`converted` rewrites a function's syntax tree: each ``if``, ``while``, ``for``, ``and`` and so
on becomes a call that decides while the function is traced. Where a value is known, Python's own
control flow happens; where it is traced, both branches, or one trip of the loop, are traced into
regions of the graph. Source lines stay the user's own.

The way: ``source`` finds the tree, ``jumps`` removes ``break``, ``continue`` and early ``return``,
``names`` says what is assigned and what is read later, ``rewrite`` generates the calls, and
``functions`` makes a function of it again; ``run`` is what the calls reach, ``branches`` and
``cycles`` trace the regions.
"""

from diffc.convert.functions import converted

__all__ = ["converted"]
