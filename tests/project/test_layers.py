"""Imports point down only, third parties stay at home, files stay small."""

import re
import sys

import pytest

from tests.project.imports import (
    PACKAGE,
    ROOT,
    imported,
    imported_by_text,
    module_name,
    sources,
)

# Each layer and what it may import, lowest first. A name stands for everything below it, the
# longest matching name is a module's layer; all may import themselves, `errors` and `version`.
# The lone "" is the package's own face, `diffc/__init__.py`.
_COMPILER = ("tree", "ir", "ops", "trace", "optimize", "transforms", "plan", "codegen", "runtime")
_CALLS = (*_COMPILER, "pipeline", "leaves", "arguments", "stored", "programs")
_VALUES = ("diagnose", "concrete")
_CORE = (*_CALLS, "jitted", *_VALUES, "gradient", "linearized", "control")
_DERIVED = (
    "transformed",
    "vectorized",
    "jacobians",
    "curvature",
    "custom",
    "taylor",
    "conventions",
    "linear",
    "implicit",
    "sparse",
    "convert",
)
_FACE = (*_CORE, *_DERIVED, "random", "api")
_NAMESPACES = ("numpy", "scipy", "nn", "optim", "train")

LAYERS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "version": (),
    "tree": (),
    "ir": (),
    "ops": ("ir",),
    "trace": ("tree", "ir", "ops"),
    "optimize": ("ir", "ops"),
    "transforms": ("tree", "ir", "ops", "trace", "optimize"),
    "plan": ("ir", "ops"),
    "codegen.targets": (),
    "codegen.loops": ("ir", "codegen.targets"),
    "codegen.lower": ("ir", "ops", "plan", "codegen.loops"),
    "codegen.tile": ("ir.index", "codegen.loops", "codegen.targets"),
    "codegen.slabs": ("ir", "plan", "codegen.loops", "codegen.targets", "codegen.tile"),
    "codegen.emit": ("ir.index", "codegen.loops", "codegen.targets"),
    "codegen": ("ir", "ops", "plan"),
    "codegen.allocate": ("ir", "plan", "codegen.loops", "codegen.lower", "codegen.targets"),
    "runtime": ("tree", "codegen"),
    "pipeline": _COMPILER,
    "leaves": ("ir", "trace"),
    "arguments": ("tree", "trace"),
    "stored": ("ir", "ops"),
    "programs": (*_COMPILER, "pipeline", "leaves", "stored"),
    "jitted": _CALLS,
    "diagnose": ("ir", "ops", "trace"),
    "concrete": (*_CALLS, "jitted"),
    "gradient": (*_CALLS, "jitted", *_VALUES),
    "linearized": (*_CALLS, "jitted", *_VALUES, "gradient"),
    "control": (*_CALLS, "concrete"),
    "random": ("ops", "trace"),
    "transformed": (*_CALLS, "jitted", "concrete", "gradient"),
    "vectorized": (*_CALLS, "jitted", "transformed"),
    "jacobians": (*_CORE, "transformed"),
    "curvature": (*_CORE, "jacobians"),
    "custom": (*_CORE, "transformed"),
    "taylor": (*_CORE, "transformed"),
    "conventions": ("trace",),
    "linear": (*_CORE, "transformed", "vectorized", "custom"),
    "implicit": (*_CORE, "custom", "linear"),
    "sparse": (*_CORE, "vectorized"),
    "convert": (*_CORE, "transformed"),
    "api": (*_CORE, *_DERIVED),
    "numpy": ("tree", "trace", "api"),
    "scipy": ("tree", "trace", "api", "numpy"),
    "nn": ("tree", "trace", "api", "numpy"),
    "optim": ("tree", "trace", "random", "api", "numpy"),
    "train": ("tree", "trace", "api", "numpy", "nn", "optim"),
    "": ("api", "random", *_NAMESPACES),
    "symbolic": (*_FACE, *_NAMESPACES, ""),
    "explore": (*_FACE, *_NAMESPACES, "", "symbolic"),
    "cli": (*_FACE, *_NAMESPACES, "", "symbolic", "explore"),
}

# Where a third-party library may be imported; numpy may be everywhere.
HOMES: dict[str, tuple[str, ...]] = {
    "llvmlite": ("runtime",),
    "sympy": ("symbolic",),
    "mpmath": ("symbolic",),
    "scipy": ("scipy",),
    "ml_dtypes": ("ir",),
    "rich": ("cli", "explore"),
    "matplotlib": ("cli", "explore"),
    "sklearn": ("cli",),
}

LONGEST_FILE = 600


def is_below(name: str, layer: str) -> bool:
    return name == layer or (layer != "" and name.startswith(layer + "."))


def layer_of(name: str) -> str | None:
    """The layer of a module, given by its name without the leading `diffc.`."""
    matches = [layer for layer in LAYERS if is_below(name, layer)]
    return max(matches, key=len, default=None)


