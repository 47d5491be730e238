//! The other site keeps what a room's log was: who writes it anew, chain and all, is found.

mod support;
use support::Lab;

/// How many rooms' newest heads `host` has countersigned.
fn countersigned(lab: &Lab, host: &str) -> usize {
    let path = lab.dir.join(format!("hosts/{host}/heads/mgc.jsonl"));
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn a_log_that_was_written_anew_is_named_and_failovers_explain_what_they_took() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    replay.until_acknowledged(&lab, 40);
    lab.until("the backup has countersigned heads", |lab| countersigned(lab, "s2a") > 2);
    let said = lab.ok(&["verify", "pool"]);
    assert!(said.contains("compared with heads that s2a has countersigned"), "{said}");

    // To and fro, with a lost tail.
    lab.ok(&["lab", "link", "down"]);
    let (share, away) = (lab.dir.join("share"), lab.dir.join("share.away"));
    std::fs::rename(&share, &away).expect("the share is a folder of the lab");
    replay.until_acknowledged(&lab, 20);
    lab.ok(&["lab", "kill", "site-1"]);
    std::fs::rename(&away, &share).expect("it was put away above");
    lab.ok(&["lab", "link", "up"]);
    lab.ok(&["failover", "--yes"]);
    replay.until_epoch(&lab, 2);
    replay.until_acknowledged(&lab, 20);
    lab.ok(&["verify", "pool"]);
    lab.start_site("site-1");
    lab.ok(&["failback", "--yes"]);
    replay.until_epoch(&lab, 3);
    lab.until_normal();
    let before = countersigned(&lab, "s2a");
    lab.until("the backup countersigns again", |lab| countersigned(lab, "s2a") > before);
    let ledger = replay.end();
    lab.ok(&["verify", "pool"]);
    support::assert_clean(&lab.audit(&ledger));

    // A text, its digest and the chain of all that follows, as somebody would who knows how.
    let room = lab.sql("s1a", "SELECT room FROM standfast.room_heads ORDER BY last_seq DESC LIMIT 1");
    lab.until("the newest entry is countersigned", |lab| {
        let head =
            lab.sql("s1a", &format!("SELECT encode(chain, 'hex') FROM standfast.room_heads WHERE room = {room}"));
        let path = lab.dir.join("hosts/s2a/heads/mgc.jsonl");
        std::fs::read_to_string(path).is_ok_and(|text| text.contains(&head))
    });
    let anew = format!(
        "DO $$ DECLARE e standfast.entries; c bytea; BEGIN
           UPDATE standfast.entries SET body = 'never said', digest = standfast.content_digest(nonce, 'never said')
             WHERE room = {room} AND seq = 2;
           c := (SELECT chain FROM standfast.entries WHERE room = {room} AND seq = 1);
           FOR e IN SELECT * FROM standfast.entries WHERE room = {room} AND seq > 1 ORDER BY seq LOOP
             c := standfast.chain_next(c, e.seq, e.epoch, e.at_us, standfast.entry_digest(e.room, e.author, e.kind, e.target,
               e.client_id, e.first_epoch, e.first_seq, e.first_at_us, e.digest));
             UPDATE standfast.entries SET chain = c WHERE room = e.room AND seq = e.seq;
           END LOOP;
           UPDATE standfast.room_heads SET chain = c WHERE room = {room};
         END $$"
    );
    lab.sql("s1a", &anew);
    let said = lab.cli(&["verify", "pool"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.stdout.contains("s2a has countersigned another running hash there"), "{}", said.all());
    // And the authors have their receipts.
    let audit = lab.audit(&ledger);
    assert!(audit.stdout.contains("another running hash at this number"), "{}", audit.all());
}
