-- $1 key_id, $2 org_id, $3 name, $4 secret_hash, $5 rights, $6 topics, $7 created_by, $8 created_at,
-- $9 expires_at, $10 keys per org. The caller holds the lock of the org's name.
INSERT INTO control.service_keys
    (key_id, org_id, name, secret_hash, rights, topics, created_by, created_at, expires_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
WHERE (SELECT count(*) FROM control.service_keys WHERE org_id = $2) < $10
RETURNING key_id
