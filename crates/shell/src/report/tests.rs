use super::html::text;
use super::{ReportFile, build, page};
use cluster::Epoch;
use cluster::order::Order;
use cluster::record::{DatabaseRecord, PoolRecord, PoolState};
use cluster::runbook::{Deed, Exposure, Facts};
use std::collections::BTreeMap;
use std::path::Path;
use wire::run::{RunEvent, RunEventKind};
use wire::run_report::{RunReport, Standing};

const HOSTILE: &str = "<script>alert('x')</script>\" onload=\"y\u{202e}&\u{1b}[2J";

fn record(epoch: i64) -> PoolRecord {
    let mgc = DatabaseRecord { principal: Some("s1a".into()), backup: Some("s2a".into()), ..DatabaseRecord::default() };
    PoolRecord {
        version: 7,
        epoch: Epoch(epoch),
        state: PoolState::Normal,
        home: "site-1".into(),
        active_servers: vec!["server-1".into()],
        databases: [("mgc".into(), mgc)].into(),
        lost_sites: BTreeMap::new(),
        run: None,
    }
}

fn begun(by: &str) -> RunEventKind {
    let exposure = Exposure { entries: Some(3), bytes: Some(900), behind_ms: Some(40), heard_ms_ago: None };
    let facts = Facts {
        before: record(1),
        to_site: "site-2".into(),
        from_site: "site-1".into(),
        force: true,
        exposure: [("mgc".into(), exposure)].into(),
        new_principal: None,
        automatic: None,
        limits: None,
    };
    RunEventKind::Begun {
        runbook: "failover".into(),
        started_by: by.into(),
        facts: Box::new(facts),
        only_step: None,
        found: vec!["site-1: s1a does not answer".into()],
    }
}

/// A journal: one event every 100 ms.
fn journal(kinds: Vec<RunEventKind>) -> Vec<RunEvent> {
    let numbered = kinds.into_iter().zip(1..);
    numbered
        .map(|(what, number)| RunEvent {
            number,
            at: format!("2026-11-24T03:00:0{}.{}00Z", (number - 1) / 10, (number - 1) % 10),
            elapsed_ms: (number - 1) * 100,
            what,
        })
        .collect()
}

fn step(id: &str) -> RunEventKind {
    RunEventKind::StepBegun { step: id.into() }
}

fn ordered(id: &str, deed: Deed) -> RunEventKind {
    RunEventKind::Ordered { step: id.into(), stamp_number: 1, deeds: vec![deed] }
}

fn fence() -> Deed {
    Deed::Give { host: "s1a".into(), order: Order::Fence { database: "mgc".into(), epoch: Epoch(2) } }
}

fn done(id: &str, evidence: &str) -> RunEventKind {
    RunEventKind::StepDone { step: id.into(), evidence: evidence.into() }
}

fn finished(complete: bool, epoch: i64) -> RunEventKind {
    let record = Some(Box::new(record(epoch)));
    RunEventKind::Finished { complete, undone: !complete, message: "it is over".into(), record }
}

fn report(kinds: Vec<RunEventKind>) -> RunReport {
    build("chat.example.org", "failover-1", &journal(kinds)).expect("it has a beginning")
}

#[test]
fn a_report_tells_the_run_step_by_step() {
    let waits = RunEventKind::Waiting { step: "fence-old-primary".into(), reason: "slow".into(), needs_person: true };
    let id = "fence-old-primary";
    let kinds = vec![
        begun("ines"),
        step(id),
        ordered(id, fence()),
        waits,
        RunEventKind::Resumed,
        step(id),
        done(id, "share closed"),
        finished(true, 2),
    ];
    let report = report(kinds);
    assert_eq!((report.standing, report.took_ms, report.outcome.as_str()), (Standing::Complete, 700, "it is over"));
    assert_eq!((report.started_by, report.forced), (vec!["ines".to_owned()], true));
    assert_eq!((report.before.epoch, report.after.epoch), (Epoch(1), Epoch(2)));
    assert_eq!(report.notes.len(), 1, "it was taken up again");
    assert_eq!(report.steps.len(), cluster::failover::FAILOVER.steps.len());
    let first = &report.steps[0];
    assert_eq!((first.number, first.took_ms, first.evidence.as_deref()), (1, Some(500), Some("share closed")));
    assert_eq!(first.orders.iter().map(|o| o.says.as_str()).collect::<Vec<_>>(), ["order s1a: fence mgc"]);
    assert!(first.waits[0].needs_person);
    assert_eq!(report.steps[1].began_at, None);
    assert!(report.steps.iter().any(|s| s.id == "copy-remaining-log" && s.reference == "2"));
}

