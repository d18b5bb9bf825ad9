-- $1 key_id, $2 now, $3 revoked_by. The caller holds the row's lock and saw it live.
UPDATE control.service_keys SET revoked_at = $2, revoked_by = $3
WHERE key_id = $1
RETURNING key_id, name, org_id, rights, topics, created_at, expires_at, last_used_at, revoked_at
