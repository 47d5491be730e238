-- The chat schema: principals, categories, rooms, the log of every room, and the epoch that guards them all.
--
-- Two things hold throughout. Every writing transaction first calls standfast.enter(epoch) (or does the same itself, as
-- append_entries does), so that a database refuses writers of another epoch. And a number in a room's log comes from
-- the room's own row in room_heads, never from a sequence: sequences jump after a promotion.

CREATE SCHEMA IF NOT EXISTS standfast;

-- The epoch of the present writer: one row.
CREATE TABLE standfast.pool_epoch (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    bigint NOT NULL
);

-- The epochs that have begun in this database.
CREATE TABLE standfast.epochs (
    epoch bigint PRIMARY KEY,
    began timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Identities are the same at both sites and are never given twice: begin_epoch moves each sequence on, past whatever a
-- lost tail may have used.
CREATE SEQUENCE standfast.principal_ids START 10;
CREATE SEQUENCE standfast.category_ids;
CREATE SEQUENCE standfast.room_ids;

CREATE TABLE standfast.principals (
    id            bigint PRIMARY KEY DEFAULT nextval('standfast.principal_ids'),
    name          text NOT NULL,
    folded        text NOT NULL UNIQUE,      -- the name in lower case, folded by the server: it knows all scripts
    kind          text NOT NULL CHECK (kind IN ('user', 'group')),
    password_hash text,
    administrator boolean NOT NULL DEFAULT false,
    disabled      boolean NOT NULL DEFAULT false,
    created       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The built-in group that holds every user.
INSERT INTO standfast.principals (id, name, folded, kind) VALUES (1, 'Everyone', 'everyone', 'group');

CREATE TABLE standfast.group_members (
    group_id  bigint NOT NULL REFERENCES standfast.principals,
    member    bigint NOT NULL REFERENCES standfast.principals,
    PRIMARY KEY (member, group_id)
);

CREATE TABLE standfast.tokens (
    hash      bytea PRIMARY KEY,             -- SHA-256 of the token: who reads the table cannot sign in
    principal bigint NOT NULL REFERENCES standfast.principals,
    created   timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked   timestamptz
);
CREATE INDEX tokens_by_principal ON standfast.tokens (principal);

-- Names of rooms and categories share one space (chat-model §2, §6).
CREATE TABLE standfast.node_names (
    folded text PRIMARY KEY
);

CREATE TABLE standfast.categories (
    id          bigint PRIMARY KEY DEFAULT nextval('standfast.category_ids'),
    name        text NOT NULL,
    folded      text NOT NULL UNIQUE REFERENCES standfast.node_names,
    description text NOT NULL DEFAULT ''
);

CREATE TABLE standfast.category_entries (
    category  bigint NOT NULL REFERENCES standfast.categories,
    list      text NOT NULL CHECK (list IN ('allowed', 'denied', 'creators')),
    principal bigint NOT NULL REFERENCES standfast.principals,
    PRIMARY KEY (category, list, principal)
);

CREATE TABLE standfast.rooms (
    id          bigint PRIMARY KEY DEFAULT nextval('standfast.room_ids'),
    name        text NOT NULL,
    folded      text NOT NULL UNIQUE REFERENCES standfast.node_names,
    category    bigint NOT NULL REFERENCES standfast.categories,
    description text NOT NULL DEFAULT '',
    privacy     text NOT NULL CHECK (privacy IN ('open', 'closed', 'secret')),
    kind        text NOT NULL CHECK (kind IN ('normal', 'auditorium')),
    disabled    boolean NOT NULL DEFAULT false
);
CREATE INDEX rooms_by_category ON standfast.rooms (category);

CREATE TABLE standfast.room_roles (
    room      bigint NOT NULL REFERENCES standfast.rooms,
    role      text NOT NULL CHECK (role IN ('member', 'manager', 'presenter')),
    principal bigint NOT NULL REFERENCES standfast.principals,
    PRIMARY KEY (room, principal, role)
);

-- The counter of each room's log, and the version of everything that decides who may do what in it. Narrow, and half
-- empty pages, so that an update finds room beside its row (HOT) and touches no index.
CREATE TABLE standfast.room_heads (
    room           bigint PRIMARY KEY REFERENCES standfast.rooms,
    last_seq       bigint NOT NULL DEFAULT 0,
    last_epoch     bigint NOT NULL,
    access_version bigint NOT NULL DEFAULT 1
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- The log of every room. It has no foreign keys: append_entries holds the lock of the room's row in room_heads while it
-- writes, rooms and principals are never deleted, and a check for each row would cost more than the row.
CREATE TABLE standfast.entries (
    room      bigint NOT NULL,
    seq       bigint NOT NULL,
    epoch     bigint NOT NULL,
    author    bigint NOT NULL,
    at_us     bigint NOT NULL,               -- microseconds since the Unix epoch, the writer's clock
    client_id uuid,
    target    bigint,                        -- the entry that a removal or replacement is about
    kind      smallint NOT NULL,             -- 0 post, 1 removal, 2 replacement, 3 room change
    body      text,
    PRIMARY KEY (room, seq)
);
-- Exactly once: a client message id is unique for its author. The id comes first: ids of version 7 rise with time, so
-- new ones land at the right end of the index.
CREATE UNIQUE INDEX entries_by_client_id ON standfast.entries (client_id, author) WHERE client_id IS NOT NULL;

-- Where each epoch began in each room: entries of earlier epochs with larger numbers were lost.
CREATE TABLE standfast.epoch_starts (
    room     bigint NOT NULL,
    epoch    bigint NOT NULL,
    last_seq bigint NOT NULL,
    PRIMARY KEY (room, epoch)
);

-- One row for each chat server: written when it finds its writer, before it shows anything, and by health checks.
CREATE TABLE standfast.server_sessions (
    server text PRIMARY KEY,
    epoch  bigint NOT NULL,
    at     timestamptz NOT NULL
);

-- Begin a writing transaction: refuse every epoch but the database's own. The shared lock is held until the end of the
-- transaction, so begin_epoch and refuse_writers_before, which take it exclusively, wait for writers in flight; the
-- epoch is read by a statement of its own, after the lock, so it cannot be an older one. No row is locked.
CREATE FUNCTION standfast.enter(p_epoch bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_epoch bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(5374616164);
    SELECT e.epoch INTO v_epoch FROM standfast.pool_epoch e;
    IF v_epoch IS DISTINCT FROM p_epoch THEN
        RAISE EXCEPTION 'the writer states epoch %, the database is at epoch %', p_epoch, v_epoch
            USING ERRCODE = 'SF001';
    END IF;
END
$$;

-- Refuse writers of epochs before p_epoch, from now on: the first half of begin_epoch, for a hand-over, when the old
-- writer is stopped before the new one begins. May be repeated.
CREATE FUNCTION standfast.refuse_writers_before(p_epoch bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_epoch bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(5374616164);
    SELECT e.epoch INTO v_epoch FROM standfast.pool_epoch e;
    IF v_epoch > p_epoch THEN
        RAISE EXCEPTION 'epoch % is over, the database is at epoch %', p_epoch, v_epoch USING ERRCODE = 'SF001';
    END IF;
    UPDATE standfast.pool_epoch SET epoch = p_epoch WHERE epoch < p_epoch;
END
$$;

-- Begin an epoch, right after a promotion, in one transaction: set the pool's epoch and note, for every room, the number
-- after which the new epoch begins. May be repeated: what was noted first stays. Returns the rooms noted.
CREATE FUNCTION standfast.begin_epoch(p_epoch bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_rooms bigint;
    v_floor bigint := (p_epoch - 1) << 32;
BEGIN
    PERFORM standfast.refuse_writers_before(p_epoch);
    INSERT INTO standfast.epochs (epoch) VALUES (p_epoch) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    INSERT INTO standfast.epoch_starts (room, epoch, last_seq)
        SELECT h.room, p_epoch, h.last_seq FROM standfast.room_heads h;
    GET DIAGNOSTICS v_rooms = ROW_COUNT;
    PERFORM setval('standfast.principal_ids', greatest(v_floor, (SELECT s.last_value FROM standfast.principal_ids s)));
    PERFORM setval('standfast.category_ids', greatest(v_floor, (SELECT s.last_value FROM standfast.category_ids s)));
    PERFORM setval('standfast.room_ids', greatest(v_floor, (SELECT s.last_value FROM standfast.room_ids s)));
    RETURN v_rooms;
END
$$;

-- The same access_version for a room means: nothing that decides about access to it has changed.
CREATE FUNCTION standfast.touch_access(p_rooms bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- In the order of the rooms, as append_entries locks them: two of either kind never wait for each other in a circle.
    PERFORM 1 FROM standfast.room_heads h WHERE h.room = ANY (p_rooms) ORDER BY h.room FOR NO KEY UPDATE;
    UPDATE standfast.room_heads SET access_version = access_version + 1 WHERE room = ANY (p_rooms);
END
$$;

-- Append a batch of entries that are all expected to be new: the short way, for nearly every batch. A client message id
-- that is there already violates its index and ends the transaction with nothing written; append_entries sorts it out.
--
-- p_rooms, p_versions, p_counts: the distinct rooms in rising order, the access version on which the server's decisions
-- rest, and how many entries go to each. For each entry, p_place is the place of its room in p_rooms and p_nth its
-- number among those of its room, both from 1. lasts: each room's last number before the batch; null where the room's
-- access has changed, and nothing was written.
--
-- The update locks the heads in the order of p_rooms, so batches of several servers do not wait in a circle.
CREATE FUNCTION standfast.append_fresh(
    p_epoch bigint, p_rooms bigint[], p_versions bigint[], p_counts bigint[],
    p_place int[], p_nth int[], p_author bigint[], p_client_id uuid[], p_kind smallint[], p_target bigint[],
    p_body text[], OUT lasts bigint[], OUT at_us bigint)
LANGUAGE plpgsql
-- The plan is made once, when the tables may be small; it must be the one for large tables.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_epoch bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(5374616164);
    SELECT e.epoch INTO v_epoch FROM standfast.pool_epoch e;
    IF v_epoch IS DISTINCT FROM p_epoch THEN
        RAISE EXCEPTION 'the writer states epoch %, the database is at epoch %', p_epoch, v_epoch
            USING ERRCODE = 'SF001';
    END IF;

    WITH moved AS (
        UPDATE standfast.room_heads h SET last_seq = h.last_seq + w.count, last_epoch = p_epoch
        FROM unnest(p_rooms, p_versions, p_counts) WITH ORDINALITY AS w (room, version, count, n)
        WHERE h.room = w.room AND h.access_version = w.version
        RETURNING w.n, h.last_seq - w.count AS before
    )
    SELECT array_agg(m.before ORDER BY m.n), array_agg(m.n ORDER BY m.n) INTO lasts, p_versions FROM moved m;
    IF cardinality(lasts) IS DISTINCT FROM cardinality(p_rooms) THEN
        -- Some rooms are stale: put a null in each of their places. p_versions holds the places of the others.
        SELECT array_agg(lasts[array_position(p_versions, n)] ORDER BY n) INTO lasts
        FROM generate_series(1::bigint, cardinality(p_rooms)) n;
    END IF;

    at_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    INSERT INTO standfast.entries (room, seq, epoch, author, at_us, client_id, target, kind, body)
        SELECT p_rooms[i.place], lasts[i.place] + i.nth, p_epoch, i.author, append_fresh.at_us, i.client_id, i.target,
               i.kind, i.body
        FROM unnest(p_place, p_nth, p_author, p_client_id, p_kind, p_target, p_body)
            AS i (place, nth, author, client_id, kind, target, body)
        WHERE lasts[i.place] IS NOT NULL;
END
$$;

-- Append a batch whose entries may be there already: after an attempt whose outcome is unknown, or when append_fresh met
-- a client message id that it knew.
--
-- p_rooms and p_versions: the distinct rooms in rising order and the access version on which the server's decisions
-- rest. The other arrays: the entries, in order; p_place is the place of an entry's room in p_rooms, from 1. The answers
-- come in the same order: 0 written; 1 was there already, with its first result; 2 the room's access has changed (or
-- the room is not there), nothing written; 3 the same client message id stands earlier in this batch.
--
-- The heads are locked in the order of the rooms, so batches of several servers never wait in a circle, and only then
-- are client message ids looked up, by a later statement that sees what the holder of the lock before has committed.
-- The lock also gives the transaction an id and a record in the log. So a batch that is run again because the wait for
-- the mirror was cancelled waits for the mirror again, even if it writes nothing: when it returns, what it found is on
-- the mirror too. That is how "committed locally" is resolved.
CREATE FUNCTION standfast.append_entries(
    p_epoch bigint, p_rooms bigint[], p_versions bigint[],
    p_place int[], p_author bigint[], p_client_id uuid[], p_kind smallint[], p_target bigint[], p_body text[],
    OUT outcomes smallint[], OUT rooms bigint[], OUT seqs bigint[], OUT epochs bigint[], OUT ats_us bigint[])
LANGUAGE plpgsql
-- The plan is made once, when the tables may be small; it must be the one for large tables.
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_epoch bigint;
    v_at    bigint;
    v_last  bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock_shared(5374616164);
    SELECT e.epoch INTO v_epoch FROM standfast.pool_epoch e;
    IF v_epoch IS DISTINCT FROM p_epoch THEN
        RAISE EXCEPTION 'the writer states epoch %, the database is at epoch %', p_epoch, v_epoch
            USING ERRCODE = 'SF001';
    END IF;

    -- The last number of each room, in the order of p_rooms; null where the access version is another.
    SELECT array_agg(l.last_seq ORDER BY w.n) INTO v_last
    FROM unnest(p_rooms, p_versions) WITH ORDINALITY AS w (room, version, n)
    LEFT JOIN (SELECT h.room, h.last_seq, h.access_version FROM standfast.room_heads h
               WHERE h.room = ANY (p_rooms) ORDER BY h.room FOR NO KEY UPDATE) l
           ON l.room = w.room AND l.access_version = w.version;

    v_at := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

    WITH input AS (
        SELECT i.*, row_number() OVER (PARTITION BY i.author, i.client_id ORDER BY i.n) AS copy
        FROM unnest(p_place, p_author, p_client_id, p_kind, p_target, p_body)
            WITH ORDINALITY AS i (place, author, client_id, kind, target, body, n)
    ), judged AS (
        SELECT i.*, k.room AS k_room, k.seq AS k_seq, k.epoch AS k_epoch, k.at_us AS k_at_us,
               CASE WHEN k.seq IS NOT NULL THEN 1
                    WHEN i.copy > 1 AND i.client_id IS NOT NULL THEN 3
                    WHEN v_last[i.place] IS NULL THEN 2
                    ELSE 0 END::smallint AS outcome
        FROM input i
        LEFT JOIN LATERAL (SELECT e.room, e.seq, e.epoch, e.at_us FROM standfast.entries e
                           WHERE e.client_id = i.client_id AND e.author = i.author LIMIT 1) k ON true
    ), numbered AS MATERIALIZED (
        SELECT j.*, v_last[j.place] + row_number() OVER (PARTITION BY j.place, j.outcome ORDER BY j.n) AS seq
        FROM judged j
    ), inserted AS (
        INSERT INTO standfast.entries (room, seq, epoch, author, at_us, client_id, target, kind, body)
        SELECT p_rooms[f.place], f.seq, p_epoch, f.author, v_at, f.client_id, f.target, f.kind, f.body
        FROM numbered f WHERE f.outcome = 0
    ), moved AS (
        UPDATE standfast.room_heads h SET last_seq = m.last_seq, last_epoch = p_epoch
        FROM (SELECT p_rooms[f.place] AS room, max(f.seq) AS last_seq
              FROM numbered f WHERE f.outcome = 0 GROUP BY f.place) m
        WHERE h.room = m.room
    )
    SELECT array_agg(a.outcome), array_agg(a.room), array_agg(a.seq), array_agg(a.epoch), array_agg(a.at_us)
    INTO outcomes, rooms, seqs, epochs, ats_us
    FROM (SELECT f.outcome, coalesce(f.k_room, p_rooms[f.place]) AS room, coalesce(f.k_seq, f.seq, 0) AS seq,
                 coalesce(f.k_epoch, p_epoch) AS epoch, coalesce(f.k_at_us, v_at) AS at_us
          FROM numbered f ORDER BY f.n) a;
END
$$;
