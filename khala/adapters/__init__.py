"""Everything of the node that knows a library or the operating system."""
