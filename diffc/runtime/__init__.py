"""From LLVM text to running code: binding, object cache, memory, executables, the native entry.

Nothing is imported here, so that a program which compiles nothing never loads LLVM.
"""
