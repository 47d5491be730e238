-- One more number for what an acknowledgement waits for: 4, the principal's own disk. No post waits to be shown under it.

-- As before, and what was committed under that rule has been shown as well.
CREATE OR REPLACE FUNCTION standfast.set_durability(p_category bigint, p_durability smallint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_rooms bigint[];
BEGIN
    SELECT array_agg(r.id ORDER BY r.id) INTO v_rooms FROM standfast.rooms r WHERE r.category = p_category;
    -- As append_entries locks them.
    PERFORM 1 FROM standfast.room_heads h WHERE h.room = ANY (v_rooms) ORDER BY h.room FOR NO KEY UPDATE;
    INSERT INTO standfast.shown_marks AS m (room, seq)
        SELECT h.room, h.last_seq FROM standfast.room_heads h
        WHERE h.room = ANY (v_rooms) AND h.durability NOT IN (1, 3) AND p_durability IN (1, 3) ORDER BY h.room
        ON CONFLICT (room) DO UPDATE SET seq = greatest(m.seq, excluded.seq);
    UPDATE standfast.room_heads h SET durability = p_durability WHERE h.room = ANY (v_rooms);
    UPDATE standfast.categories c SET durability = p_durability WHERE c.id = p_category;
END
$$;
