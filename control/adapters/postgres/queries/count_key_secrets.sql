-- $1 key_id, $2 now. How many replaced secrets still work.
SELECT count(*) AS live FROM control.retired_key_secrets WHERE key_id = $1 AND ends_at > $2
