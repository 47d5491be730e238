//! A database that somebody else operates: Standfast's servers use it, and what keeps it alive is not Standfast's.
//!
//! Its mirror, its log shipping, its failover and its backups belong to those who operate it. The servers follow its writer
//! by themselves, through a connection string that names every place where it may be.

use crate::name::DatabaseName;
use crate::runbook::{Runbook, Unmet};
use crate::topology::Topology;
use serde::{Deserialize, Serialize};

/// A database that somebody else operates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExistingDatabase {
    /// `mgc`: what the pool calls it.
    pub name: DatabaseName,
    /// PostgreSQL's connection string (`postgresql://user@host:port,host:port/database`), without a password: every place
    /// where the writer may be. A server takes the one that accepts writes.
    pub dsn: String,
}

/// Name of the file in a server's host folder that holds the password for the connection string.
pub const PASSWORD_FILE: &str = "existing-database.password";

/// What `sslmode` may be in the connection string; `prefer` when it is not there.
pub const SSL_MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];

impl ExistingDatabase {
    /// What is wrong with the connection string, if anything, and what would be right.
    pub fn fault(&self) -> Option<String> {
        let shape = "write postgresql://user@host:port,host:port/database";
        let rest = self.dsn.strip_prefix("postgresql://").or_else(|| self.dsn.strip_prefix("postgres://"));
        let Some(rest) = rest else { return Some(format!("the dsn is no connection string; {shape}")) };
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let Some((authority, database)) = place.split_once('/').filter(|(_, database)| !database.is_empty()) else {
            return Some(format!("the dsn names no database; {shape}"));
        };
        let Some((user, hosts)) = authority.rsplit_once('@').filter(|(user, _)| !user.is_empty()) else {
            return Some(format!("the dsn names no user; {shape}"));
        };
        if user.contains(':') || rest.contains("password=") {
            return Some(format!(
                "the dsn holds a password, and the topology is copied to every host; take it out, and write it into \
                 {PASSWORD_FILE} in the folder of each server's host, readable by its owner alone"
            ));
        }
        if hosts.split(',').any(|host| host.is_empty() || host.starts_with(':')) {
            return Some(format!("the dsn names a host without a name; {shape}"));
        }
        if let Some(mode) = options.split('&').find_map(|o| o.strip_prefix("sslmode="))
            && !SSL_MODES.contains(&mode)
        {
            return Some(format!("the dsn says sslmode={mode}; there are {}", SSL_MODES.join(", ")));
        }
        database.contains('/').then(|| format!("'{database}' is no name of a database; {shape}"))
    }
}

impl Topology {
    /// The database of that name, if somebody else operates it.
    pub fn existing(&self, name: &DatabaseName) -> Option<&ExistingDatabase> {
        self.existing_databases.iter().find(|d| d.name == *name)
    }

    /// Whether every database of this pool is operated by somebody else.
    pub fn has_only_existing(&self) -> bool {
        self.databases.is_empty() && !self.existing_databases.is_empty()
    }
}

/// Why a runbook cannot be carried out where every database is somebody else's: all but the pool's initialisation.
pub fn theirs(topology: &Topology, runbook: &Runbook) -> Option<Unmet> {
    if !topology.has_only_existing() || runbook.name == crate::initialise::INITIALISE.name {
        return None;
    }
    let names: Vec<&str> = topology.existing_databases.iter().map(|d| d.name.as_str()).collect();
    Some(Unmet {
        why: format!(
            "{} of this pool is operated by somebody else (existing_database in the topology): its mirror, its log \
             shipping and its failover are theirs, not Standfast's",
            names.join(", ")
        ),
        hint: format!(
            "{} has to be done with their means; the servers follow the writer by themselves, to whichever host of the \
             dsn takes writes",
            runbook.name
        ),
        can_be_forced: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dsn: &str, expect: Option<&str>) {
        let fault = ExistingDatabase { name: "mgc".into(), dsn: dsn.into() }.fault();
        match expect {
            None => assert_eq!(fault, None, "{dsn}"),
            Some(part) => assert!(fault.as_deref().is_some_and(|f| f.contains(part)), "{dsn}: {fault:?}"),
        }
    }

    #[test]
    fn a_connection_string_names_user_hosts_and_database_and_no_password() {
        check("postgresql://chat@db1:5432,db2:5432/mgc", None);
        check("postgres://chat@db1/mgc?target_session_attrs=read-write", None);
        check("postgres://chat@db1/mgc?sslmode=verify-full&sslrootcert=ca.pem", None);
        check("postgres://chat@db1/mgc?sslmode=allow", Some("there are disable, prefer"));
        check("host=db1 dbname=mgc", Some("no connection string"));
        check("postgresql://chat@db1:5432", Some("names no database"));
        check("postgresql://db1:5432/mgc", Some("names no user"));
        check("postgresql://chat:secret@db1/mgc", Some("holds a password"));
        check("postgresql://chat@db1/mgc?password=secret", Some("holds a password"));
        check("postgresql://chat@db1,:5432/mgc", Some("without a name"));
    }
}
