-- $1 key_id, $2 now, $3 how many ended ones stay. Removes what ended more than a day ago, and what ended before so
-- many others: until then a refusal can say what it was.
DELETE FROM control.retired_key_secrets
WHERE key_id = $1 AND (
    ends_at < $2::timestamptz - interval '1 day'
    OR secret_hash IN (
        SELECT secret_hash FROM control.retired_key_secrets
        WHERE key_id = $1 AND ends_at <= $2
        ORDER BY ends_at DESC
        OFFSET $3
    )
)
