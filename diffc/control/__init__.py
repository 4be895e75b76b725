"""Control flow that users write, as regions of the graph: branches and loops.

Functions of branches and bodies are traced on their own; what they use of the world outside becomes
operands. All of them take and give pytrees, nest, and are differentiated and compiled natively.
"""

from diffc.control.associative import associative_scan
from diffc.control.branches import cond, switch
from diffc.control.each import map
from diffc.control.loops import fori_loop, while_loop
from diffc.control.scan import scan

__all__ = ["associative_scan", "cond", "fori_loop", "map", "scan", "switch", "while_loop"]
