-- $1 node_id, $2 batch_id, $3 the rows. One statement: all of a batch or nothing. A batch that was written already
-- is recognised by its places, also when two copies of it arrive at once.
INSERT INTO control.audit_log (
    action, outcome, reason, request_id, principal_kind, principal_id, user_id, session_id, device_id, key_id,
    jti, connection_id, node_id, batch_id, batch_place, detail
)
SELECT
    r.action, r.outcome, r.reason, r.request_id, r.principal_kind, r.principal_id, r.user_id, r.session_id,
    r.device_id, r.key_id, r.jti, r.connection_id, $1, $2, r.place, r.detail
FROM jsonb_to_recordset($3::jsonb) AS r (
    place integer, action text, outcome text, reason text, request_id text, principal_kind text,
    principal_id text, user_id text, session_id text, device_id text, key_id text, jti text,
    connection_id text, detail jsonb
)
ORDER BY r.place
ON CONFLICT (node_id, batch_id, batch_place) WHERE batch_id IS NOT NULL DO NOTHING
