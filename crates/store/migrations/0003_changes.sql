-- The journal of administrative changes: users, groups, categories, rooms and their lists. Each change notes itself in its own
-- transaction. Signing in and out is not in it: a token is not an administrator's change, and who has lost one signs in again.

-- The number of the newest change: numbers are gapless, and never given twice in one line of history.
CREATE TABLE standfast.change_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    last_n   bigint NOT NULL
);
INSERT INTO standfast.change_head (last_n) VALUES (0);

CREATE TABLE standfast.changes (
    n           bigint PRIMARY KEY,
    epoch       bigint NOT NULL,
    actor       bigint,                      -- null where nobody signed in did it
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    change      jsonb NOT NULL,              -- told apart by its kind; things by number and name, no secrets
    first_epoch bigint,                      -- of a change that was made again after its site was lost: what it was before
    first_n     bigint,
    first_at    timestamptz
);

-- The number after which an epoch's changes begin: those of earlier epochs with larger numbers were lost.
ALTER TABLE standfast.epochs ADD COLUMN last_change bigint NOT NULL DEFAULT 0;

-- The same for a change in a tail that was made again before.
ALTER TABLE standfast.tail_changes ADD COLUMN first_epoch bigint, ADD COLUMN first_n bigint;

-- Two disks may hold the same tail, or one may hold what was made again from another.
CREATE INDEX tail_changes_by_origin
    ON standfast.tail_changes (coalesce(first_n, n), coalesce(first_epoch, epoch));

-- Note changes, in order. Called at the end of a transaction that has entered: the counter's row is the last that it locks.
CREATE FUNCTION standfast.note_changes(p_epoch bigint, p_actor bigint, p_changes jsonb[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_last bigint;
BEGIN
    UPDATE standfast.change_head SET last_n = last_n + cardinality(p_changes) RETURNING last_n INTO v_last;
    INSERT INTO standfast.changes (n, epoch, actor, change)
        SELECT v_last - cardinality(p_changes) + c.i, p_epoch, p_actor, c.change
        FROM unnest(p_changes) WITH ORDINALITY AS c (change, i);
END
$$;

-- Note one change of a tail that was made again.
CREATE FUNCTION standfast.note_late_change(p_epoch bigint, p_tail text, p_n bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_last bigint;
BEGIN
    UPDATE standfast.change_head SET last_n = last_n + 1 RETURNING last_n INTO v_last;
    INSERT INTO standfast.changes (n, epoch, actor, change, first_epoch, first_n, first_at)
        SELECT v_last, p_epoch, c.actor, c.change - 'password_hash', coalesce(c.first_epoch, c.epoch),
               coalesce(c.first_n, c.n), c.at
        FROM standfast.tail_changes c WHERE c.tail = p_tail AND c.n = p_n;
END
$$;

-- As before, and the journal's number is noted with the epoch.
CREATE OR REPLACE FUNCTION standfast.begin_epoch(p_epoch bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_rooms bigint;
    v_floor bigint := (p_epoch - 1) << 32;
BEGIN
    PERFORM standfast.refuse_writers_before(p_epoch);
    INSERT INTO standfast.epochs (epoch, last_change)
        SELECT p_epoch, h.last_n FROM standfast.change_head h ON CONFLICT DO NOTHING;
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
