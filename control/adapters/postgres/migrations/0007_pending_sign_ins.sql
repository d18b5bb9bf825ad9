-- Sign-ins between their start and their callback. A row is taken once, by whoever presents its state.

CREATE TABLE control.pending_sign_ins (
    state_hash bytea PRIMARY KEY CHECK (octet_length(state_hash) = 32),
    -- Of the cookie of the browser that started.
    binding_hash bytea NOT NULL CHECK (octet_length(binding_hash) = 32),
    nonce text NOT NULL,
    verifier text NOT NULL,
    device_id text NOT NULL,
    surface text NOT NULL,
    return_to text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX pending_sign_ins_by_expiry ON control.pending_sign_ins (expires_at);

GRANT SELECT, INSERT, DELETE ON control.pending_sign_ins TO khala_control;
