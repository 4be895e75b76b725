"""Expressions of a kernel are told apart, also those that live only while a part is written."""

import gc

from diffc.codegen.emit.numbering import Numbering
from diffc.codegen.loops.nodes import Apply, Const


def test_an_expression_that_nobody_else_keeps_does_not_lend_its_number():
    numbering = Numbering()
    numbers = {numbering.of(Const("f32", float(k))).number for k in range(1000)}
    numbers |= {numbering.of(Apply("f32", "neg", (Const("f32", -1.5),))).number}
    gc.collect()
    assert len(numbers) == 1001
    assert numbering.of(Const("f32", 7.0)).number == numbering.of(Const("f32", 7.0)).number
