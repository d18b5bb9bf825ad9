"""The only code of the runtime that knows a library: PostgreSQL, HTTP, metrics, configuration."""
