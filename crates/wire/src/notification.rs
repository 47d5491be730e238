//! Notices on their way to people, and how it stands with them.
//!
//! | Request to an authority | Body → answer |
//! | --- | --- |
//! | `GET /v1/notifications` | → `Vec<ReceiverReport>` |
//! | `POST /v1/notifications/test` | `TestNotification` → `Vec<Tested>`; tells each receiver so, and waits for what comes of it |

use cluster::notify::{Event, Kind, RunName};
use serde::{Deserialize, Serialize};

/// Header of a webhook with the notice's id: the same at every repetition.
pub const ID_HEADER: &str = "Standfast-Notification";
/// Header of a webhook with `sha256=` and the HMAC-SHA-256 of the body under the receiver's key, in hexadecimal digits.
pub const SIGNATURE_HEADER: &str = "Standfast-Signature";

/// The body of a webhook. Chat programs show `text` and take no notice of the rest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WebhookBody {
    /// Everything in a few lines, for people.
    pub text: String,
    /// The notice's id: the same at every repetition.
    pub id: String,
    /// What kind of thing.
    pub event: Event,
    /// The pool.
    pub pool: String,
    /// The host that tells it.
    pub host: String,
    /// When it happened, RFC 3339 in UTC.
    pub at: String,
    /// The number of this try, from 1.
    pub attempt: u32,
    /// The run that it is about; left out for alerts and tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunName>,
    /// One sentence.
    pub message: String,
    /// What else there is to know, a line each.
    pub details: Vec<String>,
}

/// What became of a notice at one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The receiver.
    pub receiver: String,
    /// The notice's id.
    pub id: String,
    /// What kind of thing.
    pub event: Event,
    /// How it stands.
    pub standing: Standing,
    /// How often it was tried.
    pub tries: u32,
    /// When it was taken or given up, or tried first, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Why it was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a notice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It has not been tried yet, or one before it is still being tried.
    Waiting,
    /// It is being tried again and again.
    Failing,
    /// The receiver took it.
    Taken,
    /// It was not taken, and is not tried any more.
    GivenUp,
}

/// How it stands with a receiver, as one authority sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReceiverReport {
    /// Its name.
    pub name: String,
    /// How it is told.
    pub kind: Kind,
    /// Where, for people.
    pub place: String,
    /// What it is still to be told, oldest first, and what became of the last things, newest first.
    pub told: Vec<Told>,
}

/// Try whether notices arrive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestNotification {
    /// Only this receiver; all when left out.
    #[serde(default)]
    pub receiver: Option<String>,
    /// Who asks.
    pub by: String,
}

/// What came of a try.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tested {
    /// The receiver.
    pub receiver: String,
    /// How it was told.
    pub kind: Kind,
    /// Where, for people.
    pub place: String,
    /// Why it did not take it; `None` when it did.
    pub failed: Option<String>,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
}
