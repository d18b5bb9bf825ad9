-- $1 key_id, $2 org_ids.
SELECT key_id, name, org_id, rights, topics, created_at, expires_at, last_used_at, revoked_at
FROM control.service_keys
WHERE key_id = $1 AND org_id = ANY ($2)
FOR UPDATE
