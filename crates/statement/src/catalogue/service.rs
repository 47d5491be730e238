//! Services: roles of the topology, and processes on hosts.

use super::{FORCE, REPORT};
use crate::cmdlet::{Cmdlet, Kind, Names, Parameter};

const NO_SUCH_ROLE: &str = "this pool has no such role; nothing is listed for it";

/// A role of the reference that no pool here has.
const fn role(name: &'static str, set: &'static [&'static str]) -> Parameter {
    Parameter::new(name, Kind::Switch, "A role of the reference.").only_in(set).nothing(NO_SUCH_ROLE)
}

pub(super) const GET_SERVICE: Cmdlet = Cmdlet {
    name: "Get-CsService",
    synopsis: "List the services of the topology: chat servers, databases, management stores, the log share.",
    here: "The collection's identity for Set-CsPersistentChatActiveServer is that of the PersistentChatServer service.",
    plain: "standfast topology show",
    sets: &[
        "Identity",
        "Filter",
        "PersistentChatServer",
        "PersistentChatDatabase",
        "PersistentChatComplianceDatabase",
        "CentralManagement",
        "FileStore",
        "Other",
    ],
    parameters: &[
        Parameter::new("Identity", Kind::Text, "ROLE:FQDN.").at(0).only_in(&["Identity"]),
        Parameter::new("Filter", Kind::Text, "Pattern of the identity.").only_in(&["Filter"]),
        Parameter::new("PoolFqdn", Kind::Name(Names::Pool), "Only services of this pool."),
        Parameter::new("PersistentChatServer", Kind::Switch, "Chat services.").only_in(&["PersistentChatServer"]),
        Parameter::new("PersistentChatDatabase", Kind::Switch, "Content databases.")
            .only_in(&["PersistentChatDatabase"]),
        Parameter::new("PersistentChatComplianceDatabase", Kind::Switch, "Compliance databases.")
            .only_in(&["PersistentChatComplianceDatabase"]),
        Parameter::new("CentralManagement", Kind::Switch, "Management stores.").only_in(&["CentralManagement"]),
        Parameter::new("FileStore", Kind::Switch, "File shares.").only_in(&["FileStore"]),
        role("ApplicationDatabase", &["Other"]),
        role("ApplicationServer", &["Other"]),
        role("ArchivingDatabase", &["Other"]),
        role("ArchivingServer", &["Other"]),
        role("BackupServer", &["Other"]),
        role("CentralManagementDatabase", &["Other"]),
        role("ConferencingServer", &["Other"]),
        role("ConferenceServer", &["Other"]),
        role("Director", &["Other"]),
        role("EdgeServer", &["Other"]),
        role("LegalInterceptServer", &["Other"]),
        role("ManagementServer", &["Other"]),
        role("MediationServer", &["Other"]),
        role("MonitoringDatabase", &["Other"]),
        role("MonitoringServer", &["Other"]),
        role("ProvisionDatabase", &["Other"]),
        role("ProvisionServer", &["Other"]),
        role("PstnGateway", &["Other"]),
        role("Registrar", &["Other"]),
        role("TrustedApplicationPool", &["Other"]),
        role("UserDatabase", &["Other"]),
        role("UserServer", &["Other"]),
        role("VideoGateway", &["Other"]),
        role("VideoInteropServer", &["Other"]),
        role("WacServer", &["Other"]),
        role("WebServer", &["Other"]),
    ],
    changes: false,
    shows: &["Identity", "Role", "SiteID", "PoolFqdn", "DependentServiceList"],
    examples: &[
        ("Get-CsService -PersistentChatServer", "Lists the chat services, with the identity of the collection."),
        (
            "Get-CsService -PoolFqdn \"atl-cs-001.litwareinc.com\" | Select-Object Identity",
            "Lists the identities of all services of the pool.",
        ),
    ],
};

const COMPUTER: Parameter =
    Parameter::new("ComputerName", Kind::Name(Names::Host), "A host.").or("every host of the pool");
const SERVICE_NAME: Parameter = Parameter::new(
    "Name",
    Kind::Text,
    "A service: a server's name, agent, postgres; RTCCHAT for the chat servers of the host.",
);

pub(super) const GET_WINDOWS_SERVICE: Cmdlet = Cmdlet {
    name: "Get-CsWindowsService",
    synopsis: "Show the services of the pool's hosts: agents, databases, chat servers.",
    here: "What a host's agent says; the services of a host whose agent does not answer are Unknown.",
    plain: "standfast service list",
    sets: &[],
    parameters: &[
        SERVICE_NAME.at(0),
        COMPUTER,
        Parameter::new("ExcludeActivityLevel", Kind::Switch, "Leave the activity out."),
        REPORT,
    ],
    changes: false,
    shows: &["Status", "Name", "DisplayName", "RoleName", "ActivityLevel", "ComputerName"],
    examples: &[
        ("Get-CsWindowsService", "Shows all services."),
        ("Get-CsWindowsService | Where-Object {$_.Status -eq \"Running\"}", "Shows those that run."),
    ],
};

const BY_THE_AGENT: &str = "The agent of a host starts its chat servers, starts those again that end, and keeps those \
                            stopped that were stopped. Agents and databases are none of it.";

pub(super) const START_WINDOWS_SERVICE: Cmdlet = Cmdlet {
    name: "Start-CsWindowsService",
    synopsis: "Start one or all chat servers; starting one that runs is no error.",
    here: BY_THE_AGENT,
    plain: "standfast service start",
    sets: &["Name", "InputObject"],
    parameters: &[
        SERVICE_NAME.at(0).only_in(&["Name"]),
        COMPUTER.only_in(&["Name"]),
        Parameter::new("InputObject", Kind::Object, "Objects of Get-CsWindowsService, by pipeline.")
            .only_in(&["InputObject"])
            .piped(),
        FORCE,
        Parameter::new("NoWait", Kind::Switch, "Do not wait until it runs."),
        REPORT,
    ],
    changes: true,
    shows: &[],
    examples: &[
        ("Start-CsWindowsService", "Starts everything that does not run."),
        (
            "Get-CsWindowsService | Where-Object {$_.Status -ne \"Running\"} | Start-CsWindowsService",
            "The same, service by service.",
        ),
    ],
};

pub(super) const STOP_WINDOWS_SERVICE: Cmdlet = Cmdlet {
    name: "Stop-CsWindowsService",
    synopsis: "Stop one or all chat servers: each sends its clients to the other active servers first.",
    here: BY_THE_AGENT,
    plain: "standfast service stop",
    sets: &["Name", "InputObject"],
    parameters: &[
        SERVICE_NAME.at(0).only_in(&["Name"]),
        COMPUTER.only_in(&["Name"]),
        Parameter::new("InputObject", Kind::Object, "Objects of Get-CsWindowsService, by pipeline.")
            .only_in(&["InputObject"])
            .piped(),
        Parameter::new("Graceful", Kind::Switch, "Let existing requests finish first.")
            .nothing("a server always lets its clients move first"),
        FORCE,
        Parameter::new("LeaveClsAgentRunning", Kind::Switch, "Leave the logging agent running.")
            .nothing("there is none"),
        Parameter::new("LeaveWebServerRunning", Kind::Switch, "Leave the web server running.")
            .nothing("a chat server is its own web server"),
        Parameter::new("NoWait", Kind::Switch, "Do not wait until it has stopped."),
        REPORT,
    ],
    changes: true,
    shows: &[],
    examples: &[(
        "Stop-CsWindowsService -Name \"RTCCHAT\" -ComputerName atl-cs-001.litwareinc.com",
        "Stops the chat servers of a host.",
    )],
};
