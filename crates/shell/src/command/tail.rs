//! `standfast tail`: follow a room, over failovers and whatever else happens; and how entries are shown. The tails of lost sites
//! are shown under the same word (`tails`).

use super::tails::{self, What};
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::User;
use client::{Event, Http, Identity, Proof, Session};
use rules::durability::Durability;
use rules::id::Epoch;
use rules::receipt::Durable;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::mpsc;
use wire::chat::{Content, Entry, Late, PoolStands, RefusedEntry, ReturnedRoom, TailReturned};

/// Events that may wait to be shown.
const EVENTS_MAX: usize = 1024;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example: standfast tail --user ines --room Operations"
)]
pub struct Args {
    #[command(subcommand)]
    tails: Option<What>,
    #[command(flatten)]
    follow: Option<Follow>,
}

/// The room to follow.
#[derive(Clone, Debug, clap::Args)]
struct Follow {
    #[command(flatten)]
    user: User,
    /// The room's name
    #[arg(long, value_name = "ROOM")]
    room: String,
    /// So many of the latest entries first
    #[arg(long, default_value_t = 30, value_name = "NUMBER")]
    limit: u32,
}

/// Run the command.
///
/// # Errors
/// When the room may not be joined, there is no such tail, or nobody answers.
pub async fn run(context: &Context, args: Args) -> Outcome {
    match (args.tails, args.follow) {
        (Some(what), _) => tails::run(context, what).await,
        (None, Some(room)) => follow_room(context, room).await,
        (None, None) => Err(Failure::Usage("name a user and a room to follow, or see: standfast tail --help".into())),
    }
}

/// Show the room until Ctrl-C.
async fn follow_room(context: &Context, args: Follow) -> Outcome {
    let http = args.user.sign_in(context).await?;
    let room = http.room(&args.room).await?;
    let (session, mut events) = open(&http);
    session.join(room.id, Some(args.limit)).await;
    loop {
        tokio::select! {
            told = events.recv() => {
                let Some((_, event)) = told else { return Ok(()) };
                follow(context, event)?;
            }
            _ = tokio::signal::ctrl_c() => {
                session.close().await;
                return Ok(());
            }
        }
    }
}

/// A session of the signed-in user.
pub fn open(http: &Arc<Http>) -> (Session, mpsc::Receiver<(u32, Event)>) {
    let proof = Proof::SignIn(http.clone());
    let identity = Identity { user: http.user().to_owned(), token: http.token(), proof, receipts: false };
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    (Session::open(http.directory().clone(), identity, 0, sender), events)
}

fn follow(context: &Context, event: Event) -> Outcome {
    match event {
        Event::Entry(entry) => show(context, &entry)?,
        Event::Rewound { room, from } if context.json => {
            object(&json!({ "room": room, "rewound_from": from }))?;
        }
        Event::TailReturned(told) if context.json => object(&json!({ "tail_returned": told }))?,
        Event::JoinRefused { message, .. } => return Err(Failure::Refused(message)),
        Event::Left { asked: false, .. } => {
            return Err(Failure::Refused("you may not be in this room any more".into()));
        }
        Event::Ended { reason } => return Err(Failure::Failed(reason)),
        event => {
            if let Some(note) = note(&event) {
                output::say(&note);
            }
        }
    }
    Ok(())
}

/// Print an entry: a line for people, an object for scripts.
///
/// # Errors
/// When standard output is closed.
pub fn show(context: &Context, entry: &Entry) -> Outcome {
    if context.json { object(entry) } else { output::line(&line_of(entry)) }
}

/// Print a value as an object in one line, for scripts that read line by line.
///
/// # Errors
/// When standard output is closed.
pub fn object(value: &impl serde::Serialize) -> Outcome {
    let text = serde_json::to_string(value).map_err(|e| Failure::Failed(format!("write JSON: {e}")))?;
    output::line(&text)
}

