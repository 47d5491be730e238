//! What a statement of the reference is here: steps of a runbook, or a plain command. Decided from the record, the topology
//! and the run that is open, without asking anybody; carried out by the same functions as the plain commands.

use crate::failure::Failure;
use cluster::active_servers::broken;
use cluster::name::{HostName, ServerName};
use cluster::record::{PoolRecord, PoolState};
use cluster::runbook::{Runbook, named};
use cluster::topology::Topology;
use rules::nearest::nearest_in_any_case;
use statement::DatabaseStatement;
use statement::action::{Action, ListChange, MirrorOf, pool_of};
use statement::database::Partner;
use statement::terms::statement_of;

/// What a statement is judged on.
pub struct Situation<'a> {
    /// The published topology.
    pub topology: &'a Topology,
    /// The newest record.
    pub record: &'a PoolRecord,
    /// The run that is open.
    pub open: Option<Open>,
}

/// A run that is open.
#[derive(Clone, Debug)]
pub struct Open {
    /// The runbook's name.
    pub runbook: String,
    /// Its steps that are done.
    pub done: Vec<String>,
}

/// What a statement is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counterpart {
    /// These steps, in order; and then perhaps a list of active servers other than the one that the step sets.
    Steps {
        /// The runbook.
        runbook: &'static str,
        /// The steps.
        steps: Vec<&'static str>,
        /// What is done beside what was typed, and why.
        says: Vec<String>,
        /// The list that was asked for, if the last step sets active servers.
        servers: Option<Vec<ServerName>>,
    },
    /// A plain command, in words.
    Plain(Vec<String>),
    /// It is so already.
    Nothing(String),
}

/// The list of active servers is called so in the reference's examples.
const COLLECTION: &str = "PChatServerCollection";

/// What a cmdlet that changes something is here; `None` for those that only look, and for processes.
///
/// # Errors
/// When a rule speaks against it, or it names what is not there.
pub fn of_cmdlet(action: &Action, force: bool, situation: &Situation<'_>) -> Result<Option<Counterpart>, Failure> {
    let forced = |mut words: Vec<String>| {
        if force {
            words.push("--force".into());
        }
        Counterpart::Plain(words)
    };
    Ok(Some(match action {
        Action::SetState { pool, failed_over } => {
            situation.check_pool(pool.as_deref())?;
            if *failed_over { situation.set_failed_over() } else { situation.set_normal() }?
        }
        Action::SetActiveServers { collection, change } => {
            if let Some(named) = collection.as_deref().filter(|c| !c.eq_ignore_ascii_case(COLLECTION)) {
                situation.check_pool(Some(&pool_of(named)))?;
            }
            situation.set_active_servers(change)?
        }
        Action::InstallMirror(of) => {
            situation.check_mirror(of)?;
            match situation.open_runbook() {
                Some("failover") => situation.through("failover", "mirror-new-primary", &[])?,
                Some("failback") => situation.through("failback", "recreate-mirror", &[])?,
                _ => plain(&["mirror", "install", "--yes"]),
            }
        }
        Action::UninstallMirror(of) => {
            situation.check_mirror(of)?;
            situation.remove_mirroring()?
        }
        Action::DatabaseFailover { pool, database, excluded, to_mirror } => {
            situation.check_pool(Some(&pool_of(pool)))?;
            situation.check_databases(Some(database), excluded)?;
            let to = if *to_mirror { "mirror" } else { "primary" };
            forced(words(&["database", "failover", "--new-principal", to, "--yes"]))
        }
        Action::PublishTopology { file, .. } => plain(&["topology", "publish", file, "--yes"]),
        _ => return Ok(None),
    }))
}

