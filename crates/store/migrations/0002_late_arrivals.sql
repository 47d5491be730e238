-- Late arrivals: what a lost site had acknowledged, and history had to go on without, is entered again when its disks
-- return.
--
-- A tail is entered into tails, tail_entries and tail_changes by one transaction, and stays there: it is the record of
-- what came of each entry. Entering it again is done in chunks; each notes the outcome of its entries in the transaction
-- that appends them, so that every entry is dealt with exactly once, whatever is killed.

-- What each entry was before its site was lost; null for all that are no late arrivals.
ALTER TABLE standfast.entries
    ADD COLUMN first_epoch bigint,
    ADD COLUMN first_seq   bigint,
    ADD COLUMN first_at_us bigint;

-- One row for each tail.
CREATE TABLE standfast.tails (
    id            text PRIMARY KEY,          -- <database>-<left_by>-<host>
    database      text NOT NULL,
    host          text NOT NULL,             -- whose data it was
    left_by       bigint NOT NULL,           -- the epoch that left it behind: the first one that the old data lacks
    old_epoch     bigint NOT NULL,           -- the last epoch of the old data
    fork          text NOT NULL,             -- where the log forked: a pg_lsn
    extracted_at  timestamptz NOT NULL,
    came_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    posts         bigint NOT NULL,           -- entries in it, of every kind
    changes       bigint NOT NULL,           -- changes in it
    re_entered_at timestamptz                -- null until all of it has been dealt with
);

-- Entries of a tail, in the order of re-entry. Names stand beside ids: an id that history lacks means nothing there.
CREATE TABLE standfast.tail_entries (
    tail        text NOT NULL REFERENCES standfast.tails,
    n           bigint NOT NULL CHECK (n > 0),
    room        bigint NOT NULL,
    room_name   text NOT NULL,
    seq         bigint NOT NULL,
    epoch       bigint NOT NULL,
    author      bigint NOT NULL,
    author_name text NOT NULL,
    at_us       bigint NOT NULL,
    client_id   uuid,
    target      bigint,
    kind        smallint NOT NULL,           -- as in standfast.entries
    body        text,
    first_epoch bigint,                      -- of an entry that was a late arrival itself
    first_seq   bigint,
    first_at_us bigint,
    outcome     text CHECK (outcome IN ('entered', 'there', 'refused')),
    entered_seq bigint,                      -- its number now: entered, or there already
    reason      text,                        -- why it was refused, or is there
    dealt_at    timestamptz,
    PRIMARY KEY (tail, n)
);
CREATE INDEX tail_entries_by_place ON standfast.tail_entries (tail, room, seq);
-- Two disks may hold the same tail, or one may hold what was entered from another: a room, and the epoch and number in
-- which an entry was first written, name one entry.
CREATE INDEX tail_entries_by_origin
    ON standfast.tail_entries (room, coalesce(first_seq, seq), coalesce(first_epoch, epoch));
CREATE INDEX tail_entries_by_author ON standfast.tail_entries (tail, author);

-- What administrators changed in a tail, in order. Changes are dealt with before the entries of their tail.
CREATE TABLE standfast.tail_changes (
    tail        text NOT NULL REFERENCES standfast.tails,
    n           bigint NOT NULL CHECK (n > 0),
    epoch       bigint NOT NULL,
    actor       bigint,
    actor_name  text NOT NULL,
    at          timestamptz NOT NULL,
    change      jsonb NOT NULL,
    outcome     text CHECK (outcome IN ('entered', 'there', 'refused')),
    reason      text,
    dealt_at    timestamptz,
    PRIMARY KEY (tail, n)
);

-- Who is to be told of a tail that has been dealt with: its authors, and the managers of its rooms.
CREATE TABLE standfast.tail_notices (
    tail      text NOT NULL REFERENCES standfast.tails,
    principal bigint NOT NULL REFERENCES standfast.principals,
    told_at   timestamptz,
    PRIMARY KEY (tail, principal)
);
CREATE INDEX tail_notices_untold ON standfast.tail_notices (principal) WHERE told_at IS NULL;

-- Jobs that one server at a time does. A lease decides who works, so that two do not get in each other's way; that
-- nothing is done twice rests on the job's own transactions.
CREATE TABLE standfast.leases (
    job    text PRIMARY KEY,
    holder text NOT NULL,
    until  timestamptz NOT NULL
);

