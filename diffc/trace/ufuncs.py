"""NumPy's ufuncs in primitives: operators, calls, ``out=``, ``where=``, and the ufunc methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffc.errors import DtypeError, TraceError
from diffc.ir.aval import DTYPES, FLOATS, INTEGERS, UNSIGNED
from diffc.ir.graph import Operand
from diffc.trace import kinks, promote
from diffc.trace import operands as o
from diffc.trace.arguments import Arg, arg, argument, mask_operand, tracer
from diffc.trace.formulas import FORMULAS
from diffc.trace.location import line
from diffc.trace.table import FUNCTIONS, UFUNC_METHODS, implements
from diffc.trace.tracer import Tracer, read, store, wrap

_COMPARISONS = frozenset(
    (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)
)
_OWN: dict[Any, str] = {np.matmul: "matmul", np.vecdot: "vecdot", np.divmod: "divmod"}


_ON_PYTHON_BOOLS = _COMPARISONS | {np.bitwise_and, np.bitwise_or, np.bitwise_xor}
_OWN_RULES = frozenset((np.power, np.matmul, np.divmod))


@implements("__operator__")
def operator(ufunc: np.ufunc, *operands: Any) -> Any:
    """A Python operator: as the ufunc, but Python scalars stay weak among themselves."""
    if len(operands) == 2 and type(operands[0]) is type(operands[1]) is Tracer:
        x, y = operands
        if x.aval is y.aval and not (x.weak or y.weak) and ufunc not in _OWN_RULES:
            dtype = x.aval.dtype
            ins, outs = promote.loop(ufunc, (dtype, dtype))
            if ins[0] == dtype:
                return wrap(o.cast(FORMULAS[ufunc](read(x), read(y)), outs[0]))
    args = []
    for x in operands:
        found = argument(x)
        if found is None:
            return NotImplemented
        args.append(found)
    if ufunc is np.matmul:
        return FUNCTIONS["matmul"](*operands)
    weak = all(isinstance(a.key, type) for a in args)
    if weak and ufunc not in _ON_PYTHON_BOOLS:
        args = [_as_int(a) if a.key is bool else a for a in args]
    if ufunc is np.power:
        return power(args[0], args[1], weak=weak)
    return elementwise(ufunc, args, weak=weak)


def _as_int(a: Arg) -> Arg:
    """A Python bool in Python's arithmetic."""
    if not isinstance(a.source, Tracer):
        return Arg(int, (), int(a.source))
    return Arg(int, (), wrap(a.to("i64"), weak=True))


def elementwise(ufunc: np.ufunc, args: list[Arg], *, weak: bool = False, dtype: Any = None) -> Any:
    """A ufunc on its arguments: promotion, broadcasting, and its formula.

    Raises:
        TraceError: the ufunc has no formula.
        DtypeError: NumPy has no loop for the dtypes.
        ShapeError: the shapes do not broadcast.
    """
    formula = FORMULAS.get(ufunc)
    if formula is None:
        from diffc.trace.table import unknown

        raise unknown(ufunc.__name__)
    if len(args) != ufunc.nin:
        raise TypeError(f"np.{ufunc.__name__} takes {ufunc.nin} arrays, not {len(args)}")
    keys = tuple(a.key for a in args)
    if dtype is not None:
        keys = (promote.dtype_arg(dtype),) * len(keys)
    ins, outs = promote.loop(ufunc, keys)
    shape = (
        args[0].shape
        if len(args) == 1
        else o.common_shape([a.shape for a in args], f"np.{ufunc.__name__}")
    )
    if ufunc in _COMPARISONS:
        value = _compare(ufunc, args, ins, shape, formula)
        return wrap(value, weak=weak)
    found = formula(*[a.to(want, shape) for a, want in zip(args, ins, strict=True)])
    if ufunc.nout == 1:
        return wrap(o.cast(found, outs[0]), weak=weak and outs[0] in ("bool", "i64", "f64"))
    return tuple(wrap(o.cast(one, out), weak=weak) for one, out in zip(found, outs, strict=True))


