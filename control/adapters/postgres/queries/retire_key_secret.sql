-- $1 key_id, $2 when what the key has now ends. The caller holds the key's row lock. Secrets that were replaced
-- earlier end no later than this one.
WITH earlier AS (
    UPDATE control.retired_key_secrets SET ends_at = $2 WHERE key_id = $1 AND ends_at > $2
)
INSERT INTO control.retired_key_secrets (secret_hash, key_id, ends_at)
SELECT secret_hash, key_id, $2 FROM control.service_keys WHERE key_id = $1
