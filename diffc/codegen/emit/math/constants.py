"""Mathematical constants, split exactly into floats of one dtype.

A constant is a rational number from sixty decimal digits. `split` cuts it into parts: all but the
last have few enough bits that a product with a small integer is exact, the last is rounded.
"""

from fractions import Fraction

from diffc.codegen.emit.text import round_to

__all__ = ["LN2", "LOG2_E", "LOG10_2", "LOG10_E", "PI", "split"]

PI = Fraction("3.14159265358979323846264338327950288419716939937510582097494459")
LN2 = Fraction("0.693147180559945309417232121458176568075500134360255254120680009")
LOG2_E = Fraction("1.44269504088896340735992468100189213742664595415298593413544940")
LOG10_E = Fraction("0.434294481903251827651128918916605082294397005803666566114453783")
LOG10_2 = Fraction("0.301029995663981195213738894724493026768189881462108541310427461")


def split(value: Fraction, scalar: str, *bits: int) -> list[float]:
    """Parts that sum up to `value`: one of each number of significant bits, then the rest.

    A part is cut off towards zero, so that all parts have the sign of the constant.
    """
    parts: list[float] = []
    rest = value
    for count in bits:
        power = Fraction(1)
        while abs(rest) / power >= 1:
            power *= 2
        while abs(rest) / power < Fraction(1, 2):
            power /= 2
        part = Fraction(int(rest / power * 2**count)) * power / 2**count
        parts.append(float(part))
        rest -= part
    return [*parts, round_to(float(rest), scalar)]
