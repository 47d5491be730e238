//! A report as a page: one file, no scripts, nothing fetched from anywhere, good to read on a screen and on paper.

use cluster::record::PoolRecord;
use std::fmt::Write;
use wire::notification::Standing as Untold;
use wire::run_report::{ReportedStep, RunReport, Standing};

const STYLE: &str = "
:root{color-scheme:light}
body{font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;color:#16181d;background:#fff;
max-width:62rem;margin:2rem auto;padding:0 1.25rem}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
p{margin:.3rem 0}.mute{color:#5b6270}code,.id{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
font-size:.9em;overflow-wrap:anywhere}
.banner{border-left:.4rem solid;padding:.7rem 1rem;margin:1.2rem 0;border-radius:.2rem}
.banner strong{display:block;font-size:1.1rem}
.good{border-color:#1d7a46;background:#e9f6ee}.warn{border-color:#b26a00;background:#fff4e0}
.bad{border-color:#b3261e;background:#fdecea}
table{border-collapse:collapse;width:100%;margin:.4rem 0}
th,td{text-align:left;vertical-align:top;padding:.35rem .7rem .35rem 0;border-bottom:1px solid #dfe2e8;
overflow-wrap:anywhere}
th{font-weight:600}thead th{color:#5b6270;font-size:.85rem}.num{white-space:nowrap;text-align:right}
tr.changed td{background:#fff9e8}
.step{border:1px solid #dfe2e8;border-radius:.4rem;padding:.7rem 1rem;margin:.6rem 0;break-inside:avoid}
.step h3{font-size:1rem;margin:0;display:flex;gap:.6rem;align-items:baseline;flex-wrap:wrap}
.step h3 .took{margin-left:auto;font-weight:400;white-space:nowrap}
.tag{font-size:.75rem;font-weight:600;border-radius:.8rem;padding:.05rem .55rem;white-space:nowrap}
.tag.done{background:#e9f6ee;color:#14572f}.tag.open{background:#fff4e0;color:#7a4800}
.tag.none{background:#eef0f4;color:#5b6270}.tag.ref{background:#e8effb;color:#1b438c}
.step ul{margin:.3rem 0 .2rem;padding-left:1.2rem}.step li{margin:.1rem 0}
.return{text-align:center;color:#b3261e;font-size:.85rem;margin:.8rem 0 .2rem}
.wait{color:#7a4800}.person{font-weight:600}
footer{margin-top:2.5rem;border-top:1px solid #dfe2e8;padding-top:.6rem;font-size:.85rem;color:#5b6270}
@media print{body{margin:0;max-width:none;font-size:10.5pt}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
";

/// The whole page.
pub fn page(report: &RunReport) -> String {
    let mut out = String::new();
    let title = format!("{} of {}", capital(&report.runbook), report.pool);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p class=\"mute\">{}</p>\n",
        text(&report.says),
        title = text(&title),
    );
    banner(&mut out, report);
    summary(&mut out, report);
    found(&mut out, report);
    steps(&mut out, report);
    records(&mut out, report);
    notes(&mut out, report);
    notifications(&mut out, report);
    let _ = write!(
        out,
        "<footer>Made from the journal of run <span class=\"id\">{}</span> by standfast {}. All times are UTC. An order is in \
         the journal before it goes out; a step is done when fresh reports of the hosts show it.</footer>\n</body>\n</html>\n",
        text(&report.run),
        env!("CARGO_PKG_VERSION")
    );
    out
}

fn banner(out: &mut String, report: &RunReport) {
    let last = report.steps.iter().rev().find(|s| s.began_at.is_some() && s.done_at.is_none());
    let at = last.map_or(String::new(), |s| format!(", at step {}", s.id));
    let took = seconds(report.took_ms);
    let (class, head) = match report.standing {
        Standing::Complete => ("good", format!("Complete after {took}")),
        Standing::Aborted => ("warn", format!("Undone after {took}")),
        Standing::Aborting => ("warn", format!("Being undone{at}")),
        Standing::Stopped => ("warn", format!("Not complete: it stands still{at}")),
        Standing::UnderWay => ("warn", format!("Under way{at}")),
    };
    let waits = last.and_then(|s| s.waits.last()).filter(|_| report.ended_at.is_none());
    let class = if waits.is_some_and(|w| w.needs_person) { "bad" } else { class };
    let _ = write!(out, "<div class=\"banner {class}\"><strong>{}</strong>{}", text(&head), text(&report.outcome));
    if let Some(wait) = waits {
        let _ = write!(out, "<p>It waits: {}</p>", text(&wait.reason));
    }
    out.push_str("</div>\n");
}

fn summary(out: &mut String, report: &RunReport) {
    out.push_str("<table>\n");
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", text(name), text(value));
    };
    row("Pool", &report.pool);
    row("Run", &report.run);
    row("By", &report.started_by.join(", "));
    row("Began", &report.began_at);
    row("Ended", report.ended_at.as_deref().unwrap_or("not yet"));
    if report.from_site != report.to_site {
        row("Writer", &format!("from {} to {}", report.from_site, report.to_site));
    }
    let epochs = (report.before.epoch, report.after.epoch);
    row("Epoch", &if epochs.0 == epochs.1 { epochs.0.to_string() } else { format!("{} → {}", epochs.0, epochs.1) });
    if report.forced {
        row("Forced", "yes: it was to go on although something spoke against it that can be overridden");
    }
    out.push_str("</table>\n");
}

fn found(out: &mut String, report: &RunReport) {
    if !report.found.is_empty() {
        out.push_str("<h2>What was found</h2>\n<ul>\n");
        report.found.iter().for_each(|line| {
            let _ = writeln!(out, "<li>{}</li>", text(line));
        });
        out.push_str("</ul>\n");
    }
    if report.exposure.is_empty() {
        return;
    }
    out.push_str(
        "<h2>What could be lost when it began</h2>\n<table>\n<thead><tr><th>Database</th><th>Posts that the backup \
         lacked</th><th>Bytes of log</th><th>Behind</th><th>Principal last heard</th></tr></thead>\n",
    );
    let known = |value: Option<String>| value.unwrap_or_else(|| "not known".into());
    for (database, e) in &report.exposure {
        let cells = [
            database.to_string(),
            known(e.entries.map(|n| n.to_string())),
            known(e.bytes.map(|n| n.to_string())),
            known(e.behind_ms.map(seconds)),
            known(e.heard_ms_ago.map(|ms| format!("{} before", seconds(ms)))),
        ];
        let cells: String = cells.iter().map(|c| format!("<td>{}</td>", text(c))).collect();
        let _ = writeln!(out, "<tr>{cells}</tr>");
    }
    out.push_str("</table>\n");
}

fn steps(out: &mut String, report: &RunReport) {
    out.push_str("<h2>Steps</h2>\n");
    let mut returned = false;
    let mut undoing = false;
    for step in &report.steps {
        if step.undoes && !undoing {
            undoing = true;
            out.push_str("<h2>Steps that undid it</h2>\n");
        }
        if step.point_of_no_return && !returned {
            returned = true;
            out.push_str("<p class=\"return\">from here on, forward only</p>\n");
        }
        one_step(out, step);
    }
}

fn one_step(out: &mut String, step: &ReportedStep) {
    let (class, state) = match (&step.began_at, &step.done_at) {
        (_, Some(_)) => ("done", "done"),
        (Some(_), None) => ("open", "begun, not done"),
        (None, None) => ("none", "not begun"),
    };
    let took = step.took_ms.map(seconds).unwrap_or_default();
    let reference = if step.reference.is_empty() {
        String::new()
    } else {
        format!("<span class=\"tag ref\">reference step {}</span>", text(&step.reference))
    };
    let _ = writeln!(
        out,
        "<section class=\"step\"><h3><span>{}. {}</span><span class=\"tag {class}\">{state}</span>{reference}\
         <span class=\"took\">{took}</span></h3>\n<p>{}</p>",
        step.number,
        text(&step.id),
        text(&step.says)
    );
    if let Some(at) = &step.began_at {
        let done = step.done_at.as_ref().map_or(String::new(), |at| format!("; done {}", text(at)));
        let _ = writeln!(out, "<p class=\"mute\">begun {}{done}</p>", text(at));
    }
    if !step.orders.is_empty() || !step.waits.is_empty() {
        out.push_str("<ul>\n");
        for order in &step.orders {
            let _ = writeln!(out, "<li><span class=\"mute\">{}</span> {}</li>", clock(&order.at), text(&order.says));
        }
        for wait in &step.waits {
            let (class, who) =
                if wait.needs_person { ("wait person", "waited for a person") } else { ("wait", "waited") };
            let at = clock(&wait.at);
            let _ = writeln!(
                out,
                "<li class=\"{class}\"><span class=\"mute\">{at}</span> {who}: {}</li>",
                text(&wait.reason)
            );
        }
        out.push_str("</ul>\n");
    }
    if let Some(evidence) = step.evidence.as_ref().filter(|e| !e.is_empty()) {
        let _ = writeln!(out, "<p><strong>Evidence:</strong> {}</p>", text(evidence));
    }
    out.push_str("</section>\n");
}

/// The record before and after, a line each thing, what changed marked.
fn records(out: &mut String, report: &RunReport) {
    out.push_str(
        "<h2>The pool's record</h2>\n<table>\n<thead><tr><th></th><th>Before</th><th>After</th></tr></thead>\n",
    );
    let (before, after) = (lines(&report.before), lines(&report.after));
    let mut names: Vec<&String> = before.iter().chain(&after).map(|(name, _)| name).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let of = |all: &[(String, String)], name: &str| {
        all.iter().find(|(n, _)| n == name).map_or_else(|| "–".to_owned(), |(_, value)| value.clone())
    };
    for name in names {
        let (b, a) = (of(&before, name), of(&after, name));
        let class = if b == a { "" } else { " class=\"changed\"" };
        let (name, b, a) = (text(name), text(&b), text(&a));
        let _ = writeln!(out, "<tr{class}><th scope=\"row\">{name}</th><td>{b}</td><td>{a}</td></tr>");
    }
    out.push_str("</table>\n");
}

fn lines(record: &PoolRecord) -> Vec<(String, String)> {
    let none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let servers = record.active_servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let lost = record.lost_sites.iter().map(|(site, epoch)| format!("{site} (epoch {epoch})"));
    let run = record.run.as_ref().map(|r| format!("{} by {}", r.id, r.started_by));
    let mut all = vec![
        ("Version".to_owned(), record.version.to_string()),
        ("Epoch".to_owned(), record.epoch.to_string()),
        ("State".to_owned(), record.state.to_string()),
        ("Home".to_owned(), record.home.to_string()),
        ("Active servers".to_owned(), none(servers)),
        ("Lost sites".to_owned(), none(lost.collect::<Vec<_>>().join(", "))),
        ("Run under way".to_owned(), none(run.unwrap_or_default())),
    ];
    for (name, d) in &record.databases {
        let host = |h: &Option<cluster::name::HostName>| h.as_ref().map_or("none".to_owned(), ToString::to_string);
        let mirror = d.mirror.as_ref().map(|m| {
            let word = if m.synchronised { "synchronised" } else { "not synchronised" };
            format!("{} ({word})", m.host)
        });
        all.push((format!("{name}: principal"), host(&d.principal)));
        all.push((format!("{name}: mirror"), mirror.unwrap_or_else(|| "none".into())));
        let off = if d.shipping_off { " (log shipping is off)" } else { "" };
        all.push((format!("{name}: backup"), format!("{}{off}", host(&d.backup))));
        all.push((format!("{name}: backup mirror"), host(&d.backup_mirror)));
    }
    all
}

fn notes(out: &mut String, report: &RunReport) {
    if report.notes.is_empty() {
        return;
    }
    out.push_str("<h2>What else happened</h2>\n<ul>\n");
    for note in &report.notes {
        let _ = writeln!(out, "<li><span class=\"mute\">{}</span> {}</li>", text(&note.at), text(&note.says));
    }
    out.push_str("</ul>\n");
}

/// Who was told, of what, and how that went.
fn notifications(out: &mut String, report: &RunReport) {
    if report.notifications.is_empty() {
        return;
    }
    out.push_str("<h2>Who was told</h2>\n<ul>\n");
    for told in &report.notifications {
        let failed = matches!(told.standing, Untold::Failing | Untold::GivenUp);
        let class = if failed { " class=\"wait person\"" } else { "" };
        let _ = writeln!(out, "<li{class}>{}: {}</li>", text(&told.receiver), text(&crate::words::told(told)));
    }
    out.push_str("</ul>\n");
}

fn seconds(ms: u64) -> String {
    format!("{:.2} s", ms as f64 / 1000.0)
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// The time of day of a time stamp, with the whole of it where a reader points.
fn clock(at: &str) -> String {
    let short = at.split_once('T').map_or(at, |(_, time)| time.trim_end_matches('Z'));
    format!("<time title=\"{}\">{}</time>", text(at), text(short))
}

/// Text that stays text wherever it stands on the page. Characters that steer a terminal or the direction of writing are
/// shown by their number: they could make a line look like another one.
pub(super) fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(' '),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}
