"""Elementary functions emitted inline, on vectors of any number of lanes.

`VectorMath(fn, dtype, lanes, target)` writes into a function; its methods take and return SSA
names of type `vector_type(scalar, lanes)` (one lane is the scalar type). The results are the same
bits for any number of lanes on one target. Special values are C's: NaN passes, signed zeros are
kept, subnormal results are right, overflow is infinite. No fast-math, no library calls.

`FUNCTIONS` states the largest error of each in units in the last place, for targets that fuse
multiply-adds and for those that do not; the tests hold the code to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from diffc.codegen.emit.math.error import ErrorFunctions
from diffc.codegen.emit.math.inverse import InverseTrigonometrics
from diffc.codegen.emit.math.logarithm import Logarithms
from diffc.codegen.emit.math.power import Powers
from diffc.codegen.emit.math.trigonometric import Trigonometrics

__all__ = ["FUNCTIONS", "Function", "VectorMath"]


class VectorMath(ErrorFunctions, InverseTrigonometrics, Logarithms, Powers, Trigonometrics):
    """All elementary functions; see `FUNCTIONS` for their names and errors."""

    def call(self, name: str, *operands: str) -> str:
        """Apply the function of that name in `FUNCTIONS`.

        Raises:
            ValueError: There is no such function, or the number of operands differs.
        """
        function = FUNCTIONS.get(name)
        if function is None:
            raise ValueError(f"no elementary function {name!r}; known: {', '.join(FUNCTIONS)}")
        if len(operands) != function.arity:
            raise ValueError(f"{name} takes {function.arity} operands, got {len(operands)}")
        result = getattr(self, function.method)(*operands)
        assert isinstance(result, str)
        return result


@dataclass(frozen=True, slots=True)
class Function:
    """One elementary function.

    Attributes:
        method: The method of `VectorMath`.
        arity: Number of operands.
        f32: Largest error in ulp for f32 on targets with fused multiply-add.
        f64: The same for f64.
        f32_split: Largest error for f32 on targets without.
        f64_split: The same for f64.
    """

    method: str
    arity: int
    f32: float
    f64: float
    f32_split: float
    f64_split: float

    def ulps(self, dtype: str, has_fma: bool) -> float:
        """The stated error for a dtype and kind of target."""
        if dtype == "f32":
            return self.f32 if has_fma else self.f32_split
        return self.f64 if has_fma else self.f64_split


FUNCTIONS: Mapping[str, Function] = {
    function.method: function
    for function in (
        Function("exp", 1, 1.0, 1.0, 1.5, 1.5),
        Function("exp2", 1, 1.0, 1.0, 1.5, 1.5),
        Function("expm1", 1, 1.5, 2.0, 2.5, 2.5),
        Function("log", 1, 1.0, 1.0, 1.5, 1.5),
        Function("log2", 1, 2.0, 1.5, 2.0, 1.5),
        Function("log10", 1, 2.0, 1.5, 1.5, 1.5),
        Function("log1p", 1, 2.0, 2.0, 2.5, 2.5),
        Function("logistic", 1, 1.5, 1.5, 3.0, 3.0),
        Function("tanh", 1, 1.5, 1.5, 2.5, 3.5),
        Function("sinh", 1, 2.0, 2.0, 2.5, 2.5),
        Function("cosh", 1, 1.5, 1.5, 2.0, 2.0),
        Function("sin", 1, 1.6, 1.0, 1.5, 1.0),
        Function("cos", 1, 1.6, 1.0, 1.5, 1.0),
        Function("tan", 1, 2.5, 2.5, 2.5, 2.5),
        Function("arctan", 1, 2.0, 2.0, 2.0, 2.0),
        Function("arctan2", 2, 2.5, 2.5, 2.5, 2.5),
        Function("arcsin", 1, 2.0, 2.0, 2.0, 2.0),
        Function("arccos", 1, 2.0, 2.0, 2.0, 2.0),
        Function("erf", 1, 1.5, 1.5, 2.0, 2.0),
        Function("pow", 2, 1.0, 1.5, 1.0, 2.0),
    )
}
