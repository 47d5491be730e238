//! Topology, replication of the management store, help.

use super::{DOMAIN_CONTROLLER, FORCE, GLOBAL_CATALOG, LOCAL_STORE, REPORT};
use crate::cmdlet::{Cmdlet, Kind, Names, Parameter};

pub(super) const GET_TOPOLOGY: Cmdlet = Cmdlet {
    name: "Get-CsTopology",
    synopsis: "Show the published topology.",
    here: "-AsXml gives the document that was published, which is TOML here; Publish-CsTopology takes it.",
    plain: "standfast topology show",
    sets: &[],
    parameters: &[Parameter::new("AsXml", Kind::Switch, "As the document that was published."), LOCAL_STORE],
    changes: false,
    shows: &["Pool", "Version", "Latency", "Sites", "Hosts", "Servers", "SqlInstances", "FileShares"],
    examples: &[
        ("Get-CsTopology | Select-Object -ExpandProperty SqlInstances", "Lists the instances."),
        ("(Get-CsTopology -AsXml).ToString() > C:\\Topologies\\Topology.xml", "Writes the document to a file."),
    ],
};

pub(super) const PUBLISH_TOPOLOGY: Cmdlet = Cmdlet {
    name: "Publish-CsTopology",
    synopsis: "Check a topology document, give it the next version, and copy it to every host.",
    here: "",
    plain: "standfast topology publish FILE",
    sets: &["Filename", "Document", "Finalize"],
    parameters: &[
        Parameter::new("FileName", Kind::Text, "The document.").at(0).only_in(&["Filename"]).required(),
        Parameter::new("Document", Kind::Object, "The document as an object.")
            .only_in(&["Document"])
            .required()
            .refused("a document is read from a file here: Publish-CsTopology -FileName FILE"),
        Parameter::new("FinalizeUninstall", Kind::Switch, "Publish an empty topology.")
            .only_in(&["Finalize"])
            .required()
            .refused("an empty topology would take every host out of the pool; stop the agents instead"),
        Parameter::new("BackupFileName", Kind::Text, "File for the document that is replaced.").or("none is written"),
        FORCE,
        GLOBAL_CATALOG,
        DOMAIN_CONTROLLER,
        REPORT,
    ],
    changes: true,
    shows: &[],
    examples: &[("Publish-CsTopology -FileName \"C:\\Topologies\\Topology.xml\"", "Publishes the document.")],
};

pub(super) const ENABLE_TOPOLOGY: Cmdlet = Cmdlet {
    name: "Enable-CsTopology",
    synopsis: "Let the published topology take effect.",
    here: "Publishing does that already: it is checked that every host works from the newest version.",
    plain: "standfast topology publish FILE",
    sets: &[],
    parameters: &[
        FORCE,
        GLOBAL_CATALOG,
        DOMAIN_CONTROLLER,
        Parameter::new("SkipPrepareCheck", Kind::Truth, "Leave the preparation check out.").nothing("there is none"),
        REPORT,
    ],
    changes: true,
    shows: &[],
    examples: &[("Enable-CsTopology", "Checks that every host works from the newest topology.")],
};

pub(super) const TEST_TOPOLOGY: Cmdlet = Cmdlet {
    name: "Test-CsTopology",
    synopsis: "Check that the services of the topology are there and in order.",
    here: "",
    plain: "standfast pool status",
    sets: &[],
    parameters: &[
        Parameter::new("Service", Kind::Text, "One service, by its identity."),
        GLOBAL_CATALOG,
        DOMAIN_CONTROLLER,
        REPORT,
    ],
    changes: false,
    shows: &["Service", "Result", "Error"],
    examples: &[("Test-CsTopology -Report \"C:\\Logs\\Topology.xml\"", "Checks every service, and writes a log.")],
};

pub(super) const REPLICATION_STATUS: Cmdlet = Cmdlet {
    name: "Get-CsManagementStoreReplicationStatus",
    synopsis: "Has the newest record and topology reached each host?",
    here: "",
    plain: "standfast pool status",
    sets: &[],
    parameters: &[
        Parameter::new("ReplicaFqdn", Kind::Name(Names::Host), "One host.").at(0).piped(),
        Parameter::new("CentralManagementStoreStatus", Kind::Switch, "Details of the store itself."),
    ],
    changes: false,
    shows: &["ReplicaFqdn", "UpToDate", "LastStatusReport", "LastUpdateCreation", "RecordVersion", "TopologyVersion"],
    examples: &[
        ("Get-CsManagementStoreReplicationStatus", "Shows every host."),
        (
            "Get-CsManagementStoreReplicationStatus | Where-Object {$_.UpToDate -eq $False}",
            "Shows hosts that do not have the newest yet.",
        ),
    ],
};

pub(super) const GET_HELP: Cmdlet = Cmdlet {
    name: "Get-Help",
    synopsis: "Explain a cmdlet or a database statement.",
    here: "",
    plain: "standfast help",
    sets: &[],
    parameters: &[
        Parameter::new("Name", Kind::Text, "What to explain.").at(0),
        Parameter::new("Full", Kind::Switch, "Everything.").nothing("everything is shown always"),
        Parameter::new("Detailed", Kind::Switch, "More.").nothing("everything is shown always"),
        Parameter::new("Examples", Kind::Switch, "Only the examples."),
        Parameter::new("Parameter", Kind::Text, "Only this parameter; * for all."),
    ],
    changes: false,
    shows: &[],
    examples: &[
        ("Get-Help Set-CsPersistentChatState", "Explains that cmdlet."),
        ("help sp_who2", "Explains that statement."),
    ],
};

pub(super) const GET_COMMAND: Cmdlet = Cmdlet {
    name: "Get-Command",
    synopsis: "List the cmdlets.",
    here: "",
    plain: "standfast help",
    sets: &[],
    parameters: &[
        Parameter::new("Name", Kind::Text, "Pattern of the name, such as *Mirror*.").at(0),
        Parameter::new("Noun", Kind::Text, "Pattern of the noun, such as CsPersistentChat*."),
        Parameter::new("Verb", Kind::Text, "Pattern of the verb, such as Get."),
    ],
    changes: false,
    shows: &["CommandType", "Name", "Synopsis"],
    examples: &[("Get-Command *Mirror*", "Lists the cmdlets that have to do with mirrors.")],
};
