-- $1 removed if expired before, $2 batch.
DELETE FROM control.pending_sign_ins WHERE state_hash IN (
    SELECT state_hash FROM control.pending_sign_ins WHERE expires_at < $1
    ORDER BY expires_at LIMIT $2
)
