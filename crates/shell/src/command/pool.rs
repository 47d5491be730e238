//! `pool status`: how the pool stands, on one screen.

use crate::agents::{Agents, Carrier, Look};
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::mirror::{self, PairState};
use cluster::name::{DatabaseName, HostName};
use cluster::record::{DatabaseRecord, Part, PoolRecord, RunRef};
use cluster::report::{Held, InstanceReport, InstanceState};
use cluster::runbook::{Exposure, Silence};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::agent::PoolView;
use wire::run::RunEventKind;

/// Time between two looks of a watcher.
const AGAIN: Duration = Duration::from_secs(1);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Begin: create the databases of the topology, mirror them, ship their log, activate the servers (Install-CsDatabase)
    Initialise(super::run::Args),
    /// Let a site start alone: its databases open for writing although the other site has not answered since they stopped
    StartAlone(super::start_alone::Args),
    /// State, epoch, home, servers, databases, log shipping, exposure, the run under way
    Status {
        /// Look again every second, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
}

/// Everything that is shown.
struct Status {
    look: Look,
    exposure: BTreeMap<DatabaseName, Exposure>,
    /// How the run under way stands.
    run: Option<String>,
    /// Which notices do not arrive.
    untold: Vec<String>,
}

/// Run the command.
///
/// # Errors
/// When no agent answers.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let watch = match args.what {
        What::Initialise(args) => return super::run::initialise(context, &args).await,
        What::StartAlone(args) => return super::start_alone::run(context, &args).await,
        What::Status { watch } => watch,
    };
    let agents = Agents::new(&context.folder()?)?;
    if !watch {
        return once(&agents, context.json, false).await;
    }
    loop {
        match once(&agents, context.json, true).await {
            // Whoever watches wants to see it come back.
            Err(Failure::Failed(message)) => output::say(&message),
            Err(failure) => return Err(failure),
            Ok(()) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn once(agents: &Agents, json: bool, watch: bool) -> Outcome {
    let status = status(agents).await?;
    let view = &status.look.view;
    if json {
        let value = serde_json::json!({
            "pool": view.topology.pool, "record": view.record, "reports": view.reports, "silent": view.silent,
            "exposure": status.exposure, "untold": status.untold,
            "canaries_overdue": view.record.as_ref().map(|r| super::canary::overdue(view, r)),
            "alerts": view.record.as_ref().map(|r| super::log_shipping::all_alerts(view, r)), "topology_version": view.topology.version,
        });
        return if watch { output::json_line(&value) } else { output::json(&value) };
    }
    if watch {
        output::fresh_screen()?;
    }
    match &view.record {
        None => output::line("the pool is not initialised: no agent has a record"),
        Some(record) => show(&status, record),
    }
}

async fn status(agents: &Agents) -> Result<Status, Failure> {
    let (look, mut exposures, told) = tokio::join!(agents.look(), agents.exposures(), agents.notifications());
    if look.view.reports.is_empty() {
        return Err(look.nobody());
    }
    let record = look.view.record.as_ref();
    let backup = record.and_then(|r| r.databases.values().find_map(|d| d.backup.as_ref()));
    let site = backup.and_then(|host| agents.topology.site_of(host));
    let exposure = site.and_then(|site| exposures.remove(site)).unwrap_or_default();
    let run = match record.and_then(|r| r.run.as_ref()) {
        Some(run) => Some(run_stands(agents, run).await),
        None => None,
    };
    Ok(Status { look, exposure, run, untold: super::notify::problems(&told) })
}

/// The step of the run under way, and what it waits for.
async fn run_stands(agents: &Agents, run: &RunRef) -> String {
    let Carrier::Found(host) = agents.carrier(&run.id).await else {
        return "its journal's authority does not answer".to_owned();
    };
    let Ok(progress) = agents.progress(&host, &run.id, 0, 0).await else {
        return format!("{host} does not tell how far it is");
    };
    let mut stands = String::from("begun");
    for event in progress.events {
        match event.what {
            RunEventKind::StepBegun { step } => stands = format!("step {step}"),
            RunEventKind::Waiting { step, reason, .. } => stands = format!("step {step} waits: {reason}"),
            RunEventKind::StepDone { step, .. } => stands = format!("step {step} is done"),
            RunEventKind::Finished { message, .. } => stands = format!("stands still: {message}"),
            RunEventKind::AbortBegun { started_by, .. } => stands = format!("to be undone, by {started_by}"),
            RunEventKind::Begun { .. } | RunEventKind::Resumed | RunEventKind::Ordered { .. } => {}
        }
    }
    format!("at {host}: {stands}")
}

fn show(status: &Status, record: &PoolRecord) -> Outcome {
    let view = &status.look.view;
    output::line(&format!("{}: {}, epoch {}, home {}", view.topology.pool, record.state, record.epoch, record.home))?;
    for (site, epoch) in &record.lost_sites {
        output::line(&format!("{site} was declared lost in epoch {epoch}; standfast failback takes it back"))?;
    }
    match &record.run {
        Some(run) => {
            output::line(&format!(
                "UNDER WAY: {} since {}, begun by {} (standfast runbook watch)",
                run.runbook, run.started_at, run.started_by
            ))?;
            output::line(&format!("  {}", status.run.as_deref().unwrap_or("not known how far")))?;
        }
        None => output::line("no run is under way")?,
    }
    output::line("")?;
    servers(view, record)?;
    for existing in &view.topology.existing_databases {
        output::line("")?;
        output::line(&format!("{}: operated by somebody else, at {}", existing.name, existing.dsn))?;
        output::line("  mirror, log shipping, backup and failover are theirs; the servers follow its writer")?;
    }
    for (name, database) in &record.databases {
        output::line("")?;
        copies(view, record, name, database)?;
        if let Some((host, state)) = witness(view, record).filter(|_| database.mirror.is_some()) {
            output::line(&format!("witness: {host}, {state}"))?;
        }
        shipping(view, name, database)?;
        super::log_shipping::problems(view, record, name, database)?;
        if let Some(exposure) = status.exposure.get(name).filter(|_| database.backup.is_some()) {
            output::line(&format!("exposure: {}", exposed(exposure)))?;
        }
    }
    super::canary::show(view, record)?;
    if let Some(drill) = super::drill::last(view.reports.iter().filter_map(|r| r.last_drill.as_ref())) {
        let age = jiff::Timestamp::now().as_millisecond() - drill.began_at_ms;
        let age = seconds(u64::try_from(age / 1000).unwrap_or(0));
        output::line("")?;
        output::line(&format!("last drill: {} on {}, {age} ago: {}", drill.id, drill.host, drill.says()))?;
    } else if record.databases.values().any(|d| d.backup.is_some()) {
        output::line("")?;
        output::line("last drill: never (standfast drill sandbox)")?;
    }
    backups(view)?;
    attention(status)
}

fn servers(view: &PoolView, record: &PoolRecord) -> Outcome {
    let mut rows = vec![
        ["SERVER", "HOST", "CLIENTS AT", "STANDS", "SESSIONS", "WAITING POSTS", "WRITTEN, NOT ACKNOWLEDGED"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for server in &view.topology.servers {
        let report = view.reports.iter().find_map(|r| r.servers.get(&server.name)).filter(|r| r.age_ms < 3_000);
        let stands = match (record.is_active(&server.name), report) {
            (true, Some(r)) if r.writes_as == Some(record.epoch) => "active".to_owned(),
            (true, Some(_)) => "active, waits for the writer".to_owned(),
            (true, None) => "ACTIVE, NOT HEARD".to_owned(),
            (false, Some(_)) => "standby".to_owned(),
            (false, None) => "standby, not heard".to_owned(),
        };
        let count = |n: Option<u64>| n.map_or("–".to_owned(), |n| n.to_string());
        rows.push(vec![
            server.name.to_string(),
            server.host.to_string(),
            format!("http://{}", server.clients.at),
            stands,
            count(report.map(|r| r.sessions)),
            count(report.map(|r| r.waiting_posts)),
            report.map_or("–".to_owned(), |r| held(&r.held)),
        ]);
    }
    output::table(&rows)
}

/// Posts that wait for a durability, and for which.
fn held(Held { mirror, both_sites, .. }: &Held) -> String {
    let kinds = [(mirror, "for the mirror"), (both_sites, "for both sites")];
    let some: Vec<String> = kinds.iter().filter(|(n, _)| **n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if some.is_empty() { "0".to_owned() } else { some.join(", ") }
}

fn copies(view: &PoolView, record: &PoolRecord, name: &DatabaseName, database: &DatabaseRecord) -> Outcome {
    let heading = ["DATABASE", "ROLE", "HOST", "SITE", "STATE", "WRITTEN", "BEHIND", "LOG ON DISK", "DISK FREE"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let principal = database.principal.as_ref().and_then(|h| instance(view, h, name));
    let hosts = view.topology.database(name).into_iter().flat_map(cluster::topology::Database::instances);
    for host in hosts.map(|i| &i.host) {
        let part = database.part_of(host);
        let report = instance(view, host, name);
        let behind = match (part, principal.and_then(|p| p.written), report.and_then(|r| r.applied)) {
            (Some(Part::Principal), ..) | (_, None, _) | (_, _, None) => "–".to_owned(),
            (_, Some(written), Some(applied)) => bytes(written.bytes_after(applied)),
        };
        let free = report.map_or("–".to_owned(), |r| match r.full_in_s {
            Some(s) if s < 7 * 86_400 => format!("{}, full in {}", bytes(r.free_bytes), seconds(s)),
            _ => bytes(r.free_bytes),
        });
        rows.push(vec![
            name.to_string(),
            part.map_or("none".to_owned(), |p| p.to_string().to_uppercase()),
            host.to_string(),
            view.topology.site_of(host).map(ToString::to_string).unwrap_or_default(),
            state(view, record, (name, database), host, part, report),
            report.and_then(|r| r.written).map_or("–".to_owned(), |l| l.to_string()),
            behind,
            report.map_or("–".to_owned(), |r| bytes(r.wal_bytes)),
            free,
        ]);
    }
    output::table(&rows)
}

fn instance<'a>(view: &'a PoolView, host: &HostName, database: &DatabaseName) -> Option<&'a InstanceReport> {
    view.reports.iter().find(|r| r.host == *host).and_then(|r| r.instances.get(database))
}

/// The state in the reference's words where it has one (ha-dr §13.3).
fn state(
    view: &PoolView,
    record: &PoolRecord,
    (name, database): (&DatabaseName, &DatabaseRecord),
    host: &HostName,
    part: Option<Part>,
    report: Option<&InstanceReport>,
) -> String {
    let Some(report) = report else {
        return match view.silent.iter().find(|(h, _)| h == host) {
            Some((_, Silence::TimedOut)) => "NO ANSWER (timed out)".into(),
            _ => "NO ANSWER (refused)".into(),
        };
    };
    if let Some(doing) = &report.doing {
        return doing.clone();
    }
    match (report.state, part) {
        (InstanceState::Online, Some(Part::Principal)) => {
            if database.mirror.is_none() {
                "ONLINE".into()
            } else {
                pair_state(view, name, database).to_string()
            }
        }
        (InstanceState::Online, _) => format!("ONLINE, NOT THE PRINCIPAL OF EPOCH {}", record.epoch),
        (InstanceState::Standby, Some(Part::Mirror)) => {
            let heard = database.principal.as_ref().is_some_and(|p| instance(view, p, name).is_some());
            if heard { pair_state(view, name, database).to_string() } else { "RESTORING".into() }
        }
        (InstanceState::Standby, _) => "RESTORING".into(),
        (InstanceState::Stopped, _) => "STOPPED".into(),
        (InstanceState::Busy, _) => "STARTING".into(),
        (InstanceState::Absent, _) => "ABSENT".into(),
        (InstanceState::LeftBehind, _) => "LEFT BEHIND".into(),
        (InstanceState::AskingPeer, _) => "ASKING WHO THE WRITER IS".into(),
    }
}

/// The state of a database's mirror pair.
pub fn pair_state(view: &PoolView, name: &DatabaseName, database: &DatabaseRecord) -> PairState {
    mirror::state(database, |host| instance(view, host, name))
}

/// The witness of the site that is home, and whether its agent answers: `CONNECTED` or `DISCONNECTED` (ha-dr §13.3).
pub fn witness<'a>(view: &'a PoolView, record: &PoolRecord) -> Option<(&'a HostName, &'static str)> {
    let witness = view.topology.site(&record.home)?.witness()?;
    let answers = view.reports.iter().any(|r| r.host == *witness);
    Some((witness, if answers { "CONNECTED" } else { "DISCONNECTED" }))
}

fn shipping(view: &PoolView, name: &DatabaseName, database: &DatabaseRecord) -> Outcome {
    let Some(host) = &database.backup else {
        if database.shipping_off {
            return output::line("log shipping: OFF (standfast log-shipping enable turns it on)");
        }
        return output::line("log shipping: none (no backup in the record)");
    };
    let backup = instance(view, host, name);
    let Some(report) = backup.and_then(|i| i.shipping.as_ref()) else {
        let why = if backup.is_some() { "it is no standby now" } else { "its agent does not answer" };
        return output::line(&format!("log shipping to {host}: not known, {why}"));
    };
    let how = match (report.enabled, report.streaming) {
        (false, _) => "STOPPED",
        (true, true) => "stream, and files beside it",
        (true, false) => "FILES ALONE (the stream is down)",
    };
    let file = report.shipped_file.as_deref().unwrap_or("none seen yet");
    let age = report.share_age_ms.map_or("never in order".to_owned(), |ms| format!("in order {} ago", millis(ms)));
    let place = |lsn: Option<cluster::wal::Lsn>| lsn.map_or("–".to_owned(), |l| l.to_string());
    output::line(&format!("log shipping to {host}: {how}"))?;
    output::line(&format!(
        "  shipped {}, copied {}, applied {}; newest file in the share: {file}; share {age}",
        place(report.shipped),
        place(report.copied),
        place(backup.and_then(|i| i.applied))
    ))
}

/// Exposure in a sentence.
pub fn exposed(exposure: &Exposure) -> String {
    let heard = match exposure.heard_ms_ago {
        Some(ms) if ms > 2_000 => format!("; the principal was last heard {} ago", millis(ms)),
        Some(_) => String::new(),
        None => return "not known: the principal has not been heard at the backup's site".into(),
    };
    let posts = exposure.entries.map_or("an unknown number of".to_owned(), |n| n.to_string());
    let behind = exposure.behind_ms.map_or("an unknown time".to_owned(), millis);
    format!("{posts} posts, {behind}{heard}")
}

/// What a person should look at.
/// The newest backup, and the last that was proven.
fn backups(view: &PoolView) -> Outcome {
    let told = view.reports.iter().filter_map(|r| r.backups.as_ref());
    let Some(newest) = told.clone().map(|r| &r.newest).max_by_key(|b| b.began_at_ms) else {
        return output::line("last backup: never (standfast backup create)");
    };
    let now = jiff::Timestamp::now().as_millisecond();
    let ago = |at_ms: i64| seconds(u64::try_from((now - at_ms) / 1000).unwrap_or(0));
    let proven = told.filter_map(|r| r.proven.as_ref()).filter_map(|b| Some((b, b.proof.as_ref()?)));
    let proven = match proven.max_by_key(|(_, proof)| proof.at_ms) {
        Some((backup, proof)) if backup.id == newest.id => format!("proven {} ago, {}", ago(proof.at_ms), proof.says()),
        Some((backup, proof)) => format!("last proven: {}, {} ago", backup.id, ago(proof.at_ms)),
        None => "none has been proven (standfast backup prove)".to_owned(),
    };
    output::line(&format!("last backup: {} on {}, {} ago; {proven}", newest.id, newest.host, ago(newest.done_at_ms)))
}

fn attention(Status { look, untold, .. }: &Status) -> Outcome {
    let view = &look.view;
    let mut lines: Vec<String> = Vec::new();
    for (host, silence) in &view.silent {
        lines.push(match (look.said.get(host), silence) {
            (Some(words), _) => format!("{host} gives no report: {words}"),
            (None, Silence::Refused) => format!("{host} does not answer (connection refused: start its agent)"),
            (None, Silence::TimedOut) => {
                format!("{host} does not answer (no answer in time: it may be alive and out of reach)")
            }
        });
    }
    for report in &view.reports {
        lines.extend(report.waiting_for.iter().map(|w| format!("{}: {w}", report.host)));
    }
    if let Some(record) = &view.record {
        lines.extend(super::canary::overdue(view, record).iter().map(ToString::to_string));
    }
    lines.extend(cluster::notify::alarm::held(&view.reports).into_iter().map(|(_, says)| says));
    let told = view.reports.iter().filter_map(|r| r.backups.as_ref());
    lines.extend(cluster::backup::alarm(told, jiff::Timestamp::now().as_millisecond()));
    lines.extend_from_slice(untold);
    if lines.is_empty() {
        return Ok(());
    }
    output::line("")?;
    lines.iter().try_for_each(|line| output::line(&format!("! {line}")))
}

fn bytes(n: u64) -> String {
    match n {
        0..1_024 => format!("{n} B"),
        1_024..1_048_576 => format!("{} kB", n / 1_024),
        1_048_576..1_073_741_824 => format!("{} MB", n / 1_048_576),
        _ => format!("{:.1} GB", n as f64 / 1_073_741_824.0),
    }
}

fn seconds(s: u64) -> String {
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        _ => format!("{} h", s / 3_600),
    }
}

/// A time in milliseconds, for people.
pub fn millis(ms: u64) -> String {
    if ms < 10_000 { format!("{:.1} s", ms as f64 / 1000.0) } else { seconds(ms / 1000) }
}
