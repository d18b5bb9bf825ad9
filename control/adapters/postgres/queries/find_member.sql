-- $1 org_id, $2 user_id.
SELECT m.user_id, u.login, m.role, m.created_at
FROM control.memberships AS m JOIN control.users AS u ON u.user_id = m.user_id
WHERE m.org_id = $1 AND m.user_id = $2
