INSERT INTO control.audit_log (
    action, outcome, reason, request_id, principal_kind, principal_id, user_id, session_id,
    device_id, key_id, org_id, jti, detail
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::jsonb)
