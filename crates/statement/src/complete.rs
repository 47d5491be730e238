//! What could come next at the cursor.

use crate::catalogue::{CATALOGUE, named};
use crate::cmdlet::{Kind, Names, Parameter};
use crate::cursor::{dash, double_quote};
use crate::database::{FIRST_WORDS, FORMS};
use crate::stage;

/// Names that only the surroundings know.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Names of plain commands.
    pub plain: Vec<String>,
    /// The pool.
    pub pool: String,
    /// Hosts.
    pub hosts: Vec<String>,
    /// Chat servers.
    pub servers: Vec<String>,
    /// Databases.
    pub databases: Vec<String>,
    /// Runbooks with their steps.
    pub steps: Vec<(String, Vec<String>)>,
}

/// What can stand at the cursor, and from where on it replaces the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Byte of the line at which the word to be completed begins.
    pub from: usize,
    /// The words.
    pub words: Vec<String>,
}

/// Complete the text before the cursor.
pub fn complete(before: &str, around: &Surroundings) -> Candidates {
    let begin = statement_start(before);
    let from = word_start(before).max(begin);
    let word = &before[from..];
    let earlier: Vec<&str> = before[begin..from].split_whitespace().collect();
    let piped = before[..begin].trim_end().ends_with('|');
    let words = match earlier.first() {
        None if piped => after_pipe(),
        None => first_words(around),
        Some(first) => match named(first) {
            Some(cmdlet) => {
                let all: Vec<&Parameter> = cmdlet.all_parameters().collect();
                if word.starts_with(dash) {
                    let given =
                        |p: &Parameter| earlier.iter().any(|e| e.trim_start_matches(dash).eq_ignore_ascii_case(p.name));
                    all.iter().filter(|p| !given(p)).map(|p| format!("-{}", p.name)).collect()
                } else {
                    // Within a list or a table the parameter stands further back.
                    let within = earlier.last().is_some_and(|e| e.ends_with(['=', ',', '{']));
                    let mut back = earlier.iter().rev().take(if within { earlier.len() } else { 1 });
                    let last = back.find(|e| e.starts_with(dash)).map(|e| e.trim_start_matches(dash));
                    let parameter = match last {
                        Some(name) => all.iter().find(|p| p.name.eq_ignore_ascii_case(name)),
                        None => all.iter().find(|p| p.position == Some(0)),
                    };
                    if cmdlet.name == "Get-Help" {
                        help_names()
                    } else {
                        parameter.map_or(vec![], |p| values(p, around))
                    }
                }
            }
            None => later_words(first, &earlier[1..], around),
        },
    };
    let bare = word.trim_start_matches(double_quote).to_lowercase();
    let quote = if word.starts_with(double_quote) { "\"" } else { "" };
    let mut fitting: Vec<String> = words.into_iter().filter(|w| w.to_lowercase().starts_with(&bare)).collect();
    fitting.sort();
    fitting.dedup();
    let words = fitting.into_iter().map(|w| format!("{quote}{w}{quote}")).collect();
    Candidates { from, words }
}

/// Where the statement at the cursor begins: behind the last end of a statement or stage that is not in a string.
fn statement_start(before: &str) -> usize {
    let mut start = 0;
    let mut quote = None;
    let mut braces = 0_usize;
    for (at, c) in before.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => braces += 1,
            (None, '}') => braces = braces.saturating_sub(1),
            (None, ';' | '\n' | '|' | '(') if braces == 0 => start = at + c.len_utf8(),
            (None, _) => {}
        }
    }
    start + (before[start..].len() - before[start..].trim_start().len())
}

fn word_start(before: &str) -> usize {
    before
        .char_indices()
        .rev()
        .find(|(_, c)| c.is_whitespace() || matches!(c, ',' | '=' | '{' | '(' | ';' | '|'))
        .map_or(0, |(at, c)| at + c.len_utf8())
}

fn first_words(around: &Surroundings) -> Vec<String> {
    let mut words: Vec<String> = CATALOGUE.iter().map(|c| c.name.to_owned()).collect();
    words.extend(FIRST_WORDS.iter().map(|w| (*w).to_owned()));
    words.extend(around.plain.iter().cloned());
    words.extend(["help".to_owned(), "exit".to_owned()]);
    words
}

fn after_pipe() -> Vec<String> {
    let mut words: Vec<String> = stage::NAMES.iter().map(|(name, _)| (*name).to_owned()).collect();
    words.extend(CATALOGUE.iter().filter(|c| c.parameters.iter().any(|p| p.pipeline)).map(|c| c.name.to_owned()));
    words
}

