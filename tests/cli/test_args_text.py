"""The text of arguments: what is read, and what is refused with which words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffc import tree
from diffc.cli.args_text import parse_args
from diffc.errors import UsageError
from diffc.ir.aval import DTYPES
from diffc.trace import Abstract


def known(args):
    """What an argument's leaves are known by, in the same containers."""
    return tree.map(lambda leaf: (str(leaf.aval), leaf.weak, leaf.scalar), args)


def array(text):
    return (text, False, False)


FLOAT, INT, BOOL = ("f64[]", True, True), ("i64[]", True, True), ("bool[]", False, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("f32[64,1000] f32[1000,100]", (array("f32[64,1000]"), array("f32[1000,100]"))),
        ("f32[], i64[0]", (array("f32[]"), array("i64[0]"))),
        ("f32[ 3 , 4 ]", (array("f32[3,4]"),)),
        ("float int bool", (FLOAT, INT, BOOL)),
        ("{w: f32[3], b: float} bool", ({"w": array("f32[3]"), "b": FLOAT}, BOOL)),
        ("{'a b': float, \"c\": None, 3: int}", ({"a b": FLOAT, "c": None, 3: INT},)),
        ("[f32[2], (float,)] None () {}", ([array("f32[2]"), (FLOAT,)], None, (), {})),
        ("[[f16[1],],]", ([[array("f16[1]")]],)),
    ],
)  # fmt: skip
def test_text_is_read(text, expected):
    assert known(parse_args(text)) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("g32[3]", "column 1: 'g32' is not a dtype"),
        ("f32[3] f32", "column 8: f32 has no shape: write f32[]"),
        ("f32[3", "a ']' is missing"),
        ("f32[n]", "'n' is not a dimension"),
        ("f32[-1]", "'-1' is not a dimension"),
        ("f32[2,]", "'nothing' is not a dimension"),
        ("f32[2.5]", "'2.5' is not a dimension"),
        ("{w f32[3]}", "expected ':' behind the key w"),
        ("{w: f32[3]", "expected ',' or '}', found 'the end'"),
        ("{w: }", "'}' is not an argument"),
        ("{w:", "it ends too early"),
        ("{w: float, w: int}", "a key occurs twice"),
        ("{f32[3]: float}", "expected a key, found 'f32[3]'"),
        ("(f32[3] f32[3])", "expected ',' or ')', found 'f32[3]'"),
        ("f32[3])", "')' is not an argument"),
        ("3", "'3' is not an argument"),
        ("complex", "'complex' is not an argument"),
        ("f32[3]; float", "unexpected ';'"),
    ],
)
def test_anything_else_is_refused(text, problem):
    with pytest.raises(UsageError) as caught:
        parse_args(text)
    assert problem in caught.value.message
    assert "f32[64,10]" in caught.value.hint


LEAVES = st.sampled_from(["float", "int", "bool", "None"]) | st.builds(
    lambda dtype, shape: f"{dtype}[{','.join(map(str, shape))}]",
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 99), max_size=3),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(inner, max_size=3).map(lambda items: f"({''.join(i + ',' for i in items)})")
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{k}: {v}" for k, v in items.items()) + "}"
        )
    ),
    max_leaves=6,
)


def text_of(arg):
    match arg:
        case None:
            return "None"
        case Abstract(scalar=True):
            return {"f64": "float", "i64": "int", "bool": "bool"}[arg.aval.dtype]
        case Abstract():
            return str(arg.aval)
        case list():
            return f"[{', '.join(map(text_of, arg))}]"
        case tuple():
            return f"({''.join(text_of(item) + ',' for item in arg)})"
        case dict():
            return "{" + ", ".join(f"{k}: {text_of(v)}" for k, v in arg.items()) + "}"


@given(st.lists(TREES, max_size=3))
def test_trees_read_back(texts):
    args = parse_args(" ".join(texts))
    assert " ".join(map(text_of, args)) == " ".join(texts)
