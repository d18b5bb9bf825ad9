"""What is compiled on the spot and preloaded into a process: ``fault_shim.c``."""
