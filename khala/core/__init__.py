"""Pure centre of the node: values in, values out; no clock, randomness, I/O or logging."""
