-- $1 state_hash. Of many that present one state, one gets the row.
DELETE FROM control.pending_sign_ins WHERE state_hash = $1
RETURNING binding_hash, nonce, verifier, device_id, surface, return_to, expires_at,
    loopback_port, loopback_challenge
