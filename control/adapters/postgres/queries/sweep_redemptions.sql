-- $1 removed if the token expired before, $2 batch.
DELETE FROM control.token_redemptions WHERE jti IN (
    SELECT jti FROM control.token_redemptions WHERE token_expires_at < $1
    ORDER BY token_expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
