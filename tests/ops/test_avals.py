"""What the aval rules refuse, and how they say it."""

import pytest

import diffc.ops
from diffc.errors import DtypeError, ShapeError
from diffc.ir.aval import aval
from diffc.ir.graph import Builder
from diffc.ir.index import Symbol

n, m = Symbol("n"), Symbol("m")
F = aval("f32", (2, 3))
I = aval("i64", (4,))  # indices
S = aval("f32")

WRONG = [
    ("add", (F, aval("f32", (3,))), {}, r"operand 1 is f32\[3\]; needs shape \[2,3\]"),
    ("add", (F, aval("f64", (2, 3))), {}, r"operand 1 is f64\[2,3\], but operand 0 is f32\[2,3\]"),
    ("add", (aval("bool"),) * 2, {}, r"operand 0 is bool\[\]; needs a number"),
    ("add", (aval("f32", (n,)), aval("f32", (m,))), {}, r"operand 1 is f32\[m\]; needs shape \[n"),
    ("add", (F,), {}, "found 1 operands, needs 2"),
    ("add", (F, F), {"axis": 0}, "found params axis; needs none"),
    ("exp", (aval("i32"),), {}, "needs a float"),
    ("bitwise_and", (F, F), {}, "needs an integer or bool"),
    ("select", (F, F, F), {}, "operand 0 is .* needs bool"),
    ("select", (aval("bool", (2, 3)), F, S), {}, "operand 2 is .* needs shape"),
    ("select", (aval("bool", (2, 3)), F, aval("f64", (2, 3))), {}, "operand 2 is f64.*operand 1"),
    ("convert", (F,), {"dtype": "c64"}, "dtype 'c64' is not known"),
    ("integer_pow", (aval("i32"),), {"exponent": -1}, "exponent -1 needs floats"),
    ("reshape", (F,), {"shape": (7,)}, r"with 6 elements; shape \[7\] has 7"),
    ("reshape", (aval("f32", (n,)),), {"shape": (n, 2)}, "has 2[*]n"),
    ("reshape", (F,), {"shape": (-2, -3)}, "negative dimension"),
    ("transpose", (F,), {"perm": (0, 0)}, "does not permute"),
    ("broadcast", (F,), {"shape": (2, 3), "axes": (1, 0)}, "must increase"),
    ("broadcast", (F,), {"shape": (2, 5, 4), "axes": (0, 1)}, r"needs shape \[2,5\]"),
    ("broadcast", (aval("f32", (1,)),), {"shape": (2,), "axes": (0,)}, r"needs shape \[2\]"),
    ("broadcast", (F,), {"shape": (2, 3), "axes": (0,)}, "1 entries; needs 2"),
    ("reverse", (F,), {"axes": (2,)}, "needs axes below 2"),
    ("slice", (F,), {"start": (0, 0), "stop": (2, 4), "step": (1, 1)}, "0:4:1 on axis 1"),
    ("slice", (F,), {"start": (0, 0), "stop": (2, 3), "step": (1, 0)}, "step >= 1"),
    ("slice", (F,), {"start": (2, 0), "stop": (1, 3), "step": (1, 1)}, "2:1:1 on axis 0"),
    ("slice", (F,), {"start": (0,), "stop": (2, 3), "step": (1, 1)}, "start .* needs 2"),
    ("pad", (F, F), {"low": (0, 0), "high": (0, 0), "interior": (0, 0)}, "the padding.*scalar"),
    ("pad", (F, S), {"low": (0, -1), "high": (0, 0), "interior": (0, 0)}, "low .* widths >= 0"),
    ("pad", (F, aval("f64")), {"low": (0, 0), "high": (0, 0), "interior": (0, 0)}, "operand 1"),
    ("concat", (), {"axis": 0}, "at least one"),
    ("concat", (F, aval("f32", (2, 3, 1))), {"axis": 0}, "operand 1 .* except on axis 0"),
    ("concat", (F, aval("f32", (3, 3))), {"axis": 1}, "operand 1"),
    ("concat", (F, F), {"axis": 2}, "axis"),
    ("sum", (F,), {"axes": (1, 0)}, "must increase"),
    ("sum", (aval("bool", (2,)),), {"axes": (0,)}, "needs a number"),
    ("any", (F,), {"axes": (0,)}, "needs bool"),
    ("max", (aval("f32", (0, 3)),), {"axes": (0,)}, "no elements on axes"),
    ("argmax", (aval("f32", (0, 3)),), {"axis": 0}, "no elements on axis 0"),
    ("contract", (F, F), {"spec": "ij,jk->ik"}, "letter j .* is 2 there, but 3 in operand 0"),
    ("contract", (F, F), {"spec": "ij,kj->i"}, "only one operand has letter k; sum it first"),
    ("contract", (F, F), {"spec": "ij,ij->k"}, "no operand has the result's letter k"),
    ("contract", (F, F), {"spec": "ii,ij->j"}, "repeats a letter in operand 0"),
    ("contract", (F, F), {"spec": "i,ij->j"}, "operand 0 .* 2 axes; spec .* 1 letters"),
    ("contract", (F, F), {"spec": "ij"}, "is not of the form"),
    ("gather", (F, aval("f32", (4,))), {"axes": (0,), "mode": "clip"}, "operand 1 .* an integer"),
    ("gather", (F, I), {"axes": (0, 1), "mode": "clip"}, "found 1 index operands"),
    ("gather", (F, I), {"axes": (0,), "mode": "wrap"}, "mode 'wrap' is not known"),
    ("gather", (F, I, aval("i64", (5,))), {"axes": (0, 1), "mode": "clip"}, "operand 2"),
    ("gather", (aval("f32", (0,)), I), {"axes": (0,), "mode": "clip"}, "nothing to read"),
    ("gather", (F,), {"axes": (), "mode": "clip"}, "at least one axis"),
    ("scatter", (F, F, I), {"axes": (0,), "mode": "drop", "combine": "set"}, "operand 1 .*4,3"),
    ("scatter", (F, F, I), {"axes": (0,), "mode": "drop", "combine": "sub"}, "combine 'sub'"),
    ("dynamic_slice", (F, aval("i64")), {"sizes": (1, 1)}, "found 1 starts"),
    ("dynamic_slice", (F, I, I), {"sizes": (1, 1)}, "operand 1, a start, .* scalar"),
    ("dynamic_slice", (F,) + (aval("i64"),) * 2, {"sizes": (3, 1)}, "do not fit"),
    ("dynamic_update_slice", (F, aval("f32", (3, 1))) + (aval("i64"),) * 2, {}, "operand 1"),
    (
        "window",
        (F,),
        {"axes": (1,), "sizes": (2,), "strides": (1,), "dilations": (3,)},
        "spans 4 does not fit on axis 1",
    ),
    (
        "window",
        (F,),
        {"axes": (1,), "sizes": (2,), "strides": (0,), "dilations": (1,)},
        "strides .* integers >= 1",
    ),
    (
        "overlap_add",
        (F,),
        {"axes": (0,), "sizes": (2,), "strides": (1,), "dilations": (1,), "shape": (4,)},
        r"windows of \[4\] need shape \[3,2\]",
    ),
    ("iota", (), {"dtype": "f32", "shape": (2,), "axis": 1}, "axis 1 is not an axis"),
    ("constant", (), {"dtype": "f32", "shape": (2,), "data": b"1234"}, "4 bytes; .* needs 8"),
    ("random_bits", (aval("u32", (3,)),), {"shape": (2,)}, "the two words of a key"),
]


