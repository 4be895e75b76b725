"""User rules that case files name: ``custom(x, rule="tangent")`` and ``rule="cotangent"``.

Both belong to ``sin``, and claim the derivative ``2 cos(x)``, so that one sees whether the rule was
asked.
"""

from diffc.ir.graph import Graph
from diffc.ir.text import parse
from diffc.ops.registry import table
from diffc.transforms import JvpRule, Rule, VjpRule
from diffc.transforms.custom_rules import _RULES

TANGENT = """
func @sin_rule(x: f64[3], x_dot: f64[3]) -> (f64[3], f64[3]) {
  %0: f64[3] = sin(x)
  %1: f64[3] = cos(x)
  %2: f64[3] = mul(%1, x_dot)
  %3: f64[3] = add(%2, %2)
  return %0, %3
}
"""
FORWARD = """
func @sin_forward(x: f64[3]) -> (f64[3], f64[3]) {
  %0: f64[3] = sin(x)
  %1: f64[3] = cos(x)
  return %0, %1
}
"""
BACKWARD = """
func @sin_backward(slope: f64[3], ct: f64[3]) -> (f64[3]) {
  %0: f64[3] = mul(slope, ct)
  %1: f64[3] = add(%0, %0)
  return %1
}
"""


def graph(text: str) -> Graph:
    """The graph of a text."""
    return parse(text, table())


def named(rule: Rule, name: str) -> Rule:
    """The rule under a name that text can say."""
    rule.text = name
    _RULES[name] = rule
    return rule


#: kept here, as the table of rules holds them weakly
RULES = [
    named(JvpRule("tangent", 1, 1, lambda: graph(TANGENT)), "tangent"),
    named(VjpRule("cotangent", 1, 1, lambda: (graph(FORWARD), graph(BACKWARD))), "cotangent"),
]
