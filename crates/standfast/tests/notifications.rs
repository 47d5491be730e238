//! People are told when a run begins, waits and ends, by webhook and by mail, whatever becomes of the receivers and of the
//! host that tells them; and no run waits for that.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../store/tests/support/port.rs"]
mod port;
#[path = "support/receivers.rs"]
mod receivers;
mod support;

use hmac::{Hmac, Mac};
use port::free_port;
use receivers::{Certificate, Got, MailServer, Manner, Webhook};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use support::Lab;

/// Give both authorities a file of secrets.
fn secret(lab: &Lab, file: &str, text: &str) {
    for host in ["s1a", "s2a"] {
        std::fs::write(lab.dir.join("hosts").join(host).join(file), format!("{text}\n")).unwrap();
    }
}

fn start(lab: &Lab, host: &str, trusted: &Path, failpoints: &str) {
    let trusted = format!("SSL_CERT_FILE={}", trusted.display());
    let failpoints = format!("STANDFAST_FAILPOINTS={failpoints}");
    lab.ok(&["lab", "kill", host]);
    lab.ok(&["lab", "start", host, "--env", &trusted, "--env", &failpoints, "--env", "NO_PROXY=localhost,127.0.0.1"]);
}

/// The latest run, as its authority tells it.
fn latest_run(lab: &Lab) -> Value {
    serde_json::from_str(&lab.cli(&["runbook", "show", "--json"]).stdout).unwrap_or_default()
}

