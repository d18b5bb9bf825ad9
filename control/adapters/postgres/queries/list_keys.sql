-- $1 org_ids. Bounded by keys per org times orgs of one person.
SELECT k.key_id, k.name, k.org_id, k.rights, k.topics, k.created_at, k.expires_at, k.last_used_at, k.revoked_at,
    k.rotated_at,
    (SELECT max(ends_at) FROM control.retired_key_secrets AS s WHERE s.key_id = k.key_id) AS old_secret_ends_at
FROM control.service_keys AS k
WHERE k.org_id = ANY ($1)
ORDER BY k.org_id, k.created_at, k.key_id
