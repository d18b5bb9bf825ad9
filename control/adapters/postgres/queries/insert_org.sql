-- $1 org_id, $2 name, $3 user_id, $4 now.
WITH new_org AS (
    INSERT INTO control.orgs (org_id, name, created_at) VALUES ($1, $2, $4) RETURNING org_id
)
INSERT INTO control.memberships (org_id, user_id, role, created_at)
SELECT org_id, $3, 'owner', $4 FROM new_org
