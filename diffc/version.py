"""The version of diffc; below all layers, as stored object code must know which compiler made it."""

__version__ = "0.1.0"
