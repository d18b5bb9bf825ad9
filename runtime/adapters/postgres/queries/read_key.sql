SELECT k.fingerprint, k.response
FROM runtime.idempotency_keys AS k
WHERE k.scope = $1 AND k.key = $2 AND k.expires_at > clock_timestamp()
