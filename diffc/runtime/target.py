"""The target of this process: what the host CPU has, as `codegen.targets` describes it."""

import functools

from diffc.codegen.targets import Target, select
from diffc.runtime import llvm

__all__ = ["host"]


@functools.cache
def host() -> Target:
    """The best target that this machine runs; loads LLVM to ask.

    Raises:
        ValueError: There is no code generation for this architecture.
    """
    return select(*llvm.host_cpu())