/// What a database statement is here; `None` for those that look at sessions or change nothing.
///
/// # Errors
/// When a rule speaks against it, or it names what is not there.
pub fn of_database(wanted: &DatabaseStatement, situation: &Situation<'_>) -> Result<Option<Counterpart>, Failure> {
    use DatabaseStatement as S;
    if let Some(database) = database_of(wanted) {
        situation.check_databases(Some(database), &[])?;
    }
    let open = situation.open_runbook();
    Ok(Some(match wanted {
        S::DeleteLogShippingSecondary { database } => {
            situation.check_backup_is_secondary(database)?;
            situation.through("failover", "stop-log-shipping", &["fence-old-primary"])?
        }
        S::RestoreLog { database, .. } => {
            situation.check_backup_is_secondary(database)?;
            situation.through("failover", "apply-remaining-log", &["copy-remaining-log"])?
        }
        S::Recover { database } => {
            situation.check_backup_is_secondary(database)?;
            let before = ["copy-remaining-log", "apply-remaining-log", "disconnect-sessions"];
            situation.through("failover", "bring-backup-online", &before)?
        }
        S::SetPartner { partner: Partner::Off, .. } => situation.remove_mirroring()?,
        S::SetPartner { partner: Partner::Failover, database } => {
            plain(&["database", "failover", "--new-principal", situation.other_partner(database)?, "--yes"])
        }
        S::SetPartner { partner: Partner::ForceService, database } => {
            plain(&["database", "failover", "--new-principal", situation.other_partner(database)?, "--force", "--yes"])
        }
        S::BackupDatabase { .. } if open == Some("failback") => situation.through("failback", "final-backup", &[])?,
        S::RestoreDatabase { .. } if open == Some("failback") => {
            situation.through("failback", "restore-on-primary", &[])?
        }
        S::AddLogShippingSecondary { .. } if open == Some("failback") => {
            situation.through("failback", "recreate-log-shipping", &[])?
        }
        S::BackupDatabase { .. } => return Err(not_now("a full backup", 3)),
        S::RestoreDatabase { .. } => return Err(not_now("restoring a full backup over a database", 4)),
        S::AddLogShippingSecondary { .. } if open.is_none() && situation.record.state == PoolState::Normal => {
            plain(&["log-shipping", "enable", "--yes"])
        }
        S::AddLogShippingSecondary { .. } => return Err(not_now("creating log shipping again", 5)),
        S::Who { .. } | S::Kill { .. } | S::Use { .. } | S::Go | S::Connect { .. } => return Ok(None),
    }))
}

fn database_of(wanted: &DatabaseStatement) -> Option<&str> {
    use DatabaseStatement as S;
    match wanted {
        S::DeleteLogShippingSecondary { database }
        | S::AddLogShippingSecondary { database }
        | S::RestoreLog { database, .. }
        | S::Recover { database }
        | S::RestoreDatabase { database, .. }
        | S::BackupDatabase { database, .. }
        | S::SetPartner { database, .. } => Some(database),
        S::Who { .. } | S::Kill { .. } | S::Use { .. } | S::Go | S::Connect { .. } => None,
    }
}