#[test]
fn a_run_that_was_undone_tells_who_wanted_it_and_what_undid_it() {
    let undo = "reopen-old-primary";
    let kinds = vec![
        begun("ines"),
        step("fence-old-primary"),
        RunEventKind::Finished { complete: false, undone: false, message: "stays open".into(), record: None },
        RunEventKind::AbortBegun { started_by: "marek".into(), why: None },
        step(undo),
        done(undo, "online"),
    ];
    let open = report(kinds.clone());
    assert_eq!((open.standing, open.ended_at), (Standing::Aborting, None));
    let over = report(kinds.into_iter().chain([finished(false, 2)]).collect());
    assert_eq!((over.standing, over.started_by), (Standing::Aborted, vec!["ines".to_owned(), "marek".to_owned()]));
    let last = over.steps.last().expect("there are steps");
    assert!(last.undoes && last.id == undo && last.says.starts_with("Start the fenced primary"));
}

#[test]
fn the_claim_is_told_apart_from_the_steps() {
    let claim = Deed::SetRecord { record: Box::new(record(2)), at: "site-2".into() };
    let report = report(vec![begun("ines"), ordered(wire::run::CLAIM, claim), step("fence-old-primary")]);
    assert_eq!(report.notes[0].says, "to claim the pool: change the pool's record: epoch 2");
    assert_eq!((report.after.epoch, report.steps.len()), (Epoch(2), cluster::failover::FAILOVER.steps.len()));
}

#[test]
fn a_step_that_this_program_does_not_know_is_told_all_the_same() {
    let report = report(vec![begun("ines"), step("of-tomorrow"), done("of-tomorrow", "seen")]);
    assert!(report.steps.iter().any(|s| s.id == "of-tomorrow" && s.evidence.as_deref() == Some("seen")));
    assert_eq!(report.standing, Standing::UnderWay);
}

#[test]
fn a_journal_without_a_beginning_gives_no_report() {
    assert_eq!(build("p", "r", &journal(vec![RunEventKind::Resumed])), None);
}

#[test]
fn nothing_that_was_written_by_others_becomes_part_of_the_page() {
    let id = "fence-old-primary";
    let waits = RunEventKind::Waiting { step: id.into(), reason: HOSTILE.into(), needs_person: false };
    let mut report = report(vec![begun(HOSTILE), step(id), waits, done(id, HOSTILE), finished(true, 2)]);
    report.pool = HOSTILE.into();
    report.outcome = HOSTILE.into();
    report.found = vec![HOSTILE.into()];
    let page = page(&report);
    assert!(!page.contains("<script") && !page.contains("onload=\"y"), "{page}");
    assert!(!page.contains('\u{202e}') && !page.contains('\u{1b}'));
    assert_eq!(page.matches("&lt;script&gt;").count(), 8, "each of them is there, as text");
    assert_eq!(text("a\nb"), "a b");
}

#[test]
fn a_page_needs_nothing_but_itself() {
    let page = page(&report(vec![begun("ines"), finished(true, 2)]));
    for outside in ["http:", "https:", "src=", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("Complete after 0.10 s") && page.contains("<td>1 → 2</td>"), "{page}");
    assert!(page.contains("<tr class=\"changed\"><th scope=\"row\">Epoch</th><td>1</td><td>2</td></tr>"));
}

#[test]
fn a_report_of_another_kind_is_refused_before_anything_is_begun() {
    let check = |name: &str, expect: bool| assert_eq!(ReportFile::new(Path::new(name)).is_ok(), expect, "{name}");
    check("report.html", true);
    check("report.JSON", true);
    check("report.pdf", false);
    check("report", false);
    check("/no/such/folder/report.html", false);
}
