"""diffc compiles NumPy-style Python functions, and their derivatives, to native code."""

__version__ = "0.1.0"
