"""The forms of kernels, as text."""

from diffc.codegen.loops.text import print_kernel
from diffc.codegen.lower import Messages, lower
from diffc.ir.graph import literal, prune
from tests.codegen.lower.test_lower import B, softmax


def text(builder, *outputs):
    return print_kernel(lower(prune(builder.build(outputs)), "k", Messages())).strip()


def test_rows_with_a_costly_value():
    b = B()
    out, *_ = softmax(b, b.arg(4, 8, 16, dtype="f32", name="x"), 2)
    assert (
        text(b, out)
        == """
kernel @k(x: in f32[32,16], out: out f32[32,16]) {
  scratch row: f32[16]
  par i0 in 32 {
    s0: f32 = reduce max lanes(r0 in 16: x[i0, r0])
    sweep r0 in 16 {
      let %0 = exp(sub(x[i0, r0], s0))
      s1: f32 = reduce sum lanes(r0 in 16: %0)
      row[r0] = %0
    }
    par r0 in 16 {
      out[i0, r0] = div(row[r0], s1)
    }
  }
}
""".strip()
    )


def test_a_weight_update():
    b = B()
    x, dz, w = b.arg(64, 10, name="x"), b.arg(64, 3, name="dz"), b.arg(10, 3, name="w")
    g = b.op("contract", x, dz, spec="ij,ik->jk")
    assert (
        text(b, b.op("sub", w, b.op("mul", g, literal(0.5, g.aval))))
        == """
kernel @k(x: in f64[64,10], dz: in f64[64,3], w: in f64[10,3], out: out f64[10,3]) {
  par i0 in 10, i1 in 3 {
    s0: f64 = contract(k0 in 64: x[k0, i0], dz[k0, i1])
    out[i0, i1] = sub(w[i0, i1], mul(s0, 0.5:f64))
  }
}
""".strip()
    )


def test_sums_of_columns():
    b = B()
    x = b.arg(64, 40, name="x")
    assert (
        text(b, b.op("sum", b.op("mul", x, x), axes=(0,)))
        == """
kernel @k(x: in f64[64,40], out: out f64[40]) {
  par j0 in 40 {
    s0: f64 = reduce sum sequence(r0 in 64: mul(x[r0, j0], x[r0, j0]))
    out[j0] = s0
  }
}
""".strip()
    )


def test_sums_of_narrow_columns():
    b = B()
    x = b.arg(64, 10, name="x")
    assert (
        text(b, b.op("sum", x, axes=(0,)))
        == """
kernel @k(x: in f64[640], out: out f64[10]) {
  scratch partial: f64[1,40]
  par j0 in 40 {
    s0: f64 = reduce sum sequence(r0 in 16: x[j0 + 40*r0])
    partial[0, j0] = s0
  }
  par j0 in 10 {
    s1: f64 = reduce sum sequence(p1 in 4: partial[0, j0 + 10*p1])
    out[j0] = s1
  }
}
""".strip()
    )


def test_a_sum_of_everything():
    b = B()
    x = b.arg(300, 200, name="x")
    assert (
        text(b, b.op("sum", x, axes=(0, 1)))
        == """
kernel @k(x: in f64[60000], out: out f64[]) {
  scratch partial: f64[15]
  par c in 15 {
    s0: f64 = reduce sum lanes(r0 in 4000: x[4000*c + r0])
    partial[c] = s0
  }
  s1: f64 = reduce sum lanes(p0 in 15: partial[p0])
  out[] = s1
}
""".strip()
    )


def test_padding_is_a_choice():
    b = B()
    x = b.arg(6, name="x")
    y = b.op("pad", x, literal(0.0, b.arg().aval), low=(1,), high=(2,), interior=(0,))
    assert "choose(`i0 >= 1 & i0 < 7`, x[i0 - 1], 0.0:f64)" in text(b, y)
