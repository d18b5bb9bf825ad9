-- Machines. The secret is 256 random bits, so its SHA-256 needs neither salt nor stretching.

CREATE TABLE control.service_keys (
    key_id text PRIMARY KEY CHECK (key_id ~ '^key_[0-7][0-9a-hjkmnp-tv-z]{25}$'),
    org_id text NOT NULL REFERENCES control.orgs,
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 80),
    secret_hash bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    rights text[] NOT NULL CHECK (
        cardinality(rights) BETWEEN 1 AND 4
        AND rights <@ ARRAY['publish', 'work', 'read', 'mint']
    ),
    -- Patterns of the topic grammar in which an id may be '*'; empty: all that the org may see.
    topics text[] NOT NULL CHECK (cardinality(topics) <= 64),
    created_by text NOT NULL REFERENCES control.users,
    created_at timestamptz NOT NULL,
    -- NULL: never.
    expires_at timestamptz,
    -- Coarse: written at most once a minute.
    last_used_at timestamptz,
    revoked_at timestamptz,
    revoked_by text REFERENCES control.users,
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE INDEX service_keys_of_org ON control.service_keys (org_id, created_at);

GRANT SELECT, INSERT, UPDATE (last_used_at, revoked_at, revoked_by) ON control.service_keys
    TO khala_control;
