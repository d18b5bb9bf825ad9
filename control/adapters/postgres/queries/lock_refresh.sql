-- $1 token_hash. The token's row stays locked, so that of many presentations one decides first.
SELECT
    t.session_id, t.expires_at AS token_expires_at, t.used_at, t.sealed_successor,
    s.user_id, s.device_id, s.surface, s.created_at, s.expires_at, s.revoked_at,
    s.revoked_reason, s.revoked_by
FROM control.refresh_tokens AS t
JOIN control.sessions AS s ON s.session_id = t.session_id
WHERE t.token_hash = $1
FOR UPDATE OF t
