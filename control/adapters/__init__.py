"""The only modules of control that know a library: PostgreSQL, JWT, HTTP, files."""
