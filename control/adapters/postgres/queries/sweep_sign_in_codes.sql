-- $1 removed if expired before, $2 batch.
DELETE FROM control.sign_in_codes WHERE code_hash IN (
    SELECT code_hash FROM control.sign_in_codes WHERE expires_at < $1
    ORDER BY expires_at LIMIT $2
)
