"""Planning: what is computed again, what runs together, in which order, and in which buffers."""
