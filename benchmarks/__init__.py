"""Benchmarks: diffc and its peers on public workloads, taking turns in one run.

`workloads` says what is computed, `peers` how each system computes it, `driver` runs each peer in a
process of its own and compares before it times. See `README.md` for the method and the commands.
"""
