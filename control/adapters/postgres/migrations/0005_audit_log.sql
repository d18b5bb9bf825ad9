-- Who did what, and what was refused. The service may add and read, never change or remove;
-- occurred_at and audit_id are the database's own.

CREATE TABLE control.audit_log (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    action text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('done', 'refused')),
    -- Empty if done.
    reason text NOT NULL,
    request_id text NOT NULL CHECK (octet_length(request_id) BETWEEN 1 AND 128),
    principal_kind text,
    principal_id text,
    user_id text,
    session_id text,
    device_id text,
    key_id text,
    org_id text,
    jti text,
    -- Facts about the request; identifiers and numbers only, never a credential.
    detail jsonb NOT NULL CHECK (octet_length(detail::text) <= 16384),
    CHECK ((outcome = 'done') = (reason = ''))
);
CREATE INDEX audit_log_of_user ON control.audit_log (user_id, audit_id) WHERE user_id IS NOT NULL;
CREATE INDEX audit_log_of_session ON control.audit_log (session_id, audit_id)
    WHERE session_id IS NOT NULL;
CREATE INDEX audit_log_of_request ON control.audit_log (request_id);

GRANT SELECT ON control.audit_log TO khala_control;
GRANT INSERT (
    action, outcome, reason, request_id, principal_kind, principal_id, user_id, session_id,
    device_id, key_id, org_id, jti, detail
) ON control.audit_log TO khala_control;
