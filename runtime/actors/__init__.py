"""Tasks of the runtime, and the commands and reads that they serve."""
