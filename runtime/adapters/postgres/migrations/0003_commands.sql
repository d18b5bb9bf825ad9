-- Runs, idempotency keys, and the two functions between which a batch of commands is decided.

CREATE TABLE runtime.runs (
    run_id text COLLATE "C" PRIMARY KEY,
    owner_user_id text COLLATE "C" NOT NULL,
    org_id text COLLATE "C",
    -- The client's own name for the run, unique per owner; NULL if it gave none.
    name text COLLATE "C",
    agent text NOT NULL,
    source text NOT NULL,
    attributes jsonb NOT NULL,
    state text COLLATE "C" NOT NULL
        CHECK (state IN ('created', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled')))
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX runs_name_unique_per_owner ON runtime.runs (owner_user_id, name) WHERE name IS NOT NULL;
CREATE INDEX runs_of_owner ON runtime.runs (owner_user_id, run_id);
CREATE INDEX runs_of_org ON runtime.runs (org_id, run_id) WHERE org_id IS NOT NULL;


-- What has been answered. A row is written in the transaction of its command; commands that fail
-- leave none. `response` is NULL only inside the transaction that decides the command.
CREATE TABLE runtime.idempotency_keys (
    -- Principal and route, or '~internal' for requests that came without a key.
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    response bytea,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (scope, key)
) WITH (fillfactor = 70);
CREATE INDEX idempotency_keys_expiry ON runtime.idempotency_keys (expires_at);
-- Mostly hashes and random ids: compressing costs time and saves nothing.
ALTER TABLE runtime.idempotency_keys ALTER COLUMN response SET STORAGE EXTERNAL;

GRANT SELECT ON runtime.runs, runtime.idempotency_keys TO khala_runtime;


-- First half of a batch: takes every lock that the batch needs, in the order that all writers keep,
-- and returns what the decisions are made on.
--
-- 1. the generation row FOR SHARE; 2. idempotency keys, inserted sorted; 3. existing runs by id, then
-- new runs by (owner, name), only for requests whose key is new; 4. topic heads by bytes.
-- Waiting for a key means waiting for the transaction that inserted it, so two first uses that race
-- are serialised here. An expired key counts as new.
--
-- Arguments: keys, run ids and topics are distinct within their arrays. p_new_run_key_ordinals: which
-- key (1-based) each new run belongs to. p_topic_classes: NULL for the topic of a run: its head was
-- made with the run, and a command on a run that does not exist must not make one.
-- Result, aligned with the arguments:
--   key_is_new; stored_fingerprints and stored_responses of the keys that are not (else NULL);
--   run_states, NULL for a run that does not exist;
--   name_holders: per new run its own id if it was inserted, the id of the run that has the name if
--   that is taken, NULL if its key is not new;
--   head_seqs, NULL for a head that does not exist and has no class; locked_at.
CREATE FUNCTION runtime.lock_batch_v1(
    p_generation bigint,
    p_key_scopes text[],
    p_keys text[],
    p_key_fingerprints bytea[],
    p_key_ttls_s integer[],
    p_run_ids text[],
    p_new_run_ids text[],
    p_new_run_key_ordinals integer[],
    p_new_run_owner_user_ids text[],
    p_new_run_org_ids text[],
    p_new_run_names text[],
    p_new_run_agents text[],
    p_new_run_sources text[],
    p_new_run_attributes text[],
    p_topics text[],
    p_topic_classes text[],
    p_topic_owner_user_ids text[],
    p_topic_org_ids text[],
    OUT key_is_new boolean[],
    OUT stored_fingerprints bytea[],
    OUT stored_responses bytea[],
    OUT run_states text[],
    OUT name_holders text[],
    OUT head_seqs bigint[],
    OUT locked_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_now CONSTANT timestamptz := clock_timestamp();
BEGIN
    PERFORM runtime.hold_generation_v1(p_generation);

    WITH taken AS (
        INSERT INTO runtime.idempotency_keys AS k (scope, key, fingerprint, created_at, expires_at)
        SELECT u.scope, u.key, u.fingerprint, v_now, v_now + make_interval(secs => u.ttl_s)
        FROM unnest(p_key_scopes, p_keys, p_key_fingerprints, p_key_ttls_s) AS u (scope, key, fingerprint, ttl_s)
        ORDER BY u.scope COLLATE "C", u.key COLLATE "C"
        ON CONFLICT (scope, key) DO UPDATE
        SET fingerprint = excluded.fingerprint, response = NULL, created_at = excluded.created_at,
            expires_at = excluded.expires_at
        WHERE k.expires_at <= excluded.created_at
        RETURNING k.scope, k.key
    )
    SELECT array_agg(t.key IS NOT NULL ORDER BY u.ordinal) INTO key_is_new
    FROM unnest(p_key_scopes, p_keys) WITH ORDINALITY AS u (scope, key, ordinal)
    LEFT JOIN taken AS t ON t.scope = u.scope AND t.key = u.key;

    IF false = ANY (key_is_new) THEN
        SELECT array_agg(k.fingerprint ORDER BY u.ordinal), array_agg(k.response ORDER BY u.ordinal)
        INTO stored_fingerprints, stored_responses
        FROM unnest(p_key_scopes, p_keys, key_is_new) WITH ORDINALITY AS u (scope, key, is_new, ordinal)
        LEFT JOIN runtime.idempotency_keys AS k ON k.scope = u.scope AND k.key = u.key AND NOT u.is_new;
    END IF;

    IF cardinality(p_run_ids) > 0 THEN
        WITH locked AS MATERIALIZED (
            SELECT r.run_id, r.state
            FROM runtime.runs AS r
            WHERE r.run_id = ANY (p_run_ids)
            ORDER BY r.run_id
            FOR NO KEY UPDATE OF r
        )
        SELECT array_agg(l.state ORDER BY u.ordinal) INTO run_states
        FROM unnest(p_run_ids) WITH ORDINALITY AS u (run_id, ordinal)
        LEFT JOIN locked AS l ON l.run_id = u.run_id;
    END IF;

    IF cardinality(p_new_run_ids) > 0 THEN
        INSERT INTO runtime.runs
            (run_id, owner_user_id, org_id, name, agent, source, attributes, state, created_at)
        SELECT u.run_id, u.owner_user_id, u.org_id, u.name, u.agent, u.source, u.attributes::jsonb,
               'running', v_now
        FROM unnest(p_new_run_ids, p_new_run_key_ordinals, p_new_run_owner_user_ids, p_new_run_org_ids,
                    p_new_run_names, p_new_run_agents, p_new_run_sources, p_new_run_attributes)
            AS u (run_id, key_ordinal, owner_user_id, org_id, name, agent, source, attributes)
        WHERE key_is_new[u.key_ordinal]
        ORDER BY u.owner_user_id COLLATE "C", u.name COLLATE "C", u.run_id COLLATE "C"
        ON CONFLICT (owner_user_id, name) WHERE name IS NOT NULL DO NOTHING;

        SELECT array_agg(CASE WHEN key_is_new[u.key_ordinal] THEN coalesce(own.run_id, holder.run_id) END
                         ORDER BY u.ordinal)
        INTO name_holders
        FROM unnest(p_new_run_ids, p_new_run_key_ordinals, p_new_run_owner_user_ids, p_new_run_names)
            WITH ORDINALITY AS u (run_id, key_ordinal, owner_user_id, name, ordinal)
        LEFT JOIN runtime.runs AS own ON own.run_id = u.run_id
        LEFT JOIN runtime.runs AS holder
            ON holder.owner_user_id = u.owner_user_id AND holder.name = u.name AND own.run_id IS NULL;
    END IF;

    IF cardinality(p_topics) > 0 THEN
        SELECT array_agg(l.head_seq ORDER BY u.ordinal) INTO head_seqs
        FROM generate_series(1, cardinality(p_topics)) AS u (ordinal)
        LEFT JOIN runtime.lock_heads_v1(
            p_topics, p_topic_classes, p_topic_owner_user_ids, p_topic_org_ids
        ) AS l ON l.ordinal = u.ordinal;
    END IF;
    locked_at := v_now;
END
$$;


-- Second half, after append_v1: stores the answers, forgets the keys of failed requests (a NULL
-- response), moves the states of runs. Touches only keys that this transaction took.
CREATE FUNCTION runtime.finish_batch_v1(
    p_key_scopes text[],
    p_keys text[],
    p_key_fingerprints bytea[],
    p_responses bytea[],
    p_run_ids text[],
    p_run_states text[],
    p_finished_ats timestamptz[]
)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    UPDATE runtime.idempotency_keys AS k SET fingerprint = u.fingerprint, response = u.response
    FROM unnest(p_key_scopes, p_keys, p_key_fingerprints, p_responses) AS u (scope, key, fingerprint, response)
    WHERE k.scope = u.scope AND k.key = u.key AND k.response IS NULL AND u.response IS NOT NULL;

    IF array_position(p_responses, NULL) IS NOT NULL THEN
        DELETE FROM runtime.idempotency_keys AS k
        USING unnest(p_key_scopes, p_keys, p_responses) AS u (scope, key, response)
        WHERE k.scope = u.scope AND k.key = u.key AND k.response IS NULL AND u.response IS NULL;
    END IF;

    IF cardinality(p_run_ids) > 0 THEN
        UPDATE runtime.runs AS r SET state = u.state, finished_at = u.finished_at
        FROM unnest(p_run_ids, p_run_states, p_finished_ats) AS u (run_id, state, finished_at)
        WHERE r.run_id = u.run_id;
    END IF;
END
$$;


-- Deletes at most p_limit expired keys and returns how many: call again while it returns p_limit.
CREATE FUNCTION runtime.delete_expired_keys_v1(p_limit integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
AS $$
    WITH expired AS (
        SELECT k.scope, k.key
        FROM runtime.idempotency_keys AS k
        WHERE k.expires_at <= clock_timestamp()
        ORDER BY k.expires_at
        LIMIT p_limit
        FOR UPDATE SKIP LOCKED
    ), deleted AS (
        DELETE FROM runtime.idempotency_keys AS k USING expired AS e
        WHERE k.scope = e.scope AND k.key = e.key
        RETURNING 1
    )
    SELECT count(*) FROM deleted
$$;

GRANT EXECUTE ON FUNCTION
    runtime.lock_batch_v1(
        bigint, text[], text[], bytea[], integer[], text[],
        text[], integer[], text[], text[], text[], text[], text[], text[],
        text[], text[], text[], text[]
    ),
    runtime.finish_batch_v1(text[], text[], bytea[], bytea[], text[], text[], timestamptz[]),
    runtime.delete_expired_keys_v1(integer)
TO khala_runtime;
