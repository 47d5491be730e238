-- The chain of every room: each entry carries a hash over itself and the hash of the entry before. So nobody can change,
-- swap, take out or put in an entry without all that follow ceasing to fit. What exactly is hashed, to the byte, stands in
-- docs/receipts.md; rules::chain is the same in Rust, and a test compares the two.
--
-- The text goes in as a digest salted with a nonce. A legal removal takes text and nonce away and leaves the digest: the
-- chain can still be checked, and nobody can guess a short text from its digest.

ALTER TABLE standfast.entries
    ADD COLUMN nonce  bytea,                 -- 16 random bytes; null where there is no text of the entry's own
    ADD COLUMN digest bytea,                 -- of nonce and text as they were written
    ADD COLUMN chain  bytea;                 -- the room's running hash at this entry
ALTER TABLE standfast.room_heads
    ADD COLUMN chain bytea;                  -- at the room's newest entry; null where it has none yet

-- What a room's chain begins with.
CREATE FUNCTION standfast.chain_start(p_room bigint) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN sha256('standfast room 1'::bytea || int8send(p_room));

-- The digest of an entry's text, which may be none.
CREATE FUNCTION standfast.content_digest(p_nonce bytea, p_body text) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE RETURN sha256(CASE WHEN p_body IS NULL THEN 'standfast text 1\000'::bytea
    ELSE 'standfast text 1\001'::bytea || p_nonce || convert_to(p_body, 'UTF8') END);

