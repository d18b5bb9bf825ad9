"""The runtime's PostgreSQL: the only code of this service that sees rows and statements."""
