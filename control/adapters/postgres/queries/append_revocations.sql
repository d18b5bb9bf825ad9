-- $1 kinds, $2 session_ids, $3 key_ids, $4 org_ids, $5 user_ids, $6 cause, $7 now. Not empty. Run last in
-- its transaction: the head's lock is held until the commit.
WITH head AS (
    UPDATE control.revocation_head SET head_seq = head_seq + cardinality($1::text[]) RETURNING head_seq
)
INSERT INTO control.revocations (seq, kind, session_id, key_id, org_id, user_id, cause, revoked_at)
SELECT head.head_seq - cardinality($1::text[]) + a.place, a.kind, a.session_id, a.key_id, a.org_id, a.user_id, $6, $7
FROM head,
    unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
    AS a (kind, session_id, key_id, org_id, user_id, place)
