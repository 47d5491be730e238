//! `standfast history`: a page of a room's log.

use super::tail::show;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::signed_in::User;
use client::http::{Http, Which};
use rules::id::{RoomId, Seq};
use rules::limit::HISTORY_PAGE_MAX;
use wire::chat::Entry;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: standfast history --user ines --room Operations --limit 100")]
pub struct Args {
    #[command(flatten)]
    user: User,
    /// The room's name
    #[arg(long, value_name = "ROOM")]
    room: String,
    /// So many entries at most
    #[arg(long, default_value_t = 30, value_name = "NUMBER")]
    limit: usize,
    /// The last entries before this number
    #[arg(long, value_name = "NUMBER", conflicts_with = "after")]
    before: Option<i64>,
    /// The first entries after this number
    #[arg(long, value_name = "NUMBER")]
    after: Option<i64>,
}

/// Print entries in rising order.
///
/// # Errors
/// When the room may not be read, or no server answers.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let which = match (args.before, args.after) {
        (Some(before), _) => Which::Before(Seq(before)),
        (None, Some(after)) => Which::After(Seq(after)),
        (None, None) => Which::Latest,
    };
    let http = args.user.sign_in(context).await?;
    let room = http.room(&args.room).await?;
    for entry in entries(&http, room.id, which, args.limit).await? {
        show(context, &entry)?;
    }
    Ok(())
}

/// As many pages as it takes.
async fn entries(http: &Http, room: RoomId, mut which: Which, limit: usize) -> Result<Vec<Entry>, Failure> {
    let mut all: Vec<Entry> = Vec::new();
    while all.len() < limit {
        let wanted = (limit - all.len()).min(HISTORY_PAGE_MAX as usize);
        let mut page = http.page(room, which, wanted as u32).await?.entries;
        let (Some(first), Some(last)) = (page.first().map(|e| e.seq), page.last().map(|e| e.seq)) else { break };
        let end = page.len() < wanted || (first == Seq(1) && !matches!(which, Which::After(_)));
        if let Which::After(_) = which {
            which = Which::After(last);
            all.append(&mut page);
        } else {
            which = Which::Before(first);
            page.append(&mut all);
            all = page;
        }
        if end {
            break;
        }
    }
    Ok(all)
}