fn help_names() -> Vec<String> {
    let mut words: Vec<String> = CATALOGUE.iter().map(|c| c.name.to_owned()).collect();
    words.extend(FORMS.iter().flat_map(|f| f.names).map(|n| (*n).to_owned()));
    words
}

fn values(parameter: &Parameter, around: &Surroundings) -> Vec<String> {
    match parameter.kind {
        Kind::Choice(words) => words.iter().map(|w| (*w).to_owned()).collect(),
        Kind::Truth => vec!["$True".into(), "$False".into()],
        Kind::ListChange => {
            let mut words = vec!["$Null".to_owned(), "@{Add=".to_owned(), "@{Remove=".to_owned()];
            words.extend(around.servers.iter().cloned());
            words
        }
        Kind::Name(Names::Pool) => vec![around.pool.clone()],
        Kind::Name(Names::Service) => vec![format!("service:{}", around.pool)],
        Kind::Name(Names::Host) => around.hosts.clone(),
        Kind::Name(Names::Server) => around.servers.clone(),
        Kind::Text | Kind::Texts | Kind::Table | Kind::Object | Kind::Switch => Vec::new(),
    }
}

/// What follows in a database statement or a plain command.
fn later_words(first: &str, earlier: &[&str], around: &Surroundings) -> Vec<String> {
    let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<String>>();
    let first = first.to_ascii_lowercase();
    let last = earlier.last().map(|w| w.to_ascii_lowercase());
    match (first.as_str(), last.as_deref()) {
        ("exec" | "execute", None) => {
            own(&["sp_delete_log_shipping_secondary_database", "sp_add_log_shipping_secondary_database", "sp_who2"])
        }
        ("restore", None) => own(&["database", "log"]),
        ("backup" | "alter", None) => own(&["database"]),
        ("restore" | "backup" | "alter", Some("database" | "log")) => around.databases.clone(),
        ("exec" | "execute", Some(name)) if name.starts_with("sp_") && name != "sp_who2" => around.databases.clone(),
        ("restore", Some("with")) => own(&["recovery", "norecovery", "replace"]),
        ("restore", Some(_)) => own(&["with", "from disk ="]),
        ("alter", Some("set")) => own(&["partner"]),
        ("alter", Some("partner")) => own(&["failover", "force_service_allow_data_loss", "off"]),
        ("alter", Some(_)) => own(&["set"]),
        (":connect", None) => around.hosts.clone(),
        ("help" | "man", None) => help_names(),
        ("step", None) => around.steps.iter().map(|(name, _)| name.clone()).collect(),
        ("step", Some(name)) => {
            around.steps.iter().find(|(n, _)| n == name).map_or(Vec::new(), |(_, steps)| steps.clone())
        }
        ("active-servers", Some("set")) => around.servers.clone(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, expect: &[&str]) {
        let around = Surroundings {
            plain: vec!["pool".into(), "step".into()],
            pool: "chat.example.org".into(),
            hosts: vec!["s1a".into(), "s2a".into()],
            servers: vec!["server-1".into(), "server-5".into()],
            databases: vec!["mgc".into()],
            steps: vec![("failover".into(), vec!["fence-old-primary".into(), "stop-log-shipping".into()])],
        };
        let got = complete(before, &around);
        assert_eq!(got.words, expect, "{before}");
        assert!(before.is_char_boundary(got.from));
    }

    #[test]
    fn what_can_come_next_is_offered() {
        check("set-csp", &["Set-CsPersistentChatActiveServer", "Set-CsPersistentChatState"]);
        check("Set-CsPersistentChatState -Po", &["-PoolState"]);
        check("Set-CsPersistentChatState -PoolState f", &["FailedOver"]);
        check("Set-CsPersistentChatState -Identity \"ser", &["\"service:chat.example.org\""]);
        check("Set-CsPersistentChatActiveServer -ActiveServers @{Add=server-", &["server-1", "server-5"]);
        check(
            "Set-CsPersistentChatActiveServer -ActiveServers @{Add=\"server-1\",\"server-",
            &["\"server-1\"", "\"server-5\""],
        );
        check("go; exec sp_d", &["sp_delete_log_shipping_secondary_database"]);
        check("exec sp_delete_log_shipping_secondary_database ", &["mgc"]);
        check("step failover st", &["stop-log-shipping"]);
        check("Get-CsWindowsService | st", &["Start-CsWindowsService", "Stop-CsWindowsService"]);
        check("po", &["pool"]);
        check("größe", &[]);
    }
}
