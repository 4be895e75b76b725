"""The loop IR: what a kernel computes as a nest, and the module of kernels that becomes native code."""
