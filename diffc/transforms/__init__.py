"""Transforms, graph to graph: jvp, linearize, transpose, vjp, batch. No tape, no run-time stack."""

from diffc.transforms import batch_branches as batch_branches  # registers cond and while
from diffc.transforms import branches as branches  # registers the rules of cond
from diffc.transforms import recompute as recompute  # registers the rules of checkpoint
from diffc.transforms import regions as regions  # registers the rules of call
from diffc.transforms import scan_rules as scan_rules  # registers the rules of scan
from diffc.transforms import solving as solving  # registers the rules of linear_solve
from diffc.transforms import taylor_custom as taylor_custom  # registers Taylor mode of rules
from diffc.transforms import taylor_regions as taylor_regions  # registers Taylor mode of regions
from diffc.transforms import while_rules as while_rules  # registers the rules of while
from diffc.transforms.backward import Vjp, transpose, vjp
from diffc.transforms.batch import Batch, batch
from diffc.transforms.custom_rules import JvpRule, Rule, VjpRule, expand
from diffc.transforms.forward import Jvp, Linearization, Supports, jvp, linearize
from diffc.transforms.linear import explain_nonlinear
from diffc.transforms.taylor import Taylor, taylor

__all__ = [
    "Batch",
    "Jvp",
    "JvpRule",
    "Linearization",
    "Rule",
    "Supports",
    "Taylor",
    "Vjp",
    "VjpRule",
    "batch",
    "expand",
    "explain_nonlinear",
    "jvp",
    "linearize",
    "taylor",
    "transpose",
    "vjp",
]
