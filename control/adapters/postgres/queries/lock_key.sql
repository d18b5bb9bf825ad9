-- $1 key_id, $2 org_ids.
SELECT k.key_id, k.name, k.org_id, k.rights, k.topics, k.created_at, k.expires_at, k.last_used_at, k.revoked_at,
    k.rotated_at,
    (SELECT max(ends_at) FROM control.retired_key_secrets AS s WHERE s.key_id = k.key_id) AS old_secret_ends_at
FROM control.service_keys AS k
WHERE k.key_id = $1 AND k.org_id = ANY ($2)
FOR UPDATE OF k