@pytest.mark.parametrize(
    ("name", "avals", "params", "message"), WRONG, ids=[f"{w[0]}-{w[3][:30]}" for w in WRONG]
)
def test_refused(name, avals, params, message):
    with pytest.raises((ShapeError, DtypeError), match=f"^{name}: .*{message}"):
        diffc.ops.find(name).infer(avals, params, ())


def region(*avals, outputs):
    builder = Builder("body")
    values = [builder.input(like) for like in avals]
    return builder.build([values[k] for k in outputs])


ROW = aval("f32", (2,))
SCAN = {"consts": 0, "carry": 1, "length": 3, "reverse": False}
REGIONS = [
    ("call", (ROW,), {}, (), "found 0 regions; needs one"),
    ("call", (F,), {}, (region(ROW, outputs=[0]),), r"operand 0 gives f32\[2,3\]; input 0"),
    ("call", (), {}, (region(ROW, outputs=[0]),), "found 0 operands; region @body takes 1"),
    ("scan", (ROW, F), SCAN, (region(ROW, ROW, outputs=[0]),), "operand 1 .* needs length 3"),
    (
        "scan",
        (ROW, aval("f32", (3,))),
        SCAN,
        (region(ROW, aval("f32"), outputs=[1]),),
        r"operand 0 is carried as f32\[2\], but region @body gives f32\[\]",
    ),
    ("scan", (ROW,), {**SCAN, "consts": 3}, (region(ROW, outputs=[0]),), "need at least 4"),
    ("scan", (ROW,), SCAN, (region(ROW, outputs=[]),), "gives 0 results; carry is 1"),
]


@pytest.mark.parametrize(("name", "avals", "params", "regions", "message"), REGIONS)
def test_refused_regions(name, avals, params, regions, message):
    with pytest.raises(ShapeError, match=f"^{name}: .*{message}"):
        diffc.ops.find(name).infer(avals, params, regions)


def test_what_is_not_known_yet_is_let_through():
    x = aval("f32", (n,))
    params = {"start": (2,), "stop": (7,), "step": (1,)}
    assert diffc.ops.find("slice").infer((x,), params, ()) == (aval("f32", (5,)),)