/// An entry as a line for people.
pub fn line_of(entry: &Entry) -> String {
    let time = jiff::Timestamp::from_microsecond(entry.at_us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let time = time.strftime("%Y-%m-%d %H:%M:%SZ");
    let author = harmless(&entry.author);
    let line = match &entry.content {
        Content::Post { text } => format!("{time} <{author}> {}", harmless(text)),
        Content::Removal { target } => format!("{time} * {author} removed entry {target}"),
        Content::Replacement { target, text } => {
            format!("{time} * {author} replaced entry {target}: {}", harmless(text))
        }
        Content::RoomChange { text } => format!("{time} * {author}: {}", harmless(text)),
    };
    match entry.late {
        None => line,
        Some(Late { at_us, .. }) => {
            let first = jiff::Timestamp::from_microsecond(at_us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            format!("{line} (late: first posted {}, before its site was lost)", first.strftime("%Y-%m-%d %H:%M:%SZ"))
        }
    }
}

/// What a person should know of what has come back.
fn returned(told: &TailReturned) -> String {
    let TailReturned { host, entered, there, refused, reasons, rooms, .. } = told;
    let mut note = format!("-- what the lost host {host} held has come back");
    if entered + there + refused > 0 {
        note +=
            &format!("; of yours: {entered} late arrivals, {there} that you had posted again, {refused} not entered");
    }
    for RefusedEntry { name, seq, epoch, reason, .. } in reasons {
        note +=
            &format!("\n--   not entered: number {seq} of epoch {epoch} in {}: {}", harmless(name), harmless(reason));
    }
    for ReturnedRoom { name, entered, refused, .. } in rooms {
        note += &format!("\n--   in {}: {entered} late arrivals, {refused} not entered", harmless(name));
    }
    note
}

/// A text that does nothing to a terminal: control characters and marks that turn the direction of writing are shown as
/// pictures, so that nobody can write into somebody else's line.
pub fn harmless(text: &str) -> String {
    let picture = |c: char| match c {
        '\n' => "\n    ".to_owned(),
        '\t' => "    ".to_owned(),
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}').to_string(),
        '\u{7f}' => '\u{2421}'.to_string(),
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
            '\u{fffd}'.to_string()
        }
        c => c.to_string(),
    };
    text.chars().map(picture).collect()
}

/// What is said of a post that is less durable than its category asks for.
pub fn less_than(durable: Durable, asked: Durability) -> String {
    format!("-- acknowledged as less: durable on {durable}, and the room's category asks for {asked}")
}

fn waiting(reason: &str, since_us: i64) -> String {
    let since = jiff::Timestamp::from_microsecond(since_us).ok().filter(|_| since_us > 0);
    let since = since.map(|at| format!(" since {}", at.strftime("%H:%M:%SZ"))).unwrap_or_default();
    format!("-- waiting{since}: {}", harmless(reason))
}

fn pool_changed(epoch: Epoch, now: &PoolStands, was_failed_over: bool) -> String {
    let site = harmless(&now.site);
    match (now.failed_over, was_failed_over) {
        (true, false) => format!("-- the pool has failed over to {site} (epoch {epoch})"),
        (false, true) => format!("-- the pool is back at {site} (epoch {epoch})"),
        (true, true) | (false, false) => format!("-- the pool has another writer, at {site} (epoch {epoch})"),
    }
}

