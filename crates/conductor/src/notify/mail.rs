//! A notice as a mail.

use super::webhook::chain;
use super::{TRY_MAX, Way};
use cluster::notify::delivery::Failed;
use cluster::notify::{Notice, Secret, Tls as Encrypted};
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use std::error::Error;

/// Nobody's vacation answers this (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// Hand a notice to the mail server; taken when that says so.
pub async fn send(way: &Way<'_>, notice: &Notice) -> Result<(), Failed> {
    let message = message(way, notice).map_err(Failed::Refused)?;
    let transport = transport(way)?;
    match transport.send(message).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_permanent() => Err(Failed::Refused(format!("it answers: {}", chain(&error)))),
        Err(error) => Err(Failed::NotNow(chain(&error))),
    }
}

fn transport(way: &Way<'_>) -> Result<AsyncSmtpTransport<Tokio1Executor>, Failed> {
    let smtp = way.receiver.smtp.as_deref().unwrap_or_default();
    let (host, port) = smtp.rsplit_once(':').unwrap_or((smtp, "587"));
    let host = host.trim_matches(['[', ']']);
    let parameters = || {
        let made = TlsParameters::new(host.to_owned());
        made.map_err(|e| Failed::NotNow(format!("set up TLS: {}", chain(&e))))
    };
    let tls = match way.receiver.tls.unwrap_or_default() {
        Encrypted::Starttls => Tls::Required(parameters()?),
        Encrypted::Tls => Tls::Wrapper(parameters()?),
        Encrypted::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(port.parse().unwrap_or(587))
        .tls(tls)
        .timeout(Some(TRY_MAX));
    if let Some(user) = &way.receiver.user {
        let password = way.secret(Secret::Password)?.ok_or_else(|| {
            let file = way.dir.join(way.receiver.file(Secret::Password));
            Failed::NotNow(format!("there is no password for {user}: write it into {}", file.display()))
        })?;
        builder = builder.credentials(Credentials::new(user.clone(), password));
    }
    Ok(builder.build())
}

/// The mail. Its Message-ID follows from the notice's id, so that one that is told again is known as the same.
fn message(way: &Way<'_>, notice: &Notice) -> Result<Message, String> {
    let mailbox = |text: &str| text.parse().map_err(|e| format!("'{text}' is no mail address: {e}"));
    let of_id = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '.' };
    let id: String = notice.id.chars().map(of_id).collect();
    let pool: String = way.pool.chars().map(of_id).collect();
    let mut builder = Message::builder()
        .message_id(Some(format!("<{id}@{pool}>")))
        .from(mailbox(way.receiver.from.as_deref().unwrap_or_default())?)
        .subject(notice.says.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect::<String>())
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN);
    for to in &way.receiver.to {
        builder = builder.to(mailbox(to)?);
    }
    let mut text = format!("{}\n", notice.says);
    for line in &notice.details {
        text.push_str(&format!("\n{line}"));
    }
    text.push_str(&format!("\n\nat: {}\nevent: {}\nid: {}\n", super::at(notice.at_ms), notice.event, notice.id));
    if let Some(run) = &notice.run {
        text.push_str(&format!("run: {} of {}, begun by {}\n", run.id, run.runbook, run.started_by));
    }
    text.push_str(&format!("told by: {}\n", way.host));
    builder.body(text).map_err(|e| format!("write the mail: {}", chain(&e)))
}
