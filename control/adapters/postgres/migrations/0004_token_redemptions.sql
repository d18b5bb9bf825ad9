-- The first use of each sync token. One row per jti, kept until the token can no longer be accepted.

CREATE TABLE control.token_redemptions (
    jti text PRIMARY KEY CHECK (octet_length(jti) BETWEEN 1 AND 128),
    -- The one connection that this token opened.
    connection_id text NOT NULL CHECK (octet_length(connection_id) BETWEEN 1 AND 128),
    node_id text NOT NULL CHECK (octet_length(node_id) BETWEEN 1 AND 128),
    session_id text NOT NULL,
    redeemed_at timestamptz NOT NULL,
    token_expires_at timestamptz NOT NULL
);
CREATE INDEX token_redemptions_by_expiry ON control.token_redemptions (token_expires_at);

-- UPDATE: the redeeming statement rewrites redeemed_at with itself to learn who came first.
GRANT SELECT, INSERT, DELETE, UPDATE (redeemed_at) ON control.token_redemptions TO khala_control;
