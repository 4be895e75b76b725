"""The array IR: avals, index expressions, graphs, their text form and checker."""
