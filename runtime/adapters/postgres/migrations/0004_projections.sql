-- Projectors: how far each has applied a source topic, and the read model of runs that they keep.
--
-- One transaction of a projector: lock_checkpoints_v1, read events after the checkpoints,
-- apply_run_summaries_v1, append_v1 for the summaries, write_checkpoints_v1, COMMIT. So what was
-- applied and how far it was applied are never apart, whatever dies in between.

-- `applied_seq` is the checkpoint: everything up to it is in the read model, nothing after it.
-- `published_*` is what readers of the summary topics were told last; NULL and 0 before the first.
-- It stays when the read model is built again, so that nothing is told twice.
CREATE TABLE runtime.projector_checkpoints (
    projector text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    applied_seq bigint NOT NULL DEFAULT 0 CHECK (applied_seq >= 0),
    published_seq bigint NOT NULL DEFAULT 0 CHECK (published_seq >= 0),
    published_state text COLLATE "C",
    published_title text,
    published_at timestamptz,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (projector, topic),
    CHECK ((published_seq = 0) = (published_at IS NULL)),
    CHECK ((published_seq = 0) = (published_state IS NULL)),
    CHECK ((published_seq = 0) = (published_title IS NULL))
) WITH (fillfactor = 70);


-- The fold of each run's events. Derived: it may be built again at any time.
CREATE TABLE runtime.run_summaries (
    run_id text COLLATE "C" PRIMARY KEY,
    owner_user_id text COLLATE "C" NOT NULL,
    org_id text COLLATE "C",
    name text COLLATE "C" NOT NULL,
    title text NOT NULL,
    state text COLLATE "C" NOT NULL
        CHECK (state IN ('created', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
    event_count bigint NOT NULL,
    step_count bigint NOT NULL,
    started_at timestamptz,
    last_event_at timestamptz,
    finished_at timestamptz,
    applied_seq bigint NOT NULL,
    -- Topics have no holes: an event that was applied twice, or not at all, shows here.
    CHECK (event_count = applied_seq)
) WITH (fillfactor = 70);

GRANT SELECT ON runtime.projector_checkpoints, runtime.run_summaries TO khala_runtime;


-- Locks the checkpoints of source topics until the transaction ends, inserting those that are
-- missing; a topic without a head is left out. Order, for every projector: the generation row FOR
-- SHARE, missing checkpoints by the bytes of the topic, then all of them in the same order. Heads come
-- after checkpoints. A topic may occur once.
CREATE FUNCTION runtime.lock_checkpoints_v1(p_generation bigint, p_projector text, p_topics text[])
RETURNS TABLE (
    topic text,
    owner_user_id text,
    org_id text,
    applied_seq bigint,
    published_seq bigint,
    published_state text,
    published_title text,
    published_at timestamptz,
    locked_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    PERFORM runtime.hold_generation_v1(p_generation);

    INSERT INTO runtime.projector_checkpoints (projector, topic, updated_at)
    SELECT p_projector, t.topic, clock_timestamp()
    FROM unnest(p_topics) AS t (topic)
    WHERE EXISTS (SELECT FROM runtime.topic_heads AS h WHERE h.topic = t.topic)
        AND NOT EXISTS (
            SELECT FROM runtime.projector_checkpoints AS c
            WHERE c.projector = p_projector AND c.topic = t.topic
        )
    ORDER BY t.topic COLLATE "C"
    ON CONFLICT (projector, topic) DO NOTHING;

    RETURN QUERY
    SELECT c.topic, h.owner_user_id, h.org_id, c.applied_seq, c.published_seq, c.published_state,
           c.published_title, c.published_at, clock_timestamp()
    FROM runtime.projector_checkpoints AS c
    JOIN runtime.topic_heads AS h ON h.topic = c.topic
    WHERE c.projector = p_projector AND c.topic = ANY (p_topics)
    ORDER BY c.topic
    FOR UPDATE OF c;
END
$$;


-- Writes rows of the read model; the caller holds their checkpoints.
CREATE FUNCTION runtime.apply_run_summaries_v1(
    p_run_ids text[],
    p_owner_user_ids text[],
    p_org_ids text[],
    p_names text[],
    p_titles text[],
    p_states text[],
    p_event_counts bigint[],
    p_step_counts bigint[],
    p_started_ats timestamptz[],
    p_last_event_ats timestamptz[],
    p_finished_ats timestamptz[],
    p_applied_seqs bigint[]
)
RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
AS $$
    INSERT INTO runtime.run_summaries AS s
        (run_id, owner_user_id, org_id, name, title, state, event_count, step_count, started_at,
         last_event_at, finished_at, applied_seq)
    SELECT u.*
    FROM unnest(p_run_ids, p_owner_user_ids, p_org_ids, p_names, p_titles, p_states, p_event_counts,
                p_step_counts, p_started_ats, p_last_event_ats, p_finished_ats, p_applied_seqs) AS u
    ON CONFLICT (run_id) DO UPDATE
    SET owner_user_id = excluded.owner_user_id, org_id = excluded.org_id, name = excluded.name,
        title = excluded.title, state = excluded.state, event_count = excluded.event_count,
        step_count = excluded.step_count, started_at = excluded.started_at,
        last_event_at = excluded.last_event_at, finished_at = excluded.finished_at,
        applied_seq = excluded.applied_seq
$$;


-- Moves checkpoints from where the caller found them to where its transaction has applied them.
-- A NULL published seq leaves what was published as it is.
-- Raises KH003 if a checkpoint is not where the caller found it: the caller did not hold its lock.
CREATE FUNCTION runtime.write_checkpoints_v1(
    p_projector text,
    p_topics text[],
    p_seqs_before bigint[],
    p_applied_seqs bigint[],
    p_published_seqs bigint[],
    p_published_states text[],
    p_published_titles text[],
    p_published_at timestamptz
)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_moved bigint;
BEGIN
    UPDATE runtime.projector_checkpoints AS c
    SET applied_seq = u.applied_seq,
        published_seq = coalesce(u.published_seq, c.published_seq),
        published_state = CASE WHEN u.published_seq IS NULL THEN c.published_state ELSE u.published_state END,
        published_title = CASE WHEN u.published_seq IS NULL THEN c.published_title ELSE u.published_title END,
        published_at = CASE WHEN u.published_seq IS NULL THEN c.published_at ELSE p_published_at END,
        updated_at = clock_timestamp()
    FROM unnest(p_topics, p_seqs_before, p_applied_seqs, p_published_seqs, p_published_states,
                p_published_titles)
        AS u (topic, seq_before, applied_seq, published_seq, published_state, published_title)
    WHERE c.projector = p_projector AND c.topic = u.topic AND c.applied_seq = u.seq_before;
    GET DIAGNOSTICS v_moved = ROW_COUNT;
    IF v_moved <> cardinality(p_topics) THEN
        RAISE EXCEPTION 'write_checkpoints_v1: % of % checkpoints were where they were found',
            v_moved, cardinality(p_topics) USING ERRCODE = 'KH003';
    END IF;
END
$$;

GRANT EXECUTE ON FUNCTION
    runtime.lock_checkpoints_v1(bigint, text, text[]),
    runtime.apply_run_summaries_v1(
        text[], text[], text[], text[], text[], text[], bigint[], bigint[],
        timestamptz[], timestamptz[], timestamptz[], bigint[]
    ),
    runtime.write_checkpoints_v1(text, text[], bigint[], bigint[], bigint[], text[], text[], timestamptz)
TO khala_runtime;
