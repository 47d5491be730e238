//! The database statements of the reference's procedures (ha-dr §8, §10, §13).

use crate::cursor::Cursor;
use crate::problem::Problem;
use std::ops::Range;

/// A database statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseStatement {
    /// `exec sp_delete_log_shipping_secondary_database mgc`: step 1 of a failover.
    DeleteLogShippingSecondary {
        /// The database.
        database: String,
    },
    /// `exec sp_add_log_shipping_secondary_database mgc`: step 5 of a failback.
    AddLogShippingSecondary {
        /// The database.
        database: String,
    },
    /// `exec sp_who2`.
    Who {
        /// Only this login, SPID, or `active`.
        only: Option<String>,
    },
    /// `kill SPID`.
    Kill {
        /// The session.
        spid: i32,
    },
    /// `restore log mgc from disk = '…' with norecovery`: step 3 of a failover.
    RestoreLog {
        /// The database.
        database: String,
        /// The file that was named.
        file: String,
    },
    /// `restore database mgc with recovery`: step 4 of a failover.
    Recover {
        /// The database.
        database: String,
    },
    /// `restore database mgc from disk = '…' with replace, recovery`: step 4 of a failback.
    RestoreDatabase {
        /// The database.
        database: String,
        /// The file that was named.
        file: String,
    },
    /// `backup database mgc to disk = '…'`: step 3 of a failback.
    BackupDatabase {
        /// The database.
        database: String,
        /// The file that was named.
        file: String,
    },
    /// `alter database mgc set partner …`.
    SetPartner {
        /// The database.
        database: String,
        /// What about it.
        partner: Partner,
    },
    /// `use master`.
    Use {
        /// The database.
        database: String,
    },
    /// `go`.
    Go,
    /// `:connect HOST`: whose sessions `sp_who2` shows and `kill` ends.
    Connect {
        /// The host.
        host: String,
    },
}

/// What `alter database … set partner` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partner {
    /// `failover`: a planned switch to the mirror.
    Failover,
    /// `force_service_allow_data_loss`: the mirror takes over although the principal is gone.
    ForceService,
    /// `off`: mirroring ends.
    Off,
}

/// A database statement in the help: its form, what it does, its example.
pub struct Form {
    /// What `Get-Help` finds it by.
    pub names: &'static [&'static str],
    /// Its form.
    pub form: &'static str,
    /// What it does here.
    pub says: &'static str,
}

/// The forms, for help and completion.
pub const FORMS: &[Form] = &[
    Form {
        names: &["sp_delete_log_shipping_secondary_database"],
        form: "exec sp_delete_log_shipping_secondary_database mgc",
        says: "Failover, step 1: stop log shipping on the backup. The old primary is fenced first: its databases are stopped \
               where they answer, and the share is closed to it. To end log shipping and nothing else: log-shipping disable.",
    },
    Form {
        names: &["restore log"],
        form: "restore log mgc from disk = 'FILE' with norecovery",
        says: "Failover, step 3: apply all the log that has been copied, in sequence. One statement applies every file; \
               further ones find that it is done.",
    },
    Form {
        names: &["restore database", "restore"],
        form: "restore database mgc with recovery",
        says: "Failover, step 4: end the sessions, and bring the backup online. Afterwards no log can be applied any more.",
    },
    Form {
        names: &["sp_who2", "sp_who"],
        form: "exec sp_who2",
        says: "Show the sessions of the database: of the principal's instance, or of the backup's while there is no principal. \
               :connect HOST chooses another one.",
    },
    Form {
        names: &["kill"],
        form: "kill SPID",
        says: "End a session that sp_who2 shows; neither the agent's own nor one of the system.",
    },
    Form {
        names: &["backup"],
        form: "backup database mgc to disk = 'FILE'",
        says: "Failback, step 3: the writer is stopped \
               cleanly; the primary already holds all but its last bytes, so no file is written.",
    },
    Form {
        names: &["restore database"],
        form: "restore database mgc from disk = 'FILE' with replace, recovery",
        says: "Failback, step 4: the primary applies the last bytes and is brought online in a new epoch.",
    },
    Form {
        names: &["sp_add_log_shipping_secondary_database"],
        form: "exec sp_add_log_shipping_secondary_database mgc",
        says: "Failback, step 5: the backup follows the primary again. Otherwise, log shipping is turned on: a full backup is \
               made online and restored.",
    },
    Form {
        names: &["alter", "alter database"],
        form: "alter database mgc set partner failover | force_service_allow_data_loss | off",
        says: "Switch to the mirror; let it take over although the principal is gone; or end mirroring (failback, step 2).",
    },
    Form { names: &["use"], form: "use master", says: "Accepted: every statement names its database." },
    Form { names: &["go"], form: "go", says: "Accepted: every statement is carried out when it ends." },
    Form {
        names: &[":connect"],
        form: ":connect HOST",
        says: "Choose the instance whose sessions sp_who2 shows and kill ends.",
    },
];

