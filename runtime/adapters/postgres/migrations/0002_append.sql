-- The one append primitive. Commands, transitions and projectors all write through it.

-- Protobuf varint of n >= 2^28, which varint_v1 leaves to this loop.
CREATE FUNCTION runtime.long_varint_v1(n bigint) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog
AS $$
DECLARE
    v_bytes bytea := '';
    v_rest bigint := n;
BEGIN
    WHILE v_rest > 127 LOOP
        v_bytes := v_bytes || set_byte('\x00', 0, (v_rest & 127 | 128)::integer);
        v_rest := v_rest >> 7;
    END LOOP;
    RETURN v_bytes || set_byte('\x00', 0, v_rest::integer);
END
$$;


-- Protobuf varint of n >= 0. Neither STRICT nor with a search_path: either would keep PostgreSQL
-- from inlining it, and then it costs 3 microseconds instead of 0.3.
CREATE FUNCTION runtime.varint_v1(n bigint) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN n < 1 << 7 THEN pg_catalog.set_byte('\x00'::bytea, 0, n::integer)
        WHEN n < 1 << 14 THEN pg_catalog.substr(pg_catalog.int4send(
            (((n & 127 | 128) << 8) | (n >> 7))::integer), 3)
        WHEN n < 1 << 21 THEN pg_catalog.substr(pg_catalog.int4send(
            (((n & 127 | 128) << 16) | ((n >> 7 & 127 | 128) << 8) | (n >> 14))::integer), 2)
        WHEN n < 1 << 28 THEN pg_catalog.substr(pg_catalog.int8send(
            ((n & 127 | 128) << 24) | ((n >> 7 & 127 | 128) << 16)
            | ((n >> 14 & 127 | 128) << 8) | (n >> 21)), 5)
        ELSE runtime.long_varint_v1(n)
    END
$$;


