//! `standfast user`: users, by administrators.

use super::tail::object;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::{administrator, ask_password};
use serde_json::json;
use wire::http::NewUser;

/// Where a script puts the new user's password.
const PASSWORD_VARIABLE: &str = "STANDFAST_NEW_PASSWORD";

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: standfast user add ines")]
pub struct Args {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Deed {
    /// Create a user; the password is asked for, or taken from STANDFAST_NEW_PASSWORD
    Add {
        /// The user's name
        name: String,
        /// The user may administer the pool
        #[arg(long)]
        administrator: bool,
    },
}

/// Run the command.
///
/// # Errors
/// When it is refused, or no server answers.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let Deed::Add { name, administrator: is_administrator } = args.deed;
    let password = new_password(&name)?;
    let (_, http) = administrator(context).await?;
    let user = NewUser { name: name.clone(), password: Some(password), administrator: is_administrator };
    http.create_user(&user).await?;
    if context.json {
        return object(&json!({ "user": name, "administrator": is_administrator }));
    }
    output::line(&format!("user {name} is there"))
}

fn new_password(name: &str) -> Result<String, Failure> {
    if let Ok(password) = std::env::var(PASSWORD_VARIABLE) {
        return Ok(password);
    }
    let first = ask_password(&format!("New password of {name}: "), PASSWORD_VARIABLE)?;
    let again = ask_password("The same again: ", PASSWORD_VARIABLE)?;
    if first == again { Ok(first) } else { Err(Failure::Usage("the two are not the same; type it again".into())) }
}
