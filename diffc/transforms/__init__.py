"""Transforms, graph to graph: jvp, linearize, transpose, vjp, batch. No tape, no run-time stack."""

from diffc.transforms import regions as regions  # registers the rules of call and scan
from diffc.transforms.backward import Vjp, transpose, vjp
from diffc.transforms.batch import Batch, batch
from diffc.transforms.forward import Jvp, Linearization, jvp, linearize

__all__ = [
    "Batch",
    "Jvp",
    "Linearization",
    "Vjp",
    "batch",
    "jvp",
    "linearize",
    "transpose",
    "vjp",
]
