//! Calls over HTTP, at whichever server answers: while servers are down, not active, or wait for a writer, a call is tried
//! again for as long as the caller's patience lasts. All calls can be repeated: a second creation is refused as a conflict,
//! a second post is answered with the first result.

use crate::directory::{Directory, Seeker};
use crate::error::ClientError;
use rand::Rng;
use reqwest::{Method, StatusCode};
use rules::id::{CategoryId, RoomId, Seq};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use uuid::Uuid;
use wire::chain::ChainPage;
use wire::chat::RefusalCode;
use wire::http::{
    Category, CategoryChange, ErrorBody, NewCategory, NewGroup, NewPost, NewRoom, NewTokens, NewUser, NewUsers, Page,
    Posted, Room, RoomChange, Rooms, Servers, SignIn, SignedIn,
};
use wire::tail::{Tail, TailPage};

/// Longest wait for one answer: a server itself waits for a writer for 5 s.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Pause before a call is tried again, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 20..60;
/// Names in one call that creates users.
const NAMES_AT_ONCE: usize = 1000;

/// Which page of a room's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest entries.
    Latest,
    /// The first entries after this number.
    After(Seq),
    /// The last entries before this number.
    Before(Seq),
}

/// A user who calls.
#[derive(Debug)]
pub struct Http {
    directory: Arc<Directory>,
    patience: Duration,
    user: String,
    password: Option<String>,
    token: Mutex<String>,
}

/// What one attempt met.
enum Attempt {
    Answered(bytes::Bytes),
    Refused(ErrorBody),
    /// Try again, at another server if there is one; not before the server's word, if it gave one.
    Passing(String, Option<Duration>),
}

impl Http {
    /// Sign in with a password. Should the token be lost later, it is done again.
    ///
    /// # Errors
    /// When nobody answers in time, or nobody has this name and password.
    pub async fn sign_in(
        directory: Arc<Directory>,
        user: &str,
        password: &str,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        let http = Self {
            directory,
            patience,
            user: user.to_owned(),
            password: Some(password.to_owned()),
            token: Mutex::default(),
        };
        http.renew(password).await?;
        Ok(http)
    }

    /// Call with a token that is there already.
    pub fn with_token(directory: Arc<Directory>, user: &str, token: &str, patience: Duration) -> Self {
        Self { directory, patience, user: user.to_owned(), password: None, token: Mutex::new(token.to_owned()) }
    }

    /// The signed-in user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The token that is used now.
    pub fn token(&self) -> String {
        self.token.lock().expect("nothing that holds this lock can panic").clone()
    }

    /// Where the servers are.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Sign in again, if there is a password for that.
    ///
    /// # Errors
    /// When there is none, nobody answers, or it does not fit any more.
    pub async fn sign_in_again(&self) -> Result<String, ClientError> {
        let Some(password) = self.password.clone() else {
            return Err(ClientError::Connection(format!(
                "user {}: the token is not valid any more, and there is no password to sign in with",
                self.user
            )));
        };
        self.renew(&password).await
    }

    async fn renew(&self, password: &str) -> Result<String, ClientError> {
        let body = SignIn { user: self.user.clone(), password: password.to_owned() };
        let signed_in: SignedIn = self.ask(Method::POST, "/v1/sign-in", Some(&body), false).await?;
        self.token.lock().expect("nothing that holds this lock can panic").clone_from(&signed_in.token);
        Ok(signed_in.token)
    }

