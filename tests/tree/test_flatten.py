"""Trees come apart and together again, whatever they are made of."""

import copy
import math
import pickle
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffc import tree
from diffc.errors import UsageError

Point = namedtuple("Point", ["x", "y"])


@dataclass
class Dense:
    w: Any
    bias: Any
    name: str = field(default="dense", metadata={"static": True})


@dataclass(frozen=True, slots=True)
class Frozen:
    a: Any
    b: Any = field(init=False, default=None)

    def __post_init__(self):
        if isinstance(self.a, str):
            raise TypeError("must not run again")


@dataclass
class OneField:
    only: Any


@dataclass
class NoField:
    pass


class Pair:
    def __init__(self, left, right):
        self.left, self.right = left, right


tree.register_node(
    Pair,
    lambda pair: ((pair.left, pair.right), None),
    lambda aux, children: Pair(*children),
    steps=lambda aux: (".left", ".right"),
)


def round_trip(value):
    leaves, treedef = tree.flatten(value)
    assert treedef.num_leaves == len(leaves) == len(treedef.paths())
    again = tree.unflatten(treedef, leaves)
    assert tree.structure(again) is treedef
    assert type(again) is type(value)
    return again


@pytest.mark.parametrize(
    ("value", "leaves"),
    [
        (1.0, [1.0]),
        ("text", ["text"]),
        (None, []),
        ([], []),
        ((), []),
        ({}, []),
        ([None, [None]], []),
        ([1], [1]),
        ((1,), [1]),
        ((1, (2, None, [3])), [1, 2, 3]),
        ({"b": 1, "a": 2}, [2, 1]),
        ({2: "x", 10: "y", -1: "z"}, ["z", "x", "y"]),
        ({"b": 1, 0: 2}, [1, 2]),  # cannot be sorted
        (OrderedDict(b=1, a=2), [1, 2]),
        (defaultdict(list, {"b": 1, "a": 2}), [2, 1]),
        (Point(1, [2]), [1, 2]),
        (Dense(1, 2), [1, 2]),
        (OneField([7]), [7]),
        (NoField(), []),
    ],
    ids=repr,
)
def test_round_trip(value, leaves):
    assert tree.leaves(value) == leaves
    assert round_trip(value) == value


def test_arrays_are_leaves_and_stay_the_same_objects():
    x, y = np.zeros(3), np.float32(1)
    leaves, treedef = tree.flatten({"y": y, "x": [x]})
    assert leaves[0] is x
    assert leaves[1] is y
    assert tree.unflatten(treedef, leaves)["x"][0] is x


def test_subclasses_of_containers_are_leaves():
    class MyList(list):
        pass

    class MyDict(dict):
        pass

    for value in (MyList([1]), MyDict(a=1), {1, 2}, frozenset(), np.array([1, 2]), Point):
        assert tree.leaves(value) == [value] or tree.leaves(value)[0] is value
        assert tree.structure(value) is tree.LEAF


def test_a_dataclass_type_is_a_leaf():
    assert tree.leaves([Dense]) == [Dense]


def test_defaultdict_keeps_its_factory():
    again = round_trip(defaultdict(list, a=1))
    assert again["missing"] == []
    assert tree.structure(defaultdict(list, a=1)) != tree.structure(defaultdict(dict, a=1))


def test_dict_is_rebuilt_in_sorted_order():
    assert list(round_trip({"b": 1, "a": 2})) == ["a", "b"]


def test_dataclasses_are_rebuilt_without_their_init():
    leaves, treedef = tree.flatten(Frozen(1.0))
    again = tree.unflatten(treedef, ["a string"])
    assert leaves == [1.0]
    assert (again.a, again.b) == ("a string", None)


def test_static_fields_are_structure():
    dense = Dense(1, 2, "first")
    assert tree.leaves(dense) == [1, 2]
    assert round_trip(dense).name == "first"
    assert tree.structure(dense) != tree.structure(Dense(1, 2, "second"))
    assert tree.structure(dense) == tree.structure(Dense(3, 4, "first"))


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (0.0, -0.0), ((1,), (1.0,)), (((0.0,),), ((-0.0,),))]
)
def test_static_values_that_only_compare_equal_are_kept_apart(one, other):
    first, second = tree.structure(Dense(0, 0, one)), tree.structure(Dense(0, 0, other))
    assert first != second
    assert repr(tree.unflatten(second, [0, 0]).name) == repr(other)


