-- $1 org_id, $2 user_id, $3 role, $4 now.
INSERT INTO control.memberships AS m (org_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (org_id, user_id) DO UPDATE SET role = excluded.role
RETURNING m.created_at
