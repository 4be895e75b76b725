"""A worker of `contractions`: one library, all matrix products, in a process of its own.

    python -m benchmarks.contractions_worker PEER DTYPE SEED CORES

    ("prepare", product)           compile a product and compare it: its error, seconds of a call
    ("chunk", product, form, n)    n times the product in one form (`call`, `loop`): seconds

A call gives a new array. A loop is native where the library has loops, with a product that depends
on the last one, so that none can be left out; else it is a loop in Python over products into the
same array.
"""

from __future__ import annotations

import sys

from benchmarks import machine

if __name__ == "__main__":
    machine.pin([int(core) for core in sys.argv[4].split(",")])

import gc
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import wire
from benchmarks.products import FORMS, Product
from benchmarks.worker import serve

TINY = 1e-30  # what a loop adds of one product to an operand of the next: nothing, after rounding

Forms = dict[str, Callable[[int], Any]]  # form: do so many products, give the last one


class NumPy:
    """`np.matmul`."""

    def prepare(self, product: Product, a: np.ndarray, b: np.ndarray) -> Forms:
        left, right = product.oriented(a, b)
        out = np.empty((product.m, product.n), dtype=a.dtype)

        def call(count):
            for _ in range(count):
                result = left @ right
            return result

        def loop(count):
            for _ in range(count):
                np.matmul(left, right, out=out)
            return out

        return {"call": call, "loop": loop}


class Torch:
    """`torch.mm`."""

    def __init__(self) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

    def prepare(self, product: Product, a: np.ndarray, b: np.ndarray) -> Forms:
        torch = self.torch
        left, right = product.oriented(torch.from_numpy(a), torch.from_numpy(b))
        out = torch.empty((product.m, product.n), dtype=left.dtype)

        def call(count):
            for _ in range(count):
                result = torch.mm(left, right)
            return result

        def loop(count):
            for _ in range(count):
                torch.mm(left, right, out=out)
            return out

        return {"call": call, "loop": loop}


class Jax:
    """`jax.jit` of one product, and of a `fori_loop` of products."""

    def __init__(self) -> None:
        import jax

        self.jax = jax
        jax.config.update("jax_enable_x64", True)

    def prepare(self, product: Product, a: np.ndarray, b: np.ndarray) -> Forms:
        jax, (m, n) = self.jax, (product.m, product.n)
        a, b = jax.numpy.array(a), jax.numpy.array(b)
        one = jax.jit(product.of)

        @jax.jit
        def many(a, b, count):
            def body(_, carry):
                a, _ = carry
                c = product.of(a, b)
                return a.at[0, 0].add(TINY * c[-1, -1]), c

            start = a, jax.numpy.zeros((m, n), a.dtype)
            return jax.lax.fori_loop(0, count, body, start)[1]

        def call(count):
            for _ in range(count):
                result = one(a, b)
                result.block_until_ready()
            return result

        return {"call": call, "loop": lambda count: many(a, b, count).block_until_ready()}


class Diffc:
    """`diffc.jit` of one product, and of a `fori_loop` of products."""

    def __init__(self) -> None:
        import diffc

        self.diffc = diffc

    def prepare(self, product: Product, a: np.ndarray, b: np.ndarray) -> Forms:
        diffc = self.diffc
        one = diffc.jit(product.of)

        @diffc.jit
        def many(a, b, count):
            def body(_, carry):
                a, _ = carry
                c = product.of(a, b)
                a[0, 0] += TINY * c[-1, -1]
                return a, c

            start = a, np.zeros((product.m, product.n), dtype=a.dtype)
            return diffc.fori_loop(0, count, body, start)[1]

        def call(count):
            for _ in range(count):
                result = one(a, b)
            return result

        return {"call": call, "loop": lambda count: many(a, b, count)}


PEERS = {"diffc": Diffc, "jax": Jax, "torch": Torch, "numpy": NumPy}


class Worker:
    """What a worker knows between requests."""

    def __init__(self, peer: str, dtype: str, seed: int) -> None:
        self.peer_name, self.dtype, self.seed = peer, dtype, seed
        self.forms: dict[Product, Forms] = {}
        self.peer: Any = None

    def prepare(self, product: Product) -> dict:
        """Compile a product and compare it with NumPy's in float64."""
        if self.peer is None:
            self.peer = PEERS[self.peer_name]()
        a, b = product.operands(self.dtype, self.seed)
        forms = self.forms[product] = self.peer.prepare(product, a, b)
        error = max(product.error(np.asarray(do(1)), a, b) for do in forms.values())
        seconds = {form: self.timed(product, form, 1) for form in FORMS}
        return {"error": error, "seconds": seconds}

    def timed(self, product: Product, form: str, count: int) -> float:
        began = time.perf_counter()
        self.forms[product][form](count)
        return time.perf_counter() - began

    def chunk(self, product: Product, form: str, count: int) -> dict:
        """Time products after one that is not timed, without the garbage collector."""
        self.forms[product][form](1)
        gc.disable()
        try:
            return {"seconds": self.timed(product, form, count)}
        finally:
            gc.enable()


if __name__ == "__main__":
    name, dtype, seed = sys.argv[1:4]
    serve(wire.of_worker(), Worker(name, dtype, int(seed)), ("prepare", "chunk"))
