-- $1 key_id, $2 now, $3 revoked_by. The caller holds the row's lock and saw it live.
UPDATE control.service_keys SET revoked_at = $2, revoked_by = $3 WHERE key_id = $1