def test_a_static_nan_is_one_structure():
    assert tree.structure(Dense(0, 0, math.nan)) is tree.structure(Dense(0, 0, float("nan")))


def test_registered_nodes():
    again = round_trip(Pair(1, Pair([2], None)))
    assert (again.left, again.right.left) == (1, [2])


def test_a_class_can_be_registered_after_it_was_met():
    class Late:
        def __init__(self, value):
            self.value = value

    late = Late(5)
    assert tree.leaves(late) == [late]
    tree.register_node(Late, lambda obj: ((obj.value,), None), lambda aux, xs: Late(*xs))
    assert tree.leaves(late) == [5]


@pytest.mark.parametrize("cls", [dict, list, type(None), Pair])
def test_registering_twice_is_an_error(cls):
    with pytest.raises(UsageError, match=r"already registered"):
        tree.register_node(cls, lambda obj: ((), None), lambda aux, xs: None)


def test_registering_an_instance_is_an_error():
    with pytest.raises(UsageError, match="needs a class"):
        tree.register_node([1], lambda obj: ((), None), lambda aux, xs: None)


def test_unhashable_static_field():
    with pytest.raises(
        UsageError, match=r"static part of a Dense is not hashable: \(\['list'\],\)"
    ):
        tree.flatten([Dense(1, 2, ["list"])])


def test_steps_that_miss_a_child():
    class Odd:
        pass

    tree.register_node(Odd, lambda obj: ((1, 2), None), lambda aux, xs: Odd(), steps=lambda aux: ())
    with pytest.raises(UsageError, match="Odd has 2 children, but its registered steps name 0"):
        tree.flatten_with_paths(Odd())


def test_paths():
    params = {"w": [Dense(1, {"k": 2}), Point(3, (4,))], "p": Pair(5, 6), 7: 8}
    found, _ = tree.flatten_with_paths(params, "params")
    assert dict(found) == {
        "params['w'][0].w": 1,
        "params['w'][0].bias['k']": 2,
        "params['w'][1].x": 3,
        "params['w'][1].y[0]": 4,
        "params['p'].left": 5,
        "params['p'].right": 6,
        "params[7]": 8,
    }
    assert [path for path, _ in tree.flatten_with_paths(1.0, "x")[0]] == ["x"]


def test_is_leaf_keeps_containers_whole():
    leaves, treedef = tree.flatten([(1, 2), None, [3]], is_leaf=lambda x: isinstance(x, tuple))
    assert leaves == [(1, 2), 3]
    assert tree.unflatten(treedef, leaves) == [(1, 2), None, [3]]
    assert tree.flatten((1, 2), is_leaf=lambda x: True) == ([(1, 2)], tree.LEAF)


def test_wrong_number_of_leaves():
    treedef = tree.structure([0, (0,)])
    for leaves in ([], [1], [1, 2, 3]):
        with pytest.raises(UsageError, match=rf"has 2 leaves, but {len(leaves)} were given"):
            tree.unflatten(treedef, leaves)


def test_unflatten_takes_any_iterable_and_keeps_the_callers_list():
    treedef, leaves = tree.structure([0, 0]), [1, 2]
    again = tree.unflatten(treedef, leaves)
    again.append(3)
    assert leaves == [1, 2]
    assert tree.unflatten(treedef, iter(leaves)) == [1, 2]


def test_deep_trees_do_not_recurse():
    value: Any = 1.0
    for _ in range(5000):
        value = [value]
    leaves, treedef = tree.flatten(value)
    assert leaves == [1.0]
    assert treedef.paths() == ["[0]" * 5000]
    assert repr(treedef).count("[") == 5000
    assert tree.structure(tree.unflatten(treedef, leaves)) is treedef
    assert treedef.spec() is not None


@pytest.mark.parametrize("leaves", [0, 3])
def test_a_tree_that_contains_itself(leaves):
    value: list[Any] = [1.0] * leaves
    value += [value, value]
    with pytest.raises(UsageError, match="nested more than") as caught:
        tree.flatten(value)
    assert caught.value.hint == "does a container contain itself?"


