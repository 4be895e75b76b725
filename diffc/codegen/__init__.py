"""From kernels to LLVM text: loops, lower, tile, emit, and the targets they are made for."""
