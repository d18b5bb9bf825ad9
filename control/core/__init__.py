"""Pure decisions of the control plane: values in, values out; no clock, randomness or I/O."""