def inner_name(module: str) -> str:
    return module.removeprefix("diffc").removeprefix(".")


def may_import(importer: str, target: str) -> bool:
    """Whether one module of diffc may import another, both named without `diffc.`."""
    layer = layer_of(importer)
    if layer is None:
        return False
    # The face may be used by all that may use the whole API.
    allowed = (
        layer,
        "errors",
        "version",
        *LAYERS[layer],
        *([""] if "api" in LAYERS[layer] else []),
    )
    return any(is_below(target, name) for name in allowed)


def foreign_home(module: str) -> tuple[str, ...] | None:
    """Where a module from outside may be imported: () nowhere, None everywhere."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "numpy":
        return None
    return HOMES.get(top, ())


FILES = sources("diffc")


@pytest.mark.parametrize("path", FILES, ids=[module_name(path) for path in FILES])
def test_imports_point_down(path):
    importer = inner_name(module_name(path))
    wrong = []
    for line, module in imported(path):
        if module.partition(".")[0] == "diffc":
            if not may_import(importer, inner_name(module)):
                wrong.append(f"line {line}: {module} is no layer below")
            continue
        home = foreign_home(module)
        if home is not None and not any(is_below(importer, name) for name in home):
            where = " or ".join(f"diffc/{name}" for name in home) or "nowhere: give it a home"
            wrong.append(f"line {line}: {module} belongs in {where}")
    assert not wrong


def test_every_module_has_a_layer():
    names = [inner_name(module_name(path)) for path in FILES]
    assert [name for name in names if layer_of(name) is None] == []


def test_the_table_has_an_order():
    seen: list[str] = []
    for layer, allowed in LAYERS.items():
        for name in allowed:
            known = any(is_below(name, earlier) or is_below(earlier, name) for earlier in seen)
            assert known, f"{layer} may import {name}, which stands above it"
        seen.append(layer)


@pytest.mark.parametrize(
    ("importer", "target", "answer"),
    [
        ("ops.elementwise", "ir.graph", True),
        ("ops.elementwise", "ops.declare", True),
        ("ops.elementwise", "errors", True),
        ("ops.elementwise", "optimize.rules", False),
        ("ir.graph", "ops", False),
        ("ir.graph", "", False),
        ("irrational", "ir.graph", False),
        ("codegen.emit.scalar", "codegen.loops.nodes", True),
        ("codegen.emit.scalar", "ir.index", True),
        ("codegen.emit.scalar", "ir.graph", False),
        ("codegen.emit.scalar", "ops.registry", False),
        ("codegen.emit.scalar", "codegen.tile", False),
        ("codegen.loops.nodes", "ops.registry", False),
        ("codegen.lower.rows", "plan.program", True),
        ("runtime.build", "codegen.emit", True),
        ("runtime.build", "ir.graph", False),
        ("nn.dense", "api", True),
        ("nn.dense", "", True),
        ("nn.dense", "transforms.vjp", False),
        ("", "api", True),
        ("", "symbolic", False),
        ("symbolic.prove", "ops.registry", True),
        ("cli.main", "symbolic.prove", True),
    ],
)
def test_the_rule(importer, target, answer):
    assert may_import(importer, target) is answer


def test_imports_are_found_wherever_they_stand():
    text = """
import os.path, diffc.plan
from diffc import errors, jit
from . import graph
from .. import ops
from ..ops.declare import op
def f():
    import sympy
    if True:
        from diffc.ir import graph, Missing
    importlib.import_module("scipy.linalg")
    __import__(name)
"""
    assert imported_by_text(text, "diffc.ir") == [
        (2, "os.path"),
        (2, "diffc.plan"),
        (3, "diffc.errors"),
        (3, "diffc"),
        (4, "diffc.ir.graph"),
        (5, "diffc.ops"),
        (6, "diffc.ops.declare"),
        (8, "sympy"),
        (10, "diffc.ir.graph"),
        (10, "diffc.ir"),
        (11, "scipy.linalg"),
        (12, "?"),
    ]


def test_third_parties_have_homes():
    assert foreign_home("numpy.linalg") is None
    assert foreign_home("os.path") is None
    assert foreign_home("llvmlite.binding") == ("runtime",)
    assert foreign_home("torch") == ()
    assert foreign_home("?") == ()


def test_files_are_short():
    lengths = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources("diffc", "tests", "benchmarks")
    }
    assert {path: n for path, n in lengths.items() if n > LONGEST_FILE} == {}


def test_helpers_live_with_their_concept():
    vague = re.compile(r"^_?(utils?|helpers?|misc|common)$")
    assert [path for path in PACKAGE.rglob("*") if vague.match(path.stem)] == []


def test_every_module_says_what_it_is():
    silent = [path for path in FILES if not path.read_text(encoding="utf-8").startswith('"""')]
    assert silent == []
