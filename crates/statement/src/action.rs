//! What a cmdlet asks for, typed.

use crate::bind::Bound;
use crate::problem::Problem;
use crate::value::Value;

/// What a cmdlet asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Get-CsPersistentChatState.
    GetState {
        /// The pool that was named.
        pool: Option<String>,
        /// Pattern of the identity.
        filter: Option<String>,
        /// Each host's copy.
        local_store: bool,
    },
    /// Set-CsPersistentChatState.
    SetState {
        /// The pool that was named.
        pool: Option<String>,
        /// FailedOver; else Normal.
        failed_over: bool,
    },
    /// Get-CsPersistentChatActiveServer.
    GetActiveServers,
    /// Set-CsPersistentChatActiveServer.
    SetActiveServers {
        /// The collection that was named.
        collection: Option<String>,
        /// How the list changes.
        change: ListChange,
    },
    /// Install-CsMirrorDatabase.
    InstallMirror(MirrorOf),
    /// Uninstall-CsMirrorDatabase.
    UninstallMirror(MirrorOf),
    /// Get-CsDatabaseMirrorState.
    GetMirrorState {
        /// The pool.
        pool: String,
        /// The database; all when left out.
        database: Option<&'static str>,
        /// Each host's copy.
        local_store: bool,
    },
    /// Invoke-CsDatabaseFailover.
    DatabaseFailover {
        /// The pool.
        pool: String,
        /// The database.
        database: &'static str,
        /// Databases that were excluded.
        excluded: Vec<String>,
        /// The topology's mirror becomes principal; else its primary.
        to_mirror: bool,
    },
    /// Get-CsService.
    GetService {
        /// The identity that was named.
        identity: Option<String>,
        /// Pattern of the identity.
        filter: Option<String>,
        /// The pool that was named.
        pool: Option<String>,
        /// The role that was asked for.
        role: Option<&'static str>,
    },
    /// Get-CsWindowsService.
    GetWindowsService {
        /// Which.
        which: Services,
        /// Leave the activity out.
        without_activity: bool,
    },
    /// Start-CsWindowsService.
    StartWindowsService(Services),
    /// Stop-CsWindowsService.
    StopWindowsService(Services),
    /// Get-CsTopology.
    GetTopology {
        /// As the document that was published.
        document: bool,
        /// The copy of the administrator's folder.
        local_store: bool,
    },
    /// Publish-CsTopology.
    PublishTopology {
        /// The document.
        file: String,
        /// File for the one that is replaced.
        backup: Option<String>,
    },
    /// Enable-CsTopology.
    EnableTopology,
    /// Test-CsTopology.
    TestTopology {
        /// One service.
        service: Option<String>,
    },
    /// Get-CsManagementStoreReplicationStatus.
    GetReplicationStatus {
        /// One host.
        replica: Option<String>,
        /// Details of the store itself.
        store: bool,
    },
    /// Get-Help.
    Help {
        /// What to explain; an overview when left out.
        name: Option<String>,
        /// Only the examples.
        examples: bool,
        /// Only this parameter.
        parameter: Option<String>,
    },
    /// Get-Command.
    Commands {
        /// Pattern of the name.
        name: String,
    },
}

/// Which databases a mirror is installed or removed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorOf {
    /// One database; all of the topology when left out.
    pub database: Option<&'static str>,
    /// The host that was named as that of the principal.
    pub principal: String,
    /// Databases that were excluded.
    pub excluded: Vec<String>,
}

/// Which processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// By this name.
    pub name: Option<String>,
    /// On this host.
    pub host: Option<String>,
    /// Those of the pipeline.
    pub piped: bool,
    /// It is not waited until they are so.
    pub no_wait: bool,
}

/// How a list changes (management-commands §1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListChange {
    /// `@{Add=…; Remove=…}`.
    Modify {
        /// Added.
        add: Vec<String>,
        /// Removed.
        remove: Vec<String>,
    },
    /// `@{Replace=…}`, values alone, or `$Null`.
    Replace(Vec<String>),
    /// `-Swap`: what was in is out, and the other way round.
    Swap,
}

