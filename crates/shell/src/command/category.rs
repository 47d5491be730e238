//! `standfast category`: categories, by administrators.

use super::tail::object;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::administrator;
use client::Http;
use rules::durability::{Durability, Rule, WhenUnavailable};
use rules::id::CategoryId;
use wire::http::{Category, CategoryChange, ListChange, NewCategory};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  standfast category add Harbour --allow Everyone\n  \
    standfast category change Board --durability both-sites --when-unavailable wait\n  \
    standfast category add Alarms --allow Everyone --durability disk\n\n\
    With --when-unavailable wait, posts wait unacknowledged and unseen for as long as what is asked for cannot be had: with \
    both-sites also after a failover, until a second site follows again. Change it to acknowledge-as-less, and what waits is \
    acknowledged at once.\n\n\
    With --durability disk, posts go on whatever the mirror does, and a take-over inside the site may leave some behind until the old \
    principal is back.")]
pub struct Args {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Deed {
    /// Create a category
    Add {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        lists: Lists,
        #[command(flatten)]
        waits: Waits,
    },
    /// Change who is allowed, denied, or creates rooms, or what acknowledgements wait for
    Change {
        /// Its name
        name: String,
        #[command(flatten)]
        lists: Lists,
        #[command(flatten)]
        less: LessLists,
        #[command(flatten)]
        waits: Waits,
    },
    /// Show all categories with their lists
    List,
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Waits {
    /// What an acknowledgement in its rooms waits for: 'disk' (the principal's alone), 'mirror' (as everywhere) or 'both-sites'
    #[arg(long, value_name = "WHAT")]
    durability: Option<Durability>,
    /// When that cannot be had: 'acknowledge-as-less' (the default; the acknowledgement says so) or 'wait'
    #[arg(long, value_name = "WHAT")]
    when_unavailable: Option<WhenUnavailable>,
}

#[derive(Clone, Debug, clap::Args)]
struct Lists {
    /// A user or group that may be in its rooms; 'Everyone' is every user
    #[arg(long, value_name = "NAME")]
    allow: Vec<String>,
    /// A user or group that may not, whatever else is said
    #[arg(long, value_name = "NAME")]
    deny: Vec<String>,
    /// A user or group that may create rooms in it
    #[arg(long, value_name = "NAME")]
    creator: Vec<String>,
}

#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_field_names, reason = "the names are those of the options")]
struct LessLists {
    /// Take a name off the allowed ones
    #[arg(long, value_name = "NAME")]
    no_allow: Vec<String>,
    /// Take a name off the denied ones
    #[arg(long, value_name = "NAME")]
    no_deny: Vec<String>,
    /// Take a name off the creators
    #[arg(long, value_name = "NAME")]
    no_creator: Vec<String>,
}

/// Run the command.
///
/// # Errors
/// When it is refused, or no server answers.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let (_, http) = administrator(context).await?;
    match args.deed {
        Deed::Add { name, description, lists: Lists { allow, deny, creator }, waits } => {
            let new = NewCategory {
                name,
                description,
                allowed_members: allow,
                denied_members: deny,
                creators: creator,
                durability: waits.durability.unwrap_or_default(),
                when_unavailable: waits.when_unavailable.unwrap_or_default(),
            };
            show(context, &http.create_category(&new).await?)
        }
        Deed::Change { name, lists, less, waits } => {
            let change = CategoryChange {
                allowed_members: ListChange { add: lists.allow, remove: less.no_allow },
                denied_members: ListChange { add: lists.deny, remove: less.no_deny },
                creators: ListChange { add: lists.creator, remove: less.no_creator },
                durability: waits.durability,
                when_unavailable: waits.when_unavailable,
            };
            let id = find(&http, &name).await?;
            show(context, &http.change_category(id, &change).await?)
        }
        Deed::List => http.categories().await?.iter().try_for_each(|category| show(context, category)),
    }
}

async fn find(http: &Http, name: &str) -> Result<CategoryId, Failure> {
    let all = http.categories().await?;
    all.iter().find(|c| c.name == name).map(|c| c.id).ok_or_else(|| {
        Failure::Refused(format!("there is no category '{name}'; standfast category list shows those that there are"))
    })
}

fn show(context: &Context, category: &Category) -> Outcome {
    if context.json {
        return object(category);
    }
    let list = |names: &[String]| if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
    output::line(&format!(
        "{}: allowed {}; denied {}; creators {}; acknowledgements wait for {}",
        category.name,
        list(&category.allowed_members),
        list(&category.denied_members),
        list(&category.creators),
        Rule { durability: category.durability, when_unavailable: category.when_unavailable }
    ))
}
