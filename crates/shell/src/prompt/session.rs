//! Carrying out statements, one after the other.

use super::counterpart::{Counterpart, Open, Situation, next_statement, of_cmdlet, of_database};
use super::services::{self, Change};
use super::show::{self, Form};
use super::{log, plain, table};
use crate::agents::{Agents, Look};
use crate::command::run::authority_for;
use crate::command::step::{journal, steps_done};
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::name::ServerName;
use cluster::record::PoolRecord;
use cluster::topology::Topology;
use statement::action::{Action, Services, pool_of};
use statement::parse::{Call, Pipeline};
use statement::row::like;
use statement::stage::Stage;
use statement::{Cell, DatabaseStatement, Row, Statement, What, help};
use std::io::IsTerminal;

/// Runbooks whose steps statements stand for.
const BY_STATEMENTS: [&str; 2] = ["failover", "failback"];

/// A shell: what is remembered from one statement to the next.
pub(super) struct Session {
    context: Context,
    /// The host whose instance was chosen with `:connect`.
    connected: Option<String>,
    /// The database that was chosen with `use`.
    database: Option<String>,
}

/// What a cmdlet hands on.
enum Found {
    Rows(Vec<Row>),
    Text(String),
    Nothing,
}

/// How a statement is to be carried out.
#[derive(Clone, Copy, Default)]
struct How<'a> {
    what_if: bool,
    confirm: bool,
    force: bool,
    report: Option<&'a str>,
}

impl<'a> How<'a> {
    fn of(call: &'a Call) -> Self {
        Self { what_if: call.what_if, confirm: call.confirm, force: call.force, report: call.report.as_deref() }
    }
}

impl Session {
    pub(super) fn new(context: Context) -> Self {
        Self { context, connected: None, database: None }
    }

    /// Carry out a statement.
    pub(super) async fn carry_out(&mut self, statement: &Statement) -> Outcome {
        match &statement.what {
            What::Pipeline(pipeline) => {
                let calls = std::iter::once(&pipeline.first).chain(pipeline.stages.iter().filter_map(|s| match s {
                    Stage::Call(call) => Some(call.as_ref()),
                    _ => None,
                }));
                match calls.filter_map(|c| c.report.as_ref()).next_back() {
                    Some(file) => log::around(&statement.text, file, self.pipeline(pipeline)).await,
                    None => self.pipeline(pipeline).await,
                }
            }
            What::Database(statement) => self.database(statement).await,
            What::Plain(words) => plain(&self.context, words).await,
            What::Exit => Ok(()),
        }
    }

    fn agents(&self) -> Result<Agents, Failure> {
        Agents::new(&self.context.folder()?)
    }

    async fn pipeline(&self, pipeline: &Pipeline) -> Outcome {
        let mut found = self.call(&pipeline.first, None).await?;
        let mut form = Form::Any;
        for stage in &pipeline.stages {
            let rows = match found {
                Found::Rows(rows) => rows,
                Found::Text(text) => vec![Row(vec![("Text", text.into())])],
                Found::Nothing => Vec::new(),
            };
            found = match stage {
                Stage::Call(call) => self.call(call, Some(rows)).await?,
                Stage::Format { list, .. } => {
                    form = if *list { Form::List } else { Form::Table };
                    Found::Rows(stage.apply(rows))
                }
                Stage::Select { expand, .. } => {
                    form = if expand.is_some() { Form::Values } else { form };
                    Found::Rows(stage.apply(rows))
                }
                Stage::Where(condition) => {
                    if let Some(unknown) =
                        condition.properties().find(|p| rows.first().is_some_and(|r| r.get(p).is_none()))
                    {
                        output::say(&format!("note: there is no property {unknown} here; it counts as nothing"));
                    }
                    Found::Rows(stage.apply(rows))
                }
            };
        }
        match (found, &pipeline.to_file) {
            (Found::Nothing, _) => Ok(()),
            (Found::Rows(rows), None) => show::rows(&rows, form, self.context.json),
            (Found::Text(text), None) if self.context.json => output::json(&text),
            (Found::Text(text), None) => output::line(&text),
            (Found::Rows(rows), Some(file)) => write(file, &show::text(&rows, form).join("\n")),
            (Found::Text(text), Some(file)) => write(file, &text),
        }
    }

