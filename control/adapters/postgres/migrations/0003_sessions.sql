-- Sessions of people, of service keys, and of an application's own users (derived).

CREATE TABLE control.sessions (
    session_id text PRIMARY KEY CHECK (session_id ~ '^ses_[0-7][0-9a-hjkmnp-tv-z]{25}$'),
    principal_kind text NOT NULL CHECK (principal_kind IN ('person', 'service', 'derived')),
    user_id text NOT NULL,
    device_id text NOT NULL,
    -- The key that a service or derived session stands on.
    key_id text REFERENCES control.service_keys,
    surface text NOT NULL CHECK (surface IN ('web', 'desktop', 'mobile', 'onyx', 'service')),
    created_at timestamptz NOT NULL,
    -- Absolute for people; moves forward with each mint for the other two.
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_reason text,
    CHECK ((principal_kind = 'person') = (key_id IS NULL)),
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL)),
    CHECK (expires_at > created_at),
    FOREIGN KEY (user_id, device_id) REFERENCES control.devices (user_id, device_id)
);
CREATE INDEX sessions_of_user ON control.sessions (user_id, created_at DESC);
CREATE INDEX sessions_by_expiry ON control.sessions (expires_at);
-- A key's mints for one user on one device share a session, so that renewals keep it.
CREATE UNIQUE INDEX sessions_one_live_per_key_and_device
    ON control.sessions (key_id, user_id, device_id)
    WHERE key_id IS NOT NULL AND revoked_at IS NULL;

CREATE TABLE control.refresh_tokens (
    -- SHA-256 of the secret; the secret itself is never stored.
    token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    session_id text NOT NULL REFERENCES control.sessions ON DELETE CASCADE,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    -- Single use: both are set by the one rotation that succeeded.
    used_at timestamptz,
    successor_hash bytea UNIQUE,
    CHECK ((used_at IS NULL) = (successor_hash IS NULL))
);
CREATE INDEX refresh_tokens_of_session ON control.refresh_tokens (session_id);

GRANT SELECT, INSERT, DELETE, UPDATE (expires_at, revoked_at, revoked_reason) ON control.sessions
    TO khala_control;
GRANT SELECT, INSERT, DELETE, UPDATE (used_at, successor_hash) ON control.refresh_tokens
    TO khala_control;