/// What a person should know of an event, if anything.
pub fn note(event: &Event) -> Option<String> {
    Some(match event {
        Event::Acknowledged { durable, less_than: Some(durability), .. } => less_than(*durable, *durability),
        Event::Connected { .. } | Event::Acknowledged { .. } | Event::Entry(_) => return None,
        Event::PostWaits { reason, .. } => {
            format!("-- your post is written and not acknowledged yet: {}", harmless(reason))
        }
        Event::Disconnected { reason } => format!("-- connection lost ({reason}); looking for a server"),
        Event::Waiting { reason, since_us } => waiting(reason, *since_us),
        Event::Queued { ahead, about } => {
            format!("-- many sign in at the moment: {ahead} before you, about {} s", about.as_secs() + 1)
        }
        Event::ComesBack { after, .. } if after.is_zero() => "-- going to a server with more room".to_owned(),
        Event::ComesBack { after, reason } => format!("-- {reason}: coming back in {:.1} s", after.as_secs_f64()),
        Event::PoolChanged { epoch, now, was_failed_over } => pool_changed(*epoch, now, *was_failed_over),
        Event::Ready { .. } => "-- going on".to_owned(),
        Event::Moved { reason } => format!("-- moving: {reason}"),
        Event::Joined { name, after: None, .. } => format!("-- in {}", harmless(name)),
        Event::Joined { name, .. } => format!("-- back in {}", harmless(name)),
        Event::Rewound { from, .. } => {
            format!("-- a failover has lost entries: what you saw from number {from} on is void")
        }
        Event::OfferedAgain { posts } => format!("-- {posts} of your own posts may have been lost; posting them again"),
        Event::Left { .. } => "-- left".to_owned(),
        Event::Disorder { entry, .. } => format!("-- entry {} came out of order; asking again", entry.seq),
        Event::GivenUp { message, .. } => format!("-- not posted: {message}"),
        Event::TailReturned(told) => returned(told),
        Event::JoinRefused { message, .. } | Event::Complaint { message } | Event::Ended { reason: message } => {
            format!("-- {message}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{harmless, line_of, returned};
    use wire::chat::{Content, Entry, Late, RefusedEntry, ReturnedRoom, TailReturned};

    #[test]
    fn a_late_arrival_says_when_it_was_first_posted() {
        let late = Late { epoch: rules::id::Epoch(1), seq: rules::id::Seq(5), at_us: 1_767_225_600_000_000 };
        let mut entry = Entry {
            room: rules::id::RoomId(1),
            seq: rules::id::Seq(9),
            epoch: rules::id::Epoch(2),
            author: "ada".to_owned(),
            at_us: 1_767_229_200_000_000,
            client_id: None,
            late: Some(late),
            content: Content::Post { text: "tea".to_owned() },
        };
        assert_eq!(
            line_of(&entry),
            "2026-01-01 01:00:00Z <ada> tea (late: first posted 2026-01-01 00:00:00Z, before its site was lost)"
        );
        entry.late = None;
        assert_eq!(line_of(&entry), "2026-01-01 01:00:00Z <ada> tea");
    }

    #[test]
    fn what_has_come_back_is_told_with_what_has_not() {
        let (room, epoch) = (rules::id::RoomId(1), rules::id::Epoch(1));
        let reason = RefusedEntry {
            room,
            name: "tea".to_owned(),
            seq: rules::id::Seq(5),
            epoch,
            at_us: 0,
            client_id: None,
            reason: "the room is disabled".to_owned(),
        };
        let told = TailReturned {
            tail: "mgc-2-db".to_owned(),
            host: "db".to_owned(),
            entered: 2,
            there: 1,
            refused: 1,
            reasons: vec![reason],
            rooms: vec![ReturnedRoom { room, name: "ops".to_owned(), entered: 7, refused: 0 }],
        };
        let expect = "-- what the lost host db held has come back; of yours: 2 late arrivals, 1 that you had posted again, \
                      1 not entered\n--   not entered: number 5 of epoch 1 in tea: the room is disabled\n\
                      --   in ops: 7 late arrivals, 0 not entered";
        assert_eq!(returned(&told), expect);
    }

    #[test]
    fn texts_do_nothing_to_the_terminal() {
        assert_eq!(harmless("plain ä 🙂"), "plain ä 🙂");
        assert_eq!(harmless("\u{1b}[2J\u{7}"), "␛[2J␇");
        assert_eq!(harmless("a\nb\tc\r\u{7f}"), "a\n    b    c␍␡");
        assert_eq!(harmless("\u{9b}31m\u{202e}x"), "\u{fffd}31m\u{fffd}x");
    }
}
