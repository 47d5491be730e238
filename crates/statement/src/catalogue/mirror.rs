//! Database mirroring.

use super::{DATABASE_TYPES, FORCE, LOCAL_STORE, ONE_INSTANCE, REPORT};
use crate::cmdlet::{Cmdlet, Kind, Names, Parameter};

const DATABASE_TYPE: Parameter = Parameter::new(
    "DatabaseType",
    Kind::Choice(DATABASE_TYPES),
    "Which databases: PersistentChat is mgc, PersistentChatCompliance is mgccomp.",
);
const EXCLUDE: Parameter = Parameter::new("ExcludeDatabaseList", Kind::Texts, "Names of databases to leave out.");
const DROP_EXISTING: Parameter =
    Parameter::new("DropExistingDatabasesOnMirror", Kind::Switch, "Delete copies on the mirror.");
const POOL: Parameter = Parameter::new("PoolFqdn", Kind::Name(Names::Pool), "The pool.").required();
const SQL_SERVER: Parameter = Parameter::new(
    "SqlServerFqdn",
    Kind::Name(Names::Host),
    "The host of the principal: after a failover, the backup's.",
)
.required();
const INSTANCE_NAME: Parameter =
    Parameter::new("SqlInstanceName", Kind::Text, "The instance.").or("the default instance").nothing(ONE_INSTANCE);

pub(super) const INSTALL_MIRROR: Cmdlet = Cmdlet {
    name: "Install-CsMirrorDatabase",
    synopsis: "Give the principal its mirror, which the topology names, and start mirroring.",
    here: "While a failover is open, its step 6; while a failback is open, the wait until mirror and log shipping are as \
           before. The copy is made over the network, online; a witness is the topology's business.",
    plain: "standfast mirror install",
    sets: &["ByConfigured", "ByDatabase"],
    parameters: &[
        Parameter::new("ConfiguredDatabases", Kind::Switch, "Take the databases from the topology.")
            .only_in(&["ByConfigured"])
            .required(),
        DATABASE_TYPE.only_in(&["ByDatabase"]).required(),
        SQL_SERVER,
        Parameter::new("FileShare", Kind::Text, "Share for a backup on its way to the mirror.")
            .required()
            .nothing("the copy goes from the principal to the mirror directly; no share is used"),
        DROP_EXISTING.nothing("what is on the mirror follows where it can, and is rewound or replaced where it cannot"),
        EXCLUDE,
        Parameter::new("DatabasePathMap", Kind::Table, "Folders for data and log.")
            .nothing("an instance lies in its host's folder"),
        Parameter::new("ForDefaultInstance", Kind::Switch, "Only the default instance.")
            .only_in(&["ByConfigured"])
            .nothing(ONE_INSTANCE),
        Parameter::new("ForInstance", Kind::Text, "Only this instance.")
            .only_in(&["ByConfigured"])
            .nothing(ONE_INSTANCE),
        INSTANCE_NAME.only_in(&["ByDatabase"]),
        FORCE,
        REPORT,
    ],
    changes: true,
    shows: &[],
    examples: &[
        (
            "Install-CsMirrorDatabase -ConfiguredDatabases -FileShare \\\\PRIMARYBE\\csdatabackup -SqlServerFqdn primaryBE.contoso.com -DropExistingDatabasesOnMirror -Verbose",
            "Mirrors every database of the topology.",
        ),
        (
            "Install-CsMirrorDatabase -DatabaseType PersistentChat -FileShare \\\\share\\x -SqlServerFqdn backupBE.contoso.com",
            "Step 6 of a failover: mirrors the new principal.",
        ),
    ],
};

pub(super) const UNINSTALL_MIRROR: Cmdlet = Cmdlet {
    name: "Uninstall-CsMirrorDatabase",
    synopsis: "End mirroring; the principal serves alone.",
    here: "",
    plain: "standfast mirror remove",
    sets: &[],
    parameters: &[
        DATABASE_TYPE.required(),
        SQL_SERVER,
        DROP_EXISTING.nothing("the copy is kept, stopped: delete the instance's folder on the mirror's host by hand"),
        INSTANCE_NAME,
        FORCE,
        REPORT,
    ],
    changes: true,
    shows: &[],
    examples: &[(
        "Uninstall-CsMirrorDatabase -SqlServerFqdn primaryBE.contoso.com -SqlInstanceName rtc -Verbose -DatabaseType PersistentChat -DropExistingDatabasesOnMirror",
        "Ends mirroring of mgc.",
    )],
};

pub(super) const GET_MIRROR_STATE: Cmdlet = Cmdlet {
    name: "Get-CsDatabaseMirrorState",
    synopsis: "Show the mirroring state of the pool's databases.",
    here: "States are SYNCHRONIZED, SYNCHRONIZING and DISCONNECTED, as the principal sees its mirror.",
    plain: "standfast mirror state",
    sets: &[],
    parameters: &[POOL, DATABASE_TYPE.or("all"), LOCAL_STORE, REPORT],
    changes: false,
    shows: &[
        "DatabaseName",
        "PrimaryServer",
        "MirrorServer",
        "StateOnPrimary",
        "StateOnMirror",
        "MirroringStatusOnPrimary",
        "MirroringStatusOnMirror",
        "MirrorState",
    ],
    examples: &[(
        "Get-CsDatabaseMirrorState -PoolFqdn \"atl-cs-001.litwareinc.com\" -DatabaseType PersistentChat",
        "Shows the mirroring state of mgc.",
    )],
};

pub(super) const DATABASE_FAILOVER: Cmdlet = Cmdlet {
    name: "Invoke-CsDatabaseFailover",
    synopsis: "Make the mirror, or again the primary, the principal of a mirrored database.",
    here: "Primary and Mirror are the topology's names, whoever is principal now.",
    plain: "standfast database failover --new-principal mirror|primary",
    sets: &[],
    parameters: &[
        POOL,
        DATABASE_TYPE.required(),
        Parameter::new("NewPrincipal", Kind::Choice(&["Mirror", "Primary"]), "Who becomes principal.").required(),
        EXCLUDE,
        Parameter::new(
            "Force",
            Kind::Switch,
            "Force it although the present principal cannot be reached; what only that one has may be lost.",
        ),
        LOCAL_STORE.nothing("whoever decides looks at the newest record"),
        REPORT,
    ],
    changes: true,
    shows: &[],
    examples: &[
        (
            "Invoke-CsDatabaseFailover -PoolFqdn atl-cs-001.litwareinc.com -DatabaseType PersistentChat -NewPrincipal mirror -Verbose",
            "Moves mgc to the mirror.",
        ),
        (
            "Invoke-CsDatabaseFailover -PoolFqdn atl-cs-001.litwareinc.com -DatabaseType PersistentChat -NewPrincipal Primary",
            "Moves it back.",
        ),
    ],
};
