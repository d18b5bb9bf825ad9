-- The event log, the journal that nodes read, the topic heads, and the two rows that say whose
-- history this is (lineage) and who may write it (generation).
--
-- Run by the migration job as khala_runtime_owner. The service role khala_runtime may read
-- everything and write nothing directly: every write goes through a function of the owner, so that
-- the lock order and the rule "seq is allocated under the head's row lock" cannot be passed by.
-- khala_reader (the nodes) may read what a node needs and nothing else.

REVOKE ALL ON SCHEMA runtime FROM PUBLIC;
GRANT USAGE ON SCHEMA runtime TO khala_runtime, khala_reader;

-- Functions are executable by PUBLIC unless the default says otherwise.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;


-- One history of the whole journal. Only the runtime adds a row, before it accepts a command.
CREATE TABLE runtime.lineage (
    id text COLLATE "C" PRIMARY KEY,
    parent text COLLATE "C" REFERENCES runtime.lineage (id),
    reason text NOT NULL,
    system_identifier text NOT NULL,
    timeline_id integer NOT NULL,
    start_lsn pg_lsn NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    is_current boolean NOT NULL
);
CREATE UNIQUE INDEX lineage_one_is_current ON runtime.lineage (is_current) WHERE is_current;


-- One row. A writer reads it FOR SHARE in each of its transactions and refuses if it is not its own;
-- taking over therefore waits for the transactions in flight, and no later one of theirs commits.
CREATE TABLE runtime.generation (
    is_the_one boolean PRIMARY KEY DEFAULT true CHECK (is_the_one),
    generation bigint NOT NULL,
    holder text NOT NULL,
    acquired_at timestamptz NOT NULL
);
INSERT INTO runtime.generation (generation, holder, acquired_at) VALUES (0, 'nobody', clock_timestamp());


-- The truth. Append-only; never pruned.
CREATE TABLE runtime.events (
    topic text COLLATE "C" NOT NULL,
    seq bigint NOT NULL CHECK (seq >= 1),
    event_id text COLLATE "C" NOT NULL,
    -- The entry layout of append_v1 spends one byte on the length of a kind.
    kind text COLLATE "C" NOT NULL CHECK (octet_length(kind) BETWEEN 1 AND 127),
    -- A u32 on the wire.
    schema_version bigint NOT NULL CHECK (schema_version BETWEEN 1 AND 4294967295),
    payload bytea NOT NULL,
    actor text COLLATE "C" NOT NULL,
    request_id text COLLATE "C" NOT NULL,
    committed_at timestamptz NOT NULL,
    PRIMARY KEY (topic, seq)
);


-- What nodes read: one encoded `frames` entry per row, so that a page is one string_agg.
-- bytes_total: running sum of octet_length(entry) over the topic, this row included.
CREATE TABLE runtime.journal (
    topic text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    entry bytea NOT NULL,
    chain bytea NOT NULL,
    bytes_total bigint NOT NULL,
    compaction_key text COLLATE "C",
    committed_at timestamptz NOT NULL,
    PRIMARY KEY (topic, seq)
) PARTITION BY HASH (topic);
CREATE TABLE runtime.journal_0 PARTITION OF runtime.journal FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE runtime.journal_1 PARTITION OF runtime.journal FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE runtime.journal_2 PARTITION OF runtime.journal FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE runtime.journal_3 PARTITION OF runtime.journal FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE runtime.journal_4 PARTITION OF runtime.journal FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE runtime.journal_5 PARTITION OF runtime.journal FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE runtime.journal_6 PARTITION OF runtime.journal FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE runtime.journal_7 PARTITION OF runtime.journal FOR VALUES WITH (MODULUS 8, REMAINDER 7);


-- Position of each topic. The floor is stored, never derived from the rows that happen to remain.
CREATE TABLE runtime.topic_heads (
    topic text COLLATE "C" PRIMARY KEY,
    topic_class text COLLATE "C" NOT NULL,
    head_seq bigint NOT NULL DEFAULT 0 CHECK (head_seq >= 0),
    head_chain bytea NOT NULL CHECK (octet_length(head_chain) = 32),
    head_bytes_total bigint NOT NULL DEFAULT 0,
    floor_seq bigint NOT NULL DEFAULT 1,
    -- Chain and bytes_total at floor_seq - 1.
    floor_chain bytea NOT NULL CHECK (octet_length(floor_chain) = 32),
    floor_bytes_total bigint NOT NULL DEFAULT 0,
    floor_reason text COLLATE "C" NOT NULL DEFAULT 'none'
        CHECK (floor_reason IN ('none', 'retention_expired', 'compaction_boundary')),
    owner_user_id text COLLATE "C",
    org_id text COLLATE "C",
    updated_at timestamptz NOT NULL,
    CHECK (floor_seq BETWEEN 1 AND head_seq + 1)
) WITH (fillfactor = 70);

GRANT SELECT ON runtime.lineage, runtime.journal, runtime.topic_heads TO khala_runtime, khala_reader;
GRANT SELECT ON runtime.generation, runtime.events TO khala_runtime;


-- Makes the caller the one writer and returns its generation. Waits for transactions in flight.
CREATE FUNCTION runtime.take_generation_v1(p_holder text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
AS $$
    UPDATE runtime.generation AS g
    SET generation = g.generation + 1, holder = p_holder, acquired_at = clock_timestamp()
    RETURNING g.generation
$$;


-- Locks the generation row against a take-over until the transaction ends.
-- Raises KH001 (superseded) if another process has taken over.
CREATE FUNCTION runtime.hold_generation_v1(p_generation bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
AS $$
DECLARE
    v_current bigint;
BEGIN
    SELECT g.generation INTO STRICT v_current FROM runtime.generation AS g FOR SHARE;
    IF v_current IS DISTINCT FROM p_generation THEN
        RAISE EXCEPTION 'superseded by generation %', v_current USING ERRCODE = 'KH001';
    END IF;
END
$$;


-- Returns the current lineage after adding one if there is none, or if this cluster is another one
-- than the current lineage was written on. Serialised by an advisory lock.
CREATE FUNCTION runtime.ensure_lineage_v1(p_candidate_id text) RETURNS SETOF runtime.lineage
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
AS $$
DECLARE
    v_system_identifier text;
    v_timeline_id integer;
    v_current runtime.lineage;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('khala.runtime.lineage', 0));
    SELECT s.system_identifier::text INTO STRICT v_system_identifier FROM pg_control_system() AS s;
    SELECT c.timeline_id INTO STRICT v_timeline_id FROM pg_control_checkpoint() AS c;
    SELECT l.* INTO v_current FROM runtime.lineage AS l WHERE l.is_current;
    IF NOT FOUND OR v_current.system_identifier <> v_system_identifier THEN
        UPDATE runtime.lineage SET is_current = false WHERE is_current;
        INSERT INTO runtime.lineage
            (id, parent, reason, system_identifier, timeline_id, start_lsn, is_current)
        VALUES (
            p_candidate_id, v_current.id,
            CASE WHEN v_current.id IS NULL THEN 'created' ELSE 'system_identifier_changed' END,
            v_system_identifier, v_timeline_id, pg_current_wal_insert_lsn(), true
        )
        RETURNING * INTO v_current;
    END IF;
    RETURN NEXT v_current;
END
$$;

GRANT EXECUTE ON FUNCTION
    runtime.take_generation_v1(text),
    runtime.hold_generation_v1(bigint),
    runtime.ensure_lineage_v1(text)
TO khala_runtime;