/// First words of database statements.
pub const FIRST_WORDS: &[&str] = &["exec", "execute", "restore", "backup", "kill", "use", "go", "alter", ":connect"];

const PROCEDURES: &[&str] =
    &["sp_delete_log_shipping_secondary_database", "sp_add_log_shipping_secondary_database", "sp_who2"];

/// Whether a statement that begins with this word is one for the database.
pub(crate) fn begins(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    FIRST_WORDS.contains(&word.as_str()) || word.starts_with("sp_")
}

/// Read a database statement from its first word on.
pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<DatabaseStatement, Problem> {
    let mut reader = Reader { cursor };
    let at = reader.cursor.at;
    let first = reader.word();
    let statement = match first.to_ascii_lowercase().as_str() {
        "exec" | "execute" => {
            let at = reader.place();
            let name = reader.name("a procedure such as sp_who2")?;
            reader.procedure(&name, at)
        }
        "restore" => reader.restore(),
        "backup" => reader.backup(),
        "kill" => reader.kill(),
        "use" => reader.name("a database").map(|database| DatabaseStatement::Use { database }),
        "go" => Ok(DatabaseStatement::Go),
        "alter" => reader.alter(),
        ":connect" => reader.name("a host").map(|host| DatabaseStatement::Connect { host }),
        _ => reader.procedure(&first, at..at + first.len()),
    }?;
    reader.blanks();
    if reader.cursor.at_end() {
        return Ok(statement);
    }
    Err(reader.cursor.expected("the end of the statement"))
}

struct Reader<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
}

/// How a restore ends.
#[derive(Default)]
struct With {
    recovery: Option<(bool, Range<usize>)>,
}

impl Reader<'_, '_> {
    /// Pass blanks and comments.
    fn blanks(&mut self) {
        loop {
            self.cursor.skip_blanks();
            let rest = self.cursor.rest();
            if rest.starts_with("--") {
                self.cursor.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                self.cursor.at += rest.find("*/").map_or(rest.len(), |n| n + 2);
            } else {
                return;
            }
        }
    }

    fn place(&mut self) -> Range<usize> {
        self.blanks();
        let mut ahead = self.cursor.clone();
        let word = ahead.word(&['=']);
        self.cursor.at..self.cursor.at + word.len().max(self.cursor.here().len())
    }

    fn word(&mut self) -> String {
        self.blanks();
        self.cursor.word(&['='])
    }

    /// The next word without taking it; over the end of a line too, because a statement may go on there.
    fn next_word(&mut self) -> String {
        let mut ahead = self.cursor.clone();
        let mut reader = Reader { cursor: &mut ahead };
        reader.blanks();
        while reader.cursor.eat('\n') {
            reader.blanks();
        }
        reader.cursor.word(&['=']).to_ascii_lowercase()
    }

    /// Take a keyword if it comes next, perhaps on the next line.
    fn take(&mut self, keyword: &str) -> bool {
        if self.next_word() != keyword {
            return false;
        }
        self.blanks();
        while self.cursor.eat('\n') {
            self.blanks();
        }
        self.cursor.word(&['=']);
        true
    }

