//! `notify`: try whether notices arrive, and see what became of them.

use crate::agents::Agents;
use crate::command::run::who;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::{output, words};
use cluster::name::HostName;
use wire::notification::{ReceiverReport, Standing, TestNotification, Tested};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Tell each receiver that this is a test, from each site's authority, and say what came of it
    Test {
        /// Only this receiver, by its name in the topology
        receiver: Option<String>,
    },
    /// Show each receiver, what it is still to be told, and what became of the last notices
    State,
}

/// Run the command.
///
/// # Errors
/// When no authority answers; when a receiver does not take the test, or notices do not arrive.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    match args.what {
        What::Test { receiver } => test(&agents, receiver, context.json).await,
        What::State => state(&agents, context.json).await,
    }
}

/// Each authority has its own files with secrets, and its own way out: each tries.
async fn test(agents: &Agents, receiver: Option<String>, json: bool) -> Outcome {
    let wanted = TestNotification { receiver, by: who() };
    let mut all: Vec<(HostName, Vec<Tested>)> = Vec::new();
    let mut silent = Vec::new();
    for (host, said) in agents.test_notifications(&wanted).await {
        match said {
            Ok(tested) => all.push((host, tested)),
            Err(trouble) => silent.push(trouble.failure(&format!("let {host} tell the receivers"), &host)),
        }
    }
    for failure in &silent {
        output::say(&format!("standfast: {failure}"));
    }
    if all.is_empty() {
        return Err(Failure::Failed("no authority has told anybody anything".into()));
    }
    if all.iter().all(|(_, tested)| tested.is_empty()) {
        return Err(Failure::Refused(
            "the topology has no [[notify]]: nobody is told anything (docs/notifications.md)".into(),
        ));
    }
    if json {
        let told = |(host, tested): &(HostName, Vec<Tested>)| serde_json::json!({ "host": host, "tested": tested });
        output::json(&all.iter().map(told).collect::<Vec<_>>())?;
    } else {
        let mut rows = vec![["FROM", "RECEIVER", "KIND", "AT", "TOOK", "WHAT CAME OF IT"].map(str::to_owned).to_vec()];
        for (host, tested) in all.iter().flat_map(|(host, tested)| tested.iter().map(move |t| (host, t))) {
            let said = tested.failed.as_ref().map_or("taken".to_owned(), |why| format!("NOT TAKEN: {why}"));
            let took = words::seconds(tested.took_ms);
            rows.push(vec![
                host.to_string(),
                tested.receiver.clone(),
                tested.kind.to_string(),
                tested.place.clone(),
                took,
                said,
            ]);
        }
        output::table(&rows)?;
    }
    let failed = all.iter().flat_map(|(_, tested)| tested).filter(|t| t.failed.is_some()).count();
    match (failed, silent.len()) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::Failed("not every authority could be asked".into())),
        (failed, _) => Err(Failure::Failed(format!("{failed} of the tries failed"))),
    }
}

async fn state(agents: &Agents, json: bool) -> Outcome {
    let all = agents.notifications().await;
    if all.is_empty() {
        return Err(Failure::Failed("no authority answers; standfast pool status shows who does".into()));
    }
    if json {
        let told = |(host, receivers): &(HostName, Vec<ReceiverReport>)| serde_json::json!({ "host": host, "receivers": receivers });
        return output::json(&all.iter().map(told).collect::<Vec<_>>());
    }
    for (host, receivers) in &all {
        for receiver in receivers {
            output::line(&format!("{}, told by {host}: {} to {}", receiver.name, receiver.kind, receiver.place))?;
            receiver.told.iter().try_for_each(|told| output::line(&format!("  {}", words::told(told))))?;
        }
    }
    let failing = problems(&all);
    if failing.is_empty() { Ok(()) } else { Err(Failure::Alert(failing.join("; "))) }
}

/// What does not arrive, a sentence for each receiver and authority.
pub fn problems(all: &[(HostName, Vec<ReceiverReport>)]) -> Vec<String> {
    let mut found = Vec::new();
    for (host, receiver) in all.iter().flat_map(|(host, receivers)| receivers.iter().map(move |r| (host, r))) {
        let failing = receiver.told.iter().find(|t| t.standing == Standing::Failing);
        let waiting = receiver.told.iter().filter(|t| t.standing == Standing::Waiting).count();
        let last = receiver.told.iter().find(|t| matches!(t.standing, Standing::Taken | Standing::GivenUp));
        let given_up = last.filter(|t| t.standing == Standing::GivenUp);
        let Some(told) = failing.or(given_up) else { continue };
        let more = if waiting > 0 { format!(", and {waiting} wait behind it") } else { String::new() };
        found.push(format!(
            "{} is not told by {host}: {}{more} (standfast notify state, standfast notify test)",
            receiver.name,
            words::told(told)
        ));
    }
    found
}
