"""diffc compiles NumPy-style Python functions, and their derivatives, to native code."""

from diffc.version import __version__

__all__ = ["__version__"]
