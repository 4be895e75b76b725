"""What users call: ``jit``, derivatives, and control flow from ``control``.

Every function here works on pytrees, outside a trace (it then compiles) and within one (it then
adds to the graph), so all of them nest in any order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from diffc import jacobians, linearized, taylor, tree
from diffc.arguments import Argnames, Argnums
from diffc.control import associative_scan, cond, fori_loop, map, scan, switch, while_loop
from diffc.conventions import Choice
from diffc.convert import converted
from diffc.curvature import critical
from diffc.custom import Checkpoint, CustomJvp, CustomVjp
from diffc.gradient import Gradient
from diffc.implicit import argmin, fixed_point, root
from diffc.jacobians import Jacobian
from diffc.jitted import Jitted
from diffc.linear import linear_solve, triangular_solve
from diffc.runtime import pool
from diffc.sparse import sparse_hessian, sparse_jacobian
from diffc.trace import active, emit
from diffc.vectorized import Vectorized

__all__ = [
    "argmin",
    "associative_scan",
    "checkpoint",
    "cond",
    "critical",
    "custom_jvp",
    "custom_vjp",
    "fixed_point",
    "fori_loop",
    "grad",
    "hessian",
    "hvp",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jet",
    "jit",
    "jvp",
    "kinks",
    "linear_solve",
    "linear_transpose",
    "linearize",
    "map",
    "root",
    "scan",
    "sparse_hessian",
    "sparse_jacobian",
    "stop_gradient",
    "switch",
    "threads",
    "triangular_solve",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]

Function = Callable[..., Any]


def jit(
    function: Function | None = None,
    *,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate_argnums: int | Sequence[int] = (),
    donate_argnames: str | Sequence[str] = (),
    control_flow: bool = False,
    threads: int | None = None,
    store: str | None = None,
) -> Any:
    """Compiles a function of arrays to native code, anew for each signature of its arguments.

    Args:
        function: NumPy code on arrays, numbers and containers of them.
        static_argnums: positions of arguments that are Python values; a new value compiles anew.
        static_argnames: the same by name. An argument that is named here is static however it is
            given, and so is one that is counted and has a name.
        donate_argnums: positions of arguments whose memory results may take over. A result that
            does is the argument's own array, updated in place.
        donate_argnames: the same by name.
        control_flow: whether ``if``, ``while``, ``for`` and their like may be steered by traced
            values, here and in functions of the user's that are called: they then become branches
            and loops of the program. Without it, such a value is an error.
        threads: how many threads a call may use at most; by default as many as the process may
            (see :func:`threads`). The results have the same bits for any number.
        store: what reverse mode keeps of loops of unknown length that don't say so themselves:
            ``"slots"`` or ``"grow"``, as for :func:`while_loop`. By default what holds in the code
            around, at last ``"slots"``.

    Returns:
        A callable that gives NumPy arrays (0-d for scalars); ``compile(*args)`` gives the program
        for one signature with all its stages. Without ``function``: a decorator.

    Raises:
        TraceError: the function can't be traced; the error names its line.

    Example:
        >>> import numpy as np, diffc
        >>> @diffc.jit
        ... def f(x):
        ...     return np.sum(x * x)
        >>> f(np.arange(3.0))
        array(5.)
    """
    if function is None:
        return functools.partial(
            jit,
            static_argnums=static_argnums,
            static_argnames=static_argnames,
            donate_argnums=donate_argnums,
            donate_argnames=donate_argnames,
            control_flow=control_flow,
            threads=threads,
            store=store,
        )
    return Jitted(
        converted(function) if control_flow else function,
        static_argnums=static_argnums,
        static_argnames=static_argnames,
        donate_argnums=donate_argnums,
        donate_argnames=donate_argnames,
        threads=threads,
        store=store,
    )


def threads(count: int) -> AbstractContextManager[None]:
    """Limits the threads that compiled functions use, the caller's included, in a ``with`` block.

    The limit holds for the whole process, in all of its Python threads, until the block is left;
    the least of it and of ``jit``'s own ``threads`` counts. Nothing is compiled anew, and results
    have the same bits for any number.

    Without it, the environment's ``DIFFC_NUM_THREADS`` counts, else the cores that this process may
    use: its affinity and the quota of its container, at most 64.

    Args:
        count: 1 or more. More threads than cores are of no use.

    Raises:
        UsageError: ``count`` is no positive integer.

    Example:
        >>> import numpy as np, diffc
        >>> f = diffc.jit(lambda x: np.sum(x * x))
        >>> with diffc.threads(1):
        ...     f(np.arange(3.0))
        array(5.)
    """
    return pool.use_threads(pool.checked(count))


def value_and_grad(
    function: Function, argnums: Argnums = None, has_aux: bool = False, *, argnames: Argnames = ()
) -> Gradient:
    """The function that gives ``function``'s value and its gradient.

    Args:
        function: gives one float scalar (or, with ``has_aux``, a pair of it and anything else).
        argnums: by which positional arguments; an int gives a bare gradient, a sequence a tuple.
            An argument may be any pytree of floats; its gradient has the same structure. Without
            it and ``argnames``: by the first.
        has_aux: whether a second result is passed through without a derivative.
        argnames: in place of ``argnums``, by which arguments by name, whether they are given by
            position or by keyword; one name gives a bare gradient, a sequence a tuple.

    Returns:
        A function that gives ``(value, gradient)``, or ``((value, aux), gradient)``.

    Raises:
        DtypeError: an argument that is asked for holds integers.
        ShapeError: the result is not one scalar.
        UsageError: there is no such argument.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.value_and_grad(lambda x: np.sum(x ** 2))(np.array([1.0, 2.0]))
        (array(5.), array([2., 4.]))
    """
    return Gradient(function, argnums, has_aux, with_value=True, argnames=argnames)


def grad(
    function: Function, argnums: Argnums = None, has_aux: bool = False, *, argnames: Argnames = ()
) -> Gradient:
    """The function that gives ``function``'s gradient; see :func:`value_and_grad`.

    With ``has_aux`` it gives ``(gradient, aux)``.
    """
    return Gradient(function, argnums, has_aux, with_value=False, argnames=argnames)


def jvp(
    function: Function, primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> Any:
    """The value of a function and its derivative along ``tangents`` (forward mode).

    Args:
        function: gives any pytree of arrays.
        primals: the arguments, one pytree each.
        tangents: of the same structure and shapes; those of integers are ignored.
        has_aux: whether ``function`` returns ``(value, aux)``; aux is passed through.

    Returns:
        ``(out, out_dot)``, of the same structure; with ``has_aux``, ``(out, out_dot, aux)``.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.jvp(np.sin, (0.0,), (2.0,))
        (array(0.), array(2.))
    """
    return linearized.jvp(function, tuple(primals), tuple(tangents), has_aux)


def linearize(function: Function, *primals: Any, has_aux: bool = False) -> Any:
    """The value of a function, and the linear function from tangents to the result's tangent.

    What the derivative needs of ``primals`` is computed once, however often it is applied.

    Returns:
        ``(out, push)``; where ``has_aux`` says that ``function`` returns ``(value, aux)``:
        ``(out, push, aux)``.

    Example:
        >>> import numpy as np, diffc
        >>> out, push = diffc.linearize(lambda x: x * x, 3.0)
        >>> push(1.0), push(2.0)
        (array(6.), array(12.))
    """
    return linearized.linearize(function, primals, has_aux)


def vjp(function: Function, *primals: Any, has_aux: bool = False) -> Any:
    """The value of a function, and the function from its cotangent to those of ``primals``.

    Returns:
        ``(out, pull)``; ``pull(ct)`` takes a pytree like ``out`` and gives a tuple with one
        cotangent for each of ``primals`` (None for leaves of integers). Where ``has_aux`` says
        that ``function`` returns ``(value, aux)``: ``(out, pull, aux)``.

    Example:
        >>> import numpy as np, diffc
        >>> out, pull = diffc.vjp(lambda x, y: x * y, 3.0, 4.0)
        >>> pull(1.0)
        (array(4.), array(3.))
    """
    return linearized.vjp(function, primals, has_aux)


def vmap(
    function: Function, in_axes: Any = 0, out_axes: Any = 0, axis_size: int | None = None
) -> Vectorized:
    """The function that does for a whole batch, at once, what ``function`` does for one element.

    Args:
        function: takes and gives pytrees of arrays, without the mapped axis.
        in_axes: the axis that is mapped: an int (negative ones count from the end), None for what
            is the same for all elements, or a tuple with one entry for each positional argument;
            an entry may be a pytree that is a prefix of its argument. Keyword arguments are mapped
            on axis 0.
        out_axes: where the mapped axis stands in the result, likewise; None for a result that is
            the same for all elements.
        axis_size: the length of the mapped axes; needed where no argument is mapped.

    Returns:
        A function of arrays with the mapped axis, written for the whole batch: it has no loop.
        Where what chooses a branch differs within the batch, all branches are computed; where the
        test of a loop does, it runs until the last element is done. The ``notes`` of the compiled
        function name such lines.

    Raises:
        ShapeError: mapped axes differ in length, or an argument has no such axis.
        UsageError: nothing is mapped, or ``in_axes`` doesn't fit the arguments.

    Example:
        >>> import numpy as np, diffc
        >>> dots = diffc.vmap(lambda x, w: np.sum(x * w), in_axes=(0, None))
        >>> dots(np.arange(6.0).reshape(3, 2), np.array([1.0, 10.0]))
        array([10., 32., 54.])
    """
    return Vectorized(function, in_axes, out_axes, axis_size)


def jacfwd(
    function: Function, argnums: Argnums = None, has_aux: bool = False, *, argnames: Argnames = ()
) -> Jacobian:
    """The function that gives ``function``'s Jacobian, in forward mode; see :func:`jacobian`."""
    return Jacobian(function, argnums, has_aux, "forward", argnames=argnames)


