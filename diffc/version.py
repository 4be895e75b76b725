"""The version of diffc; below all layers, as cached object code names the compiler that made it."""

__version__ = "0.1.0"
