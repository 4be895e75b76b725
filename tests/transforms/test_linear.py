"""What is linear is found to be, what is not is named; in regions too."""

import pytest

import diffc.ops
from diffc.ir.text import parse
from diffc.transforms import explain_nonlinear

HEAD = "func @f(p: bool[], n: i64[], w: f64[3], x: f64[3]) -> (f64[3]) {\n"
BRANCHES = """  %0: f64[3] = cond(p, w, x) {{
    func @no(w: f64[3], x: f64[3]) -> (f64[3]) {{
      %0: f64[3] = mul(w, x)
      return %0
    }}
    func @yes(w: f64[3], x: f64[3]) -> (f64[3]) {{
      %0: f64[3] = {yes}
      return {result}
    }}
  }}
  return %0
}}"""
LOOP = """  %0: i64[], %1: f64[3] = while(n, w, 0:i64[], {start}, consts=1, slots=4, tests=1) {{
    func @test(n: i64[], i: i64[], c: f64[3]) -> (bool[]) {{
      {test}
    }}
    func @body(w: f64[3], i: i64[], c: f64[3]) -> (i64[], f64[3]) {{
      %0: i64[] = add(i, 1:i64[])
      %1: f64[3] = {step}
      return %0, %1
    }}
  }}
  return %1
}}"""
COUNT = {"test": "%0: bool[] = lt(i, n)\n      return %0"}
ASKS = {
    "test": "%0: f64[] = sum(c, axes=[0])\n      %1: bool[] = lt(%0, 1.0:f64[])\n      return %1"
}

CASES = {
    "scaled": ("  %0: f64[3] = mul(w, x)\n  return %0\n}", None),
    "literal zero": ("  return 0.0:f64[3]\n}", None),
    "constant": ("  return w\n}", "does not depend"),
    "quotient": ("  %0: f64[3] = div(x, w)\n  return %0\n}", None),
    "in the denominator": ("  %0: f64[3] = div(w, x)\n  return %0\n}", "div is not linear"),
    "shifted": ("  %0: f64[3] = sub(w, x)\n  return %0\n}", "sub adds"),
    "zero shift": ("  %0: f64[3] = add(x, 0.0:f64[3])\n  return %0\n}", None),
    "cond": (BRANCHES.format(yes="neg(x)", result="%0"), None),
    "cond with zero": (BRANCHES.format(yes="neg(x)", result="0.0:f64[3]"), None),
    "cond with a constant": (BRANCHES.format(yes="neg(w)", result="%0"), "a branch gives"),
    "cond with a square": (BRANCHES.format(yes="mul(x, x)", result="%0"), "in cond: mul"),
    "while": (LOOP.format(start="x", step="mul(c, w)", **COUNT), None),
    "while from zero": (
        LOOP.format(start="0.0:f64[3]", step="mul(c, w)", **COUNT),
        "does not depend",
    ),
    "while with a square": (LOOP.format(start="x", step="mul(c, c)", **COUNT), "in while: mul"),
    "while that adds": (LOOP.format(start="x", step="add(c, w)", **COUNT), "in while: add adds"),
    "while that asks": (LOOP.format(start="x", step="mul(c, w)", **ASKS), "while chooses"),
}


@pytest.mark.parametrize("name", CASES)
def test_linear_in_x(name):
    text, problem = CASES[name]
    graph = parse(HEAD + text, diffc.ops.table())
    found = explain_nonlinear(graph, [False, False, False, True])
    if problem is None:
        assert found is None
    else:
        assert found is not None and problem in found