def _compare(
    ufunc: np.ufunc, args: list[Arg], ins: tuple[str, ...], shape: Any, formula: Callable[..., Any]
) -> Operand:
    """Comparisons that no common dtype holds are still exact."""
    left, right = ins
    unknown_int = any(a.key is int and isinstance(a.source, Tracer) for a in args)
    if unknown_int and left in INTEGERS and left not in ("i64", "u64"):
        return formula(*[a.to("i64", shape) for a in args])  # type: ignore[no-any-return]  # the table is untyped
    if unknown_int and left == "u64":
        left, right = ins = tuple("i64" if a.key is int else "u64" for a in args)
    if left == right:
        for position, a in enumerate(args):
            source = a.source
            if type(source) is int and left in INTEGERS and not _holds(left, source):
                # A Python integer beyond the dtype compares as a number beyond all of them.
                far = 1 if source > 0 else -1
                pair = (0, far) if position == 1 else (far, 0)
                return o.fill(bool(ufunc(*pair)), "bool", shape)
        return formula(*[a.to(left, shape) for a in args])  # type: ignore[no-any-return]  # the table is untyped
    values = [a.to(want, shape) for a, want in zip(args, ins, strict=True)]
    signed = 1 if left in UNSIGNED else 0  # the other one is unsigned
    negative = o.emit("lt", values[signed], o.fill(0, ins[signed], shape))
    values[signed] = o.cast(values[signed], "u64")
    pair = (-1, 0) if signed == 0 else (0, -1)
    below = o.fill(bool(ufunc(*pair)), "bool", shape)
    return o.select(negative, below, formula(*values))


def _holds(dtype: str, value: int) -> bool:
    info = np.iinfo(DTYPES[dtype])
    return bool(info.min <= value <= info.max)


def power(base: Arg, exponent: Arg, *, weak: bool = False) -> Tracer:
    """``base ** exponent``; integer literals become ``integer_pow``.

    Raises:
        DtypeError: an integer to a negative or traced power.
    """
    ins, outs = promote.loop(np.power, (base.key, exponent.key))
    shape = o.common_shape([base.shape, exponent.shape], "np.power")
    number = exponent.source
    dtype = ins[0]
    if dtype == "bool":
        raise DtypeError("np.power of bools", location=line(), hint="convert to a number dtype")
    if isinstance(number, (int, float, np.generic)) and not isinstance(number, bool):
        value = number.item() if isinstance(number, np.generic) else number
        x = base.to(dtype, shape)
        if dtype not in FLOATS and value < 0:
            raise DtypeError(
                f"integers to the negative power {value}",
                location=line(),
                hint="make the base a float: x.astype(np.float64)",
            )
        if value == 0.5:
            return wrap(kinks.root(x), weak=weak)
        if value == int(value) and abs(value) <= 64:
            if value == 1:
                return wrap(x, weak=weak)
            return wrap(o.emit("integer_pow", x, exponent=int(value)), weak=weak)
    if dtype not in FLOATS:
        raise DtypeError(
            "an integer to a traced integer power",
            location=line(),
            hint="convert one of them to float, or write the exponent as a number",
        )
    return wrap(
        o.cast(o.emit("pow", base.to(dtype, shape), exponent.to(dtype, shape)), outs[0]), weak=weak
    )