def jacrev(
    function: Function, argnums: Argnums = None, has_aux: bool = False, *, argnames: Argnames = ()
) -> Jacobian:
    """The function that gives ``function``'s Jacobian, in reverse mode; see :func:`jacobian`."""
    return Jacobian(function, argnums, has_aux, "reverse", argnames=argnames)


def jacobian(
    function: Function,
    argnums: Argnums = None,
    has_aux: bool = False,
    layout: str = "numerator",
    *,
    argnames: Argnames = (),
) -> Jacobian:
    """The function that gives all partial derivatives of ``function``'s results.

    Args:
        function: gives any pytree of float arrays.
        argnums: by which positional arguments, pytrees of floats; an int or a sequence. Without
            it and ``argnames``: by the first.
        has_aux: whether ``function`` returns ``(value, aux)``; aux is passed through.
        layout: "numerator" puts the axes of the result first, "denominator" those of the argument.
        argnames: in place of ``argnums``, by which arguments by name.

    Returns:
        A function that gives, for each leaf of the value, a pytree like the argument (with a
        sequence as ``argnums``: a tuple of them). The leaf for a result of shape ``(m,)`` and an
        argument of shape ``(n, k)`` has shape ``(m, n, k)``, or ``(n, k, m)``. Its method
        ``explain(*args)`` says which mode is taken: forward where the arguments have at most as
        many elements as the results, else reverse.

    Raises:
        DtypeError: an argument that is asked for, or a result, holds integers.

    Example:
        >>> import numpy as np, diffc
        >>> by = diffc.jacobian(lambda x: np.array([x[0] * x[1], x[0], x[1] ** 2]))
        >>> by(np.array([2.0, 3.0]))
        array([[3., 2.],
               [1., 0.],
               [0., 6.]])
        >>> by.explain(np.array([2.0, 3.0])).partition(" (")[0]
        'jacobian of lambda: forward mode, one direction for each element of the arguments'
    """
    return Jacobian(function, argnums, has_aux, "cheaper", layout, argnames)


