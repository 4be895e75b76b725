"""The loop IR: what a kernel computes, as a nest; and modules of kernels with addresses."""
