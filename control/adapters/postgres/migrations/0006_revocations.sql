-- What has been revoked, in commit order: the log that every node tails. Every cause writes to it in the
-- transaction of the change, so that a lost push, a restart or a new node loses nothing.

ALTER TABLE control.sessions ADD COLUMN revoked_by text;
-- The successor of a spent refresh token, sealed with the spent one as the key; see core/credentials.py.
ALTER TABLE control.refresh_tokens ADD COLUMN sealed_successor bytea
    CHECK (sealed_successor IS NULL OR used_at IS NOT NULL);
CREATE INDEX refresh_tokens_sealed ON control.refresh_tokens (used_at) WHERE sealed_successor IS NOT NULL;

-- One row. Its lock makes the order of seqs the order of commits, without a hole: a reader that has seen
-- seq n will never see a smaller one appear.
CREATE TABLE control.revocation_head (
    is_the_one boolean PRIMARY KEY DEFAULT true CHECK (is_the_one),
    head_seq bigint NOT NULL CHECK (head_seq >= 0),
    floor_seq bigint NOT NULL CHECK (floor_seq BETWEEN 1 AND head_seq + 1)
);
INSERT INTO control.revocation_head (head_seq, floor_seq) VALUES (0, 1);

CREATE TABLE control.revocations (
    seq bigint PRIMARY KEY CHECK (seq >= 1),
    kind text NOT NULL CHECK (kind IN ('session', 'key', 'membership')),
    session_id text,
    key_id text,
    org_id text,
    user_id text,
    cause text NOT NULL,
    revoked_at timestamptz NOT NULL,
    CHECK ((kind = 'session') = (session_id IS NOT NULL)),
    CHECK ((kind = 'key') = (key_id IS NOT NULL)),
    CHECK ((kind = 'membership') = (org_id IS NOT NULL AND user_id IS NOT NULL))
);
CREATE INDEX revocations_by_time ON control.revocations (revoked_at);

GRANT DELETE, UPDATE (role) ON control.memberships TO khala_control;
GRANT UPDATE (revoked_by) ON control.sessions TO khala_control;
GRANT UPDATE (sealed_successor) ON control.refresh_tokens TO khala_control;
GRANT SELECT, UPDATE (head_seq, floor_seq) ON control.revocation_head TO khala_control;
GRANT SELECT, INSERT, DELETE ON control.revocations TO khala_control;
