"""Rewriting graphs: named rules with their driver, constant folding, elimination."""

from diffc.optimize.driver import default_rules, optimize, rule_names
from diffc.optimize.outline import Outlined, compact, outline

__all__ = ["Outlined", "compact", "default_rules", "optimize", "outline", "rule_names"]
