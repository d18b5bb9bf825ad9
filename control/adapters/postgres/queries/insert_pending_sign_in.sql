-- $1 state_hash, $2 binding_hash, $3 nonce, $4 verifier, $5 device_id, $6 surface, $7 return_to, $8 expires_at,
-- $9 loopback_port, $10 loopback_challenge.
INSERT INTO control.pending_sign_ins (
    state_hash, binding_hash, nonce, verifier, device_id, surface, return_to, expires_at,
    loopback_port, loopback_challenge
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
