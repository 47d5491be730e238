//! The mirror's lookout: it notices at once when its principal is lost, and asks the witness whether to take over.
//!
//! It decides nothing and changes nothing. The witness looks at the principal itself and begins the run that carries the
//! failover out (`cluster::witness`); this agent gets its orders from that run like from any other.

use crate::database::Database;
use crate::host::Host;
use cluster::name::HostName;
use cluster::witness::{TakeOverRequest, asks_after};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::agent::{AgentError, TakeOverAnswer};

/// Time between two looks at the stream.
const LOOK: Duration = Duration::from_millis(20);
/// Time between two looks at whether there is anything to look out for.
const REST: Duration = Duration::from_millis(500);
/// Time between two requests while the witness does not agree.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Longest wait for the witness: it looks at the principal before it answers.
const ANSWER: Duration = Duration::from_secs(3);

/// Look out for as long as the process lives.
pub async fn run(host: Arc<Host>, database: Arc<Database>) {
    let mut record = host.store.watch_record();
    let mut heard = Instant::now();
    let mut said = String::new();
    loop {
        let Some(witness) = on_guard(&host, &database) else {
            heard = Instant::now();
            database.lookout(None);
            tokio::select! {
                () = tokio::time::sleep(REST) => {}
                changed = record.changed() => if changed.is_err() { return },
            }
            continue;
        };
        let timeout = database.partner_timeout(&host);
        let last_heard = database.instance.sql.last_heard_ms().await;
        let connected = matches!(last_heard, Ok(Some(_)));
        let lost = match last_heard {
            Ok(Some(ms)) => {
                let age = Duration::from_millis(ms);
                heard = Instant::now().checked_sub(age).unwrap_or(heard);
                age >= asks_after(timeout).duration()
            }
            Ok(None) => true,
            // A mirror that does not run itself cannot take over.
            Err(_) => false,
        };
        if !lost {
            if !std::mem::take(&mut said).is_empty() {
                tracing::info!(database = %database.name, "the principal is heard again");
                database.lookout(None);
            }
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let request = TakeOverRequest {
            database: database.name.clone(),
            mirror: host.name.clone(),
            silent_ms: heard.elapsed().as_millis() as u64,
        };
        let says = match ask(&host, &witness, &request).await {
            Ok(run) => format!("the witness {witness} has begun {run}"),
            Err(why) => format!("the principal is lost; {why}"),
        };
        // Until the time-out has run out, a principal that is connected and silent may be busy.
        let may_be_busy = connected && heard.elapsed() < timeout.0.duration();
        if says != said && !may_be_busy {
            tracing::warn!(database = %database.name, "{says}");
            said.clone_from(&says);
            database.lookout(Some(format!("{}: {says}", database.name)));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The witness to ask, while this host is the synchronised mirror of a principal and no change of writer is under way.
fn on_guard(host: &Host, database: &Database) -> Option<HostName> {
    let record = host.store.record()?;
    let parts = record.databases.get(&database.name)?;
    let mirror = parts.mirror.as_ref().filter(|m| m.host == host.name && m.synchronised)?;
    let at_home = record.home == *host.store.site();
    (at_home && mirror.synchronised && parts.principal.is_some() && record.run.is_none()).then(|| host.witness())?
}

/// Ask the witness; the run that it has begun, or why it has not.
async fn ask(host: &Host, witness: &HostName, request: &TakeOverRequest) -> Result<String, String> {
    let base = host.agent_of(witness).ok_or_else(|| format!("the topology has no host {witness}"))?;
    let sent = host.http.post(format!("{base}/v1/take-over")).timeout(ANSWER).json(request).send().await;
    let response = sent.map_err(|_| format!("the witness {witness} does not answer either, so nobody takes over"))?;
    if !response.status().is_success() {
        let status = response.status();
        let error = response.json::<AgentError>().await.map_or_else(|_| status.to_string(), |e| e.message);
        return Err(format!("the witness {witness}: {error}"));
    }
    match response.json().await {
        Ok(TakeOverAnswer::Begun { run }) => Ok(run),
        Ok(TakeOverAnswer::Refused { message }) => Err(format!("the witness {witness} does not agree: {message}")),
        Err(error) => Err(format!("the witness {witness} answered in an unexpected form: {error}")),
    }
}
