"""From a function to its syntax tree, and from a rewritten tree to a function.

The user's whole file is parsed, so lines and columns are those of the file. The rewritten function
is compiled within a factory that has the function's free variables as parameters (and within a
class, if it is a method), and gets the same globals and closure cells, so it is the same function
to everything that looks at it.
"""

from __future__ import annotations

import ast
import copy
import inspect
import linecache
from collections.abc import Callable
from types import CellType, CodeType, FunctionType
from typing import Any

from diffc.convert.rewrite import RUN, Rewriter
from diffc.convert.site import Site
from diffc.errors import TraceError

_FACTORY = "_diffc_factory"
_FUNCTION = "_diffc_function"  # not its own name, by which it may call itself
_TREES: dict[str, tuple[tuple[str, ...], ast.Module]] = {}
_MOST_TREES = 256

Lambdas = ast.FunctionDef | ast.Lambda


def rewritten(function: FunctionType, run: Callable[[tuple[Site, ...]], Any]) -> FunctionType:
    """A function that decides its control flow by calls of ``run(sites)``.

    Raises:
        TraceError: its source is not at hand, or it is a generator or coroutine.
    """
    code = function.__code__
    if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        raise _error(function, "a generator or coroutine can't be converted", "return a list")
    node, classes = _find(function)
    rewriter = Rewriter(code.co_filename)
    module = _module(_as_function(node), classes, code, rewriter)
    compiled = compile(module, code.co_filename, "exec", dont_inherit=True)
    new = _code_of(compiled, classes)
    new = _named(new, new.co_qualname, code.co_qualname).replace(co_name=code.co_name)
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    cells[RUN] = CellType(run(tuple(rewriter.sites)))
    closure = tuple(cells[name] for name in new.co_freevars)
    found = FunctionType(
        new, function.__globals__, function.__name__, function.__defaults__, closure
    )
    found.__kwdefaults__ = function.__kwdefaults__  # the same dict: it may be rebound in a trace
    found.__dict__.update(function.__dict__)
    found.__qualname__ = function.__qualname__
    found.__module__ = function.__module__
    found.__doc__ = function.__doc__
    return found


def _error(function: FunctionType, message: str, hint: str) -> TraceError:
    code = function.__code__
    where = f"{code.co_filename}:{code.co_firstlineno}"
    return TraceError(f"{function.__qualname__}: {message}", location=where, hint=hint)


def _missing(function: FunctionType) -> TraceError:
    return _error(
        function,
        "its source is not at hand (or has changed), so its control flow can't be converted",
        "define it in a file or notebook cell, or use diffc.cond and diffc.while_loop",
    )


def _tree(function: FunctionType) -> ast.Module:
    """The file's syntax tree; a fresh copy is made by whoever changes it."""
    name = function.__code__.co_filename
    linecache.checkcache(name)
    lines = tuple(linecache.getlines(name, function.__globals__))
    if not lines:
        raise _missing(function)
    known = _TREES.get(name)
    if known is not None and known[0] == lines:
        return known[1]
    try:
        tree = ast.parse("".join(lines), name)
    except SyntaxError:  # the file is no longer, or never was, what the function is made of
        raise _missing(function) from None
    if len(_TREES) >= _MOST_TREES:
        _TREES.clear()
    _TREES[name] = lines, tree
    return tree


def _find(function: FunctionType) -> tuple[Lambdas, list[str]]:
    """The function's node (a copy) and the classes around it, outermost first."""
    code = function.__code__
    is_lambda = code.co_name == "<lambda>"
    found: list[tuple[Lambdas, list[str]]] = []
    stack: list[tuple[ast.AST, list[str]]] = [(_tree(function), [])]
    while stack:
        node, classes = stack.pop()
        inner = [*classes, node.name] if isinstance(node, ast.ClassDef) else classes
        stack.extend((child, inner) for child in ast.iter_child_nodes(node))
        if isinstance(node, ast.Lambda) and is_lambda:
            if _covers(node, code):
                found.append((node, classes))
        elif isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first == code.co_firstlineno:
                found.append((node, classes))
    if not found:
        raise _missing(function)
    node, classes = min(found, key=lambda pair: _extent(pair[0]))
    return copy.deepcopy(node), classes


def _covers(node: ast.Lambda, code: CodeType) -> bool:
    """Whether a lambda's body holds all positions of the code."""
    start = (node.lineno, node.col_offset)
    end = (node.end_lineno or 0, node.end_col_offset or 0)
    positions = [p for p in code.co_positions() if None not in p and p[2] != p[3]]
    return bool(positions) and all(start <= (p[0], p[2]) and (p[1], p[3]) <= end for p in positions)


def _extent(node: Lambdas) -> tuple[int, int]:
    lines = (node.end_lineno or node.lineno) - node.lineno
    return lines, (node.end_col_offset or 0) - node.col_offset if not lines else 0


def _as_function(node: Lambdas) -> ast.FunctionDef:
    """The node as a definition without decorators, defaults and annotations."""
    if isinstance(node, ast.Lambda):
        value = ast.copy_location(ast.Return(node.body), node.body)
        body: list[ast.stmt] = [value]
    else:
        body = node.body
    args = node.args
    for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
        if arg is not None:
            arg.annotation = None
    args.defaults = []
    args.kw_defaults = [None] * len(args.kwonlyargs)
    made = ast.FunctionDef(_FUNCTION, args, list(body), [], None, None)
    return ast.copy_location(made, node)


def _module(
    node: ast.FunctionDef, classes: list[str], code: CodeType, rewriter: Rewriter
) -> ast.Module:
    """The rewritten function within its class and the factory."""
    body: list[ast.stmt] = [rewriter.function(node)]
    for name in reversed(classes[-1:]):
        body = [ast.ClassDef(name, [], [], body, [])]
    free = [name for name in (*code.co_freevars, RUN) if name != "__class__"]
    arguments = ast.arguments([], [ast.arg(name) for name in free], None, [], [], None, [])
    factory = ast.FunctionDef(_FACTORY, arguments, body, [], None, None)
    return ast.fix_missing_locations(ast.Module([factory], []))


def _code_of(module: CodeType, classes: list[str]) -> CodeType:
    """The function's code within the module's."""
    found = module
    for part in (_FACTORY, *classes[-1:], _FUNCTION):
        inner = [c for c in found.co_consts if isinstance(c, CodeType) and c.co_name == part]
        found = inner[0]
    return found


def _named(code: CodeType, old: str, new: str) -> CodeType:
    """The code and the code within it, named as in the user's function."""
    name = new + code.co_qualname.removeprefix(old)
    parts = name.split(".<locals>.")
    name = ".<locals>.".join(part for part in parts if not part.startswith("_diffc_"))
    consts = tuple(
        _named(const, old, new) if isinstance(const, CodeType) else const
        for const in code.co_consts
    )
    return code.replace(co_qualname=name, co_consts=consts)
