"""The scalar function behind huge arguments of sin, cos and tan.

x = m 2^k with a 53-bit integer m. Of 2/pi only a window of 192 bits matters: what stands above
it gives multiples of 4 quadrants, what stands below is under 2^-137. The product is formed in
integers, so the quadrant is exact and r = x - n pi/2 is right to 62 bits however close x comes to
a multiple of pi/2. The code uses no float operation that could need a library.
"""

from diffc.codegen.emit.math import coefficients as co
from diffc.codegen.emit.math.constants import PI
from diffc.codegen.emit.text import FunctionText, ModuleText, float_literal

__all__ = ["reduction_function"]

TABLE_NAME = "diffc.two_over_pi"
HALF_PI_63 = int(PI / 2 * 2**63)


def reduction_function(module: ModuleText, dtype: str, limit: float) -> str:
    """Name of `void (ptr x, ptr r, ptr quadrant, ptr low, i64 lanes)`, made once a module.

    It overwrites r, low and quadrant (integers of the float's width) of each lane whose
    magnitude is above `limit`; infinity gives NaN. It is inlined where it is called: across a call
    no vector register keeps its value, so the hot code around it would keep its own on the stack.
    """
    name = f"diffc.reduce_half_pi.{dtype}"
    if module.fresh_name(name) != name:
        return name
    words = ", ".join(f"i64 {word}" for word in co.TWO_OVER_PI)
    count = len(co.TWO_OVER_PI)
    table = module.add_global(
        TABLE_NAME, f"internal unnamed_addr constant [{count} x i64] [{words}], align 64"
    )
    pointers = [("ptr noalias", f"%{part}") for part in ("x", "r", "q", "l")]
    fn = module.function(
        name,
        "void",
        [*pointers, ("i64", "%lanes")],
        attributes="alwaysinline cold nounwind",
        internal=True,
    )
    scalar, integer, size = ("float", "i32", 4) if dtype == "f32" else ("double", "i64", 8)
    with fn.loop("%lanes") as loop:
        x = fn.load(scalar, fn.index("%x", scalar, loop.index), size)
        magnitude = fn.call(scalar, f"llvm.fabs.{dtype}", (scalar, x))
        far = fn.value(f"fcmp ogt {scalar} {magnitude}, {float_literal(limit, scalar)}")
        with fn.when(far):
            if dtype == "f32":
                x = fn.value(f"fpext float {x} to double")
            r, low, quadrant = _reduce_scalar(fn, x, table)
            if dtype == "f32":
                high = fn.value(f"fptrunc double {r} to float")
                back = fn.value(f"fpext float {high} to double")
                rest = fn.value(f"fadd double {fn.value(f'fsub double {r}, {back}')}, {low}")
                r, low = high, fn.value(f"fptrunc double {rest} to float")
                quadrant = fn.value(f"trunc i64 {quadrant} to i32")
            fn.store(scalar, r, fn.index("%r", scalar, loop.index), size)
            fn.store(scalar, low, fn.index("%l", scalar, loop.index), size)
            fn.store(integer, quadrant, fn.index("%q", integer, loop.index), size)
    fn.ret()
    return name


def _window(fn: FunctionText, table: str, position: str) -> list[str]:
    """Three 64-bit words of the table from bit `position` on, the highest first."""
    word = fn.value(f"lshr i64 {position}, 6")
    shift = fn.value(f"and i64 {position}, 63")
    base = fn.index(table, "i64", word)
    raw = [fn.load("i64", fn.gep(base, 8 * i), 8) for i in range(4)]
    return [
        fn.call("i64", "llvm.fshl.i64", ("i64", raw[i]), ("i64", raw[i + 1]), ("i64", shift))
        for i in range(3)
    ]


def _product(fn: FunctionText, a: str, b: str) -> str:
    """The product of two i64 as i128."""
    left, right = (fn.value(f"zext i64 {value} to i128") for value in (a, b))
    return fn.value(f"mul i128 {left}, {right}")


