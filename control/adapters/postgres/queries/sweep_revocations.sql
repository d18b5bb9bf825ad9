-- $1 removed if revoked before, $2 batch. The floor moves first: a row below it is gone by rule.
WITH old AS (
    SELECT seq FROM control.revocations WHERE revoked_at < $1 ORDER BY seq LIMIT $2
),
floor AS (
    UPDATE control.revocation_head SET floor_seq = (SELECT max(seq) + 1 FROM old)
    WHERE EXISTS (SELECT FROM old)
    RETURNING floor_seq
)
DELETE FROM control.revocations WHERE seq < (SELECT floor_seq FROM floor)
