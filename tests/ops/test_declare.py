"""Declaring an op: gaps and clashes fail at once."""

import pickle

import pytest

import diffc.ops
from diffc.ir.aval import FLOATS
from diffc.ops.avals import elementwise
from diffc.ops.declare import Map, Waived, Zero, op

FACETS = {
    "doc": "The identity.",
    "aval": elementwise(FLOATS),
    "numpy": lambda x: x,
    "sympy": "x",
    "derivative": Zero("a test"),
    "body": Map(lambda x: x),
}


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="op add is declared twice"):
        op("add", **FACETS)


@pytest.mark.parametrize(
    ("facet", "empty"), [("doc", ""), ("sympy", ""), ("sympy", Waived("")), ("domain", "")]
)
def test_an_empty_facet_is_refused(facet, empty):
    with pytest.raises(ValueError, match=f"op gap: facet {facet} is empty"):
        op("gap", **{**FACETS, facet: empty})
    with pytest.raises(KeyError):
        diffc.ops.find("gap")


@pytest.mark.parametrize("facet", ["doc", "aval", "numpy", "sympy", "derivative", "body"])
def test_a_missing_facet_is_refused(facet):
    with pytest.raises(TypeError, match=facet):
        op("gap", **{name: value for name, value in FACETS.items() if name != facet})


def test_ops_pickle_as_themselves():
    for declared in diffc.ops.every_op():
        assert pickle.loads(pickle.dumps(declared)) is declared


def test_every_doc_is_one_sentence():
    for declared in diffc.ops.every_op():
        assert declared.doc.endswith("."), declared
        assert len(declared.doc) <= 100, declared