def _reduce_scalar(fn: FunctionText, x: str, table: str) -> tuple[str, str, str]:
    """r, its low part (doubles) and the quadrant (i64) of one large double."""
    bits = fn.value(f"bitcast double {x} to i64")
    field = fn.value(f"and i64 {fn.value(f'lshr i64 {bits}, 52')}, 2047")
    fraction = fn.value(f"and i64 {bits}, {2**52 - 1}")
    m = fn.value(f"or i64 {fraction}, {2**52}")
    # k = field - 1075; the window starts at bit k - 2 of 2/pi, and the table 64 bits earlier.
    position = fn.value(f"sub i64 {field}, {1075 + 2 - 64}")
    w0, w1, w2 = _window(fn, table, position)
    # The top 128 bits of m * window modulo 2^192: two bits of quadrant, then the fraction.
    lowest, middle = _product(fn, m, w2), _product(fn, m, w1)
    top = fn.value(f"zext i64 {fn.value(f'mul i64 {m}, {w0}')} to i128")
    total = fn.value(f"add i128 {middle}, {fn.value(f'lshr i128 {lowest}, 64')}")
    total = fn.value(f"add i128 {total}, {fn.value(f'shl i128 {top}, 64')}")
    signed = fn.value(f"shl i128 {total}, 2")
    is_above = fn.value(f"icmp slt i128 {signed}, 0")
    quadrant = fn.value(f"trunc i128 {fn.value(f'lshr i128 {total}, 126')} to i64")
    quadrant = fn.value(f"add i64 {quadrant}, {fn.value(f'zext i1 {is_above} to i64')}")
    negated = fn.value(f"sub i128 0, {signed}")
    size = fn.value(f"select i1 {is_above}, i128 {negated}, i128 {signed}")
    # size * 2^-128 quarter turns: normalise, and multiply by pi/2 in 64 bits.
    zeros = fn.call("i128", "llvm.ctlz.i128", ("i128", size), ("i1", "false"))
    zeros = fn.value(f"and i128 {zeros}, 127")
    normal = fn.value(f"shl i128 {size}, {zeros}")
    head = fn.value(f"trunc i128 {fn.value(f'lshr i128 {normal}, 64')} to i64")
    angle = _product(fn, head, f"{HALF_PI_63}")
    leading = fn.value(f"trunc i128 {zeros} to i64")
    parts = []
    for shift, power in ((75, 52), (22, 105)):
        part = fn.value(f"trunc i128 {fn.value(f'lshr i128 {angle}, {shift}')} to i64")
        part = fn.value(f"and i64 {part}, {2**53 - 1}")
        scale = fn.value(f"sub i64 {1023 - power}, {leading}")
        scale = fn.value(f"bitcast i64 {fn.value(f'shl i64 {scale}, 52')} to double")
        value = fn.value(f"sitofp i64 {part} to double")
        parts.append(fn.value(f"fmul double {value}, {scale}"))
    r = fn.value(f"fadd double {parts[0]}, {parts[1]}")
    low = fn.value(f"fsub double {parts[1]}, {fn.value(f'fsub double {r}, {parts[0]}')}")
    # Signs: of the rounded fraction, and of x, which turns the quadrant around too.
    is_negative = fn.value(f"icmp slt i64 {bits}, 0")
    flip = fn.value(f"xor i1 {is_above}, {is_negative}")
    r, low = (
        fn.value(f"select i1 {flip}, double {fn.value(f'fneg double {part}')}, double {part}")
        for part in (r, low)
    )
    turned = fn.value(f"sub i64 0, {quadrant}")
    quadrant = fn.value(f"select i1 {is_negative}, i64 {turned}, i64 {quadrant}")
    is_endless = fn.value(f"icmp eq i64 {field}, 2047")
    nan = float_literal(float("nan"), "double")
    r = fn.value(f"select i1 {is_endless}, double {nan}, double {r}")
    return r, low, quadrant
