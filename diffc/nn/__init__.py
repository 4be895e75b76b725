"""Building blocks of networks, as plain functions on arrays: in a trace and outside."""

from diffc.nn.convolution import conv
from diffc.nn.pooling import avg_pool, max_pool

__all__ = ["avg_pool", "conv", "max_pool"]
