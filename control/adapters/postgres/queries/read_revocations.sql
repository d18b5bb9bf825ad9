-- $1 after seq, $2 limit. Head and rows in one snapshot; a row of NULLs if there is none after $1.
SELECT h.head_seq, h.floor_seq, r.seq, r.kind, r.session_id, r.key_id, r.org_id, r.user_id, r.revoked_at
FROM control.revocation_head AS h
LEFT JOIN LATERAL (
    SELECT * FROM control.revocations WHERE seq > $1 AND seq >= h.floor_seq ORDER BY seq LIMIT $2
) AS r ON true
ORDER BY r.seq