def hessian(
    function: Function, argnums: Argnums = None, has_aux: bool = False, *, argnames: Argnames = ()
) -> Jacobian:
    """The function that gives the second derivatives of ``function``, forward over reverse.

    Structured as :func:`jacobian` of :func:`jacobian`: for a scalar function of an array of shape
    ``s``, an array of shape ``s + s``.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.hessian(lambda x: x[0] ** 2 - x[1] ** 2)(np.zeros(2))
        array([[ 2.,  0.],
               [ 0., -2.]])
    """
    return jacobians.hessian(function, argnums, has_aux, argnames)


def hvp(function: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """The Hessian of a scalar function times ``tangents``, without the Hessian.

    Args:
        function: gives one float scalar.
        primals: the arguments, one pytree of floats each.
        tangents: of the same structure and shapes.

    Returns:
        One product for each of ``primals``, in a tuple; for a single one, the product itself.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.hvp(lambda x: x[0] ** 2 - x[1] ** 2, (np.zeros(2),), (np.ones(2),))
        array([ 2., -2.])
    """
    return jacobians.hvp(function, tuple(primals), tuple(tangents))


def linear_transpose(function: Function, *avals: Any) -> Function:
    """The transpose of a linear function, for arguments of these shapes.

    Args:
        function: linear in all its arguments together, and zero at zero.
        avals: arrays, numbers, or anything with a shape and a dtype; values don't matter.

    Returns:
        A function from a pytree like the result to a tuple with one pytree for each argument.

    Raises:
        UsageError: the function is not linear; says which line.

    Example:
        >>> import numpy as np, diffc
        >>> back = diffc.linear_transpose(lambda x: 3 * x[1:], np.zeros(3))
        >>> back(np.array([1.0, 2.0]))
        (array([0., 3., 6.]),)
    """
    return jacobians.linear_transpose(function, *avals)


def jet(function: Function, primals: Sequence[Any], series: Sequence[Any]) -> tuple[Any, Any]:
    """The value of a function and its higher derivatives along a curve (Taylor mode).

    The curve is ``x(t)`` with ``x(0)`` in ``primals`` and its first, second, ... derivatives at 0
    in ``series``. All orders take one pass; its cost grows with the square of the order.

    Args:
        function: gives any pytree of arrays.
        primals: the arguments, one pytree each.
        series: for each argument a list of derivatives, all of one length, each like the argument.

    Returns:
        ``(out, out_series)``: the derivatives of ``function(x(t))`` by t at 0, a list of pytrees
        like ``out``. The k-th over k! is the k-th Taylor coefficient.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.jet(np.exp, (0.0,), ([1.0, 0.0, 0.0],))
        (array(1.), [array(1.), array(1.), array(1.)])
    """
    return taylor.jet(function, primals, series)  # type: ignore[no-any-return]  # as documented


def kinks(
    *,
    relu: float | None = None,
    abs: float | None = None,
    tie: str | None = None,
    sqrt: float | None = None,
    norm: float | None = None,
) -> Choice:
    """Chooses derivatives at kinks, for a function or a part of one.

    Values don't change. The choice becomes part of the graph: derivatives of any order follow it,
    forward and backward, within loops and branches.

    Args:
        relu: slope of ``np.maximum(x, c)``, ``np.minimum(x, c)`` and ``np.clip`` where ``x`` equals
            the number ``c`` in the code (0 by default).
        abs: slope of ``np.abs`` at 0 (0 by default).
        tie: how equal candidates of a maximum or minimum share: "split" evenly (by default),
            "first" gives all to the first one, "all" to each of them.
        sqrt: slope of ``np.sqrt`` at 0 (infinite by default).
        norm: slope of ``np.linalg.norm`` and ``np.std`` where they are 0: 0 (by default) or nan.

    Returns:
        A decorator; and a context manager, for use within a function that is traced.

    Raises:
        UsageError: there is no such convention; or it is entered outside a trace.

    Example:
        >>> import numpy as np, diffc
        >>> @diffc.kinks(relu=1)
        ... def relu(x):
        ...     return np.maximum(x, 0)
        >>> diffc.grad(relu)(0.0), diffc.grad(lambda x: np.maximum(x, 0))(0.0)
        (array(1.), array(0.))
    """
    given = {"relu": relu, "abs": abs, "tie": tie, "sqrt": sqrt, "norm": norm}
    return Choice({name: value for name, value in given.items() if value is not None})


def custom_jvp(function: Function, nondiff_argnums: int | Sequence[int] = ()) -> CustomJvp:
    """A function whose derivative is what you say: a rule for tangents, which serves both modes.

    Args:
        function: takes and gives pytrees of arrays.
        nondiff_argnums: positions of arguments that are Python values (functions, flags). Rules get
            them first, before primals and tangents.

    Returns:
        The function; set its rule by ``@f.defjvp`` or ``f.defjvps(...)``. A rule
        ``rule(primals, tangents)`` returns ``(out, out_dot)`` and is linear in ``tangents``, tuples
        with one entry for each argument (None where an argument holds integers).

    Raises:
        UsageError: there is no rule, or it reads what is traced or may change outside; in use.

    Example:
        >>> import numpy as np, diffc
        >>> @diffc.custom_jvp
        ... def softplus(x):
        ...     return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)
        >>> @softplus.defjvp
        ... def rule(primals, tangents):
        ...     (x,), (x_dot,) = primals, tangents
        ...     return softplus(x), x_dot / (1 + np.exp(-x))
        >>> diffc.grad(softplus)(0.0)
        array(0.5)
    """
    return CustomJvp(function, nondiff_argnums)


def custom_vjp(function: Function, nondiff_argnums: int | Sequence[int] = ()) -> CustomVjp:
    """A function whose cotangents are what you say: a forward and a backward rule.

    Args:
        function: takes and gives pytrees of arrays.
        nondiff_argnums: positions of arguments that are Python values; ``bwd`` gets them first.

    Returns:
        The function; set its rules by ``f.defvjp(fwd, bwd)``: ``fwd(*args)`` returns
        ``(out, residuals)``, and ``bwd(residuals, ct)`` a tuple with one cotangent for each
        argument (None: zero). Forward mode works too where ``bwd`` is linear in ``ct``.

    Example:
        >>> import numpy as np, diffc
        >>> @diffc.custom_vjp
        ... def clipped(x):
        ...     return x
        >>> clipped.defvjp(lambda x: (x, ()), lambda residuals, ct: (np.clip(ct, -1, 1),))
        >>> diffc.grad(lambda x: 10 * clipped(x))(3.0)
        array(1.)
    """
    return CustomVjp(function, nondiff_argnums)


def checkpoint(function: Function, policy: str = "nothing") -> Checkpoint:
    """The same function, of which the backward pass keeps the arguments only, and computes again.

    Args:
        function: takes and gives pytrees of arrays.
        policy: "nothing", or "dots": results of contractions are kept.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.grad(diffc.checkpoint(lambda x: np.sum(np.sin(np.sin(x)))))(np.zeros(2))
        array([1., 1.])
    """
    return Checkpoint(function, policy)


def stop_gradient(x: Any) -> Any:
    """``x`` (any pytree) as a constant: its derivative is zero."""
    if not active():
        return x
    return tree.map(lambda leaf: emit("stop_gradient", leaf)[0], x)