def test_map():
    params, grads = {"w": [3.0, 4.0], "b": None}, {"w": [1.0, 2.0], "b": None}
    assert tree.map(lambda w, g: w - g, params, grads) == {"w": [2.0, 2.0], "b": None}
    assert tree.map(str, 1) == "1"
    assert tree.map(str, []) == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"w": [1, 2]}, r"at tree: expected a dict with keys 'b', 'w', found a dict with keys 'w'"),
        (None, r"at tree: expected a dict with keys 'b', 'w', found None"),
        (
            {"w": [1], "b": (1,)},
            r"at tree\['w'\]: expected a list of length 2, found a list of length 1",
        ),
        (
            {"w": (1, 2), "b": (1,)},
            r"at tree\['w'\]: expected a list of length 2, found a tuple of",
        ),
        ({"w": [1, 2], "b": (None,)}, r"at tree\['b'\]\[0\]: expected a leaf, found None"),
    ],
)
def test_map_names_the_first_difference(other, message):
    with pytest.raises(UsageError, match="tree 2 differs from tree 1 " + message):
        tree.map(lambda a, b: a, {"w": [1, 2], "b": (1,)}, other)


def test_map_counts_trees():
    with pytest.raises(UsageError, match="tree 3 differs"):
        tree.map(max, [1], [2], [3, 4])


def test_structures_compare_and_hash():
    first, second = tree.structure({"a": [1, 2]}), tree.structure({"a": [np.ones(3), "x"]})
    assert first == second
    assert hash(first) == hash(second)
    different = [
        [1, 2],
        {"a": (1, 2)},
        {"a": [1]},
        {"b": [1, 2]},
        {"a": [1, 2], "b": None},
        1,
        None,
    ]
    structures = {tree.structure(value) for value in different}
    assert len(structures) == len(different)
    assert first not in structures


@pytest.mark.parametrize(
    "value", [1, None, {"a": (1, [2])}, Dense(1, Point(2, 3), 4.0), Pair(1, defaultdict(int))]
)
def test_copies_and_pickles_are_the_same_structure(value):
    treedef = tree.structure(value)
    assert pickle.loads(pickle.dumps(treedef)) is treedef
    assert copy.deepcopy(treedef) is treedef
    assert copy.copy(treedef) is treedef


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "*"),
        (None, "None"),
        ([], "[]"),
        ((), "()"),
        ((1,), "(*,)"),
        ({"a": [1, None]}, "{'a': [*, None]}"),
        (OrderedDict(a=1), "OrderedDict({'a': *})"),
        (Point(1, 2), "Point(x=*, y=*)"),
        (Dense(1, (2,), "n"), "Dense(w=*, bias=(*,), static=('n',))"),
        (Pair(1, 2), "Pair(left=*, right=*)"),
    ],
)
def test_text(value, text):
    assert repr(tree.structure(value)) == f"TreeDef({text})"


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        ("leaf", 0),
        ({"w": [9, (9,)], "b": None, "a": 9}, {"a": 0, "b": None, "w": [1, (2,)]}),
        ([], []),
    ],
)
def test_spec(value, spec):
    assert tree.structure(value).is_plain
    assert tree.structure(value).spec() == spec


@pytest.mark.parametrize("value", [Point(1, 2), [OrderedDict()], {"a": Dense(1, 2)}])
def test_no_spec_for_other_containers(value):
    assert not tree.structure(value).is_plain
    assert tree.structure(value).spec() is None


def test_the_spec_of_none_is_plain():
    assert tree.structure(None).is_plain
    assert tree.structure(None).spec() is None


trees = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=2),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(Dense, inner, inner, st.sampled_from([0, 0.0, "a"])),
    ),
    max_leaves=20,
)


@given(trees)
def test_drawn_trees_round_trip(value):
    assert round_trip(value) == value


@given(trees)
def test_drawn_paths_lead_to_their_leaves(value):
    for path, leaf in tree.flatten_with_paths(value, "value")[0]:
        assert eval(path, {"value": value}) is leaf


@given(trees, trees)
def test_drawn_structures_differ_where_explained(one, other):
    first, second = tree.structure(one), tree.structure(other)
    assert (first == second) is (tree.explain_mismatch(first, second) is None)
