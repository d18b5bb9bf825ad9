-- $1 forgotten if spent before, $2 batch.
UPDATE control.refresh_tokens SET sealed_successor = NULL WHERE token_hash IN (
    SELECT token_hash FROM control.refresh_tokens WHERE sealed_successor IS NOT NULL AND used_at < $1
    ORDER BY used_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
