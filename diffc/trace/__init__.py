"""Tracing: a NumPy function becomes a graph by being run once on tracers.

``trace`` runs a function and gives a ``Traced``; ``subtrace``, ``inline`` and ``emit`` serve
transforms and control flow within a running trace. What NumPy functions mean on tracers is in
tables that the modules of this package fill; users' code reaches them through names that are
rebound for the time of the trace.
"""

from diffc.ir.aval import is_float, limits
from diffc.trace import (  # noqa: F401  # these fill the tables
    borders,
    choose,
    create,
    indexing,
    linear,
    reductions,
    shapes,
    statistics,
    ufuncs,
)
from diffc.trace.arguments import ORDINARY
from diffc.trace.captured import is_ordinary
from diffc.trace.context import ValueNeeded, active, current
from diffc.trace.location import here, line
from diffc.trace.run import (
    Abstract,
    Captured,
    Traced,
    abstract,
    emit,
    inline,
    subtrace,
    trace,
    trace_flat,
)
from diffc.trace.tracer import Tracer

__all__ = [
    "ORDINARY",
    "Abstract",
    "Captured",
    "Traced",
    "Tracer",
    "ValueNeeded",
    "abstract",
    "active",
    "current",
    "emit",
    "here",
    "inline",
    "is_float",
    "is_ordinary",
    "limits",
    "line",
    "subtrace",
    "trace",
    "trace_flat",
]
