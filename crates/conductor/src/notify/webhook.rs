//! A notice as a POST of JSON: `wire::notification::WebhookBody`.

use super::{Way, at};
use cluster::notify::delivery::Failed;
use cluster::notify::{Notice, Secret};
use hmac::{Hmac, Mac};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use sha2::Sha256;
use std::time::Duration;
use wire::notification::{ID_HEADER, SIGNATURE_HEADER, WebhookBody};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// So much of an answer that refuses is shown.
const SHOWN: usize = 200;

/// Post a notice; taken when the answer is a success.
pub async fn post(way: &Way<'_>, notice: &Notice, attempt: u32) -> Result<(), Failed> {
    let url = match way.secret(Secret::Url)? {
        Some(url) => url,
        None => way.receiver.url.clone().ok_or_else(|| {
            let file = way.dir.join(way.receiver.file(Secret::Url));
            Failed::NotNow(format!("there is no address: neither url in the topology nor {}", file.display()))
        })?,
    };
    let body = body(way, notice, attempt)?;
    // Made for each notice: the certificates that the system trusts now count, and there are few notices.
    let client =
        reqwest::Client::builder().connect_timeout(CONNECT).redirect(reqwest::redirect::Policy::none()).build();
    let client = client.map_err(|e| Failed::NotNow(format!("set up the HTTP client: {e}")))?;
    let mut request = client.post(&url).header(CONTENT_TYPE, "application/json").header(ID_HEADER, &notice.id);
    if let Some(key) = way.secret(Secret::Key)? {
        request = request.header(SIGNATURE_HEADER, signature(key.as_bytes(), &body));
    }
    if let Some(token) = way.secret(Secret::Token)? {
        request = request.bearer_auth(token);
    }
    // An address may be a secret: it is not in what is said.
    let sent = request.body(body).send().await.map_err(|e| Failed::NotNow(chain(&e.without_url())))?;
    let status = sent.status();
    if status.is_success() {
        return Ok(());
    }
    let said = sent.text().await.unwrap_or_default();
    let said: String = said.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let why = format!("it answers {status}{}{}", if said.trim().is_empty() { "" } else { ": " }, said.trim());
    let patience = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    let later = status.is_server_error() || patience.contains(&status);
    Err(if later { Failed::NotNow(why) } else { Failed::Refused(why) })
}

fn body(way: &Way<'_>, notice: &Notice, attempt: u32) -> Result<Vec<u8>, Failed> {
    let mut text = notice.says.clone();
    for line in &notice.details {
        text.push('\n');
        text.push_str(line);
    }
    let body = WebhookBody {
        text,
        id: notice.id.clone(),
        event: notice.event,
        pool: way.pool.to_owned(),
        host: way.host.to_owned(),
        at: at(notice.at_ms),
        attempt,
        run: notice.run.clone(),
        message: notice.says.clone(),
        details: notice.details.clone(),
    };
    serde_json::to_vec(&body).map_err(|e| Failed::Refused(format!("write JSON: {e}")))
}

/// What a receiver compares with its own.
fn signature(key: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256={digits}")
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        cause = next.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_rfc_4231() {
        // Its second test case.
        let expect = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature(b"Jefe", b"what do ya want for nothing?"), expect);
    }
}
