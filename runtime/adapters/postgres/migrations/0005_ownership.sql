-- oldest build: 0004
-- A run may get another owner (ADR-0013). What is derived from the owner changes in the same transaction:
--
-- lock_batch_v1 (key, run row), transfer_run_v1, lock_checkpoints_v2, transfer_heads_v1, append_v1 for
-- run.transferred, the step of the projector, finish_batch_v1, COMMIT. That is the lock order of every writer:
-- generation, keys, runs, checkpoints, heads.

-- As lock_checkpoints_v1, but the owners are read after the checkpoints are locked.
-- Race: a projector waits for the checkpoint that a transfer holds.
--   transfer:  locks checkpoint, moves the head to the new owner ........ COMMIT
--   projector:             waits for the checkpoint ..................... goes on
-- In one statement the projector would go on with the head as it was when its statement began: with the
-- former owner, in whose list it would write.
CREATE FUNCTION runtime.lock_checkpoints_v2(p_generation bigint, p_projector text, p_topics text[])
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

    PERFORM FROM runtime.projector_checkpoints AS c
    WHERE c.projector = p_projector AND c.topic = ANY (p_topics)
    ORDER BY c.topic
    FOR UPDATE OF c;

    RETURN QUERY
    SELECT c.topic, h.owner_user_id, h.org_id, c.applied_seq, c.published_seq, c.published_state,
           c.published_title, c.published_at, clock_timestamp()
    FROM runtime.projector_checkpoints AS c
    JOIN runtime.topic_heads AS h ON h.topic = c.topic
    WHERE c.projector = p_projector AND c.topic = ANY (p_topics)
    ORDER BY c.topic;
END
$$;


-- Gives a run another owner. The caller holds the run's row (lock_batch_v1).
-- Result: NULL, or, with nothing changed, the id of the new owner's run that has the same name.
CREATE FUNCTION runtime.transfer_run_v1(p_generation bigint, p_run_id text, p_owner_user_id text)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
AS $$
DECLARE
    v_holder text;
BEGIN
    PERFORM runtime.hold_generation_v1(p_generation);
    BEGIN
        UPDATE runtime.runs SET owner_user_id = p_owner_user_id WHERE run_id = p_run_id;
    EXCEPTION WHEN unique_violation THEN
        SELECT o.run_id INTO v_holder
        FROM runtime.runs AS r
        JOIN runtime.runs AS o ON o.owner_user_id = p_owner_user_id AND o.name = r.name
        WHERE r.run_id = p_run_id;
        -- Whoever had the name has given it away since: as after any serialisation failure, all of it again.
        IF v_holder IS NULL THEN
            RAISE EXCEPTION 'the name was freed meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END;
    RETURN v_holder;
END
$$;


-- Locks every head that the transfer will write, and gives the run's own head its new owner. The caller holds
-- the run's checkpoint. Arguments: the run's topic, then as lock_heads_v1, the run's topic among them.
CREATE FUNCTION runtime.transfer_heads_v1(
    p_generation bigint,
    p_run_topic text,
    p_owner_user_id text,
    p_topics text[],
    p_topic_classes text[],
    p_owner_user_ids text[],
    p_org_ids text[]
)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
AS $$
BEGIN
    PERFORM runtime.hold_generation_v1(p_generation);
    PERFORM runtime.lock_heads_v1(p_topics, p_topic_classes, p_owner_user_ids, p_org_ids);
    UPDATE runtime.topic_heads AS h
    SET owner_user_id = p_owner_user_id, updated_at = clock_timestamp()
    WHERE h.topic = p_run_topic;
END
$$;

GRANT EXECUTE ON FUNCTION
    runtime.lock_checkpoints_v2(bigint, text, text[]),
    runtime.transfer_run_v1(bigint, text, text),
    runtime.transfer_heads_v1(bigint, text, text, text[], text[], text[], text[])
TO khala_runtime;
