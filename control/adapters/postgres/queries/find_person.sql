-- $1 session_id. A person's session with everything that its rights depend on, in one snapshot.
SELECT
    s.session_id, s.user_id, s.device_id, s.surface, s.created_at, s.expires_at, s.revoked_at,
    s.revoked_reason, s.revoked_by,
    u.login, d.owns_inbox,
    coalesce(o.org_ids, '{}') AS org_ids,
    coalesce(o.org_names, '{}') AS org_names,
    coalesce(o.org_roles, '{}') AS org_roles
FROM control.sessions AS s
JOIN control.users AS u ON u.user_id = s.user_id
JOIN control.devices AS d ON d.user_id = s.user_id AND d.device_id = s.device_id
LEFT JOIN LATERAL (
    SELECT
        array_agg(org.org_id ORDER BY org.org_id) AS org_ids,
        array_agg(org.name ORDER BY org.org_id) AS org_names,
        array_agg(m.role ORDER BY org.org_id) AS org_roles
    FROM control.memberships AS m
    JOIN control.orgs AS org ON org.org_id = m.org_id
    WHERE m.user_id = s.user_id
) AS o ON true
WHERE s.session_id = $1 AND s.principal_kind = 'person'