def call(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``ufunc(*inputs, out=, where=, dtype=)``.

    Raises:
        TraceError: other keywords.
    """
    out = kwargs.pop("out", None)
    where = kwargs.pop("where", True)
    dtype = kwargs.pop("dtype", None)
    casting = kwargs.pop("casting", "same_kind")
    kwargs.pop("order", None)
    kwargs.pop("subok", None)
    if len(inputs) > ufunc.nin:
        inputs, extra = inputs[: ufunc.nin], inputs[ufunc.nin :]
        out = extra
    if kwargs and ufunc not in _OWN:
        raise TraceError(
            f"np.{ufunc.__name__}(..., {next(iter(kwargs))}=...) can't be traced", location=line()
        )
    if casting != "same_kind":
        raise TraceError(
            f"np.{ufunc.__name__}(..., casting={casting!r}) can't be traced",
            location=line(),
            hint="convert with .astype first",
        )
    name = f"np.{ufunc.__name__}"
    if ufunc in _OWN and ufunc is not np.divmod:
        result = FUNCTIONS[_OWN[ufunc]](*inputs, **kwargs)
    else:
        args = [arg(x, name) for x in inputs]
        if ufunc is np.power and dtype is None:
            result = power(args[0], args[1])
        else:
            result = elementwise(ufunc, args, dtype=dtype)
    outs = out if isinstance(out, tuple) else (out,)
    if where is not True:
        result = _masked(name, result, outs[0], where)
    if all(target is None for target in outs):
        return result
    results = result if isinstance(result, tuple) else (result,)
    for target, one in zip(outs, results, strict=True):
        if target is not None:
            store(target, one, name)
    final = tuple(
        one if target is None else target for target, one in zip(outs, results, strict=True)
    )
    return final if len(final) > 1 else final[0]


def _masked(name: str, result: Any, out: Any, where: Any) -> Any:
    if not isinstance(out, Tracer) or isinstance(result, tuple):
        raise TraceError(
            f"{name}(..., where=...) without out= leaves elements undefined",
            location=line(),
            hint="give out=np.zeros(...), or use np.where",
        )
    value = arg(result, name).to(out.aval.dtype, out.aval.shape)
    old = arg(out, name).to(out.aval.dtype)
    return wrap(o.select(mask_operand(where, out.aval.shape), value, old))


_REDUCTIONS: dict[Any, str] = {
    np.add: "sum",
    np.multiply: "prod",
    np.maximum: "max",
    np.minimum: "min",
    np.logical_and: "all",
    np.logical_or: "any",
    np.logaddexp: "logaddexp.reduce",
}
_ACCUMULATIONS: dict[Any, str] = {
    np.add: "cumsum",
    np.multiply: "cumprod",
    np.maximum: "maximum.accumulate",
    np.minimum: "minimum.accumulate",
}
_COMBINES: dict[Any, str] = {
    np.add: "add",
    np.multiply: "mul",
    np.maximum: "max",
    np.minimum: "min",
}


def _out_of(kwargs: dict[str, Any]) -> Any:
    out = kwargs.pop("out", None)
    return out[0] if isinstance(out, tuple) else out


def reduce(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``ufunc.reduce``: the reductions that have a function of their own."""
    name = _REDUCTIONS.get(ufunc)
    if name is None:
        raise _no_method(ufunc, "reduce")
    out = _out_of(kwargs)
    (x,), rest = inputs[:1], inputs[1:]
    axis = rest[0] if rest else kwargs.pop("axis", 0)
    if kwargs.get("dtype", ...) is None:
        kwargs.pop("dtype")
    result = FUNCTIONS[name](x, axis=axis, **kwargs)
    return _stored(out, result, f"np.{ufunc.__name__}.reduce")


def accumulate(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``ufunc.accumulate``."""
    name = _ACCUMULATIONS.get(ufunc)
    if name is None:
        raise _no_method(ufunc, "accumulate")
    out = _out_of(kwargs)
    axis = inputs[1] if len(inputs) > 1 else kwargs.pop("axis", 0)
    result = FUNCTIONS[name](inputs[0], axis=axis)
    return _stored(out, result, f"np.{ufunc.__name__}.accumulate")


def outer(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``ufunc.outer``: each element of the first with each of the second."""
    x, y = tracer(inputs[0]), tracer(inputs[1])
    wide = FUNCTIONS["reshape"](x, (*x.shape, *(1 for _ in y.shape)))
    return call(ufunc, (wide, y), kwargs)


def at(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """``ufunc.at``: in place, repeated indices each count."""
    combine = _COMBINES.get(ufunc)
    x, index, *values = inputs
    if ufunc is np.subtract:
        combine, values = "add", [-tracer(values[0])]  # type: ignore[operator]  # operators come from a table
    if combine is None:
        raise _no_method(ufunc, "at")
    if not isinstance(x, Tracer):
        from diffc.trace.tracer import captured_write

        raise captured_write()
    FUNCTIONS["__scatter__"](x, index, values[0], combine)


def _stored(out: Any, result: Any, what: str) -> Any:
    if out is None:
        return result
    store(out, result, what)
    return out


def _no_method(ufunc: np.ufunc, method: str) -> TraceError:
    return TraceError(
        f"np.{ufunc.__name__}.{method} can't be traced",
        location=line(),
        hint=f"np.add.{method} and np.maximum.{method} can",
    )


def reduceat(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Not traced.

    Raises:
        TraceError: always.
    """
    raise _no_method(ufunc, "reduceat")


UFUNC_METHODS.update(
    __call__=call, reduce=reduce, accumulate=accumulate, outer=outer, at=at, reduceat=reduceat
)
FUNCTIONS["__store__"] = store
