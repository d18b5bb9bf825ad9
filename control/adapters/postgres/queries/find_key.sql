-- $1 key_id.
SELECT
    k.key_id, k.org_id, o.name AS org_name, k.secret_hash, k.rights, k.topics, k.created_by,
    k.expires_at, k.last_used_at, k.revoked_at
FROM control.service_keys AS k
JOIN control.orgs AS o ON o.org_id = k.org_id
WHERE k.key_id = $1