-- Take or renew a lease for so many milliseconds. Returns whether p_holder has it.
CREATE FUNCTION standfast.hold_lease(p_epoch bigint, p_job text, p_holder text, p_ms bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM standfast.enter(p_epoch);
    INSERT INTO standfast.leases AS l (job, holder, until)
        VALUES (p_job, p_holder, clock_timestamp() + p_ms * interval '1 millisecond')
        ON CONFLICT (job) DO UPDATE SET holder = excluded.holder, until = excluded.until
            WHERE l.holder = excluded.holder OR l.until < clock_timestamp();
    RETURN FOUND;
END
$$;

-- Deal with the next entries of a tail: those from p_first on, one for each element of p_reasons. An element says why
-- the entry is refused, and is null where it is to be entered. p_rooms and p_versions: the rooms that are there, in
-- rising order, and the access version on which the decisions rest.
--
-- answer: 'done'; 'stale' when a room's access has changed, and nothing was written: decide again; 'elsewhere' when
-- the tail does not go on at p_first: somebody else has dealt with these. Of 'done', outcomes and seqs tell what became of
-- each, and at_us when the entries were written.
--
-- An entry that history has already is there: its author has offered it again, or another disk held the same tail. A
-- target that is in the tail is named by the number that it has got.
CREATE FUNCTION standfast.re_enter(
    p_epoch bigint, p_tail text, p_first bigint, p_reasons text[], p_rooms bigint[], p_versions bigint[],
    OUT answer text, OUT outcomes text[], OUT seqs bigint[], OUT at_us bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_last    bigint[];
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
    SELECT array_agg(l.last_seq ORDER BY w.i) INTO v_last
    FROM unnest(p_rooms, p_versions) WITH ORDINALITY AS w (room, version, i)
    LEFT JOIN (SELECT h.room, h.last_seq, h.access_version FROM standfast.room_heads h
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
            INSERT INTO standfast.entries (room, seq, epoch, author, at_us, client_id, target, kind, body,
                                           first_epoch, first_seq, first_at_us)
                VALUES (v_entry.room, v_seq, p_epoch, v_entry.author, re_enter.at_us, v_entry.client_id, v_target,
                        v_entry.kind, v_entry.body, coalesce(v_entry.first_epoch, v_entry.epoch),
                        coalesce(v_entry.first_seq, v_entry.seq), coalesce(v_entry.first_at_us, v_entry.at_us));
            -- A removal takes its target's text away, and a replacement gives it another one.
            IF v_entry.kind IN (1, 2) THEN
                UPDATE standfast.entries e SET body = CASE v_entry.kind WHEN 2 THEN v_entry.body END
                    WHERE e.room = v_entry.room AND e.seq = v_target;
            END IF;
        END IF;
        UPDATE standfast.tail_entries e
            SET outcome = v_outcome, entered_seq = v_seq, reason = v_reason, dealt_at = clock_timestamp()
            WHERE e.tail = p_tail AND e.n = v_entry.n;
        outcomes := outcomes || v_outcome;
        seqs := seqs || v_seq;
    END LOOP;
    UPDATE standfast.room_heads h SET last_seq = m.last_seq, last_epoch = p_epoch
        FROM unnest(p_rooms, v_last) AS m (room, last_seq) WHERE h.room = m.room AND h.last_seq < m.last_seq;
END
$$;

-- All of a tail has been dealt with: note that, and who is to be told, once. Returns whether it was done now. A room
-- whose manager is a group has the users in it for managers, unless that is Everyone. Nobody is told of what another
-- tail has told him already.
CREATE FUNCTION standfast.finish_tail(p_epoch bigint, p_tail text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM standfast.enter(p_epoch);
    UPDATE standfast.tails t SET re_entered_at = clock_timestamp()
        WHERE t.id = p_tail AND t.re_entered_at IS NULL
          AND NOT EXISTS (SELECT 1 FROM standfast.tail_changes c WHERE c.tail = t.id AND c.outcome IS NULL)
          AND NOT EXISTS (SELECT 1 FROM standfast.tail_entries e WHERE e.tail = t.id AND e.outcome IS NULL);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO standfast.tail_notices (tail, principal)
        WITH RECURSIVE told (room, author) AS (
            SELECT e.room, e.author FROM standfast.tail_entries e
            WHERE e.tail = p_tail AND (e.outcome <> 'there' OR e.reason IS NULL)
        ), holder (principal) AS (
            SELECT r.principal FROM standfast.room_roles r
            WHERE r.role = 'manager' AND r.room IN (SELECT t.room FROM told t)
            UNION SELECT m.member FROM holder h JOIN standfast.group_members m ON m.group_id = h.principal
        )
        SELECT p_tail, p.id FROM standfast.principals p
        WHERE p.kind = 'user'
          AND (p.id IN (SELECT h.principal FROM holder h) OR p.id IN (SELECT t.author FROM told t));
    RETURN true;
END
$$;
