"""Derivatives, graph to graph: jvp, linearize, transpose, vjp. No tape, no run-time stack."""

from diffc.transforms import regions as regions  # registers the rules of call and scan
from diffc.transforms.backward import Vjp, transpose, vjp
from diffc.transforms.forward import Jvp, Linearization, jvp, linearize

__all__ = ["Jvp", "Linearization", "Vjp", "jvp", "linearize", "transpose", "vjp"]
