//! Logs of conversations as the public archives of IRC have them: `[HH:MM] <nick> text`, `[HH:MM] * nick does something`,
//! and `===` lines for joins, parts and renames. Everything else is skipped and counted.

use rules::limit::POST_BYTES_MAX;
use rules::name::PrincipalName;

/// Names that a nick may not take: they have a meaning of their own in every pool.
const RESERVED: &[&str] = &["admin", "Everyone"];

/// What somebody does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Says something.
    Say(String),
    /// Comes in.
    Join,
    /// Goes.
    Leave,
    /// Goes on under another name.
    Rename(String),
}

/// A line of a log that means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Minute of the day; `None` for lines without a time.
    pub minute: Option<u32>,
    /// Who.
    pub nick: String,
    /// Does what.
    pub deed: Deed,
}

/// A log that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The lines that mean something, in order.
    pub lines: Vec<Line>,
    /// Lines that were skipped.
    pub skipped: usize,
}

/// Read a log. Bytes that are no UTF-8 are replaced, so that every log can be played.
pub fn read(bytes: &[u8]) -> Log {
    let mut log = Log::default();
    for line in String::from_utf8_lossy(bytes).lines() {
        match line_of(line) {
            Some(line) => log.lines.push(line),
            None if line.trim().is_empty() => {}
            None => log.skipped += 1,
        }
    }
    log
}

fn line_of(line: &str) -> Option<Line> {
    if let Some(notice) = line.strip_prefix("===") {
        return notice_of(notice.trim());
    }
    let (time, rest) = line.strip_prefix('[')?.split_once(']')?;
    let minute = Some(minute_of(time)?);
    let rest = rest.trim_start();
    let (name, text) = if let Some(action) = rest.strip_prefix("* ") {
        (action.split_whitespace().next()?, rest)
    } else {
        let (name, text) = rest.strip_prefix('<')?.split_once('>')?;
        (name, text.trim())
    };
    let text = text.replace('\0', "\u{fffd}");
    if text.is_empty() || text.len() > POST_BYTES_MAX {
        return None;
    }
    Some(Line { minute, nick: nick(name)?, deed: Deed::Say(text) })
}

/// `HH:MM`, with seconds or without.
fn minute_of(time: &str) -> Option<u32> {
    let mut parts = time.trim().split(':');
    let (hour, minute): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

/// A line after `===`: a join, a part, a rename; old logs have actions there, which are skipped because nothing tells them
/// from a server's notices.
fn notice_of(notice: &str) -> Option<Line> {
    let (name, rest) = notice.split_once(' ')?;
    // A nick may be followed by its address in brackets, which may hold anything.
    let rest = rest.trim_start();
    let rest =
        if rest.starts_with('[') { rest.split_once(']').map_or("", |(_, rest)| rest.trim_start()) } else { rest };
    let deed = if rest.starts_with("has joined") {
        Deed::Join
    } else if rest.starts_with("has left") || rest.starts_with("has quit") {
        Deed::Leave
    } else {
        Deed::Rename(nick(rest.strip_prefix("is now known as ")?)?)
    };
    Some(Line { minute: None, nick: nick(name)?, deed })
}

/// A nick as a principal's name.
fn nick(name: &str) -> Option<String> {
    let name = name.trim();
    let name = if RESERVED.iter().any(|r| r.eq_ignore_ascii_case(name)) { format!("{name}_") } else { name.to_owned() };
    PrincipalName::try_from(name).ok().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Option<(Option<u32>, &str, Deed)>) {
        let expect = expect.map(|(minute, nick, deed)| Line { minute, nick: nick.to_owned(), deed });
        assert_eq!(line_of(line), expect, "{line}");
    }

    fn say(text: &str) -> Deed {
        Deed::Say(text.to_owned())
    }

    #[test]
    fn every_kind_of_line() {
        check("[12:18] <|trey|> usual, quite stable :)", Some((Some(738), "|trey|", say("usual, quite stable :)"))));
        check("[00:00] <a>  x > y ", Some((Some(0), "a", say("x > y"))));
        check("[23:59:59] <a> x", Some((Some(1439), "a", say("x"))));
        check("[10:00]  * genii ponders OS/2", Some((Some(600), "genii", say("* genii ponders OS/2"))));
        check("=== tuxx [~t@h]  has joined #ubuntu", Some((None, "tuxx", Deed::Join)));
        check("=== topyli [~j@h]  has left #ubuntu []", Some((None, "topyli", Deed::Leave)));
        check("=== topyli has quit [bye]", Some((None, "topyli", Deed::Leave)));
        check("=== a is now known as b", Some((None, "a", Deed::Rename("b".to_owned()))));
        check("[10:00] <admin> hello", Some((Some(600), "admin_", say("hello"))));
        for skipped in ["", "=== Matt| scrolls up", "[25:00] <a> x", "[10:00] <a>", "[10:00] <> x", "hello", "[10:00]"]
        {
            check(skipped, None);
        }
    }

    #[test]
    fn a_log_that_is_no_utf8_is_read_all_the_same() {
        let log = read(b"[10:00] <a> caf\xe9\n\nrubbish\n=== a is now known as b\n");
        assert_eq!((log.lines.len(), log.skipped), (2, 1));
        assert_eq!(log.lines[0].deed, say("caf\u{fffd}"));
    }
}
