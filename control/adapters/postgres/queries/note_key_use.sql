-- $1 key_id, $2 now. Many requests of one minute find the row changed by the first and write nothing.
UPDATE control.service_keys SET last_used_at = $2::timestamptz
WHERE key_id = $1 AND (last_used_at IS NULL OR last_used_at <= $2::timestamptz - interval '1 minute')