-- The digest of all that is known of an entry before it has its place.
CREATE FUNCTION standfast.entry_digest(
    p_room bigint, p_author bigint, p_kind smallint, p_target bigint, p_client_id uuid,
    p_first_epoch bigint, p_first_seq bigint, p_first_at_us bigint, p_content bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN sha256('standfast entry 1'::bytea || int8send(p_room) || int8send(p_author)
    || int2send(p_kind)
    || coalesce('\001'::bytea || int8send(p_target), decode(repeat('00', 9), 'hex'))
    || coalesce('\001'::bytea || uuid_send(p_client_id), decode(repeat('00', 17), 'hex'))
    || coalesce('\001'::bytea || int8send(p_first_epoch) || int8send(p_first_seq) || int8send(p_first_at_us),
                decode(repeat('00', 25), 'hex'))
    || p_content);

-- The room's running hash at an entry.
CREATE FUNCTION standfast.chain_next(p_before bytea, p_seq bigint, p_epoch bigint, p_at_us bigint, p_entry bytea)
RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN sha256('standfast chain 1'::bytea || p_before || int8send(p_seq)
    || int8send(p_epoch) || int8send(p_at_us) || p_entry);

-- Chain what is there already, in one pass over the rooms' logs. A text that was taken away or replaced before there were
-- chains is chained as it is now.
CREATE FUNCTION pg_temp.chains() RETURNS TABLE (room bigint, seq bigint, nonce bytea, digest bytea, chain bytea)
LANGUAGE plpgsql AS $$
DECLARE
    v_entry standfast.entries;
BEGIN
    FOR v_entry IN SELECT e.* FROM standfast.entries e ORDER BY e.room, e.seq LOOP
        IF v_entry.room IS DISTINCT FROM room THEN
            room := v_entry.room;
            chain := standfast.chain_start(room);
        END IF;
        seq := v_entry.seq;
        nonce := CASE WHEN v_entry.body IS NOT NULL THEN uuid_send(gen_random_uuid()) END;
        digest := standfast.content_digest(nonce, v_entry.body);
        chain := standfast.chain_next(chain, seq, v_entry.epoch, v_entry.at_us, standfast.entry_digest(
            room, v_entry.author, v_entry.kind, v_entry.target, v_entry.client_id,
            v_entry.first_epoch, v_entry.first_seq, v_entry.first_at_us, digest));
        RETURN NEXT;
    END LOOP;
END
$$;
UPDATE standfast.entries e SET nonce = c.nonce, digest = c.digest, chain = c.chain
    FROM pg_temp.chains() c WHERE c.room = e.room AND c.seq = e.seq;
UPDATE standfast.room_heads h SET chain = e.chain
    FROM standfast.entries e WHERE e.room = h.room AND e.seq = h.last_seq;
DROP FUNCTION pg_temp.chains();

ALTER TABLE standfast.entries
    ALTER COLUMN digest SET NOT NULL,
    ALTER COLUMN chain SET NOT NULL;

-- Whether a transaction that commits now waits until its synchronous standby has flushed it.
CREATE FUNCTION standfast.waits_for_standby() RETURNS boolean
LANGUAGE sql STABLE RETURN current_setting('synchronous_standby_names') <> ''
    AND current_setting('synchronous_commit') IN ('on', 'remote_apply');

DROP FUNCTION standfast.append_fresh(
    bigint, bigint[], bigint[], bigint[], int[], int[], bigint[], uuid[], smallint[], bigint[], text[]);
DROP FUNCTION standfast.append_entries(
    bigint, bigint[], bigint[], int[], bigint[], uuid[], smallint[], bigint[], text[]);

-- Append a batch of entries that are all expected to be new: the short way, for nearly every batch. A client message id
-- that is there already violates its index and ends the transaction with nothing written; append_entries sorts it out.
--
-- p_rooms, p_versions, p_counts: the distinct rooms in rising order, the access version on which the server's decisions
-- rest, and how many entries go to each. For each entry, p_place is the place of its room in p_rooms and p_nth its
-- number among those of its room, both from 1; p_content is the digest of p_nonce and p_body, and p_entry that of the entry.
-- lasts: each room's last number before the batch; null where the room's access has changed, and nothing was written.
-- chains: for each entry, its room's running hash. waits: whether the commit waits for a synchronous standby.
--
-- The heads are locked in the order of p_rooms, so batches of several servers do not wait in a circle.
CREATE FUNCTION standfast.append_fresh(
    p_epoch bigint, p_rooms bigint[], p_versions bigint[], p_counts bigint[],
    p_place int[], p_nth int[], p_author bigint[], p_client_id uuid[], p_kind smallint[], p_target bigint[],
    p_body text[], p_nonce bytea[], p_content bytea[], p_entry bytea[],
    OUT lasts bigint[], OUT at_us bigint, OUT chains bytea[], OUT waits boolean)
LANGUAGE plpgsql
-- The plan is made once, when the tables may be small; it must be the one for large tables.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_epoch  bigint;
    v_places bigint[];
    v_heads  bytea[];
    v_stamp  bytea;
    v_place  int;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(5374616164);
    SELECT e.epoch INTO v_epoch FROM standfast.pool_epoch e;
    IF v_epoch IS DISTINCT FROM p_epoch THEN
        RAISE EXCEPTION 'the writer states epoch %, the database is at epoch %', p_epoch, v_epoch
            USING ERRCODE = 'SF001';
    END IF;

    SELECT array_agg(l.last_seq ORDER BY l.n), array_agg(l.n ORDER BY l.n),
           array_agg(coalesce(l.chain, standfast.chain_start(l.room)) ORDER BY l.n)
    INTO lasts, v_places, v_heads
    FROM (SELECT w.n, h.room, h.last_seq, h.chain
          FROM unnest(p_rooms, p_versions) WITH ORDINALITY AS w (room, version, n)
          JOIN standfast.room_heads h ON h.room = w.room AND h.access_version = w.version
          ORDER BY w.n FOR NO KEY UPDATE OF h) l;
    IF cardinality(lasts) IS DISTINCT FROM cardinality(p_rooms) THEN
        -- Some rooms are stale: put a null in each of their places. v_places holds the places of the others.
        SELECT array_agg(lasts[array_position(v_places, n)] ORDER BY n),
               array_agg(v_heads[array_position(v_places, n)] ORDER BY n)
        INTO lasts, v_heads FROM generate_series(1::bigint, cardinality(p_rooms)) n;
    END IF;

    at_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    waits := standfast.waits_for_standby();
    -- As chain_next, without a call for each entry. Of a stale room every operand is null, and so is what comes out.
    v_stamp := int8send(p_epoch) || int8send(at_us);
    chains := p_entry;
    FOR i IN 1 .. cardinality(p_place) LOOP
        v_place := p_place[i];
        v_heads[v_place] := sha256('standfast chain 1'::bytea || v_heads[v_place]
            || int8send(lasts[v_place] + p_nth[i]) || v_stamp || p_entry[i]);
        chains[i] := v_heads[v_place];
    END LOOP;

    UPDATE standfast.room_heads h SET last_seq = w.last + w.count, last_epoch = p_epoch, chain = w.chain
        FROM unnest(p_rooms, lasts, p_counts, v_heads) AS w (room, last, count, chain)
        WHERE h.room = w.room AND w.last IS NOT NULL;
    INSERT INTO standfast.entries (room, seq, epoch, author, at_us, client_id, target, kind, body, nonce, digest, chain)
        SELECT p_rooms[i.place], lasts[i.place] + i.nth, p_epoch, i.author, append_fresh.at_us, i.client_id, i.target,
               i.kind, i.body, i.nonce, i.content, i.chain
        FROM unnest(p_place, p_nth, p_author, p_client_id, p_kind, p_target, p_body, p_nonce, p_content, chains)
            AS i (place, nth, author, client_id, kind, target, body, nonce, content, chain)
        WHERE lasts[i.place] IS NOT NULL;
END
$$;

-- Append a batch whose entries may be there already: after an attempt whose outcome is unknown, or when append_fresh met
-- a client message id that it knew.
--
-- p_rooms and p_versions: the distinct rooms in rising order and the access version on which the server's decisions
-- rest. The other arrays: the entries, in order; p_place is the place of an entry's room in p_rooms, from 1. The answers
-- come in the same order: 0 written; 1 was there already, with its first result; 2 the room's access has changed (or
-- the room is not there), nothing written; 3 the same client message id stands earlier in this batch. nonces and contents
-- tell of what was there already with which nonce and digest.
--
-- The heads are locked in the order of the rooms, so batches of several servers never wait in a circle, and only then
-- are client message ids looked up, by a later statement that sees what the holder of the lock before has committed.
-- The lock also gives the transaction an id and a record in the log. So a batch that is run again because the wait for
-- the mirror was cancelled waits for the mirror again, even if it writes nothing: when it returns, what it found is on
-- the mirror too. That is how "committed locally" is resolved.
CREATE FUNCTION standfast.append_entries(
    p_epoch bigint, p_rooms bigint[], p_versions bigint[],
    p_place int[], p_author bigint[], p_client_id uuid[], p_kind smallint[], p_target bigint[], p_body text[],
    p_nonce bytea[], p_content bytea[], p_entry bytea[],
    OUT outcomes smallint[], OUT rooms bigint[], OUT seqs bigint[], OUT epochs bigint[], OUT ats_us bigint[],
    OUT chains bytea[], OUT nonces bytea[], OUT contents bytea[], OUT waits boolean)
