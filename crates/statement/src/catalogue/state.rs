//! Pool state and active servers.

use super::{FORCE, LOCAL_STORE, REPORT};
use crate::cmdlet::{Cmdlet, Kind, Names, Parameter};

const IDENTITY: Parameter = Parameter::new(
    "Identity",
    Kind::Name(Names::Service),
    "The pool: service:FQDN, PersistentChatServer:FQDN or service:PersistentChatServer:FQDN.",
)
.at(0);

pub(super) const GET_STATE: Cmdlet = Cmdlet {
    name: "Get-CsPersistentChatState",
    synopsis: "Show the pool's state: Normal (its primary databases are used) or FailedOver (its backup databases are).",
    here: "",
    plain: "standfast pool status",
    sets: &["Identity", "Filter"],
    parameters: &[
        IDENTITY.only_in(&["Identity"]),
        Parameter::new("Filter", Kind::Text, "Pattern of the identity, such as \"*.litwareinc.com\".")
            .only_in(&["Filter"]),
        LOCAL_STORE,
    ],
    changes: false,
    shows: &["Identity", "PoolState", "Epoch", "Home", "RunUnderWay"],
    examples: &[
        ("Get-CsPersistentChatState", "Shows the pool's state."),
        (
            "Get-CsPersistentChatState | Where-Object {$_.PoolState -eq \"FailedOver\"}",
            "Shows the pool if it is failed over.",
        ),
        ("Get-CsPersistentChatState -LocalStore", "Shows the state as each host has it."),
    ],
};

pub(super) const SET_STATE: Cmdlet = Cmdlet {
    name: "Set-CsPersistentChatState",
    synopsis: "Change the pool's state; the state of every server follows. Moves no data: the database has to be online \
               at the target.",
    here: "A step of the failover or failback that is open: refused when the database is not online there. In a failback, \
           log shipping is created again first, and the state is Normal before servers are activated.",
    plain: "standfast step failover set-pool-failed-over; standfast step failback set-pool-normal",
    sets: &["Identity", "Instance"],
    parameters: &[
        IDENTITY.only_in(&["Identity"]),
        Parameter::new("Instance", Kind::Object, "An object of Get-CsPersistentChatState, by pipeline.")
            .only_in(&["Instance"])
            .piped(),
        Parameter::new("PoolState", Kind::Choice(&["Normal", "FailedOver"]), "The new state.").or("Normal"),
        FORCE,
        REPORT,
    ],
    changes: true,
    shows: &[],
    examples: &[
        (
            "Set-CsPersistentChatState -Identity \"service:atl-cs-001.litwareinc.com\" -PoolState FailedOver",
            "Step 5 of a failover.",
        ),
        (
            "Set-CsPersistentChatState -Identity \"service: lyncpc.dci.discovery.com\" -PoolState Normal",
            "Step 7 of a failback.",
        ),
        (
            "Set-CsPersistentChatState -Identity \"PersistentChatServer:atl-gc-001.litwareinc.com\" -PoolState \"FailedOver\"",
            "The same with the other spelling of the identity.",
        ),
    ],
};

pub(super) const GET_ACTIVE_SERVER: Cmdlet = Cmdlet {
    name: "Get-CsPersistentChatActiveServer",
    synopsis: "Show which servers of the pool are active. The reference has no such cmdlet; it is added here.",
    here: "",
    plain: "standfast active-servers",
    sets: &[],
    parameters: &[Parameter::new("Identity", Kind::Text, "The collection; there is one.").at(0)],
    changes: false,
    shows: &["Identity", "ServerFqdn", "Active", "Site", "ClientsAt"],
    examples: &[
        ("Get-CsPersistentChatActiveServer", "Shows every server and whether it is active."),
        ("Get-CsPersistentChatActiveServer | Where-Object {$_.Active -eq $True}", "Shows the active ones."),
    ],
};

pub(super) const SET_ACTIVE_SERVER: Cmdlet = Cmdlet {
    name: "Set-CsPersistentChatActiveServer",
    synopsis: "Say which servers of the pool accept clients and use the databases; at most 4 of 8.",
    here: "While a failover or failback is open, the step of it that sets or clears the list. With $Null in state \
           FailedOver a failback begins: what can be done online is done first. A server that leaves the list drains: it \
           moves its clients to the others.",
    plain: "standfast active-servers set SERVER…; standfast active-servers clear",
    sets: &["Explicit", "Swap"],
    parameters: &[
        Parameter::new("Identity", Kind::Text, "The collection; there is one.").at(0),
        Parameter::new(
            "ActiveServers",
            Kind::ListChange,
            "Servers to add, to remove, or the whole list; $Null for none.",
        )
        .only_in(&["Explicit"])
        .required(),
        Parameter::new("Swap", Kind::Switch, "Active ones become inactive and the others active.")
            .only_in(&["Swap"])
            .required(),
        FORCE,
        REPORT,
    ],
    changes: true,
    shows: &[],
    examples: &[
        (
            "Set-CsPersistentChatActiveServer -Identity \"PChatServerCollection\" -ActiveServers @{Add=\"atl-gc-001.litwareinc.com\"}",
            "Activates a server.",
        ),
        (
            "Set-CsPersistentChatActiveServer -Identity \"PChatServerCollection\" -ActiveServers @{Remove=\"atl-gc-001.litwareinc.com\"}",
            "Takes a server off the list.",
        ),
        (
            "Set-CsPersistentChatActiveServer -Identity \"PChatServerCollection\" -ActiveServers $Null",
            "Clears the list: step 1 of a failback.",
        ),
        ("Set-CsPersistentChatActiveServer -Identity \"PChatServerCollection\" -Swap", "Inverts the list."),
    ],
};
