-- $1 key_id, $2 hash of the new secret, $3 now, $4 new expiry or NULL to leave it. The caller holds the row's lock.
UPDATE control.service_keys
SET secret_hash = $2, rotated_at = $3, expires_at = coalesce($4, expires_at)
WHERE key_id = $1
