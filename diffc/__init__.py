"""diffc: a differentiation compiler for NumPy code.

It traces Python functions on arrays, differentiates, optimizes and plans the whole graph, and runs
it as native code. Importing it imports neither llvmlite nor sympy.
"""

from diffc import random
from diffc.api import (
    checkpoint,
    custom_jvp,
    custom_vjp,
    grad,
    hessian,
    hvp,
    jacfwd,
    jacobian,
    jacrev,
    jet,
    jit,
    jvp,
    linear_transpose,
    linearize,
    scan,
    stop_gradient,
    value_and_grad,
    vjp,
    vmap,
)
from diffc.errors import (
    DetachedValueWarning,
    DiffcError,
    DiffcWarning,
    DtypeError,
    ExecutionError,
    InternalError,
    ShapeError,
    StructuralZeroWarning,
    TraceError,
    UsageError,
)
from diffc.version import __version__

__all__ = [
    "DetachedValueWarning",
    "DiffcError",
    "DiffcWarning",
    "DtypeError",
    "ExecutionError",
    "InternalError",
    "ShapeError",
    "StructuralZeroWarning",
    "TraceError",
    "UsageError",
    "__version__",
    "checkpoint",
    "custom_jvp",
    "custom_vjp",
    "grad",
    "hessian",
    "hvp",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jet",
    "jit",
    "jvp",
    "linear_transpose",
    "linearize",
    "random",
    "scan",
    "stop_gradient",
    "value_and_grad",
    "vjp",
    "vmap",
]
