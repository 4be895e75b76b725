"""The user's line: equal code in two files, model code that is shipped with diffc."""

import numpy as np

import diffc
from diffc.cli import demo_model
from diffc.trace import trace

TEXT = "import numpy as np\ndef f(x):\n    return np.sin(x)\n"


def files_of(function, *args):
    graph = trace(function, args).graph
    return {eqn.loc.file for eqn in graph.eqns if eqn.loc is not None}


def test_equal_code_in_two_files():
    functions = []
    for name in ("one.py", "two.py"):
        namespace = {}
        exec(compile(TEXT, name, "exec"), namespace)
        functions.append(namespace["f"])
    assert functions[0].__code__ == functions[1].__code__
    assert files_of(functions[0], np.ones(3)) == {"one.py"}
    assert files_of(functions[1], np.ones(3)) == {"two.py"}


def test_model_code_of_diffc_counts_as_the_users():
    params = demo_model.initial_params(np.random.default_rng(0))
    found = files_of(demo_model.loss, params, np.ones((2, 64), np.float32), np.zeros(2, np.int32))
    assert found == {demo_model.__file__}


def test_other_code_of_diffc_does_not():
    optimizer = diffc.optim.adam()
    p = np.ones(3)
    assert files_of(lambda p: optimizer.update(p, optimizer.init(p), p)[0], p) == {__file__}
