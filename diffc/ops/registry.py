"""The registry: every op by name. Importing ``diffc.ops`` fills it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from diffc.ops.declare import Op

_OPS: dict[str, Op] = {}


def register(op: Op) -> None:
    """Enters an op.

    Raises:
        ValueError: the name is taken.
    """
    if op.name in _OPS:
        raise ValueError(f"op {op.name} is declared twice")
    _OPS[op.name] = op


def find(name: str) -> Op:
    """The op of this name.

    Raises:
        KeyError: there is none.
    """
    try:
        return _OPS[name]
    except KeyError:
        raise KeyError(f"no op is named {name!r}") from None


def every_op() -> Iterator[Op]:
    """All ops in the order of their declaration."""
    return iter(tuple(_OPS.values()))


def table() -> Mapping[str, Op]:
    """The registry as a mapping, for the parser."""
    return _OPS
