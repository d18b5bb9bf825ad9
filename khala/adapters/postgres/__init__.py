"""The node's only way into the database: reads of the journal, as role ``khala_reader``."""
