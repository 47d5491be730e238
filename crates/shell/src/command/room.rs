//! `standfast room`: rooms, by administrators.

use super::tail::object;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::administrator;
use rules::access::{Privacy, Role, RoomKind};
use serde::de::DeserializeOwned;
use wire::http::{ListChange, NewRoom, Room, RoomChange};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: standfast room add Operations --category Harbour --privacy open")]
pub struct Args {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Deed {
    /// Create a room
    Add {
        /// Its name
        name: String,
        /// The category that it belongs to
        #[arg(long, value_name = "NAME")]
        category: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// Who finds and joins it
        #[arg(long, default_value = "closed", value_parser = one_of::<Privacy>(&["open", "closed", "secret"]))]
        privacy: Privacy,
        /// Who posts: everybody in it, or presenters
        #[arg(long, default_value = "normal", value_parser = one_of::<RoomKind>(&["normal", "auditorium"]))]
        kind: RoomKind,
        /// A member from the start; may be given several times
        #[arg(long, value_name = "NAME")]
        member: Vec<String>,
    },
    /// Show all rooms
    List,
    /// Put names on a room's list, or take them off
    Members {
        /// The room's name
        name: String,
        /// Put a name on the list; may be given several times
        #[arg(long, value_name = "NAME", required_unless_present = "remove")]
        add: Vec<String>,
        /// Take a name off the list; may be given several times
        #[arg(long, value_name = "NAME")]
        remove: Vec<String>,
        /// Which list
        #[arg(long, default_value = "member", value_parser = one_of::<Role>(&["member", "manager", "presenter"]))]
        role: Role,
    },
}

/// One of some words, which are the words of the HTTP API as well.
fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
) -> impl clap::builder::TypedValueParser<Value = T> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(words)
        .map(|word| serde_json::from_value(word.into()).expect("the words are those of the API"))
}

/// Run the command.
///
/// # Errors
/// When it is refused, or no server answers.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let (_, http) = administrator(context).await?;
    match args.deed {
        Deed::Add { name, category, description, privacy, kind, member: members } => {
            let new = NewRoom { name, category, description, privacy, kind, members };
            show(context, &http.create_room(&new).await?)
        }
        Deed::List => http.rooms().await?.iter().try_for_each(|room| show(context, room)),
        Deed::Members { name, add, remove, role } => {
            let room = http.room(&name).await?;
            let mut change = RoomChange::default();
            change.roles.insert(role, ListChange { add, remove });
            show(context, &http.change_room(room.id, &change).await?)
        }
    }
}

fn show(context: &Context, room: &Room) -> Outcome {
    if context.json {
        return object(room);
    }
    let word = |value: serde_json::Result<serde_json::Value>| {
        value.ok().and_then(|v| v.as_str().map(str::to_owned)).ok_or_else(|| Failure::Failed("show a room".to_owned()))
    };
    let privacy = word(serde_json::to_value(room.privacy))?;
    let kind = word(serde_json::to_value(room.kind))?;
    let off = if room.disabled { ", disabled" } else { "" };
    let Room { name, category, last_seq, .. } = room;
    output::line(&format!("{name}: in {category}, {privacy}, {kind}{off}, {last_seq} entries"))
}
