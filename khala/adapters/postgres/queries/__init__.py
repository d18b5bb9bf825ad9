"""SQL of the node, one statement a file."""