/// How the notices of the latest run stand at a receiver: event and standing.
fn told(lab: &Lab, receiver: &str) -> Vec<(String, String)> {
    let run = latest_run(lab);
    let all = run["notifications"].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    all.iter().filter(|t| t["receiver"] == receiver).map(|t| (word(&t["event"]), word(&t["standing"]))).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn events(got: &[Got]) -> Vec<&str> {
    got.iter().map(Got::event).collect()
}

#[test]
fn whoever_is_to_be_told_is_told_and_no_run_waits_for_it() {
    let lab = Lab::up();
    let trusted = lab.dir.join("trusted.pem");
    let certificate = Certificate::new(&trusted);
    let ops = Webhook::listen(None, Manner::Takes, Some(certificate.clone()));
    let slow = Webhook::listen(None, Manner::Stalls, None);
    let mail = MailServer::listen(certificate, true);
    let down = free_port();

    let runs = "events = [\"started\", \"waits\", \"finished\", \"failed\", \"aborted\"]";
    let topology = format!(
        "{}\n[[notify]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"https://localhost:{}/hook\"\n\n[[notify]]\nname = \"slow\"\n\
         kind = \"webhook\"\n{runs}\n\n[[notify]]\nname = \"down\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{down}/\"\n{runs}\n\n\
         [[notify]]\nname = \"on-call\"\nkind = \"mail\"\nsmtp = \"localhost:{}\"\nuser = \"pool\"\nfrom = \"pool@example.org\"\n\
         to = [\"on-call@example.org\"]\n{runs}\n",
        std::fs::read_to_string(lab.dir.join("topology.toml")).unwrap(),
        ops.port,
        mail.port
    );
    let file = lab.dir.join("wanted.toml");
    std::fs::write(&file, topology).unwrap();
    secret(&lab, "notify-ops.key", "a key of ops");
    secret(&lab, "notify-ops.token", "a-token");
    secret(&lab, "notify-slow.url", &format!("http://127.0.0.1:{}/secret", slow.port));
    secret(&lab, "notify-on-call.password", "a password");
    start(&lab, "s1a", &trusted, "");
    start(&lab, "s2a", &trusted, "");
    lab.until_normal();
    let published = lab.cli(&["topology", "publish", file.to_str().unwrap(), "--yes"]);
    assert_eq!(published.code, Some(0), "{}", published.all());
    assert!(published.all().contains("on-call is told at on-call@example.org by localhost:"), "{}", published.all());

    // What a test says, from both authorities.
    let tested = lab.cli(&["notify", "test"]);
    assert_eq!(tested.code, Some(1), "{}", tested.all());
    for host in ["s1a", "s2a"] {
        let line = |receiver: &str| {
            let mut lines = tested.stdout.lines().filter(|l| l.starts_with(host));
            lines.find(|l| l.split_whitespace().nth(1) == Some(receiver)).unwrap_or_default().to_owned()
        };
        assert!(line("ops").ends_with("taken") && line("on-call").ends_with("taken"), "{}", tested.all());
        assert!(line("down").contains("NOT TAKEN") && line("down").contains("refused"), "{}", tested.all());
        assert!(line("slow").contains("no answer within 10 s") && !line("slow").contains("secret"), "{}", tested.all());
    }
    assert_eq!(lab.cli(&["notify", "test", "ops"]).code, Some(0));
    assert_eq!(events(&ops.got()), ["test"; 4]);
    let tests = mail.got().len();
    assert_eq!(tests, 2);

    // The site is lost. The authority that is left tells so; it is to be killed between telling that and noting it.
    start(&lab, "s2a", &trusted, "notify.ops.after=pause");
    lab.ok(&["lab", "kill", "site-1"]);
    let paused = lab.dir.join("hosts/s2a/failpoint.notify.ops.after");
    lab.until("the loss of the site is told", |_| paused.exists());
    assert!(ops.got()[4].body["text"].as_str().unwrap().contains("does not answer site-2"), "{:?}", ops.got()[4]);

    // A failover by hand, with a receiver that stalls and one that is not there: it takes as long as without them.
    let began = Instant::now();
    lab.ok(&["step", "failover", "fence-old-primary"]);
    assert!(began.elapsed() < Duration::from_secs(9), "it waited for a receiver: {:?}", began.elapsed());
    lab.until("somebody is told that it waits", |lab| {
        told(lab, "on-call") == pairs(&[("started", "taken"), ("waits", "taken")])
    });
    let began = Instant::now();
    lab.ok(&["failover", "--yes"]);
    assert!(began.elapsed() < Duration::from_secs(9), "it waited for a receiver: {:?}", began.elapsed());
    lab.until("the end is told by mail", |lab| told(lab, "on-call").last() == pairs(&[("finished", "taken")]).first());
    assert_eq!(told(&lab, "down"), pairs(&[("started", "failing"), ("finished", "waiting")]));
    let said = lab.ok(&["pool", "status"]);
    assert!(said.contains("! down is not told by s2a: started") && said.contains("refused"), "{said}");
    assert!(lab.ok(&["runbook", "show"]).contains("told:     down: started"));

    // Killed amid all that, and started again: everybody is told what is missing, in order, and what was told is not told
    // again, but for the one thing of which that was not noted, which comes again under its id.
    lab.ok(&["lab", "kill", "s2a"]);
    let late = Webhook::listen(Some(down), Manner::Fails, None);
    start(&lab, "s2a", &trusted, "");
    lab.until("the end is told", |_| events(&ops.got()).contains(&"finished"));
    let got = ops.got();
    assert_eq!(events(&got[4..]), ["alert", "alert", "started", "finished"], "the wait was over");
    assert_eq!(got[4].id(), got[5].id());
    lab.until("a receiver that is not in order is tried again", |lab| {
        lab.ok(&["pool", "status"]).contains("it answers 503 Service Unavailable: busy")
    });
    late.behave(Manner::Takes);
    lab.until("it hears everything when it is", |_| late.got().len() >= 2);
    slow.behave(Manner::Takes);
    lab.until("so does one that was slow", |_| slow.got().len() >= 2);
    assert_eq!((events(&late.got()), events(&slow.got())), (vec!["started", "finished"], vec!["started", "finished"]));
    lab.until("everything is told", |lab| lab.cli(&["notify", "state"]).code == Some(0));

    let finished = got.last().unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"a key of ops").unwrap();
    mac.update(&finished.raw);
    let digits: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(finished.headers["standfast-signature"], format!("sha256={digits}"));
    assert_eq!(finished.headers["authorization"], "Bearer a-token");
    assert_eq!(finished.headers["standfast-notification"], finished.id());
    assert_eq!(finished.body["run"]["runbook"], "failover");

    let mails = &mail.got()[tests..];
    assert_eq!(mails.len(), 3, "started, waits, finished, once each: {mails:#?}");
    for (mail, part) in mails.iter().zip(["started", "waits", "finished"]) {
        let plain = "AHBvb2wAYSBwYXNzd29yZA==";
        assert!(mail.encrypted && mail.signed_in.as_deref() == Some(plain), "{mail:?}");
        assert!(mail.to[0].contains("<on-call@example.org>"), "{mail:?}");
        assert!(mail.text.contains("Auto-Submitted: auto-generated"), "{mail:?}");
        assert!(mail.text.contains(&format!("-{part}@lab.standfast.example>")), "{mail:?}");
    }
}
