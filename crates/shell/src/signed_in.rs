//! Signing in to the chat servers: as a user with a password, or as the pool's first administrator with its secret.

use crate::failure::Failure;
use crate::folder::{Context, Folder};
use client::{ClientError, Directory, Http};
use cluster::secret::Purpose;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

/// How long a command tries to find a server that carries a call out: a failover may be under way.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The pool's first administrator, whose password follows from the pool's secret.
pub const ADMINISTRATOR: &str = "admin";
/// Where a script puts the password.
const PASSWORD_VARIABLE: &str = "STANDFAST_PASSWORD";

/// Who signs in, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct User {
    /// Sign in as this user; the password is asked for, or taken from STANDFAST_PASSWORD
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// A chat server to begin with, instead of those in the pool's folder; may be given several times
    #[arg(long, value_name = "URL")]
    pub server: Vec<String>,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Refused { .. } => Failure::Refused(error.to_string()),
            _ => Failure::Failed(error.to_string()),
        }
    }
}

impl User {
    /// Sign in.
    ///
    /// # Errors
    /// When no server is known or answers, or the password does not fit.
    pub async fn sign_in(&self, context: &Context) -> Result<Arc<Http>, Failure> {
        let urls = self.urls(context)?;
        let password = self.password(context)?;
        let http = Http::sign_in(Directory::new(urls), &self.user, &password, PATIENCE).await?;
        Ok(Arc::new(http))
    }

    fn urls(&self, context: &Context) -> Result<Vec<String>, Failure> {
        if self.server.is_empty() {
            return Ok(context.folder()?.server_urls());
        }
        for url in &self.server {
            let at = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
            if !at.is_some_and(|at| at.contains(':') && !at.contains('/')) {
                let message = format!("--server {url}: give an address like http://chat.example.net:5041");
                return Err(Failure::Usage(message));
            }
        }
        Ok(self.server.clone())
    }

    fn password(&self, context: &Context) -> Result<String, Failure> {
        if let Ok(password) = std::env::var(PASSWORD_VARIABLE) {
            return Ok(password);
        }
        if self.user == ADMINISTRATOR
            && self.server.is_empty()
            && let Ok(folder) = context.folder()
        {
            return Ok(folder.secret.derive(Purpose::FirstAdministrator));
        }
        ask_password(&format!("Password of {}: ", self.user), PASSWORD_VARIABLE)
    }
}

/// Ask for a password without showing it.
///
/// # Errors
/// When nobody is there to type it.
pub fn ask_password(prompt: &str, variable: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        let message = format!("no password: nobody is here to type it; put it into the variable {variable}");
        return Err(Failure::Usage(message));
    }
    rpassword::prompt_password(prompt).map_err(|e| Failure::Failed(format!("read the password: {e}")))
}

/// Sign in as the pool's first administrator, with the secret in the folder.
///
/// # Errors
/// When the folder cannot be read, or no server answers.
pub async fn administrator(context: &Context) -> Result<(Folder, Arc<Http>), Failure> {
    let folder = context.folder()?;
    let directory = Directory::new(folder.server_urls());
    let password = folder.secret.derive(Purpose::FirstAdministrator);
    let http = Http::sign_in(directory, ADMINISTRATOR, &password, PATIENCE).await?;
    Ok((folder, Arc::new(http)))
}
