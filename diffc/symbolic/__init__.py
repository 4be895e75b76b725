"""SymPy's side of diffc: formulas of graphs, proofs of rules, checks of functions.

The home of sympy and mpmath; nothing below imports it, and ``import diffc`` does not load it.
"""