LANGUAGE plpgsql
-- The plan is made once, when the tables may be small; it must be the one for large tables.
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_epoch bigint;
    v_at    bigint;
    v_last  bigint[];
    v_heads bytea[];
    v_place int;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(5374616164);
    SELECT e.epoch INTO v_epoch FROM standfast.pool_epoch e;
    IF v_epoch IS DISTINCT FROM p_epoch THEN
        RAISE EXCEPTION 'the writer states epoch %, the database is at epoch %', p_epoch, v_epoch
            USING ERRCODE = 'SF001';
    END IF;

    -- The last number and the chain of each room, in the order of p_rooms; null where the access version is another.
    SELECT array_agg(l.last_seq ORDER BY w.n), array_agg(coalesce(l.chain, standfast.chain_start(l.room)) ORDER BY w.n)
    INTO v_last, v_heads
    FROM unnest(p_rooms, p_versions) WITH ORDINALITY AS w (room, version, n)
    LEFT JOIN (SELECT h.room, h.last_seq, h.chain, h.access_version FROM standfast.room_heads h
               WHERE h.room = ANY (p_rooms) ORDER BY h.room FOR NO KEY UPDATE) l
           ON l.room = w.room AND l.access_version = w.version;

    v_at := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    waits := standfast.waits_for_standby();

    WITH input AS (
        SELECT i.*, row_number() OVER (PARTITION BY i.author, i.client_id ORDER BY i.n) AS copy
        FROM unnest(p_place, p_author, p_client_id) WITH ORDINALITY AS i (place, author, client_id, n)
    ), judged AS (
        SELECT i.*, k.room AS k_room, k.seq AS k_seq, k.epoch AS k_epoch, k.at_us AS k_at_us, k.chain AS k_chain,
               k.nonce AS k_nonce, k.digest AS k_digest,
               CASE WHEN k.seq IS NOT NULL THEN 1
                    WHEN i.copy > 1 AND i.client_id IS NOT NULL THEN 3
                    WHEN v_last[i.place] IS NULL THEN 2
                    ELSE 0 END::smallint AS outcome
        FROM input i
        LEFT JOIN LATERAL (SELECT e.room, e.seq, e.epoch, e.at_us, e.chain, e.nonce, e.digest FROM standfast.entries e
                           WHERE e.client_id = i.client_id AND e.author = i.author LIMIT 1) k ON true
    ), numbered AS (
        SELECT j.*, v_last[j.place] + row_number() OVER (PARTITION BY j.place, j.outcome ORDER BY j.n) AS seq
        FROM judged j
    )
    SELECT array_agg(f.outcome ORDER BY f.n), array_agg(coalesce(f.k_room, p_rooms[f.place]) ORDER BY f.n),
           array_agg(coalesce(f.k_seq, f.seq, 0) ORDER BY f.n), array_agg(coalesce(f.k_epoch, p_epoch) ORDER BY f.n),
           array_agg(coalesce(f.k_at_us, v_at) ORDER BY f.n), array_agg(f.k_chain ORDER BY f.n),
           array_agg(f.k_nonce ORDER BY f.n), array_agg(f.k_digest ORDER BY f.n)
    INTO outcomes, rooms, seqs, epochs, ats_us, chains, nonces, contents
    FROM numbered f;

    FOR i IN 1 .. cardinality(p_place) LOOP
        IF outcomes[i] = 0 THEN
            v_place := p_place[i];
            v_last[v_place] := seqs[i];
            v_heads[v_place] := standfast.chain_next(v_heads[v_place], seqs[i], p_epoch, v_at, p_entry[i]);
            chains[i] := v_heads[v_place];
        END IF;
    END LOOP;

    INSERT INTO standfast.entries (room, seq, epoch, author, at_us, client_id, target, kind, body, nonce, digest, chain)
        SELECT i.room, i.seq, p_epoch, i.author, v_at, i.client_id, i.target, i.kind, i.body, i.nonce, i.content, i.chain
        FROM unnest(outcomes, rooms, seqs, p_author, p_client_id, p_kind, p_target, p_body, p_nonce, p_content, chains)
            AS i (outcome, room, seq, author, client_id, kind, target, body, nonce, content, chain)
        WHERE i.outcome = 0;
    UPDATE standfast.room_heads h SET last_seq = m.last_seq, last_epoch = p_epoch, chain = m.chain
        FROM unnest(p_rooms, v_last, v_heads) AS m (room, last_seq, chain)
        WHERE h.room = m.room AND h.last_seq < m.last_seq;
