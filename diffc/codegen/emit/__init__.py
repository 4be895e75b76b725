"""Loops to LLVM IR text; sees only the loop IR and the targets."""
