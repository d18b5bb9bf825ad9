"""SQL of the runtime, one statement a file; `khala_service` loads them by name."""
