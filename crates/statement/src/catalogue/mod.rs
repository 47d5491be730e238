//! The cmdlets, as data.

mod mirror;
mod service;
mod state;
mod topology;

use crate::cmdlet::{Cmdlet, Kind, Parameter};

/// The types of databases that the reference's cmdlets know. A pool here holds those of persistent chat.
pub const DATABASE_TYPES: &[&str] = &[
    "ActiveMonitoring",
    "Application",
    "Archiving",
    "CentralMgmt",
    "Edge",
    "Lyss",
    "Monitoring",
    "PersistentChat",
    "PersistentChatCompliance",
    "Provision",
    "Registrar",
    "SigninTelemetry",
    "User",
];

/// Every cmdlet, in the order of the reference's chapters.
pub const CATALOGUE: &[&Cmdlet] = &[
    &state::GET_STATE,
    &state::SET_STATE,
    &state::GET_ACTIVE_SERVER,
    &state::SET_ACTIVE_SERVER,
    &mirror::INSTALL_MIRROR,
    &mirror::UNINSTALL_MIRROR,
    &mirror::GET_MIRROR_STATE,
    &mirror::DATABASE_FAILOVER,
    &service::GET_SERVICE,
    &service::GET_WINDOWS_SERVICE,
    &service::START_WINDOWS_SERVICE,
    &service::STOP_WINDOWS_SERVICE,
    &topology::GET_TOPOLOGY,
    &topology::PUBLISH_TOPOLOGY,
    &topology::ENABLE_TOPOLOGY,
    &topology::TEST_TOPOLOGY,
    &topology::REPLICATION_STATUS,
    &topology::GET_HELP,
    &topology::GET_COMMAND,
];

/// Cmdlets of the reference that are not in this language, with what does the same here; empty where nothing does yet.
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("New-CsPersistentChatRoom", "standfast room add"),
    ("Set-CsPersistentChatRoom", "standfast room members"),
    ("Get-CsPersistentChatRoom", "standfast room list"),
    ("Remove-CsPersistentChatRoom", ""),
    ("Clear-CsPersistentChatRoom", ""),
    ("Remove-CsPersistentChatMessage", ""),
    ("New-CsPersistentChatCategory", "standfast category add"),
    ("Set-CsPersistentChatCategory", "standfast category change"),
    ("Get-CsPersistentChatCategory", "standfast category list"),
    ("Remove-CsPersistentChatCategory", ""),
    ("Install-CsDatabase", "standfast pool initialise (standfast lab up does it in a lab)"),
    (
        "Invoke-CsPoolFailOver",
        "standfast failover --planned; with -DisasterMode, when the site is lost: standfast failover",
    ),
    ("Invoke-CsPoolFailback", "standfast failback"),
    ("Invoke-CsManagementServerFailover", "standfast failover: the management store moves with the pool's home"),
    ("Invoke-CsManagementStoreReplication", "nothing to do: every host takes over what is newer within seconds"),
    ("Test-CsDatabase", "standfast pool status"),
    ("Test-CsPersistentChatMessage", "standfast post, then standfast history"),
    ("Export-CsPersistentChatData", ""),
    ("Import-CsPersistentChatData", ""),
];

/// The cmdlet of that name, in upper or lower case.
pub fn named(name: &str) -> Option<&'static Cmdlet> {
    CATALOGUE.iter().find(|c| c.name.eq_ignore_ascii_case(name)).copied()
}

const REPORT: Parameter = Parameter::new("Report", Kind::Text, "Path of a log file in HTML that is written.");
const FORCE: Parameter =
    Parameter::new("Force", Kind::Switch, "Go on although something speaks against it that can be overridden.");
const LOCAL_STORE: Parameter = Parameter::new(
    "LocalStore",
    Kind::Switch,
    "Read the copy of the management store that one host keeps, in place of the newest that anybody has.",
);
const GLOBAL_CATALOG: Parameter = Parameter::new("GlobalCatalog", Kind::Text, "FQDN of a global catalog.")
    .nothing("no directory service is involved");
const DOMAIN_CONTROLLER: Parameter =
    Parameter::new("GlobalSettingsDomainController", Kind::Text, "FQDN of a domain controller with global settings.")
        .nothing("no directory service is involved");
const ONE_INSTANCE: &str = "a host has one instance a database";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        for cmdlet in CATALOGUE {
            let names: Vec<String> = cmdlet.all_parameters().map(|p| p.name.to_lowercase()).collect();
            for (index, name) in names.iter().enumerate() {
                assert!(!names[..index].contains(name), "{} has {name} twice", cmdlet.name);
            }
            for parameter in cmdlet.parameters {
                for set in parameter.sets {
                    assert!(cmdlet.sets.contains(set), "{} of {} is in no known set", parameter.name, cmdlet.name);
                }
                assert!(!parameter.says.is_empty());
            }
            assert!(!cmdlet.examples.is_empty(), "{} has no example", cmdlet.name);
        }
    }
}
