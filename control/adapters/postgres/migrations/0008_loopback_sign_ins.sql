-- Sign-ins that end in a command on the person's own machine (RFC 8252): its port on 127.0.0.1, and the S256
-- challenge of a verifier that only it has. After the callback its code waits here for the one exchange.

ALTER TABLE control.pending_sign_ins
    ADD COLUMN loopback_port integer CHECK (loopback_port BETWEEN 1 AND 65535),
    ADD COLUMN loopback_challenge text,
    ADD CHECK ((loopback_port IS NULL) = (loopback_challenge IS NULL));

CREATE TABLE control.sign_in_codes (
    code_hash bytea PRIMARY KEY CHECK (octet_length(code_hash) = 32),
    challenge text NOT NULL,
    -- What the provider asserted; the session is made when the code is exchanged.
    issuer text NOT NULL,
    subject text NOT NULL,
    login text NOT NULL,
    device_id text NOT NULL,
    surface text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sign_in_codes_by_expiry ON control.sign_in_codes (expires_at);

GRANT SELECT, INSERT, DELETE ON control.sign_in_codes TO khala_control;
