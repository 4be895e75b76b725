"""Maximum flow by shortest augmenting paths (Edmonds and Karp, 1972), for networks of a kernel."""

from __future__ import annotations

import math
from collections import deque


class Network:
    """A directed network with capacities; built by :meth:`node` and :meth:`edge`."""

    def __init__(self) -> None:
        self._edges: list[list[int]] = []  # numbers of the edges that leave a node
        self._target: list[int] = []
        self._left: list[float] = []  # capacity left; edge i and i ^ 1 are each other's reverse

    def node(self) -> int:
        """A new node."""
        self._edges.append([])
        return len(self._edges) - 1

    def edge(self, start: int, end: int, capacity: float) -> None:
        """An edge; ``capacity`` may be infinite."""
        for node, target, left in ((start, end, capacity), (end, start, 0.0)):
            self._edges[node].append(len(self._target))
            self._target.append(target)
            self._left.append(left)

    def source_side(self, source: int, sink: int) -> set[int]:
        """The nodes on the source's side of a minimum cut, the one nearest to the source.

        Raises:
            ValueError: no finite cut separates the two.
        """
        while True:
            came = self._paths(source, sink)
            if sink not in came:
                return set(came)
            path: list[int] = []
            node = sink
            while node != source:
                path.append(came[node])
                node = self._target[came[node] ^ 1]
            amount = min(self._left[edge] for edge in path)
            if math.isinf(amount):
                raise ValueError("no finite cut separates source and sink")
            for edge in path:
                self._left[edge] -= amount
                self._left[edge ^ 1] += amount

    def _paths(self, source: int, sink: int) -> dict[int, int]:
        """The nodes that can be reached, with the edge by which each is reached first."""
        came = {source: -1}
        queue = deque([source])
        while queue and sink not in came:
            node = queue.popleft()
            for edge in self._edges[node]:
                target = self._target[edge]
                if self._left[edge] > 0 and target not in came:
                    came[target] = edge
                    queue.append(target)
        return came
