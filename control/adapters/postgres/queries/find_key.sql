-- $1 key_id. A key with its org and the secrets that it had before.
SELECT
    k.key_id, k.org_id, o.name AS org_name, k.secret_hash, k.rights, k.topics, k.created_by,
    k.expires_at, k.last_used_at, k.revoked_at,
    coalesce(r.hashes, '{}') AS retired_hashes,
    coalesce(r.ends, '{}') AS retired_ends
FROM control.service_keys AS k
JOIN control.orgs AS o ON o.org_id = k.org_id
LEFT JOIN LATERAL (
    SELECT array_agg(secret_hash ORDER BY ends_at) AS hashes, array_agg(ends_at ORDER BY ends_at) AS ends
    FROM control.retired_key_secrets AS s
    WHERE s.key_id = k.key_id
) AS r ON true
WHERE k.key_id = $1
