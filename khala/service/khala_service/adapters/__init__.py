"""The only code of this package that knows a driver library: asyncpg and httpx."""
