-- $1 org_ids. Bounded by keys per org times orgs of one person.
SELECT key_id, name, org_id, rights, topics, created_at, expires_at, last_used_at, revoked_at
FROM control.service_keys
WHERE org_id = ANY ($1)
ORDER BY org_id, created_at, key_id
