//! Local passwords: argon2id, off the async threads, few at a time.

use crate::error::StoreError;
use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Hashes that may wait for their turn.
pub const WAITING_MAX: usize = 256;

/// Hashes and checks passwords. Each takes about 19 MB and 20 ms of processor time, so only a few run at once.
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Checked when there is no such user, so that the time taken does not tell.
    decoy: Arc<str>,
}

impl Passwords {
    /// With at most `at_once` hashes under way.
    pub fn new(at_once: usize) -> Result<Self, StoreError> {
        let decoy = hash_now("a password that nobody has")?;
        Ok(Self {
            turns: Arc::new(Semaphore::new(at_once.max(1))),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            decoy: decoy.into(),
        })
    }

    /// Hash a password: a PHC string.
    pub async fn hash(&self, password: String) -> Result<String, StoreError> {
        self.run(move || hash_now(&password)).await
    }

    /// Whether `password` fits `hash`. Without a hash the answer is no, after the same work.
    pub async fn fits(&self, password: String, hash: Option<String>) -> Result<bool, StoreError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.to_string());
        let fits = self
            .run(move || {
                let parsed = PasswordHash::new(&hash).map_err(|e| StoreError::Password(e.to_string()))?;
                Ok(Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok())
            })
            .await?;
        Ok(known && fits)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let busy = "too many sign-ins are under way";
        let _waiting = self.waiting.try_acquire().map_err(|_| StoreError::Busy(busy))?;
        let turn = self.turns.clone().acquire_owned().await;
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        })
        .await
        .map_err(|e| StoreError::Password(e.to_string()))?
    }
}

fn hash_now(password: &str) -> Result<String, StoreError> {
    let salt: [u8; 16] = rand::random();
    let salt = SaltString::encode_b64(&salt).map_err(|e| StoreError::Password(e.to_string()))?;
    Argon2::default()
        .hash_password(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(|e| StoreError::Password(e.to_string()))
}