END
$$;

-- As before, and what is entered is chained.
CREATE OR REPLACE FUNCTION standfast.re_enter(
    p_epoch bigint, p_tail text, p_first bigint, p_reasons text[], p_rooms bigint[], p_versions bigint[],
    OUT answer text, OUT outcomes text[], OUT seqs bigint[], OUT at_us bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_last    bigint[];
    v_heads   bytea[];
    v_nonce   bytea;
    v_content bytea;
    v_next    bigint;
    v_place   int;
    v_target  bigint;
    v_entry   record;
    v_twin    record;
    v_same    record;
    v_about   record;
    v_outcome text;
    v_reason  text;
    v_seq     bigint;
BEGIN
    PERFORM standfast.enter(p_epoch);
    PERFORM 1 FROM standfast.tails t WHERE t.id = p_tail AND t.re_entered_at IS NULL FOR NO KEY UPDATE;
    SELECT min(e.n) INTO v_next FROM standfast.tail_entries e WHERE e.tail = p_tail AND e.outcome IS NULL;
    IF v_next IS DISTINCT FROM p_first THEN
        answer := 'elsewhere';
        RETURN;
    END IF;

    -- In the order of the rooms, as append_entries locks them. What is looked up later is looked up by later statements,
    -- which see what the holders of the locks before have committed.
    SELECT array_agg(l.last_seq ORDER BY w.i), array_agg(coalesce(l.chain, standfast.chain_start(l.room)) ORDER BY w.i)
    INTO v_last, v_heads
    FROM unnest(p_rooms, p_versions) WITH ORDINALITY AS w (room, version, i)
    LEFT JOIN (SELECT h.room, h.last_seq, h.chain, h.access_version FROM standfast.room_heads h
               WHERE h.room = ANY (p_rooms) ORDER BY h.room FOR NO KEY UPDATE) l
           ON l.room = w.room AND l.access_version = w.version;
    IF array_position(v_last, NULL) IS NOT NULL THEN
        answer := 'stale';
        RETURN;
    END IF;
    answer := 'done';
    re_enter.at_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

    FOR v_entry IN
        SELECT e.*, r.reason AS refusal FROM unnest(p_reasons) WITH ORDINALITY AS r (reason, i)
        JOIN standfast.tail_entries e ON e.tail = p_tail AND e.n = p_first + r.i - 1 ORDER BY e.n
    LOOP
        v_outcome := NULL;
        v_reason := NULL;
        v_seq := NULL;
        v_place := array_position(p_rooms, v_entry.room);
        SELECT e.tail, e.n, e.entered_seq INTO v_twin FROM standfast.tail_entries e
            WHERE e.room = v_entry.room AND coalesce(e.first_seq, e.seq) = coalesce(v_entry.first_seq, v_entry.seq)
              AND coalesce(e.first_epoch, e.epoch) = coalesce(v_entry.first_epoch, v_entry.epoch)
              AND e.tail <> p_tail AND e.outcome IS NOT NULL ORDER BY e.dealt_at LIMIT 1;
        IF FOUND THEN
            v_outcome := 'there';
            v_seq := v_twin.entered_seq;
            v_reason := format('it was dealt with as number %s of the tail %s', v_twin.n, v_twin.tail);
        END IF;
        IF v_outcome IS NULL AND v_entry.client_id IS NOT NULL THEN
            SELECT e.room, e.seq INTO v_same FROM standfast.entries e
                WHERE e.client_id = v_entry.client_id AND e.author = v_entry.author;
            IF FOUND AND v_same.room = v_entry.room THEN
                v_outcome := 'there';
                v_seq := v_same.seq;
            ELSIF FOUND THEN
                v_outcome := 'there';
                v_reason := format('its author has offered it again in room %s', v_same.room);
            END IF;
        END IF;
        v_target := v_entry.target;
        IF v_outcome IS NULL AND v_entry.refusal IS NOT NULL THEN
            v_outcome := 'refused';
            v_reason := v_entry.refusal;
        ELSIF v_outcome IS NULL AND v_entry.target IS NOT NULL THEN
            SELECT e.entered_seq INTO v_about FROM standfast.tail_entries e
                WHERE e.room = v_entry.room AND e.seq = v_entry.target AND e.tail = p_tail AND e.n < v_entry.n;
            IF FOUND THEN
                v_target := v_about.entered_seq;
            END IF;
            IF v_target IS NULL THEN
                v_outcome := 'refused';
                v_reason := 'the entry that it is about is not in the room''s log';
            END IF;
        END IF;
        IF v_outcome IS NULL THEN
            v_last[v_place] := v_last[v_place] + 1;
            v_outcome := 'entered';
            v_seq := v_last[v_place];
            v_nonce := CASE WHEN v_entry.body IS NOT NULL THEN uuid_send(gen_random_uuid()) END;
            v_content := standfast.content_digest(v_nonce, v_entry.body);
            v_entry.first_epoch := coalesce(v_entry.first_epoch, v_entry.epoch);
            v_entry.first_seq := coalesce(v_entry.first_seq, v_entry.seq);
            v_entry.first_at_us := coalesce(v_entry.first_at_us, v_entry.at_us);
            v_heads[v_place] := standfast.chain_next(v_heads[v_place], v_seq, p_epoch, re_enter.at_us,
                standfast.entry_digest(v_entry.room, v_entry.author, v_entry.kind, v_target, v_entry.client_id,
                                       v_entry.first_epoch, v_entry.first_seq, v_entry.first_at_us, v_content));
            INSERT INTO standfast.entries (room, seq, epoch, author, at_us, client_id, target, kind, body,
                                           first_epoch, first_seq, first_at_us, nonce, digest, chain)
                VALUES (v_entry.room, v_seq, p_epoch, v_entry.author, re_enter.at_us, v_entry.client_id, v_target,
                        v_entry.kind, v_entry.body, v_entry.first_epoch, v_entry.first_seq, v_entry.first_at_us,
                        v_nonce, v_content, v_heads[v_place]);
            -- A removal takes its target's text away, and a replacement gives it another one. The digest of what was written
            -- stays, and the chain with it; without the nonce nobody can guess a text from it.
            IF v_entry.kind IN (1, 2) THEN
                UPDATE standfast.entries e SET nonce = NULL, body = CASE v_entry.kind WHEN 2 THEN v_entry.body END
                    WHERE e.room = v_entry.room AND e.seq = v_target;
            END IF;
        END IF;
        UPDATE standfast.tail_entries e
            SET outcome = v_outcome, entered_seq = v_seq, reason = v_reason, dealt_at = clock_timestamp()
            WHERE e.tail = p_tail AND e.n = v_entry.n;
        outcomes := outcomes || v_outcome;
        seqs := seqs || v_seq;
    END LOOP;
    UPDATE standfast.room_heads h SET last_seq = m.last_seq, last_epoch = p_epoch, chain = m.chain
        FROM unnest(p_rooms, v_last, v_heads) AS m (room, last_seq, chain)
        WHERE h.room = m.room AND h.last_seq < m.last_seq;
END
$$;
