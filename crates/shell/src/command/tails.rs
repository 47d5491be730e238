//! `standfast tail list|show|export`: what lost sites had acknowledged and history went on without, and what became of it.
//!
//! A tail that the present principal's database has is shown as the chat servers tell it; one that has only been read by the
//! agent that holds it, as that agent has it.

use super::tail::harmless;
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::administrator;
use client::Http;
use cluster::report::TailReport;
use rules::access::Role;
use rules::change::{Change, Lists, Named, Roles};
use rules::durability::Rule;
use rules::id::PrincipalId;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire::tail::{Tail, TailChange, TailCount, TailEntry, TailFate, TailKind, TailLine, TailOutcome};

/// What is to be done with tails.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum What {
    /// List the tails: those that the present principal's database has, and those that lie on a host alone
    List,
    /// Show what is in a tail, and what became of each of it
    #[command(after_help = "Example: standfast tail show mgc-2-s1a")]
    Show {
        /// The tail, as standfast tail list names it
        id: String,
        /// So many lines at most
        #[arg(long, default_value_t = 1_000, value_name = "NUMBER")]
        limit: usize,
    },
    /// Write a tail as JSON, a line for each change and entry
    #[command(after_help = "Example: standfast tail export mgc-2-s1a --to tail.jsonl")]
    Export {
        /// The tail, as standfast tail list names it
        id: String,
        /// Into this file, which must not be there yet, instead of standard output
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

/// Run the command.
///
/// # Errors
/// When there is no such tail, or nobody answers who has it.
pub async fn run(context: &Context, what: What) -> Outcome {
    let look = Tails::look(context).await?;
    match what {
        What::List => look.list(context.json),
        What::Show { id, limit } => look.show(&id, limit, context.json).await,
        What::Export { id, to } => match to {
            None => look.lines(&id, &mut |line| output::json_line(&line).map(|()| true)).await,
            Some(to) => look.export(&id, &to).await,
        },
    }
}

/// What is known of tails.
struct Tails {
    agents: Agents,
    http: Result<Arc<Http>, Failure>,
    /// Those that the present principal's database has.
    kept: Vec<Tail>,
    /// Those that lie on a host, and no database has.
    offered: Vec<TailReport>,
}

/// A tail that was named.
enum Found<'a> {
    Kept(&'a Tail),
    Offered(&'a TailReport),
}

impl Tails {
    async fn look(context: &Context) -> Result<Self, Failure> {
        let agents = Agents::new(&context.folder()?)?;
        let (look, http) = tokio::join!(agents.look(), administrator(context));
        let asked = match http {
            Ok((_, http)) => http.tails().await.map(|kept| (http, kept)).map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        let mut offered: Vec<TailReport> = look.view.reports.into_iter().flat_map(|report| report.tails).collect();
        offered.sort_by(|a, b| (a.left_by, &a.id).cmp(&(b.left_by, &b.id)));
        let (http, kept) = match asked {
            Ok((http, kept)) => (Ok(http), kept),
            Err(failure) => {
                output::say(&format!("standfast: {failure}; only what lies on hosts is known"));
                (Err(failure), Vec::new())
            }
        };
        offered.retain(|tail| !kept.iter().any(|there| there.id == tail.id));
        Ok(Self { agents, http, kept, offered })
    }

    fn list(&self, json: bool) -> Outcome {
        if json {
            let kept = self.kept.iter().map(|tail| json!({ "id": tail.id, "in_database": tail }));
            let offered = self.offered.iter().map(|tail| json!({ "id": tail.id, "on_host": tail }));
            return output::json(&kept.chain(offered).collect::<Vec<_>>());
        }
        if self.kept.is_empty() && self.offered.is_empty() {
            output::say("no tails: nothing that was acknowledged has been found that history went on without");
            return Ok(());
        }
        let mut rows =
            vec![["TAIL", "OF", "LEFT BY EPOCH", "READ", "ENTRIES", "CHANGES", "STANDS"].map(str::to_owned).to_vec()];
        rows.extend(self.kept.iter().map(|tail| {
            vec![
                tail.id.clone(),
                tail.host.clone(),
                tail.left_by.to_string(),
                tail.extracted_at.clone(),
                tail.entries.all.to_string(),
                tail.changes.all.to_string(),
                standing(tail),
            ]
        }));
        rows.extend(self.offered.iter().map(|tail| {
            vec![
                tail.id.clone(),
                tail.host.to_string(),
                tail.left_by.to_string(),
                time(tail.extracted_at_ms * 1_000),
                tail.posts.to_string(),
                tail.changes.to_string(),
                offer(tail),
            ]
        }));
        output::table(&rows)
    }

    fn named(&self, id: &str) -> Result<Found<'_>, Failure> {
        if let Some(tail) = self.kept.iter().find(|tail| tail.id == id) {
            return Ok(Found::Kept(tail));
        }
        let Some(tail) = self.offered.iter().find(|tail| tail.id == id) else {
            let ids: Vec<&str> = self.kept.iter().map(|t| &*t.id).chain(self.offered.iter().map(|t| &*t.id)).collect();
            let known =
                if ids.is_empty() { "there are none".to_owned() } else { format!("there are: {}", ids.join(", ")) };
            return Err(Failure::Failed(format!("no tail is known as '{id}'; {known}")));
        };
        Ok(Found::Offered(tail))
    }

    /// Every line of a tail, until `take` says that it has enough.
    async fn lines(&self, id: &str, take: &mut impl FnMut(TailLine) -> Result<bool, Failure>) -> Outcome {
        match self.named(id)? {
            Found::Kept(tail) => {
                let http = self.http.as_ref().map_err(Clone::clone)?;
                let mut after: Option<String> = None;
                loop {
                    let page = http.tail_page(&tail.id, after.as_deref()).await?;
                    for line in page.lines {
                        if !take(line)? {
                            return Ok(());
                        }
                    }
                    match page.next {
                        Some(next) => after = Some(next),
                        None => return Ok(()),
                    }
                }
            }
            Found::Offered(tail) => {
                if let Some(why) = &tail.unreadable {
                    return Err(Failure::Failed(format!("the tail {id} could not be read: {why}; {}", log_of(tail))));
                }
                let mut wanted = true;
                self.agents
                    .tail_lines(tail, |line| {
                        if wanted {
                            wanted = take(without_secrets(line)?)?;
                        }
                        Ok(())
                    })
                    .await
            }
        }
    }

    async fn show(&self, id: &str, limit: usize, json: bool) -> Outcome {
        let named = self.named(id)?;
        let (all, head, tail) = match named {
            Found::Kept(tail) => {
                let stands =
                    format!("{id}, left behind on {} by epoch {}: {}", tail.host, tail.left_by, standing(tail));
                (tail.entries.all + tail.changes.all, stands, json!({ "in_database": tail }))
            }
            Found::Offered(tail) => {
                let stands = format!("{id}, left behind on {} by epoch {}: {}", tail.host, tail.left_by, offer(tail));
                (tail.posts + tail.changes, stands, json!({ "on_host": tail }))
            }
        };
        let mut lines = Vec::new();
        if limit > 0 && all > 0 {
            let mut take = |line| {
                lines.push(line);
                Ok(lines.len() < limit)
            };
            self.lines(id, &mut take).await?;
        }
        if json {
            return output::json(&json!({ "tail": tail, "lines": lines }));
        }
        output::line(&head)?;
        lines.iter().try_for_each(|line| output::line(&line_of(line)))?;
        let more = all.saturating_sub(lines.len() as u64);
        if more > 0 {
            output::say(&format!("… and {more} more; standfast tail export {id} writes all of them"));
        }
        Ok(())
    }

    async fn export(&self, id: &str, to: &Path) -> Outcome {
        let failed = |e: std::io::Error| Failure::Failed(format!("write {}: {e}", to.display()));
        let mut file = BufWriter::new(create(to).map_err(failed)?);
        let mut count = 0_u64;
        let mut take = |line: TailLine| {
            serde_json::to_writer(&mut file, &line).map_err(|e| failed(e.into()))?;
            file.write_all(b"\n").map_err(failed)?;
            count += 1;
            Ok(true)
        };
        let written = self.lines(id, &mut take).await;
        if let Err(failure) = written {
            // A part of a tail must not look like one.
            let _ = std::fs::remove_file(to);
            return Err(failure);
        }
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        output::say(&format!("{count} lines in {}", to.display()));
        Ok(())
    }
}

/// A new file that only its owner reads: a tail holds what people wrote.
fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A line as an agent has it, without what nobody is shown.
fn without_secrets(line: &str) -> Result<TailLine, Failure> {
    let mut line: TailLine = serde_json::from_str(line).map_err(|e| {
        Failure::Failed(format!("a line of the tail cannot be read: {e}; is its agent of another version?"))
    })?;
    if let TailLine::Change(change) = &mut line
        && let Some(change) = change.change.as_object_mut()
    {
        change.remove("password_hash");
    }
    Ok(line)
}

fn standing(tail: &Tail) -> String {
    let sum = |pick: fn(&TailCount) -> u64| pick(&tail.entries) + pick(&tail.changes);
    let (entered, there, refused) = (sum(|c| c.entered), sum(|c| c.there), sum(|c| c.refused));
    let all = sum(|c| c.all);
    let became = format!("{entered} entered, {there} there already, {refused} refused");
    match &tail.re_entered_at {
        Some(at) => format!("dealt with at {at}: {became}"),
        None if entered + there + refused > 0 => {
            format!("being dealt with, {} of {all}: {became}", entered + there + refused)
        }
        None => "waits to be dealt with".to_owned(),
    }
}

fn offer(tail: &TailReport) -> String {
    match &tail.unreadable {
        Some(why) => format!("COULD NOT BE READ: {why}; {}", log_of(tail)),
        None => format!("lies on {}; the present principal does not have it yet", tail.host),
    }
}

fn log_of(tail: &TailReport) -> String {
    format!("its log is kept on {} in pg/{}/salvage", tail.host, tail.database)
}

/// A line of a tail as a line for people.
fn line_of(line: &TailLine) -> String {
    match line {
        TailLine::Change(change) => change_line(change),
        TailLine::Entry(entry) => entry_line(entry),
    }
}

fn change_line(change: &TailChange) -> String {
    let TailChange { at, actor_name, change: what, dealt, .. } = change;
    // What another version of the program wrote is shown as it is.
    let what = serde_json::from_value(what.clone()).map_or_else(|_| what.to_string(), |change| said(&change));
    format!("{at} * {} {}{}", harmless(actor_name), harmless(&what), fate(dealt.as_ref()))
}

fn waits_for(rule: Option<Rule>) -> String {
    rule.map(|rule| format!("; acknowledgements wait for {rule}")).unwrap_or_default()
}

/// A change as the end of a sentence that begins with who made it.
fn said(change: &Change) -> String {
    match change {
        Change::UserCreated { user, administrator, .. } => {
            format!("created the {} '{}'", if *administrator { "administrator" } else { "user" }, user.name)
        }
        Change::GroupCreated { group, members } => format!("created the group '{}': {}", group.name, names(members)),
        Change::CategoryCreated { category, lists, durability, .. } => {
            let rule = Some(*durability).filter(|rule| !rule.is_default());
            format!("created the category '{}'{}{}", category.name, on_lists(lists, ""), waits_for(rule))
        }
        Change::CategoryChanged { category, add, remove, durability } => format!(
            "changed the category '{}'{}{}{}",
            category.name,
            on_lists(add, "now "),
            on_lists(remove, "no longer "),
            waits_for(*durability)
        ),
        Change::RoomCreated { room, category, roles, .. } => {
            format!("created the room '{}' in '{}'{}", room.name, category.name, in_roles(roles, ""))
        }
        Change::RoomChanged { room, privacy, disabled, add, remove } => {
            let privacy = privacy.map(|p| format!("; it is {}", format!("{p:?}").to_lowercase())).unwrap_or_default();
            let disabled = disabled.map(|off| if off { "; it is off" } else { "; it is on" }).unwrap_or_default();
            let lists = in_roles(add, "now ") + &in_roles(remove, "no longer ");
            format!("changed the room '{}'{privacy}{disabled}{lists}", room.name)
        }
    }
}

fn names(all: &[Named<PrincipalId>]) -> String {
    all.iter().map(|named| named.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn on_lists(lists: &Lists, verb: &str) -> String {
    let all = [("allowed", &lists.allowed), ("denied", &lists.denied), ("creators", &lists.creators)];
    let one = |(list, who): (&str, &Vec<_>)| (!who.is_empty()).then(|| format!("; {verb}{list}: {}", names(who)));
    all.into_iter().filter_map(one).collect()
}

fn in_roles(roles: &Roles, verb: &str) -> String {
    let one = |(role, who): (&Role, &Vec<_>)| format!("; {verb}{}: {}", format!("{role:?}").to_lowercase(), names(who));
    roles.iter().map(one).collect()
}

fn entry_line(entry: &TailEntry) -> String {
    let (room, author) = (harmless(&entry.room_name), harmless(&entry.author_name));
    let text = harmless(entry.body.as_deref().unwrap_or_default());
    let target = entry.target.map_or("an entry".to_owned(), |target| format!("entry {target}"));
    let what = match entry.kind {
        TailKind::Post => format!("<{author}> {text}"),
        TailKind::Removal => format!("* {author} removed {target}"),
        TailKind::Replacement => format!("* {author} replaced {target}: {text}"),
        TailKind::RoomChange => format!("* {author}: {text}"),
    };
    format!("{} {room} {}: {what}{}", time(entry.at_us), entry.seq, fate(entry.dealt.as_ref()))
}

fn fate(dealt: Option<&TailOutcome>) -> String {
    let Some(TailOutcome { outcome, seq, reason, .. }) = dealt else { return String::new() };
    let number = seq.map(|seq| format!(" as {seq}")).unwrap_or_default();
    let why = reason.as_ref().map(|why| format!(": {}", harmless(why))).unwrap_or_default();
    match outcome {
        TailFate::Entered => format!("  [entered{number}]"),
        TailFate::There => format!("  [there already{number}]"),
        TailFate::Refused => format!("  [refused{why}]"),
    }
}

fn time(at_us: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(at_us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_an_agents_line_are_not_shown() {
        let line = r#"{"line":"change","n":1,"epoch":1,"actor_name":"admin","at":"2026-11-26T12:00:00Z",
            "change":{"kind":"user_created","name":"ines","password_hash":"$argon2id$secret"}}"#;
        let TailLine::Change(change) = without_secrets(line).unwrap() else { panic!("a change") };
        assert_eq!(change.change, json!({ "kind": "user_created", "name": "ines" }));
    }

    #[test]
    fn a_change_is_told_as_a_sentence() {
        let line = r#"{"line":"change","n":1,"epoch":1,"actor_name":"admin","at":"2026-11-26T12:00:00Z",
            "change":{"kind":"category_changed","category":{"id":1,"name":"Staff"},
                      "add":{"denied":[{"id":10,"name":"mara"},{"id":11,"name":"ines"}]},"remove":{}},
            "dealt":{"outcome":"refused","reason":"no","at":"2026-11-26T12:03:14Z"}}"#;
        let shown = line_of(&without_secrets(line).unwrap());
        let expect = "admin changed the category 'Staff'; now denied: mara, ines  [refused: no]";
        assert_eq!(shown, format!("2026-11-26T12:00:00Z * {expect}"));
    }

    #[test]
    fn an_entry_says_what_became_of_it() {
        let line = r#"{"line":"entry","n":1,"room":7,"room_name":"Pier","seq":4,"epoch":1,"author":10,"author_name":"ines",
            "at_us":1764158594000000,"kind":"post","body":"hello",
            "dealt":{"outcome":"entered","seq":9,"at":"2026-11-26T12:03:14Z"}}"#;
        let shown = line_of(&without_secrets(line).unwrap());
        assert_eq!(shown, "2025-11-26 12:03:14Z Pier 4: <ines> hello  [entered as 9]");
    }
}