    async fn call(&self, call: &Call, piped: Option<Vec<Row>>) -> Result<Found, Failure> {
        call.notes.iter().for_each(|note| output::say(&format!("note: {note}")));
        if let Some(found) = self.without_the_pool(&call.action).await? {
            return Ok(found);
        }
        let agents = self.agents()?;
        let look = agents.look().await;
        match &call.action {
            Action::StartWindowsService(which) => self.change_services(&look, which, piped, call, Change::Start).await,
            Action::StopWindowsService(which) => self.change_services(&look, which, piped, call, Change::Stop).await,
            Action::EnableTopology => self.enable_topology(&look),
            action => {
                if let Some(rows) = looked(action, &look, piped.as_deref())? {
                    return Ok(Found::Rows(rows));
                }
                let piped_pool = piped.as_ref().and_then(|rows| rows.first()).and_then(|r| r.get("Identity"));
                let record = look.view.record.clone().ok_or_else(|| look.nobody())?;
                let situation = situation(&agents, &record).await?;
                if let Some(identity) = piped_pool {
                    situation.check_pool(Some(&pool_of(&identity.to_string())))?;
                }
                if let Some(counterpart) = of_cmdlet(action, call.force, &situation)? {
                    if let Action::PublishTopology { backup: Some(file), .. } = action
                        && !call.what_if
                    {
                        let host = agents.authority(&record.home)?;
                        write(file, &agents.published_text(&host).await?)?;
                    }
                    self.counterpart(&agents, counterpart, How::of(call)).await?;
                }
                Ok(Found::Nothing)
            }
        }
    }

