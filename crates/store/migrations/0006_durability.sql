-- What an acknowledgement waits for, a category's setting: 0 the mirror, else as less (what held before); 1 the mirror, and
-- posts wait for it; 2 both sites, else as less; 3 both sites, and posts wait for it. rules::durability has the same numbers.
ALTER TABLE standfast.categories ADD COLUMN durability smallint NOT NULL DEFAULT 0;

-- The same for each of the category's rooms, where it is read with the room's head and its access version.
ALTER TABLE standfast.room_heads ADD COLUMN durability smallint NOT NULL DEFAULT 0;

-- In rooms whose posts wait: the number up to which the log has been acknowledged and may be shown. It is written before anything
-- is acknowledged, so whoever reads the room later, at whichever server, shows neither less than that nor more.
CREATE TABLE standfast.shown_marks (
    room bigint PRIMARY KEY,
    seq  bigint NOT NULL
);

-- Set what acknowledgements in a category's rooms wait for. What was committed under a rule that did not wait has been shown.
CREATE FUNCTION standfast.set_durability(p_category bigint, p_durability smallint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_rooms bigint[];
BEGIN
    SELECT array_agg(r.id ORDER BY r.id) INTO v_rooms FROM standfast.rooms r WHERE r.category = p_category;
    -- As append_entries locks them.
    PERFORM 1 FROM standfast.room_heads h WHERE h.room = ANY (v_rooms) ORDER BY h.room FOR NO KEY UPDATE;
    INSERT INTO standfast.shown_marks AS m (room, seq)
        SELECT h.room, h.last_seq FROM standfast.room_heads h
        WHERE h.room = ANY (v_rooms) AND h.durability IN (0, 2) AND p_durability IN (1, 3) ORDER BY h.room
        ON CONFLICT (room) DO UPDATE SET seq = greatest(m.seq, excluded.seq);
    UPDATE standfast.room_heads h SET durability = p_durability WHERE h.room = ANY (v_rooms);
    UPDATE standfast.categories c SET durability = p_durability WHERE c.id = p_category;
END
$$;

-- Rooms' logs may be shown up to these numbers. In the order of the rooms, so that servers that mark at once never wait in a circle.
CREATE FUNCTION standfast.mark_shown(p_epoch bigint, p_rooms bigint[], p_seqs bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM standfast.enter(p_epoch);
    INSERT INTO standfast.shown_marks AS m (room, seq)
        SELECT n.room, n.seq FROM unnest(p_rooms, p_seqs) AS n (room, seq) ORDER BY n.room
        ON CONFLICT (room) DO UPDATE SET seq = excluded.seq WHERE m.seq < excluded.seq;
END
$$;

-- As before, and what is here has been had by whoever wrote it as well: by two disks, and by two sites where the writer before was at the
-- other one. Each site has epochs of its own, odd ones the first and even ones the second.
CREATE OR REPLACE FUNCTION standfast.begin_epoch(p_epoch bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_rooms  bigint;
    v_floor  bigint := (p_epoch - 1) << 32;
    v_before bigint;
BEGIN
    PERFORM standfast.refuse_writers_before(p_epoch);
    SELECT max(e.epoch) INTO v_before FROM standfast.epochs e WHERE e.epoch < p_epoch;
    INSERT INTO standfast.epochs (epoch, last_change)
        SELECT p_epoch, h.last_n FROM standfast.change_head h ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    INSERT INTO standfast.epoch_starts (room, epoch, last_seq)
        SELECT h.room, p_epoch, h.last_seq FROM standfast.room_heads h;
    GET DIAGNOSTICS v_rooms = ROW_COUNT;
    INSERT INTO standfast.shown_marks AS m (room, seq)
        SELECT h.room, h.last_seq FROM standfast.room_heads h
        WHERE h.durability = 1 OR h.durability = 3 AND (p_epoch - v_before) % 2 <> 0
        ON CONFLICT (room) DO UPDATE SET seq = excluded.seq WHERE m.seq < excluded.seq;
    PERFORM setval('standfast.principal_ids', greatest(v_floor, (SELECT s.last_value FROM standfast.principal_ids s)));
    PERFORM setval('standfast.category_ids', greatest(v_floor, (SELECT s.last_value FROM standfast.category_ids s)));
    PERFORM setval('standfast.room_ids', greatest(v_floor, (SELECT s.last_value FROM standfast.room_ids s)));
    RETURN v_rooms;
END
$$;