    fn keyword(&mut self, keywords: &[&'static str]) -> Result<&'static str, Problem> {
        let at = self.place();
        let next = self.next_word();
        for keyword in keywords {
            if next == *keyword {
                self.take(keyword);
                return Ok(keyword);
            }
        }
        if self.cursor.at_end() || next.is_empty() {
            return Err(self.cursor.expected(&keywords.join(" or ")));
        }
        Err(Problem::unknown(at, &format!("such word here ({} is expected)", keywords.join(" or ")), &next, keywords))
    }

    /// A name, plain, quoted or in brackets.
    fn name(&mut self, what: &str) -> Result<String, Problem> {
        self.blanks();
        let at = self.cursor.at;
        let name = if self.cursor.eat('[') {
            let Some(end) = self.cursor.rest().find([']', '\n']).filter(|n| self.cursor.rest()[*n..].starts_with(']'))
            else {
                return Err(Problem::new(at..at + 1, "the name that '[' opens is not closed with ']'"));
            };
            let name = self.cursor.rest()[..end].to_owned();
            self.cursor.at += end + 1;
            name
        } else if self.cursor.at_quote() {
            self.cursor.quoted()?
        } else {
            let word = self.cursor.word(&['=']);
            // N'…': a text of national characters.
            if word.eq_ignore_ascii_case("n") && self.cursor.at_quote() { self.cursor.quoted()? } else { word }
        };
        if name.is_empty() { Err(self.cursor.expected(what)) } else { Ok(name) }
    }

    fn procedure(&mut self, name: &str, at: Range<usize>) -> Result<DatabaseStatement, Problem> {
        let plain = name.rsplit('.').next().unwrap_or(name).to_ascii_lowercase();
        match plain.as_str() {
            "sp_delete_log_shipping_secondary_database" => self
                .argument("@secondary_database")
                .map(|database| DatabaseStatement::DeleteLogShippingSecondary { database }),
            "sp_add_log_shipping_secondary_database" => self
                .argument("@secondary_database")
                .map(|database| DatabaseStatement::AddLogShippingSecondary { database }),
            "sp_who2" | "sp_who" => {
                self.blanks();
                let only = if self.cursor.at_end() { None } else { Some(self.argument("@loginame")?) };
                Ok(DatabaseStatement::Who { only })
            }
            _ => Err(Problem::unknown(at, "procedure", name, PROCEDURES)),
        }
    }

    /// The argument of a procedure: `value` or `@name = value`.
    fn argument(&mut self, parameter: &str) -> Result<String, Problem> {
        let at = self.place();
        let name = self.name(&format!("a value for {parameter}"))?;
        if !name.starts_with('@') {
            return Ok(name);
        }
        if !name.eq_ignore_ascii_case(parameter) {
            return Err(Problem::new(at, format!("there is no parameter '{name}'; {parameter} is expected")));
        }
        self.blanks();
        if !self.cursor.eat('=') {
            return Err(self.cursor.expected(&format!("'=' after {parameter}")));
        }
        self.name(&format!("a value for {parameter}"))
    }

    fn kill(&mut self) -> Result<DatabaseStatement, Problem> {
        let at = self.place();
        let spid = self.name("a SPID, as sp_who2 shows it,")?;
        let number = spid.parse::<i32>().ok().filter(|n| *n > 0);
        number.map(|spid| DatabaseStatement::Kill { spid }).ok_or_else(|| {
            Problem::new(at, format!("'{spid}' is no SPID; exec sp_who2 shows them in its first column"))
        })
    }

    fn disk(&mut self) -> Result<String, Problem> {
        self.keyword(&["disk"])?;
        self.blanks();
        if !self.cursor.eat('=') {
            return Err(self.cursor.expected("'=' after disk"));
        }
        self.name("a file in quotation marks")
    }

    fn with(&mut self) -> Result<With, Problem> {
        let mut with = With::default();
        if !self.take("with") {
            return Ok(with);
        }
        loop {
            let at = self.place();
            let known = ["norecovery", "recovery", "replace", "stats", "file", "nounload"];
            match self.keyword(&known)? {
                "recovery" => with.recovery = Some((true, at)),
                "norecovery" => with.recovery = Some((false, at)),
                "stats" | "file" => {
                    self.blanks();
                    if self.cursor.eat('=') {
                        self.name("a number")?;
                    }
                }
                _ => {}
            }
            self.blanks();
            if !self.cursor.eat(',') {
                return Ok(with);
            }
        }
    }

    fn restore(&mut self) -> Result<DatabaseStatement, Problem> {
        let what = self.keyword(&["database", "log"])?;
        let database = self.name("a database such as mgc")?;
        let file = if self.take("from") { Some(self.disk()?) } else { None };
        let end = self.cursor.here();
        let with = self.with()?;
        match (what, file, with.recovery) {
            ("log", Some(file), Some((false, _))) => Ok(DatabaseStatement::RestoreLog { database, file }),
            ("log", None, _) => Err(Problem::new(end, "'from disk = …' is expected: the file with the log")),
            ("log", Some(_), Some((true, at))) => Err(Problem::new(
                at,
                "log is restored with norecovery; when all of it is applied: restore database mgc with recovery",
            )),
            ("log", Some(_), None) => Err(Problem::new(
                end,
                "'with norecovery' is expected: without it, no further log could be applied (rule R2)",
            )),
            (_, None, Some((true, _))) => Ok(DatabaseStatement::Recover { database }),
            (_, None, None) => Err(Problem::new(end, "'with recovery' or 'from disk = …' is expected")),
            (_, Some(file), None | Some((true, _))) => Ok(DatabaseStatement::RestoreDatabase { database, file }),
            (_, _, Some((false, at))) => Err(Problem::new(
                at,
                "a database is restored with recovery here; a standby is made by log shipping (exec \
                 sp_add_log_shipping_secondary_database)",
            )),
        }
    }

    fn backup(&mut self) -> Result<DatabaseStatement, Problem> {
        self.keyword(&["database"])?;
        let database = self.name("a database such as mgc")?;
        self.keyword(&["to"])?;
        let file = self.disk()?;
        if self.take("with") {
            // Options such as init, format, name = '…' change nothing here.
            loop {
                self.name("an option")?;
                self.blanks();
                if self.cursor.eat('=') {
                    self.name("a value")?;
                    self.blanks();
                }
                if !self.cursor.eat(',') {
                    break;
                }
            }
        }
        Ok(DatabaseStatement::BackupDatabase { database, file })
    }

    fn alter(&mut self) -> Result<DatabaseStatement, Problem> {
        self.keyword(&["database"])?;
        let database = self.name("a database such as mgc")?;
        self.keyword(&["set"])?;
        self.keyword(&["partner"])?;
        let partner = match self.keyword(&["failover", "force_service_allow_data_loss", "off"])? {
            "failover" => Partner::Failover,
            "off" => Partner::Off,
            _ => Partner::ForceService,
        };
        Ok(DatabaseStatement::SetPartner { database, partner })
    }
}