    /// Who is active.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn servers(&self) -> Result<Servers, ClientError> {
        self.get("/v1/servers").await
    }

    /// Create a user.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn create_user(&self, user: &NewUser) -> Result<(), ClientError> {
        self.send(Method::POST, "/v1/users", user).await
    }

    /// Create the users that are not there yet, and issue a token to each, in the order of the names.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn create_users(&self, names: &[String]) -> Result<Vec<SignedIn>, ClientError> {
        let mut sessions = Vec::with_capacity(names.len());
        for names in names.chunks(NAMES_AT_ONCE) {
            let body = NewUsers { names: names.to_vec() };
            let tokens: NewTokens = self.call(Method::POST, "/v1/users/batch", Some(&body)).await?;
            sessions.extend(tokens.sessions);
        }
        Ok(sessions)
    }

    /// Create a group.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn create_group(&self, group: &NewGroup) -> Result<(), ClientError> {
        self.send(Method::POST, "/v1/groups", group).await
    }

    /// All categories.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn categories(&self) -> Result<Vec<Category>, ClientError> {
        self.get("/v1/categories").await
    }

    /// Create a category.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn create_category(&self, category: &NewCategory) -> Result<Category, ClientError> {
        self.call(Method::POST, "/v1/categories", Some(category)).await
    }

    /// Change a category.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn change_category(&self, id: CategoryId, change: &CategoryChange) -> Result<Category, ClientError> {
        self.call(Method::PATCH, &format!("/v1/categories/{id}"), Some(change)).await
    }

    /// All rooms that the user may find.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn rooms(&self) -> Result<Vec<Room>, ClientError> {
        Ok(self.get::<Rooms>("/v1/rooms").await?.rooms)
    }

    /// The room of this name.
    ///
    /// # Errors
    /// When there is none that the user may find, or nobody answers.
    pub async fn room(&self, name: &str) -> Result<Room, ClientError> {
        let rooms: Rooms = self.get(&format!("/v1/rooms?name={}", in_query(name))).await?;
        rooms.rooms.into_iter().next().ok_or_else(|| ClientError::Refused {
            call: format!("find room '{name}'"),
            code: RefusalCode::NotFound,
            message: "there is no room of this name that you may find; standfast room list shows those that there are"
                .to_owned(),
        })
    }

    /// Create a room.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn create_room(&self, room: &NewRoom) -> Result<Room, ClientError> {
        self.call(Method::POST, "/v1/rooms", Some(room)).await
    }

    /// Change a room.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn change_room(&self, id: RoomId, change: &RoomChange) -> Result<Room, ClientError> {
        self.call(Method::PATCH, &format!("/v1/rooms/{id}"), Some(change)).await
    }

    /// A page of a room's log.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn page(&self, room: RoomId, which: Which, limit: u32) -> Result<Page, ClientError> {
        let bound = match which {
            Which::Latest => String::new(),
            Which::After(seq) => format!("after={seq}&"),
            Which::Before(seq) => format!("before={seq}&"),
        };
        self.get(&format!("/v1/rooms/{room}/entries?{bound}limit={limit}")).await
    }

    /// Entries of a room after a number, with all that their chain rests on: for administrators.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn chain_page(&self, room: RoomId, after: Seq) -> Result<ChainPage, ClientError> {
        self.get(&format!("/v1/rooms/{room}/chain?after={after}")).await
    }

    /// Post. The same `client_id` is the same post, however often this is called.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn post(&self, room: RoomId, client_id: Uuid, text: &str) -> Result<Posted, ClientError> {
        let body = NewPost { client_id, text: text.to_owned() };
        self.call(Method::POST, &format!("/v1/rooms/{room}/entries"), Some(&body)).await
    }

    /// The tails that the present principal's database has.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn tails(&self) -> Result<Vec<Tail>, ClientError> {
        self.get("/v1/tails").await
    }

    /// Some lines of a tail: the first, or those after what the page before gave as `next`.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn tail_page(&self, id: &str, after: Option<&str>) -> Result<TailPage, ClientError> {
        let after = after.map(|after| format!("?after={}", in_query(after))).unwrap_or_default();
        self.get(&format!("/v1/tails/{}{after}", in_query(id))).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// A call whose answer has no body.
    async fn send(&self, method: Method, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.exchange(&method, path, Some(body), true).await.map(|_| ())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        self.ask(method, path, body, true).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        signed_in: bool,
    ) -> Result<T, ClientError> {
        let answer = Box::pin(self.exchange(&method, path, body, signed_in)).await?;
        serde_json::from_slice(&answer)
            .map_err(|e| ClientError::Answer { call: format!("{method} {path}"), why: e.to_string() })
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: Option<&impl Serialize>,
        signed_in: bool,
    ) -> Result<bytes::Bytes, ClientError> {
        let began = Instant::now();
        let mut seeker = self.directory.seek();
        let mut last = "no server is active".to_owned();
        let mut come_back = None;
        let mut renewed = !signed_in || self.password.is_none();
        let nobody = |last| ClientError::NobodyAnswers {
            call: format!("{method} {path}"),
            patience_s: self.patience.as_secs(),
            last,
        };
        loop {
            let left = self.patience.saturating_sub(began.elapsed());
            match tokio::time::timeout(left, self.attempt(&mut seeker, method, path, body, signed_in)).await {
                Ok(Attempt::Answered(answer)) => return Ok(answer),
                Ok(Attempt::Refused(error)) if error.code == RefusalCode::NotSignedIn && !renewed => {
                    // A failover may have lost the newest tokens.
                    renewed = true;
                    Box::pin(self.sign_in_again()).await?;
                }
                Ok(Attempt::Refused(ErrorBody { code, message, .. })) => {
                    return Err(ClientError::Refused { call: format!("{method} {path}"), code, message });
                }
                Ok(Attempt::Passing(why, after)) => {
                    last = why;
                    come_back = after;
                }
                Err(_) => return Err(nobody(last)),
            }
            let pause = Duration::from_millis(rand::rng().random_range(PAUSE_MS));
            tokio::time::sleep(come_back.take().unwrap_or(pause)).await;
        }
    }

    async fn attempt(
        &self,
        seeker: &mut Seeker,
        method: &Method,
        path: &str,
        body: Option<&impl Serialize>,
        signed_in: bool,
    ) -> Attempt {
        let url = seeker.next().await;
        let mut request = self.directory.http().request(method.clone(), format!("{url}{path}")).timeout(ANSWER_WAIT);
        if signed_in {
            request = request.bearer_auth(self.token());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                self.directory.failed(&url);
                return Attempt::Passing(format!("{url}: {}", innermost(&error)), None);
            }
        };
        let status = answer.status();
        match answer.bytes().await {
            Ok(bytes) if status.is_success() => Attempt::Answered(bytes),
            Ok(bytes) => self.refused(&url, status, &bytes),
            Err(error) => Attempt::Passing(format!("{url}: {}", innermost(&error)), None),
        }
    }

    fn refused(&self, url: &str, status: StatusCode, body: &[u8]) -> Attempt {
        let Ok(error) = serde_json::from_slice::<ErrorBody>(body) else {
            return Attempt::Passing(format!("{url} answered {status} without saying why"), None);
        };
        match error.code {
            RefusalCode::NotActive | RefusalCode::Unavailable => {
                self.directory.failed(url);
                Attempt::Passing(format!("{url}: {}", error.message), None)
            }
            RefusalCode::Overloaded => {
                let after = error.come_back_ms.map(Duration::from_millis);
                Attempt::Passing(format!("{url}: {}", error.message), after)
            }
            _ => Attempt::Refused(error),
        }
    }
}

/// The cause that says most: reqwest's own words only name the address again.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// A text as a value in a URL's query.
fn in_query(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_query() {
        assert_eq!(in_query("Operations"), "Operations");
        assert_eq!(in_query("a b&c=ä"), "a%20b%26c%3D%C3%A4");
    }
}
