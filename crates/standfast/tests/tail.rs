//! The tail comes home: what a lost site had acknowledged and nobody else had is in the rooms again after the failback,
//! once, whatever is killed meanwhile.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use std::path::PathBuf;
use support::{Lab, Replay, assert_clean};

/// Kill site 1 with a tail that never left it, and fail over. Nobody who posted it is there any more to offer it again.
/// Returns the ledger of those who were told, and how many of their posts are missing.
fn lose_a_tail(lab: &Lab, more: impl FnOnce(&Lab)) -> (PathBuf, u64) {
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "link", "down"]);
    // Line and share both out of reach: what is acknowledged from here on stays at site 1.
    let share = lab.dir.join("share");
    std::fs::rename(&share, lab.dir.join("share.away")).unwrap();
    replay.until_acknowledged(lab, 60);
    more(lab);
    let ledger = lab.dir.join("before.jsonl");
    std::fs::rename(replay.end(), &ledger).unwrap();
    lab.ok(&["lab", "kill", "site-1"]);
    std::fs::rename(lab.dir.join("share.away"), &share).unwrap();
    lab.ok(&["lab", "link", "up"]);
    let said = lab.cli(&["failover", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert!(rewound > 0, "nothing was lost with the site");
    // What was lost was durable on the mirror, as its receipts say, and none of it at the other site.
    let said = lab.audit(&ledger).stdout;
    assert!(said.contains(&format!("of those {rewound} about what a failover took, 0 do not fit")), "{said}");
    let receipts = std::fs::read_to_string(&ledger).unwrap();
    assert!(receipts.contains(r#""durable":"mirror""#), "no receipt says that the mirror has the post");
    lab.ok(&["verify", "receipt", ledger.to_str().unwrap()]);
    (ledger, rewound)
}

/// Write entries to the room with the most at site 1's principal, as a server would: with the room's counter.
fn write_entries(lab: &Lab, count: u32) {
    let statement = format!(
        "WITH busy AS MATERIALIZED (SELECT room, access_version FROM standfast.room_heads ORDER BY last_seq DESC LIMIT 1), \
         one AS MATERIALIZED (SELECT b.room, b.access_version, n, gen_random_uuid() AS client_id, 'bulk ' || n AS body, \
         uuid_send(gen_random_uuid()) AS nonce, (SELECT min(id) FROM standfast.principals WHERE kind = 'user') AS author \
         FROM busy b, generate_series(1, {count}) n), \
         digested AS (SELECT o.*, standfast.content_digest(nonce, body) AS content FROM one o) \
         SELECT cardinality((standfast.append_entries(1, ARRAY[min(room)], ARRAY[min(access_version)], \
         array_agg(1 ORDER BY n), array_agg(author ORDER BY n), array_agg(client_id ORDER BY n), \
         array_agg(0::smallint ORDER BY n), array_agg(NULL::bigint ORDER BY n), array_agg(body ORDER BY n), \
         array_agg(nonce ORDER BY n), array_agg(content ORDER BY n), \
         array_agg(standfast.entry_digest(room, author, 0::smallint, NULL, client_id, NULL, NULL, NULL, content) \
         ORDER BY n))).seqs) FROM digested"
    );
    assert_eq!(lab.sql("s1a", &statement), count.to_string());
}

/// The tails in the database on `host`: how many, and how many of them have been dealt with. `None` while it does not answer.
fn tails(lab: &Lab, host: &str) -> Option<(u32, u32)> {
    let counts = lab.try_sql(host, "SELECT count(*), count(re_entered_at) FROM standfast.tails")?;
    let (all, done) = counts.split_once('|')?;
    Some((all.parse().ok()?, done.parse().ok()?))
}

/// Everything that the lost site had acknowledged is in the rooms, and what was posted since is, too.
fn assert_home(lab: &Lab, (before, lost): (PathBuf, u64), since: Replay) {
    since.until_acknowledged(lab, 10);
    let (_, rewound) = assert_clean(&lab.audit(&since.end()));
    assert_eq!(rewound, 0);
    let audit = lab.audit(&before);
    let (_, rewound) = assert_clean(&audit);
    assert_eq!(rewound, 0, "{}", audit.all());
    assert!(audit.stdout.contains(&format!("late arrivals {lost}:")), "{}", audit.all());
    lab.ok(&["verify", "pool"]);
    let doubled = "SELECT count(*) FROM (SELECT 1 FROM standfast.entries GROUP BY client_id HAVING count(*) > 1) d";
    assert_eq!(lab.sql("s1a", doubled), "0");
}

#[test]
fn a_tail_that_never_left_the_lost_site_comes_home_with_the_failback() {
    let lab = Lab::up();
    let lost = lose_a_tail(&lab, |_| ());
    // People go on, and nobody waits for what is lost.
    let since = lab.replay(&[]);
    lab.start_site("site-1");
    let said = lab.cli(&["failback", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    lab.until_normal();
    lab.until("the tails of both disks have been dealt with", |lab| tails(lab, "s1a") == Some((2, 2)));
    assert_home(&lab, lost, since);
    // Where it is now, and that it is marked.
    let marked = "SELECT count(*) FROM standfast.entries WHERE first_seq IS NOT NULL AND first_epoch < epoch";
    assert!(lab.sql("s1a", marked).parse::<u64>().unwrap() > 0);
}

/// Entries of tails that have their outcome, at the present principal; `None` while there is none that answers.
fn dealt_with(lab: &Lab) -> Option<u64> {
    let principal = lab.record()["databases"]["mgc"]["principal"].as_str()?.to_owned();
    lab.try_sql(&principal, "SELECT count(outcome) FROM standfast.tail_entries")?.parse().ok()
}

#[test]
fn servers_and_agents_that_are_killed_meanwhile_enter_it_once() {
    const BULK: u32 = 4000;
    let lab = Lab::up();
    let lost = lose_a_tail(&lab, |lab| write_entries(lab, BULK));
    let since = lab.replay(&[]);
    lab.start_site("site-1");
    let mut failback = lab.command(&["failback", "--yes"]).spawn().unwrap();
    // Whoever has brought it, enters it or takes over from that is killed once it has gone on a little.
    let mut seen = 0;
    for victim in ["server-5", "server-6", "s2a/agent", "server-5", "server-6"] {
        lab.until("more of the tail has been dealt with, or all", |lab| {
            let all_done = tails(lab, "s2a").is_some_and(|(all, done)| all == 2 && done == 2);
            let now = dealt_with(lab).unwrap_or(seen);
            let more = now > seen;
            seen = now;
            more || all_done
        });
        lab.cli(&["lab", "kill", victim]);
        lab.ok(&["lab", "start", victim]);
    }
    assert!(failback.wait().unwrap().success(), "the failback goes on whatever was killed");
    lab.until_normal();
    lab.until("the tails of both disks have been dealt with", |lab| tails(lab, "s1a") == Some((2, 2)));
    assert_home(&lab, lost, since);
    let order = "SELECT count(*), count(*) FILTER (WHERE first_seq < before) FROM (SELECT first_seq, body,
                 lag(first_seq) OVER (PARTITION BY room ORDER BY seq) AS before FROM standfast.entries
                 WHERE body LIKE 'bulk %' AND first_seq IS NOT NULL) e";
    assert_eq!(lab.sql("s1a", order), format!("{BULK}|0"), "all of it, once, in its order");
}
