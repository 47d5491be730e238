//! Notification: who is told, of what, and when. Pure; the conductor of the host that carries a run tells them.
//!
//! A notice is never kept in a list of its own: it follows from a run's journal, or from the book of alarms, every time
//! anew. What is kept for each receiver is what it has been told. So nothing is forgotten whenever a process ends, and what
//! is news no more, as a wait that is over, is not told any more.

pub mod alarm;
pub mod delivery;
pub mod run;

use serde::{Deserialize, Serialize};
use std::fmt;

/// A receiver of notices, a table `[[notify]]` of the topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receiver {
    /// Its name: that of its files with secrets, too.
    pub name: String,
    /// How it is told.
    pub kind: Kind,
    /// Webhook: where to, `https://…` or `http://…`. Left out where the address is itself a secret, and in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Mail: the server that takes it, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<String>,
    /// Mail: how the way to the server is encrypted; STARTTLS when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Mail: the user to sign in with; the password is in a file. Nobody signs in when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Mail: the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Mail: the recipients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Of what it is told; of everything when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<Event>>,
}

/// How a receiver is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A POST of JSON.
    Webhook,
    /// A mail.
    Mail,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Webhook => "webhook",
            Kind::Mail => "mail",
        })
    }
}

/// How the way to a mail server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// In the clear at first, then TLS, or not at all (submission, port 587).
    #[default]
    Starttls,
    /// TLS from the first byte on (port 465).
    Tls,
    /// In the clear: for a relay on the same machine.
    None,
}

/// What a receiver can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A run was begun, or is to be undone.
    Started,
    /// A run waits, and only a person helps.
    Waits,
    /// A run is complete.
    Finished,
    /// A run has ended before its end.
    Failed,
    /// A run was undone.
    Aborted,
    /// Something of the pool needs a person, or does not any more.
    Alert,
    /// An administrator tries whether notices arrive.
    Test,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Event::Started => "started",
            Event::Waits => "waits",
            Event::Finished => "finished",
            Event::Failed => "failed",
            Event::Aborted => "aborted",
            Event::Alert => "alert",
            Event::Test => "test",
        })
    }
}

/// Something that a receiver is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The same however often it is told, and another for every other notice of the pool.
    pub id: String,
    /// What kind of thing.
    pub event: Event,
    /// When it happened, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The run that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunName>,
    /// One sentence.
    pub says: String,
    /// What else there is to know, a line each.
    #[serde(default)]
    pub details: Vec<String>,
}

/// Which run a notice is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunName {
    /// Its id.
    pub id: String,
    /// The runbook.
    pub runbook: String,
    /// Who began it.
    pub started_by: String,
    /// The step that it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// A file with a secret of a receiver, in the folder of each host that tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// Webhook: its address, where that is a secret.
    Url,
    /// Webhook: a token, sent as `Authorization: Bearer`.
    Token,
    /// Webhook: the key that bodies are signed with.
    Key,
    /// Mail: the password of the user.
    Password,
}

impl Receiver {
    /// Whether it is to be told of this.
    pub fn wants(&self, event: Event) -> bool {
        event == Event::Test || self.events.as_ref().is_none_or(|events| events.contains(&event))
    }

    /// Name of the file with a secret of this receiver.
    pub fn file(&self, secret: Secret) -> String {
        let ending = match secret {
            Secret::Url => "url",
            Secret::Token => "token",
            Secret::Key => "key",
            Secret::Password => "password",
        };
        format!("notify-{}.{ending}", self.name)
    }

    /// Where it is told, for people, without what may be secret in an address.
    pub fn place(&self) -> String {
        match self.kind {
            Kind::Mail => format!("{} by {}", self.to.join(", "), self.smtp.as_deref().unwrap_or("no server")),
            Kind::Webhook => match self.url.as_deref().and_then(|url| url.split_once("://")) {
                Some((scheme, rest)) => format!("{scheme}://{}", rest.split(['/', '?', '#']).next().unwrap_or(rest)),
                None => format!("the address in {}", self.file(Secret::Url)),
            },
        }
    }

    /// What is wrong with it: the key that it stands at, and what would be right.
    pub fn findings(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if self.events.as_ref().is_some_and(Vec::is_empty) {
            found.push(("events", "events is empty: name at least one, or leave the key out to be told of all".into()));
        }
        if self.events.as_ref().is_some_and(|events| events.contains(&Event::Test)) {
            found.push(("events", "a test is always told: take \"test\" out".into()));
        }
        match self.kind {
            Kind::Webhook => self.webhook_findings(&mut found),
            Kind::Mail => self.mail_findings(&mut found),
        }
        found
    }

    fn webhook_findings(&self, found: &mut Vec<(&'static str, String)>) {
        let mail = [
            ("smtp", self.smtp.is_some()),
            ("tls", self.tls.is_some()),
            ("user", self.user.is_some()),
            ("from", self.from.is_some()),
            ("to", !self.to.is_empty()),
        ];
        for (key, _) in mail.into_iter().filter(|(_, there)| *there) {
            found.push((key, format!("{key} is for mail; a webhook has url")));
        }
        if let Some(fault) = self.url.as_deref().and_then(|url| url_fault(url, &self.file(Secret::Url))) {
            found.push(("url", fault));
        }
    }

    fn mail_findings(&self, found: &mut Vec<(&'static str, String)>) {
        if self.url.is_some() {
            found.push(("url", "url is for a webhook; mail has smtp, from and to".into()));
        }
        match &self.smtp {
            None => found.push(("kind", "mail needs the server that takes it: smtp = \"mail.example.org:587\"".into())),
            Some(smtp) if !is_address(smtp) => {
                found.push(("smtp", format!("'{smtp}' is no address; write it as host:port")));
            }
            Some(_) => {}
        }
        match &self.from {
            None => found.push(("kind", "mail needs a sender: from = \"standfast@example.org\"".into())),
            Some(from) if !is_mailbox(from) => {
                found.push(("from", format!("'{from}' is no mail address; write it as name@example.org")));
            }
            Some(_) => {}
        }
        if self.to.is_empty() {
            found.push(("kind", "mail needs recipients: to = [\"on-call@example.org\"]".into()));
        }
        for to in self.to.iter().filter(|to| !is_mailbox(to)) {
            found.push(("to", format!("'{to}' is no mail address; write it as name@example.org")));
        }
        if self.user.is_some() && self.tls == Some(Tls::None) {
            let says = "the password of user would go over the line in the clear: write tls = \"starttls\" or \"tls\"";
            found.push(("tls", says.into()));
        }
    }
}

fn url_fault(url: &str, file: &str) -> Option<String> {
    let shape = "write https://host/path";
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return Some(format!("'{url}' is no web address; {shape}")) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Some(format!(
            "the url holds a password, and the topology is copied to every host; take url out, and write the whole address \
             into {file} in the folder of each authority's host, readable by its owner alone"
        ));
    }
    let bad = authority.is_empty() || authority.starts_with(':') || url.contains(char::is_whitespace);
    bad.then(|| format!("'{url}' is no web address; {shape}"))
}

fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    port.and_then(|(_, port)| port.parse::<u16>().ok()).is_some_and(|port| port > 0)
}

fn is_mailbox(text: &str) -> bool {
    let parts = text.split_once('@');
    let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && !"<>,;@\"".contains(c));
    parts.is_some_and(|(name, domain)| plain(name) && plain(domain))
}