-- Locks topic heads until the transaction ends, inserting those that are missing and have a class;
-- missing ones without a class are left out of the result.
--
-- Order, for every writer: missing heads are inserted first, then all are locked, each time by the
-- bytes of the topic. A topic may occur once.
CREATE FUNCTION runtime.lock_heads_v1(
    p_topics text[],
    p_topic_classes text[],
    p_owner_user_ids text[],
    p_org_ids text[]
)
RETURNS TABLE (ordinal bigint, head_seq bigint, head_chain bytea, head_bytes_total bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO runtime.topic_heads
        (topic, topic_class, head_chain, floor_chain, owner_user_id, org_id, updated_at)
    SELECT t.topic, t.topic_class, t.chain_start, t.chain_start, t.owner_user_id, t.org_id, clock_timestamp()
    FROM (
        SELECT u.*, sha256('khala.chain.v1\000'::bytea || convert_to(u.topic, 'UTF8')) AS chain_start
        FROM unnest(p_topics, p_topic_classes, p_owner_user_ids, p_org_ids)
            AS u (topic, topic_class, owner_user_id, org_id)
    ) AS t
    WHERE t.topic_class IS NOT NULL
        AND NOT EXISTS (SELECT FROM runtime.topic_heads AS h WHERE h.topic = t.topic)
    ORDER BY t.topic COLLATE "C"
    ON CONFLICT (topic) DO NOTHING;

    RETURN QUERY
    SELECT t.ordinal, h.head_seq, h.head_chain, h.head_bytes_total
    FROM unnest(p_topics) WITH ORDINALITY AS t (topic, ordinal)
    JOIN runtime.topic_heads AS h ON h.topic = t.topic
    ORDER BY h.topic
    FOR UPDATE OF h;
END
$$;


-- Appends events to one or more topics: allocates seq, follows the chain, writes log and journal,
-- moves the heads. Call it inside a transaction; commit order is seq order, because the heads stay
-- locked until the transaction ends.
--
-- Arguments: one element per topic in the first group of arrays, topics distinct; one per event in
-- the second, the events of the first topic first. Class, owner and org are written with a head that
-- does not exist yet and are ignored otherwise.
-- Result: per topic the head before this call; `chains`: the 32-byte chain of each event in the
-- order of the arguments, joined; the time that all these rows carry.
--
-- entry (khala_contracts/codec.py) = 0A varint(length) frame
-- frame = 0A varint(length) topic, 10 varint(seq), 1A length kind, 22 varint(length) payload,
--         28 varint(schema_version); an empty payload is omitted, as protobuf omits it.
-- chain (SPEC section 2) = sha256(previous, u64 seq, u32 schema_version, u32 length, kind, sha256(payload))
CREATE FUNCTION runtime.append_v1(
    p_generation bigint,
    p_topics text[],
    p_topic_classes text[],
    p_owner_user_ids text[],
    p_org_ids text[],
    p_event_counts integer[],
    p_event_ids text[],
    p_kinds text[],
    p_payloads bytea[],
    p_schema_versions bigint[],
    p_actors text[],
    p_request_ids text[],
    p_compaction_keys text[],
    OUT seqs_before bigint[],
    OUT chains_before bytea[],
    OUT chains bytea,
    OUT committed_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    v_count CONSTANT integer := cardinality(p_event_ids);
    v_bytes_before bigint[];
    -- Per event: what its chain hashes after the previous chain and seq.
    v_links bytea[];
    v_ordinals integer[];
    v_seqs bigint[];
    v_chains bytea[];
    v_chain bytea;
    v_seq bigint;
    v_event integer := 0;
BEGIN
    PERFORM runtime.hold_generation_v1(p_generation);
    IF cardinality(p_event_counts) <> cardinality(p_topics)
        OR v_count IS DISTINCT FROM (SELECT sum(c) FROM unnest(p_event_counts) AS c)
        OR (SELECT min(c) FROM unnest(p_event_counts) AS c) < 1
    THEN
        RAISE EXCEPTION 'append_v1: counts do not match' USING ERRCODE = 'KH002';
    END IF;

    SELECT array_agg(l.head_seq ORDER BY l.ordinal),
           array_agg(l.head_chain ORDER BY l.ordinal),
           array_agg(l.head_bytes_total ORDER BY l.ordinal)
    INTO seqs_before, chains_before, v_bytes_before
    FROM runtime.lock_heads_v1(p_topics, p_topic_classes, p_owner_user_ids, p_org_ids) AS l;
    -- Under the locks, so that it ascends with seq.
    committed_at := clock_timestamp();

    SELECT array_agg(
        -- The last four bytes: a u32 may be above what a signed integer holds.
        substr(int8send(u.schema_version), 5) || int4send(octet_length(u.kind))
        || convert_to(u.kind, 'UTF8') || sha256(u.payload)
        ORDER BY u.event
    )
    INTO v_links
    FROM unnest(p_kinds, p_payloads, p_schema_versions)
        WITH ORDINALITY AS u (kind, payload, schema_version, event);

    v_ordinals := array_fill(0, ARRAY[v_count]);
    v_seqs := array_fill(0::bigint, ARRAY[v_count]);
    v_chains := array_fill(''::bytea, ARRAY[v_count]);
    FOR v_ordinal IN 1 .. cardinality(p_topics) LOOP
        v_seq := seqs_before[v_ordinal];
        v_chain := chains_before[v_ordinal];
        FOR _ IN 1 .. p_event_counts[v_ordinal] LOOP
            v_event := v_event + 1;
            v_seq := v_seq + 1;
            v_chain := sha256(v_chain || int8send(v_seq) || v_links[v_event]);
            v_ordinals[v_event] := v_ordinal;
            v_seqs[v_event] := v_seq;
            v_chains[v_event] := v_chain;
        END LOOP;
    END LOOP;

    INSERT INTO runtime.events
        (topic, seq, event_id, kind, schema_version, payload, actor, request_id, committed_at)
    SELECT p_topics[u.ordinal], u.seq, u.event_id, u.kind, u.schema_version, u.payload, u.actor,
           u.request_id, committed_at
    FROM unnest(v_ordinals, v_seqs, p_event_ids, p_kinds, p_schema_versions, p_payloads, p_actors,
                p_request_ids)
        AS u (ordinal, seq, event_id, kind, schema_version, payload, actor, request_id);

    WITH framed AS MATERIALIZED (
        SELECT u.ordinal, u.seq, u.chain, u.compaction_key,
               '\x0a'::bytea || runtime.varint_v1(octet_length(p_topics[u.ordinal]))
               || convert_to(p_topics[u.ordinal], 'UTF8')
               || '\x10'::bytea || runtime.varint_v1(u.seq)
               || set_byte('\x1a00'::bytea, 1, octet_length(u.kind)) || convert_to(u.kind, 'UTF8')
               || CASE WHEN octet_length(u.payload) = 0 THEN ''::bytea
                  ELSE '\x22'::bytea || runtime.varint_v1(octet_length(u.payload)) || u.payload END
               || '\x28'::bytea || runtime.varint_v1(u.schema_version) AS frame
        FROM unnest(v_ordinals, v_seqs, v_chains, p_kinds, p_payloads, p_schema_versions, p_compaction_keys)
            AS u (ordinal, seq, chain, kind, payload, schema_version, compaction_key)
    ), entries AS MATERIALIZED (
        SELECT f.ordinal, f.seq, f.chain, f.compaction_key,
               '\x0a'::bytea || runtime.varint_v1(octet_length(f.frame)) || f.frame AS entry
        FROM framed AS f
    ), written AS (
        INSERT INTO runtime.journal (topic, seq, entry, chain, bytes_total, compaction_key, committed_at)
        SELECT p_topics[e.ordinal], e.seq, e.entry, e.chain,
               v_bytes_before[e.ordinal] + sum(octet_length(e.entry))
                   OVER (PARTITION BY e.ordinal ORDER BY e.seq ROWS UNBOUNDED PRECEDING),
               e.compaction_key, committed_at
        FROM entries AS e
        RETURNING topic, seq, chain, bytes_total
    )
    UPDATE runtime.topic_heads AS h
    SET head_seq = w.seq, head_chain = w.chain, head_bytes_total = w.bytes_total,
        updated_at = committed_at
    FROM unnest(p_topics, seqs_before, p_event_counts) AS t (topic, seq_before, event_count)
    JOIN written AS w ON w.topic = t.topic AND w.seq = t.seq_before + t.event_count
    WHERE h.topic = t.topic;

    SELECT string_agg(u.chain, ''::bytea ORDER BY u.event) INTO chains
    FROM unnest(v_chains) WITH ORDINALITY AS u (chain, event);
END
$$;

GRANT EXECUTE ON FUNCTION
    runtime.lock_heads_v1(text[], text[], text[], text[]),
    runtime.append_v1(
        bigint, text[], text[], text[], text[], integer[],
        text[], text[], bytea[], bigint[], text[], text[], text[]
    )
TO khala_runtime;
