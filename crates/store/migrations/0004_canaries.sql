-- Canaries: each active server writes its own all the time, and everybody else has to see it. They are no entries of rooms: nobody
-- lists, counts, exports or audits them, and a lost tail loses nothing with them.
CREATE TABLE standfast.canaries (
    server text PRIMARY KEY,
    epoch  bigint NOT NULL,                  -- a later one has a larger (epoch, n)
    n      bigint NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
