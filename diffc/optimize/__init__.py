"""Rewriting graphs: named rules with their driver, constant folding, elimination."""

from diffc.optimize.driver import default_rules, optimize, rule_names

__all__ = ["default_rules", "optimize", "rule_names"]