impl ListChange {
    /// The list after the change; `all` are the members that there could be, in the order of the result.
    pub fn applied<'a>(&'a self, before: &[&'a str], all: &[&'a str]) -> Vec<&'a str> {
        match self {
            ListChange::Replace(list) => list.iter().map(String::as_str).collect(),
            ListChange::Swap => all.iter().copied().filter(|name| !before.contains(name)).collect(),
            ListChange::Modify { add, remove } => {
                let kept = before.iter().copied().filter(|name| !remove.iter().any(|r| r == name));
                let mut list: Vec<&str> = kept.collect();
                for name in add {
                    if !list.contains(&name.as_str()) {
                        list.push(name);
                    }
                }
                list
            }
        }
    }
}

/// The pool that an identity names, in every spelling of the reference: `service:fqdn`, `PersistentChatServer:fqdn`,
/// `service:PersistentChatServer:fqdn`, the bare name, blanks around each part.
pub fn pool_of(identity: &str) -> String {
    let mut parts = identity.split(':').map(str::trim);
    let mut name = parts.next_back().unwrap_or_default();
    let known = ["service", "persistentchatserver"];
    if parts.any(|part| !known.contains(&part.to_ascii_lowercase().as_str())) {
        // Some other role: the whole is no name of a pool, and is shown as it was typed.
        name = identity.trim();
    }
    name.to_owned()
}

/// The database of a type of the reference.
fn database(kind: &str) -> Option<&'static str> {
    match kind {
        "PersistentChat" => Some("mgc"),
        "PersistentChatCompliance" => Some("mgccomp"),
        _ => None,
    }
}

impl Action {
    /// What a cmdlet with its parameters asks for.
    pub(crate) fn of(bound: &Bound) -> Result<Action, Problem> {
        let text = |name| bound.text(name);
        let flag = |name| bound.flag(name);
        Ok(match bound.cmdlet.name {
            "Get-CsPersistentChatState" => Action::GetState {
                pool: text("Identity").map(|i| pool_of(&i)),
                filter: text("Filter"),
                local_store: flag("LocalStore"),
            },
            "Set-CsPersistentChatState" => Action::SetState {
                pool: text("Identity").map(|i| pool_of(&i)),
                failed_over: text("PoolState").as_deref() == Some("FailedOver"),
            },
            "Get-CsPersistentChatActiveServer" => Action::GetActiveServers,
            "Set-CsPersistentChatActiveServer" => Action::SetActiveServers {
                collection: text("Identity"),
                change: if flag("Swap") { ListChange::Swap } else { list_change(bound, "ActiveServers")? },
            },
            "Install-CsMirrorDatabase" => Action::InstallMirror(mirror_of(bound)?),
            "Uninstall-CsMirrorDatabase" => Action::UninstallMirror(mirror_of(bound)?),
            "Get-CsDatabaseMirrorState" => Action::GetMirrorState {
                pool: text("PoolFqdn").unwrap_or_default(),
                database: database_type(bound)?,
                local_store: flag("LocalStore"),
            },
            "Invoke-CsDatabaseFailover" => Action::DatabaseFailover {
                pool: text("PoolFqdn").unwrap_or_default(),
                database: database_type(bound)?.unwrap_or("mgc"),
                excluded: bound.texts("ExcludeDatabaseList"),
                to_mirror: text("NewPrincipal").as_deref() == Some("Mirror"),
            },
            "Get-CsService" => Action::GetService {
                identity: text("Identity"),
                filter: text("Filter"),
                pool: text("PoolFqdn"),
                role: bound.cmdlet.parameters.iter().map(|p| p.name).find(|name| flag(name)),
            },
            "Get-CsWindowsService" => {
                Action::GetWindowsService { which: services(bound), without_activity: flag("ExcludeActivityLevel") }
            }
            "Start-CsWindowsService" => Action::StartWindowsService(services(bound)),
            "Stop-CsWindowsService" => Action::StopWindowsService(services(bound)),
            "Get-CsTopology" => Action::GetTopology { document: flag("AsXml"), local_store: flag("LocalStore") },
            "Publish-CsTopology" => {
                Action::PublishTopology { file: text("FileName").unwrap_or_default(), backup: text("BackupFileName") }
            }
            "Enable-CsTopology" => Action::EnableTopology,
            "Test-CsTopology" => Action::TestTopology { service: text("Service") },
            "Get-CsManagementStoreReplicationStatus" => Action::GetReplicationStatus {
                replica: text("ReplicaFqdn"),
                store: flag("CentralManagementStoreStatus"),
            },
            "Get-Help" => Action::Help { name: text("Name"), examples: flag("Examples"), parameter: text("Parameter") },
            "Get-Command" => Action::Commands { name: command_pattern(bound) },
            other => return Err(Problem::new(bound.at.clone(), format!("{other} is in the table and has no meaning"))),
        })
    }
}