fn not_now(what: &str, number: u8) -> Failure {
    Failure::Refused(format!(
        "{what} is step {number} of a failback, and none is open; nothing was done. A failback begins with \
         Set-CsPersistentChatActiveServer -ActiveServers $Null; mirror and backup hold copies all the time"
    ))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn plain(typed: &[&str]) -> Counterpart {
    Counterpart::Plain(words(typed))
}

/// The host that a text names: its name, its name with a domain or an instance behind it, or the address of its agent.
pub fn host_named(topology: &Topology, text: &str) -> Result<HostName, Failure> {
    let machine = text.split('\\').next().unwrap_or(text);
    let label = machine.split('.').next().unwrap_or(machine);
    let fits = |name: &str, of: &str| name.eq_ignore_ascii_case(of);
    let by = |of: &str| topology.hosts.iter().find(|h| fits(h.name.as_str(), of));
    let address =
        || topology.hosts.iter().find(|h| h.agent.at.rsplit_once(':').is_some_and(|(at, _)| fits(at, machine)));
    by(machine).or_else(|| by(label)).or_else(address).map(|h| h.name.clone()).ok_or_else(|| {
        let names: Vec<&str> = topology.hosts.iter().map(|h| h.name.as_str()).collect();
        Failure::Usage(unknown("host", text, &names))
    })
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let near = nearest_in_any_case(name, known).map_or(String::new(), |near| format!("; did you mean '{near}'?"));
    format!("there is no {what} '{name}'{near} (there are: {})", known.join(", "))
}

impl Situation<'_> {
    /// The runbook that is open, if it is one of those that statements belong to.
    fn open_runbook(&self) -> Option<&str> {
        self.open.as_ref().map(|o| o.runbook.as_str())
    }

    /// A pool that is named is this one.
    ///
    /// # Errors
    /// When it is another one.
    pub fn check_pool(&self, pool: Option<&str>) -> Result<(), Failure> {
        match pool {
            Some(pool) if !pool.eq_ignore_ascii_case(&self.topology.pool) => Err(Failure::Usage(format!(
                "'{pool}' is not this pool: it is {0}; write \"service:{0}\"",
                self.topology.pool
            ))),
            _ => Ok(()),
        }
    }

    /// Databases that are named are there. Runs are for all databases of the pool, so none of them can be left out.
    ///
    /// # Errors
    /// When one is not there, or is to be left out.
    pub fn check_databases(&self, named: Option<&str>, excluded: &[String]) -> Result<(), Failure> {
        let known: Vec<&str> = self.topology.databases.iter().map(|d| d.name.as_str()).collect();
        if let Some(name) = named.filter(|n| !known.iter().any(|k| k.eq_ignore_ascii_case(n))) {
            return Err(Failure::Usage(unknown("database", name, &known)));
        }
        match excluded.iter().find(|e| known.iter().any(|k| k.eq_ignore_ascii_case(e))) {
            Some(excluded) => Err(Failure::Refused(format!(
                "{excluded} cannot be left out: a run is for all databases of the pool ({}); nothing was done",
                known.join(", ")
            ))),
            None => Ok(()),
        }
    }

    fn check_mirror(&self, of: &MirrorOf) -> Result<(), Failure> {
        self.check_databases(of.database, &of.excluded)?;
        let host = host_named(self.topology, &of.principal)?;
        let mut principals = self.record.databases.values().filter_map(|d| d.principal.as_ref());
        match principals.find(|p| **p != host) {
            Some(principal) => Err(Failure::Refused(format!(
                "-SqlServerFqdn names {host}, and the principal is {principal}; a mirror is given to the principal alone: \
                 write -SqlServerFqdn {principal} (rule R3)"
            ))),
            None => Ok(()),
        }
    }

    /// The statements of a failover are for a backup that is still a secondary.
    fn check_backup_is_secondary(&self, database: &str) -> Result<(), Failure> {
        if self.open_runbook() == Some("failover") || self.record.state == PoolState::Normal {
            return Ok(());
        }
        let found = self.record.databases.iter().find(|(name, _)| name.as_str().eq_ignore_ascii_case(database));
        let stands = match found.and_then(|(_, d)| d.principal.as_ref()) {
            Some(principal) => format!("{principal} is the principal of {database}, and no secondary any more"),
            None => format!("{database} has no principal at the moment"),
        };
        Err(Failure::Refused(format!("the pool is FailedOver: {stands}; nothing was done")))
    }

    fn set_failed_over(&self) -> Result<Counterpart, Failure> {
        if self.record.state == PoolState::FailedOver && self.open_runbook() != Some("failover") {
            return Ok(Counterpart::Nothing("the pool is FailedOver already".into()));
        }
        self.through("failover", "set-pool-failed-over", &[])
    }

    fn set_normal(&self) -> Result<Counterpart, Failure> {
        if self.record.state == PoolState::Normal && self.open.is_none() {
            return Ok(Counterpart::Nothing("the pool is Normal already".into()));
        }
        self.through("failback", "set-pool-normal", &["recreate-log-shipping"])
    }

    fn remove_mirroring(&self) -> Result<Counterpart, Failure> {
        match self.open_runbook() {
            Some("failback") => self.through("failback", "remove-mirroring", &[]),
            _ => Ok(plain(&["mirror", "remove", "--yes"])),
        }
    }

    fn set_active_servers(&self, change: &ListChange) -> Result<Counterpart, Failure> {
        let wanted = self.list(change)?;
        let failed_over = self.record.state == PoolState::FailedOver;
        match self.open_runbook() {
            Some("failover") if wanted.is_empty() => {
                Ok(Counterpart::Nothing("no server is active while the failover is open".into()))
            }
            Some("failover") => {
                let steps = self.through("failover", "set-active-servers", &["mirror-new-primary"])?;
                self.check_servers(&wanted)?;
                Ok(asking_for(steps, wanted))
            }
            Some("failback") if !wanted.is_empty() => {
                let steps =
                    self.through("failback", "set-active-servers", &["recreate-log-shipping", "set-pool-normal"])?;
                self.check_servers(&wanted)?;
                Ok(asking_for(steps, wanted))
            }
            Some("failback") => self.clear_for_failback(),
            None if failed_over && wanted.is_empty() => self.clear_for_failback(),
            _ if wanted.is_empty() => Ok(plain(&["active-servers", "clear", "--yes"])),
            _ => {
                let mut typed = words(&["active-servers", "set"]);
                typed.extend(wanted.iter().map(ToString::to_string));
                Ok(Counterpart::Plain(typed))
            }
        }
    }

    /// Step 1 of a failback; what can be done while the backup site serves is done before it.
    fn clear_for_failback(&self) -> Result<Counterpart, Failure> {
        let online = ["salvage-tail", "rewind-primary", "feed-primary", "catch-up"];
        self.through("failback", "clear-active-servers", &online)
    }

    fn check_servers(&self, wanted: &[ServerName]) -> Result<(), Failure> {
        let objections = broken(self.topology, self.record, wanted);
        if objections.is_empty() {
            return Ok(());
        }
        Err(Failure::Refused(objections.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
    }

    /// The list of active servers after a change.
    fn list(&self, change: &ListChange) -> Result<Vec<ServerName>, Failure> {
        let named = |all: &[String]| -> Result<Vec<String>, Failure> {
            let servers = all.iter().map(|text| self.server(text));
            Ok(servers.collect::<Result<Vec<_>, _>>()?.iter().map(ToString::to_string).collect())
        };
        let change = match change {
            ListChange::Modify { add, remove } => ListChange::Modify { add: named(add)?, remove: named(remove)? },
            ListChange::Replace(list) => ListChange::Replace(named(list)?),
            ListChange::Swap => ListChange::Swap,
        };
        let before: Vec<&str> = self.record.active_servers.iter().map(ServerName::as_str).collect();
        let all: Vec<&str> = self.topology.servers.iter().map(|s| s.name.as_str()).collect();
        Ok(change.applied(&before, &all).into_iter().map(ServerName::from).collect())
    }

    /// The server that a text names: by its name, or by its host's when that has one server.
    fn server(&self, text: &str) -> Result<ServerName, Failure> {
        let label = text.split('.').next().unwrap_or(text);
        let servers = &self.topology.servers;
        let by = |of: &str| servers.iter().find(|s| s.name.as_str().eq_ignore_ascii_case(of)).map(|s| s.name.clone());
        let on = |of: &str| {
            let mut there = servers.iter().filter(|s| s.host.as_str().eq_ignore_ascii_case(of)).map(|s| s.name.clone());
            there.next().filter(|_| there.next().is_none())
        };
        by(text).or_else(|| by(label)).or_else(|| on(label)).ok_or_else(|| {
            let names: Vec<&str> = servers.iter().map(|s| s.name.as_str()).collect();
            Failure::Usage(unknown("server", text, &names))
        })
    }

    /// The role in the topology of the partner that is not principal now.
    fn other_partner(&self, database: &str) -> Result<&'static str, Failure> {
        let found = self.record.databases.iter().find(|(name, _)| name.as_str().eq_ignore_ascii_case(database));
        let Some(mirror) = found.and_then(|(_, d)| d.mirror.as_ref()) else {
            return Err(Failure::Refused(format!("{database} has no mirror now; nothing was done")));
        };
        let topology = self.topology.databases.iter().find(|d| d.name.as_str().eq_ignore_ascii_case(database));
        let is_mirror = |i: &cluster::topology::Instance| i.host == mirror.host;
        let named = topology.is_some_and(|t| {
            t.mirror.as_ref().is_some_and(is_mirror) || t.backup_mirror.as_ref().is_some_and(is_mirror)
        });
        Ok(if named { "mirror" } else { "primary" })
    }

    /// A step and those before it that are not done yet; of these only the ones that may be done unasked.
    fn through(&self, runbook: &'static str, target: &'static str, before: &[&str]) -> Result<Counterpart, Failure> {
        let Some(book) = named(runbook) else { return Err(Failure::Failed(format!("there is no runbook {runbook}"))) };
        let done: &[String] = match &self.open {
            Some(open) if open.runbook == runbook => &open.done,
            Some(open) if runbook != "failover" || open.runbook == "failback" => {
                return Err(Failure::Refused(format!(
                    "{target} is a step of a {runbook}, and {} is under way; watch it with: runbook watch; take it up again \
                     with: runbook resume",
                    open.runbook
                )));
            }
            // A run that was lost with its site does not stop a failover: the authority judges that.
            Some(_) | None => &[],
        };
        let is_done = |id: &str| done.iter().any(|d| d == id);
        if is_done(target) {
            return Ok(Counterpart::Nothing(format!("step {target} of this {runbook} is done already")));
        }
        let to = book.steps.iter().position(|s| s.id == target).map_or(0, |at| at + 1);
        let missing: Vec<_> = book.steps[..to].iter().filter(|s| !is_done(s.id)).collect();
        let blocking: Vec<&str> =
            missing.iter().map(|s| s.id).filter(|id| *id != target && !before.contains(id)).collect();
        if !blocking.is_empty() {
            return Err(comes_before(book, &blocking, target));
        }
        let unasked = missing.iter().filter(|s| s.id != target);
        let says = unasked.map(|s| format!("first, {} {}: {}", reason(s.id), s.id, s.says)).collect();
        let steps = missing.iter().map(|s| s.id).collect();
        Ok(Counterpart::Steps { runbook, steps, says, servers: None })
    }
}

/// Why a step is carried out that was not typed.
fn reason(step: &str) -> &'static str {
    match step {
        "fence-old-primary" => "added for safety,",
        "copy-remaining-log" | "apply-remaining-log" => "so that nothing is left out (rule R2),",
        "set-pool-normal" => "the state before the servers, or they would connect to a database that restores (H-2),",
        "salvage-tail" | "rewind-primary" | "feed-primary" | "catch-up" => "online, while the users go on,",
        _ => "as the reference has it,",
    }
}

