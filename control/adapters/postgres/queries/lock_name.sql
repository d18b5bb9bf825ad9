-- $1 text. Held to the end of the transaction: racing first comers for one name wait for each other,
-- and the one who waited sees the other's rows in its next statement.
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))