    /// What needs nobody's answer, or asks for itself.
    async fn without_the_pool(&self, action: &Action) -> Result<Option<Found>, Failure> {
        Ok(Some(match action {
            Action::Help { name: None, .. } => Found::Text(help::overview()),
            Action::Help { name: Some(name), examples, parameter } => {
                match help::on(name, *examples, parameter.as_deref()) {
                    Ok(text) => Found::Text(text),
                    Err(_) if super::plain_names().contains(name) => {
                        plain(&self.context, &[name.clone(), "--help".into()]).await?;
                        Found::Nothing
                    }
                    Err(said) => return Err(Failure::Usage(said)),
                }
            }
            Action::Commands { name } => Found::Rows(help::commands(name)),
            Action::GetService { identity, filter, pool, role } => {
                let topology = self.context.folder()?.topology;
                if let Some(pool) = pool {
                    check_pool(&topology, pool)?;
                }
                let mut rows = table::services(&topology);
                let is = |row: &Row, pattern: &str| row.get("Identity").is_some_and(|c| like(&c.to_string(), pattern));
                rows.retain(|r| {
                    identity
                        .as_deref()
                        .is_none_or(|i| r.get("Identity").is_some_and(|c| c.to_string().eq_ignore_ascii_case(i)))
                });
                rows.retain(|r| filter.as_deref().is_none_or(|f| is(r, f)));
                rows.retain(|r| role.is_none_or(|role| r.get("Role") == Some(&Cell::from(role))));
                Found::Rows(rows)
            }
            Action::GetTopology { document, local_store } => {
                let folder = self.context.folder()?;
                if *local_store {
                    let path = folder.dir.join("topology.toml");
                    let read = || std::fs::read_to_string(&path);
                    return match document {
                        true => read()
                            .map(|text| Some(Found::Text(text.trim_end().to_owned())))
                            .map_err(|e| Failure::Failed(format!("read {}: {e}", path.display()))),
                        false => Ok(Some(Found::Rows(vec![table::topology(&folder.topology)]))),
                    };
                }
                let agents = Agents::new(&folder)?;
                let record = agents.record().await?;
                let text = agents.published_text(&agents.authority(&record.home)?).await?;
                if *document {
                    return Ok(Some(Found::Text(text.trim_end().to_owned())));
                }
                let published = Topology::from_toml(&text).map_err(|findings| {
                    Failure::Failed(findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
                })?;
                Found::Rows(vec![table::topology(&published)])
            }
            _ => return Ok(None),
        }))
    }

    fn enable_topology(&self, look: &Look) -> Result<Found, Failure> {
        let rows = table::replication(look, None)?;
        let late: Vec<String> = rows
            .iter()
            .filter(|r| r.get("UpToDate") == Some(&Cell::Bool(false)))
            .filter_map(|r| r.get("ReplicaFqdn").map(Cell::to_string))
            .collect();
        if late.is_empty() {
            output::say("publishing made it take effect: every host works from the newest record and topology");
        } else {
            output::say(&format!("{} do not have the newest yet; they take it over when they answer", late.join(", ")));
        }
        Ok(if self.context.json { Found::Rows(rows) } else { Found::Nothing })
    }

    async fn change_services(
        &self,
        look: &Look,
        which: &Services,
        piped: Option<Vec<Row>>,
        call: &Call,
        change: Change,
    ) -> Result<Found, Failure> {
        if piped.is_none() && change == Change::Stop && which.name.is_none() && which.host.is_none() {
            return Err(Failure::Refused(
                "this would stop every server of the pool; name a host with -ComputerName, or a service with -Name"
                    .into(),
            ));
        }
        let rows = match piped {
            Some(rows) => rows,
            None => services::rows(look, which, false)?,
        };
        if call.confirm && !call.what_if {
            ask(call.name)?;
        }
        services::change(&self.context, &rows, change, call, which.no_wait).await?;
        Ok(Found::Nothing)
    }

    async fn database(&mut self, statement: &DatabaseStatement) -> Outcome {
        match statement {
            DatabaseStatement::Go => return Ok(()),
            DatabaseStatement::Use { database } => {
                let system = ["master", "msdb"].iter().any(|s| s.eq_ignore_ascii_case(database));
                if !system {
                    let topology = self.context.folder()?.topology;
                    let known = topology.databases.iter().any(|d| d.name.as_str().eq_ignore_ascii_case(database));
                    if !known {
                        return Err(Failure::Usage(format!("there is no database '{database}'")));
                    }
                }
                self.database = (!system).then(|| database.clone());
                return Ok(());
            }
            DatabaseStatement::Connect { host } => {
                let found = super::counterpart::host_named(&self.context.folder()?.topology, host)?;
                self.connected = Some(found.to_string());
                return Ok(());
            }
            _ => {}
        }
        let agents = self.agents()?;
        match statement {
            DatabaseStatement::Who { only } => {
                let (host, database) = self.instance(&agents).await?;
                output::say(&format!("sessions of {database} on {host}"));
                let all = agents.sessions(&host, &database).await?;
                show::rows(&table::sessions(&all, only.as_deref()), Form::Table, self.context.json)
            }
            DatabaseStatement::Kill { spid } => {
                let (host, database) = self.instance(&agents).await?;
                agents.end_session(&host, &database, *spid).await?;
                output::say(&format!("session {spid} on {host} is ended"));
                Ok(())
            }
            statement => {
                let record = agents.record().await?;
                let situation = situation(&agents, &record).await?;
                match of_database(statement, &situation)? {
                    Some(counterpart) => self.counterpart(&agents, counterpart, How::default()).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn instance(
        &self,
        agents: &Agents,
    ) -> Result<(cluster::name::HostName, cluster::name::DatabaseName), Failure> {
        table::instance(agents, self.connected.as_deref(), self.database.as_deref()).await
    }

    async fn counterpart(&self, agents: &Agents, counterpart: Counterpart, how: How<'_>) -> Outcome {
        let How { what_if, confirm, force, report } = how;
        let asked = |what: &str| {
            if !confirm || what_if { Ok(()) } else { ask(what) }
        };
        match counterpart {
            Counterpart::Nothing(said) => {
                output::say(&said);
                Ok(())
            }
            Counterpart::Plain(mut words) => {
                let shown = format!("standfast {}", words.join(" "));
                asked(&shown)?;
                if !what_if {
                    if words[0] == "mirror" {
                        words.extend(log::of_run(report));
                    }
                    return plain(&self.context, &words).await;
                }
                if matches!(words[0].as_str(), "mirror" | "database") {
                    words.push("--what-if".into());
                    return plain(&self.context, &words).await;
                }
                output::line(&format!("What if: {shown}"))
            }
            Counterpart::Steps { runbook, steps, says, servers } => {
                let shown: Vec<String> = steps.iter().map(|step| described(runbook, step)).collect();
                if what_if {
                    return shown.iter().try_for_each(|s| output::line(&format!("What if: {s}")));
                }
                asked(&shown.join("\n"))?;
                says.iter().for_each(|s| output::say(s));
                for step in &steps {
                    let mut words = vec!["step".to_owned(), runbook.to_owned(), (*step).to_owned()];
                    if force {
                        words.push("--force".into());
                    }
                    words.extend(log::of_run(report));
                    plain(&self.context, &words).await.map_err(in_the_shell)?;
                }
                if let Some(next) = steps.last().and_then(|step| next_statement(runbook, step)) {
                    output::say(&format!("as a statement: {next}"));
                }
                match servers {
                    Some(wanted) => self.other_servers(agents, wanted).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// A step sets the servers of its site; when others were asked for, these follow as soon as no run is open.
    async fn other_servers(&self, agents: &Agents, wanted: Vec<ServerName>) -> Outcome {
        let record = agents.record().await?;
        let same = wanted.len() == record.active_servers.len() && wanted.iter().all(|s| record.is_active(s));
        if same {
            return Ok(());
        }
        let set: Vec<&str> = record.active_servers.iter().map(ServerName::as_str).collect();
        if record.run.is_some() {
            output::say(&format!(
                "the step activated the normal list: {}; to have another one, type the statement again when the run is over",
                set.join(", ")
            ));
            return Ok(());
        }
        output::say(&format!("the step activated {}; now the list that was typed", set.join(", ")));
        let mut words = vec!["active-servers".to_owned(), "set".to_owned()];
        words.extend(wanted.iter().map(ToString::to_string));
        plain(&self.context, &words).await
    }
}

/// What a cmdlet that only looks shows.
fn looked(action: &Action, look: &Look, piped: Option<&[Row]>) -> Result<Option<Vec<Row>>, Failure> {
    let topology = &look.view.topology;
    Ok(Some(match action {
        Action::GetState { pool, filter, local_store } => {
            if let Some(pool) = pool {
                check_pool(topology, pool)?;
            }
            let mut rows = table::state(look, *local_store)?;
            let wanted = |pattern: &str| {
                like(&table::identity(topology), pattern)
                    || like(&topology.pool, pattern)
                    || like(&format!("service:{}", topology.pool), pattern)
            };
            if filter.as_deref().is_some_and(|f| !wanted(f)) {
                rows.clear();
            }
            rows
        }
        Action::GetActiveServers => table::active_servers(look)?,
        Action::GetMirrorState { pool, database, local_store } => {
            check_pool(topology, &pool_of(pool))?;
            table::mirror_state(look, *database, *local_store)?
        }
        Action::GetWindowsService { which, without_activity } => services::rows(look, which, *without_activity)?,
        Action::TestTopology { service } => {
            let mut rows = table::test(look);
            if let Some(service) = service {
                rows.retain(|r| r.get("Service").is_some_and(|s| s.to_string().eq_ignore_ascii_case(service)));
                if rows.is_empty() {
                    return Err(Failure::Usage(format!("there is no service '{service}'; Test-CsTopology shows all")));
                }
            }
            rows
        }
        Action::GetReplicationStatus { store: true, .. } => table::stores(look),
        Action::GetReplicationStatus { replica, .. } => {
            let from_pipe = piped.and_then(|rows| rows.first()).and_then(|r| r.get("ReplicaFqdn").map(Cell::to_string));
            table::replication(look, replica.as_deref().or(from_pipe.as_deref()))?
        }
        _ => return Ok(None),
    }))
}

/// `-Confirm`.
fn ask(what: &str) -> Outcome {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Refused("-Confirm asks first, and nobody is here to answer; nothing was done".into()));
    }
    if output::confirm(&format!("{what}\nGo on?")) {
        return Ok(());
    }
    Err(Failure::Refused("nothing was done".into()))
}

/// A step in a sentence.
fn described(runbook: &str, step: &str) -> String {
    let says = cluster::runbook::named(runbook).and_then(|r| r.step(step)).map_or("", |(_, s)| s.says);
    format!("step {step} of the {runbook}: {says}")
}

/// Hints of refusals name options of the plain commands; a statement has none.
fn in_the_shell(failure: Failure) -> Failure {
    match failure {
        Failure::Refused(said) if said.contains("--force") => Failure::Refused(format!(
            "{said}\n  here: step failover fence-old-primary --force, then the statement again"
        )),
        other => other,
    }
}

fn check_pool(topology: &Topology, pool: &str) -> Outcome {
    if pool.eq_ignore_ascii_case(&topology.pool) {
        return Ok(());
    }
    Err(Failure::Usage(format!("'{pool}' is not this pool: it is {}", topology.pool)))
}

/// The run that is open, as far as statements belong to it.
async fn situation<'a>(agents: &'a Agents, record: &'a PoolRecord) -> Result<Situation<'a>, Failure> {
    let open = match &record.run {
        None => None,
        Some(run) if BY_STATEMENTS.contains(&run.runbook.as_str()) => {
            let at = authority_for(agents, record, &run.runbook).await?;
            let journal = journal(agents, record, &at).await?;
            Some(Open { runbook: run.runbook.clone(), done: steps_done(journal.as_ref()) })
        }
        Some(run) => Some(Open { runbook: run.runbook.clone(), done: Vec::new() }),
    };
    Ok(Situation { topology: &agents.topology, record, open })
}

fn write(file: &str, text: &str) -> Outcome {
    let written = std::fs::write(file, format!("{}\n", text.trim_end()));
    written.map_err(|e| Failure::Failed(format!("write {file}: {e}")))?;
    output::say(&format!("written: {file}"));
    Ok(())
}
