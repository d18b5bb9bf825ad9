-- oldest build: 0008
-- Secrets that a rotation has replaced and that go on working until their overlap ends. They stand on the
-- same key: its end is theirs.

ALTER TABLE control.service_keys ADD COLUMN rotated_at timestamptz;

CREATE TABLE control.retired_key_secrets (
    secret_hash bytea PRIMARY KEY CHECK (octet_length(secret_hash) = 32),
    key_id text NOT NULL REFERENCES control.service_keys,
    ends_at timestamptz NOT NULL
);
CREATE INDEX retired_key_secrets_of_key ON control.retired_key_secrets (key_id, ends_at);

GRANT UPDATE (secret_hash, rotated_at, expires_at) ON control.service_keys TO khala_control;
GRANT SELECT, INSERT, DELETE, UPDATE (ends_at) ON control.retired_key_secrets TO khala_control;