fn command_pattern(bound: &Bound) -> String {
    let verb = bound.text("Verb").unwrap_or_else(|| "*".into());
    let noun = bound.text("Noun").unwrap_or_else(|| "*".into());
    bound.text("Name").unwrap_or_else(|| format!("{verb}-{noun}"))
}

fn services(bound: &Bound) -> Services {
    let piped = bound.piped || bound.has("InputObject");
    Services { name: bound.text("Name"), host: bound.text("ComputerName"), piped, no_wait: bound.flag("NoWait") }
}

fn mirror_of(bound: &Bound) -> Result<MirrorOf, Problem> {
    let database = database_type(bound)?;
    let excluded = bound.texts("ExcludeDatabaseList");
    Ok(MirrorOf { database, principal: bound.text("SqlServerFqdn").unwrap_or_default(), excluded })
}

/// The database of `-DatabaseType`. A type that no pool here holds is refused: to pass over it would look like success.
fn database_type(bound: &Bound) -> Result<Option<&'static str>, Problem> {
    let Some(kind) = bound.text("DatabaseType") else { return Ok(None) };
    database(&kind).map(Some).ok_or_else(|| {
        let why = format!(
            "a pool here holds no database of type {kind}; write PersistentChat (mgc) or PersistentChatCompliance (mgccomp)"
        );
        Problem::new(bound.at_of("DatabaseType"), why)
    })
}

fn list_change(bound: &Bound, name: &str) -> Result<ListChange, Problem> {
    let at = bound.at_of(name);
    let texts = |value: &Value| {
        value.texts().ok_or_else(|| {
            Problem::new(at.clone(), format!("names are expected here, and {} is no name", value.kind()))
        })
    };
    let Some(value) = bound.value(name) else { return Ok(ListChange::Replace(Vec::new())) };
    let Value::Table(pairs) = value else { return texts(value).map(ListChange::Replace) };
    let (mut add, mut remove, mut replace) = (Vec::new(), Vec::new(), None);
    for (key, value) in pairs {
        match key.to_ascii_lowercase().as_str() {
            "add" => add = texts(value)?,
            "remove" => remove = texts(value)?,
            "replace" => replace = Some(texts(value)?),
            _ => return Err(Problem::unknown(at, "change of a list", key, &["Add", "Remove", "Replace"])),
        }
    }
    match replace {
        Some(_) if !add.is_empty() || !remove.is_empty() => {
            Err(Problem::new(at, "Replace sets the whole list; it goes with neither Add nor Remove"))
        }
        Some(list) => Ok(ListChange::Replace(list)),
        None if pairs.is_empty() => Err(Problem::new(at, "the table is empty: write @{Add=…}, @{Remove=…} or $Null")),
        None => Ok(ListChange::Modify { add, remove }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_names_the_pool_in_every_spelling_of_the_reference() {
        for spelling in [
            "service:lyncpc.example.org",
            "service: lyncpc.example.org",
            "PersistentChatServer:lyncpc.example.org",
            "SERVICE:PersistentChatServer: lyncpc.example.org",
            " lyncpc.example.org ",
        ] {
            assert_eq!(pool_of(spelling), "lyncpc.example.org", "{spelling}");
        }
        assert_eq!(pool_of("Registrar:lyncpc.example.org"), "Registrar:lyncpc.example.org");
    }

    #[test]
    fn a_list_is_added_to_taken_from_replaced_and_swapped() {
        let all = ["a", "b", "c"];
        let add = ListChange::Modify { add: vec!["c".into(), "a".into()], remove: vec!["b".into()] };
        assert_eq!(add.applied(&["a", "b"], &all), ["a", "c"]);
        assert_eq!(ListChange::Replace(vec!["b".into()]).applied(&["a"], &all), ["b"]);
        assert_eq!(ListChange::Swap.applied(&["b"], &all), ["a", "c"]);
    }
}
