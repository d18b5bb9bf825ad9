-- $1 org_id, $2 limit. Oldest first.
SELECT m.user_id, u.login, m.role, m.created_at
FROM control.memberships AS m JOIN control.users AS u ON u.user_id = m.user_id
WHERE m.org_id = $1
ORDER BY m.created_at, m.user_id
LIMIT $2