fn asking_for(steps: Counterpart, wanted: Vec<ServerName>) -> Counterpart {
    match steps {
        Counterpart::Steps { runbook, steps, says, .. } => {
            Counterpart::Steps { runbook, steps, says, servers: Some(wanted) }
        }
        other => other,
    }
}

/// The refusal that names the step which comes first, and how it is typed.
fn comes_before(book: &Runbook, blocking: &[&str], target: &str) -> Failure {
    let first = blocking[0];
    // Steps that no statement stands for are carried out with the next one that has a statement.
    let all = blocking.iter().copied().chain([target]);
    let typed = all.clone().find_map(|id| statement_of(book.name, id).filter(|_| id != target));
    let typed = typed.map_or_else(|| format!("step {} {first}", book.name), |s| s.statement.to_owned());
    Failure::Refused(format!("{first} comes before {target} and is not done; nothing was done. Type first: {typed}"))
}

/// The statement of the step that comes after these.
pub fn next_statement(runbook: &str, done: &str) -> Option<String> {
    let book = named(runbook)?;
    let (at, _) = book.step(done)?;
    let next = book.steps.get(at + 1)?;
    statement_of(runbook, next.id).map(|s| s.statement.to_owned())
}

#[cfg(test)]
#[path = "counterpart_tests.rs"]
mod tests;
