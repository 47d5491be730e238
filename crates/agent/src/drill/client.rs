//! Somebody who chats on the copy, over HTTP as anybody does.

use crate::error::Error;
use rules::id::RoomId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use store::Token;
use wire::chat::Content;
use wire::http::{NewCategory, NewPost, NewRoom, Page, Posted, Room};

/// Longest wait until the server has found its writer.
const READY_MAX: Duration = Duration::from_secs(60);
/// Longest time that a request may take.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// The user of a drill.
pub struct Client {
    http: reqwest::Client,
    base: String,
    name: String,
    message: uuid::Uuid,
    token: Mutex<String>,
}

fn failed(what: &str, cause: impl std::fmt::Display) -> Error {
    Error::Peer { what: format!("{what} on the drill's server"), cause: cause.to_string() }
}

impl Client {
    /// Somebody named after the drill, who will be served at this address.
    pub fn new(at: &str, name: &str) -> Result<Self, Error> {
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_MAX).build();
        let http = http.map_err(|e| failed("set up", e))?;
        let (base, name) = (format!("http://{at}"), name.to_owned());
        Ok(Self { http, base, name, message: uuid::Uuid::now_v7(), token: Mutex::default() })
    }

    async fn post_to<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        let began = Instant::now();
        let what = format!("post to {path}");
        let token = self.token.lock().expect("nothing panics while it holds the token").clone();
        loop {
            let sent = self.http.post(format!("{}{path}", self.base)).bearer_auth(&token).json(body).send().await;
            match sent {
                Ok(response) if response.status().is_success() => {
                    return response.json().await.map_err(|e| failed(&what, e));
                }
                // It looks for its writer, or does not listen yet.
                Ok(response) if response.status() != reqwest::StatusCode::SERVICE_UNAVAILABLE => {
                    let said = response.text().await.unwrap_or_default();
                    return Err(failed(&what, said));
                }
                Err(error) if began.elapsed() > READY_MAX => return Err(failed(&what, error)),
                Ok(response) if began.elapsed() > READY_MAX => return Err(failed(&what, response.status())),
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// A category and a room in it.
    pub async fn make_room(&self, token: Token) -> Result<RoomId, Error> {
        *self.token.lock().expect("nothing panics while it holds the token") = token.into_text();
        let category = NewCategory {
            name: format!("{} category", self.name),
            allowed_members: vec![self.name.clone()],
            ..NewCategory::default()
        };
        let _: serde_json::Value = self.post_to("/v1/categories", &category).await?;
        let room = serde_json::json!({ "name": self.name, "category": category.name, "members": [self.name] });
        let room: NewRoom = serde_json::from_value(room).map_err(|e| failed("describe a room", e))?;
        let made: Room = self.post_to("/v1/rooms", &room).await?;
        Ok(made.id)
    }

    /// Post, and return when it is acknowledged.
    pub async fn post(&self, room: RoomId) -> Result<(), Error> {
        let post = NewPost { client_id: self.message, text: self.text() };
        let _: Posted = self.post_to(&format!("/v1/rooms/{room}/entries"), &post).await?;
        Ok(())
    }

    fn text(&self) -> String {
        format!("This is {}.", self.name)
    }

    /// The post is there, as it was written.
    pub async fn read_again(&self, room: RoomId) -> Result<(), Error> {
        let what = "read the post again";
        let token = self.token.lock().expect("nothing panics while it holds the token").clone();
        let path = format!("{}/v1/rooms/{room}/entries", self.base);
        let response =
            self.http.get(path).bearer_auth(&token).send().await.and_then(reqwest::Response::error_for_status);
        let page: Page = response.map_err(|e| failed(what, e))?.json().await.map_err(|e| failed(what, e))?;
        let text = self.text();
        let is_there = page.entries.iter().any(|entry| {
            entry.client_id == Some(self.message) && matches!(&entry.content, Content::Post { text: t } if *t == text)
        });
        if is_there { Ok(()) } else { Err(failed(what, "it is not there, or not as it was written")) }
    }
}
