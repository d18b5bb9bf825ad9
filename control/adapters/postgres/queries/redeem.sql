-- $1..$7 one array per column of the batch, $8 now, $9 the oldest expiry that is still accepted.
--
-- One statement, so that revocation is judged in the snapshot that claims the tokens. A jti is claimed by
-- the first connection that inserts it; everybody else meets the conflict, waits for that insert to
-- commit, and gets the winner's row back from the update that changes nothing. (DO NOTHING would return
-- no row, and the winner's row is not visible to this statement's snapshot.)
--
-- Rows are inserted in the order of jti: two batches that share tokens wait for each other in one
-- direction only, and cannot deadlock.
WITH asked AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[]
    ) WITH ORDINALITY
    AS a (jti, connection_id, node_id, session_id, user_id, device_id, token_expires_at, place)
),
judged AS MATERIALIZED (
    SELECT
        a.*,
        a.token_expires_at >= $9 AS is_timely,
        coalesce(
            s.revoked_at IS NULL
            AND s.expires_at > $8
            AND s.user_id = a.user_id
            AND s.device_id = a.device_id
            AND (
                s.key_id IS NULL
                OR (k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $8))
            ),
            false
        ) AS is_live
    FROM asked AS a
    LEFT JOIN control.sessions AS s ON s.session_id = a.session_id
    LEFT JOIN control.service_keys AS k ON k.key_id = s.key_id
),
claimed AS (
    INSERT INTO control.token_redemptions AS r
        (jti, connection_id, node_id, session_id, redeemed_at, token_expires_at)
    SELECT DISTINCT ON (jti) jti, connection_id, node_id, session_id, $8, token_expires_at
    FROM judged
    WHERE is_live AND is_timely
    ORDER BY jti, place
    ON CONFLICT (jti) DO UPDATE SET redeemed_at = r.redeemed_at
    RETURNING r.jti, r.connection_id
)
SELECT
    CASE
        WHEN NOT judged.is_live THEN 'revoked'
        WHEN claimed.connection_id = judged.connection_id THEN 'ok'
        ELSE 'replayed'
    END AS outcome
FROM judged
LEFT JOIN claimed ON claimed.jti = judged.jti
ORDER BY judged.place
