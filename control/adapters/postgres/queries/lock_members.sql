-- $1 org_id, $2 actor, $3 user concerned. The caller holds the org's name lock, so nothing here changes until the
-- transaction ends.
SELECT
    (SELECT role FROM control.memberships WHERE org_id = $1 AND user_id = $2) AS actor_role,
    (SELECT role FROM control.memberships WHERE org_id = $1 AND user_id = $3) AS old_role,
    (SELECT login FROM control.users WHERE user_id = $3) AS login,
    (SELECT count(*) FROM control.memberships WHERE org_id = $1 AND role = 'owner') AS owner_count,
    (SELECT count(*) FROM control.memberships WHERE org_id = $1) AS member_count
