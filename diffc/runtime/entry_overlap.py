"""The native entry's check that memory which is written overlaps no other operand.

The addresses of all operands already lie in the array that the program gets; their sizes are known
when the entry is emitted. Few pairs are compared one by one; many in a loop of eight operands at a
time which counts overlaps: each written operand overlaps itself once, and nothing else may.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffc.runtime.entry_writer import Writer

if TYPE_CHECKING:
    from diffc.runtime.executable import Executable, InputSpec

__all__ = ["check_overlap", "padded"]

# Up to this many pairs are written out.
UNROLLED_PAIRS = 24
LANES = 8
VECTOR = f"<{LANES} x i64>"


def padded(count: int) -> int:
    """Slots of the operands' addresses: whole vectors of them."""
    return max(LANES, -(-count // LANES) * LANES)


def check_overlap(w: Writer, executable: "Executable", inputs: str) -> None:
    """Emits the check; the slow path deals with what overlaps.

    Args:
        w: The entry, where all operands' addresses are stored and nothing was changed yet.
        executable: Says what is written.
        inputs: The operands' addresses.
    """
    sizes = [_nbytes(spec) if spec.kind == "array" else 0 for spec in executable.all_inputs]
    written = [index for index in executable.written if sizes[index]]
    pairs = [
        (index, other)
        for index in written
        for other, size in enumerate(sizes)
        if size and (other > index or other not in written) and other != index
    ]
    if not pairs:
        return
    if len(pairs) <= UNROLLED_PAIRS:
        _compare_pairs(w, pairs, sizes, inputs)
    else:
        _count_overlaps(w, written, sizes, inputs)


def _compare_pairs(
    w: Writer, pairs: Sequence[tuple[int, int]], sizes: Sequence[int], inputs: str
) -> None:
    starts = {
        index: w.load(inputs, 8 * index, "i64")
        for index in sorted({index for pair in pairs for index in pair})
    }
    ends = {index: w.value(f"add i64 {start}, {sizes[index]}") for index, start in starts.items()}
    apart = []
    for a, b in pairs:
        before = w.value(f"icmp ule i64 {ends[a]}, {starts[b]}")
        after = w.value(f"icmp ule i64 {ends[b]}, {starts[a]}")
        apart.append(w.value(f"or i1 {before}, {after}"))
    w.need(w.all(apart))


def _count_overlaps(w: Writer, written: Sequence[int], sizes: Sequence[int], inputs: str) -> None:
    slots = padded(len(sizes))
    padding = [0] * (slots - len(sizes))
    for slot in range(len(sizes), slots):
        w.put(inputs, slot, "null")
    table = ", ".join(f"i64 {size}" for size in (*sizes, *padding))
    w.globals.append(f"@sizes = internal constant [{slots} x i64] [{table}], align 64")
    which = ", ".join(f"i64 {index}" for index in written)
    w.globals.append(f"@written = internal constant [{len(written)} x i64] [{which}]")

    def element(base: str, index: str, kind: str = "i64") -> str:
        place = w.value(f"getelementptr i64, ptr {base}, i64 {index}")
        return w.value(f"load {kind}, ptr {place}, align 8")

    def spread(scalar: str) -> str:
        one = w.value(f"insertelement {VECTOR} poison, i64 {scalar}, i32 0")
        lanes = f"<{LANES} x i32> zeroinitializer"
        return w.value(f"shufflevector {VECTOR} {one}, {VECTOR} poison, {lanes}")

    w.line("br label %overlap")
    w.label("overlap")
    w.line("br label %each")
    w.label("each")
    w.line("%k = phi i64 [0, %overlap], [%k_next, %each_next]")
    w.line(f"%hits0 = phi {VECTOR} [zeroinitializer, %overlap], [%hits, %each_next]")
    this = element("@written", "%k")
    start = element(inputs, this)
    end = w.value(f"add i64 {start}, {element('@sizes', this)}")
    low, high = spread(start), spread(end)
    w.line("br label %against")
    w.label("against")
    w.line("%j = phi i64 [0, %each], [%j_next, %against]")
    w.line(f"%hits1 = phi {VECTOR} [%hits0, %each], [%hits, %against]")
    lows = element(inputs, "%j", VECTOR)
    highs = w.value(f"add {VECTOR} {lows}, {element('@sizes', '%j', VECTOR)}")
    below = w.value(f"icmp ult {VECTOR} {lows}, {high}")
    above = w.value(f"icmp ugt {VECTOR} {highs}, {low}")
    both = w.value(f"and <{LANES} x i1> {below}, {above}")
    w.line(f"%hits = add {VECTOR} %hits1, {w.value(f'zext <{LANES} x i1> {both} to {VECTOR}')}")
    w.line(f"%j_next = add i64 %j, {LANES}")
    more = w.value(f"icmp ult i64 %j_next, {slots}")
    w.line(f"br i1 {more}, label %against, label %each_next")
    w.label("each_next")
    w.line("%k_next = add i64 %k, 1")
    more = w.value(f"icmp ult i64 %k_next, {len(written)}")
    w.line(f"br i1 {more}, label %each, label %counted")
    w.label("counted")
    total = w.value(f"call i64 @llvm.vector.reduce.add.v8i64({VECTOR} %hits)")
    w.need(w.value(f"icmp eq i64 {total}, {len(written)}"))


def _nbytes(spec: "InputSpec") -> int:
    total = spec.dtype.itemsize
    for size in spec.shape:
        total *= size
    return total
