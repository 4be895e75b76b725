"""Matrix products of random shapes: what `contractions` times."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np

LARGEST = 2048
FORMS = ("call", "loop")


class Product(NamedTuple):
    """An m×k by a k×n matrix; either operand may be stored transposed."""

    m: int
    k: int
    n: int
    left_transposed: bool
    right_transposed: bool

    def oriented(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Return the operands as m×k and k×n."""
        return a.T if self.left_transposed else a, b.T if self.right_transposed else b

    def of(self, a: Any, b: Any) -> Any:
        """Return the product of stored operands."""
        left, right = self.oriented(a, b)
        return left @ right

    def operands(self, dtype: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the operands as they are stored."""
        rng = np.random.default_rng([seed, *self])
        a = rng.standard_normal((self.k, self.m) if self.left_transposed else (self.m, self.k))
        b = rng.standard_normal((self.n, self.k) if self.right_transposed else (self.k, self.n))
        return a.astype(dtype), b.astype(dtype)

    def error(self, result: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
        """Return the largest difference to NumPy's product in float64, by the bound on it.

        The bound is that of a sum in any order: (k + 1) eps times the sum of the absolute products.
        In float64 NumPy's own error counts too, so up to 2 is right there. The error is infinite
        where shape or dtype differ or something is not a number.
        """
        if result.shape != (self.m, self.n) or result.dtype != a.dtype:
            return math.inf
        a, b = a.astype("float64"), b.astype("float64")
        bound = (self.k + 1) * np.finfo(result.dtype).eps * self.of(abs(a), abs(b))
        error = float(np.max(abs(result - self.of(a, b)) / bound))
        return math.inf if math.isnan(error) else error

    @property
    def flops(self) -> int:
        """Additions and multiplications."""
        return 2 * self.m * self.k * self.n

    def __str__(self) -> str:
        letters = "NT"[self.left_transposed] + "NT"[self.right_transposed]
        return f"{self.m}x{self.k}x{self.n}{letters}"


def parse(text: str) -> Product:
    """Return the product that is printed so: `64x1000x100NT` has its right operand transposed.

    Raises:
        ValueError: If nothing is printed so.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)([NT])([NT])", text)
    if match is None:
        raise ValueError(f"{text!r} is no product like 64x1000x100NT")
    m, k, n, left, right = match.groups()
    return Product(int(m), int(k), int(n), left == "T", right == "T")


def draw(count: int, seed: int) -> list[Product]:
    """Return products with sizes log-uniform in 1 to 2048, all four transpositions in turn."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(0.0, math.log(LARGEST + 1), (count, 3))).astype(int)
    return [
        Product(*map(int, size), i % 4 in (1, 3), i % 4 in (2, 3)) for i, size in enumerate(sizes)
    ]
