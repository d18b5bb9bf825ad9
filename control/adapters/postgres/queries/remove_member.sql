-- $1 org_id, $2 user_id.
DELETE FROM control.memberships WHERE org_id = $1 AND user_id = $2
