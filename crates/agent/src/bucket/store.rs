//! Objects below one prefix of a bucket: what of an S3-compatible store the log share needs, with bounds on every request and
//! errors that name what is wrong. The only place that knows the client.

use cluster::name::DatabaseName;
use cluster::shipping_settings::{LogShipping, split_bucket};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion,
};
use serde::Deserialize;
use std::time::Duration;

/// File in a host's folder with the key that opens the bucket.
pub const CREDENTIALS_FILE: &str = "s3.credentials";
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest wait for an answer about one object. They have a megabyte at most.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest wait for a list of all.
const LIST: Duration = Duration::from_secs(15);
/// Where the endpoint says no other region.
const REGION: &str = "us-east-1";

/// The key, as TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    session_token: Option<String>,
}

/// An object, by its name below the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// When it was last written, by the store's clock: milliseconds since the Unix epoch.
    pub changed_ms: i64,
    /// Tells this content from another one.
    pub tag: Option<String>,
}

/// What became of an object that was to be new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum New {
    /// It is there now.
    Created,
    /// There was one of this name.
    There,
}

/// A prefix of a bucket.
pub struct Store {
    client: AmazonS3,
    prefix: String,
}

impl Store {
    /// Open the share of a database. `host_folder` holds the key.
    ///
    /// # Errors
    /// When the key is missing or unreadable, for people.
    pub fn open(
        settings: &LogShipping,
        database: &DatabaseName,
        host_folder: &std::path::Path,
    ) -> Result<Self, String> {
        let (bucket, prefix) =
            split_bucket(&settings.share).ok_or_else(|| format!("{} names no bucket", settings.share))?;
        let file = host_folder.join(CREDENTIALS_FILE);
        let text = std::fs::read_to_string(&file)
            .map_err(|e| format!("read {}: {e}; it holds the key of the bucket (docs/topology.md)", file.display()))?;
        let key: Credentials = toml::from_str(&text).map_err(|e| format!("{}: {}", file.display(), e.message()))?;
        let place = settings.s3.clone().unwrap_or_default();
        let options = ClientOptions::new().with_timeout(ANSWER).with_connect_timeout(CONNECT);
        // What failed is tried again by whoever wanted it, who then also looks whether it is still wanted.
        let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: ANSWER };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(place.region.as_deref().unwrap_or(REGION))
            .with_access_key_id(key.access_key_id)
            .with_secret_access_key(key.secret_access_key)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(token) = key.session_token {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = place.endpoint {
            builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
        }
        let client = builder.build().map_err(|e| format!("open {}: {e}", settings.share))?;
        let prefix = if prefix.is_empty() { database.to_string() } else { format!("{prefix}/{database}") };
        Ok(Self { client, prefix })
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.prefix))
    }

    /// Every object.
    pub async fn list(&self) -> Result<Vec<Object>, String> {
        let prefix = Path::from(self.prefix.clone());
        let all = self.client.list(Some(&prefix)).try_collect::<Vec<_>>();
        let all = bounded(LIST, all.boxed()).await.map_err(|e| words(&e))?;
        let below = format!("{prefix}/");
        let object = |meta: object_store::ObjectMeta| {
            let name = meta.location.as_ref().strip_prefix(&below)?.to_owned();
            let changed_ms = meta.last_modified.timestamp_millis();
            Some(Object { name, bytes: meta.size, changed_ms, tag: meta.e_tag })
        };
        Ok(all.into_iter().filter_map(object).collect())
    }

    /// An object's content, and what tells it from another one; `None` where there is none.
    pub async fn get(&self, name: &str) -> Result<Option<(Vec<u8>, UpdateVersion)>, String> {
        let path = self.path(name);
        let read = async {
            let got = self.client.get(&path).await?;
            let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
            Ok((got.bytes().await?.to_vec(), version))
        };
        match bounded(ANSWER, read.boxed()).await {
            Ok(got) => Ok(Some(got)),
            Err(Failed::Store(Error::NotFound { source, .. })) if !no_bucket(&source.to_string()) => Ok(None),
            Err(error) => Err(words(&error)),
        }
    }

    /// Write an object, in place of one that may be there.
    pub async fn put(&self, name: &str, content: Vec<u8>) -> Result<(), String> {
        let path = self.path(name);
        let put = self.client.put(&path, PutPayload::from(content));
        bounded(ANSWER, put.boxed()).await.map(|_| ()).map_err(|e| words(&e))
    }

    /// Write an object that is not there yet. A store that knows no conditions is asked first whether it is.
    pub async fn put_new(&self, name: &str, content: Vec<u8>) -> Result<New, String> {
        let path = self.path(name);
        let options = PutOptions::from(PutMode::Create);
        let put = self.client.put_opts(&path, PutPayload::from(content.clone()), options);
        match bounded(ANSWER, put.boxed()).await {
            Ok(_) => Ok(New::Created),
            Err(Failed::Store(Error::AlreadyExists { .. } | Error::Precondition { .. })) => Ok(New::There),
            Err(error) if knows_no_conditions(&error) => match self.get(name).await? {
                Some(_) => Ok(New::There),
                None => self.put(name, content).await.map(|()| New::Created),
            },
            Err(error) => Err(words(&error)),
        }
    }

    /// Write an object in place of the one that was read; `false` when it has changed since. A store that knows no
    /// conditions writes it in any case.
    pub async fn replace(&self, name: &str, content: Vec<u8>, read: UpdateVersion) -> Result<bool, String> {
        let path = self.path(name);
        let options = PutOptions::from(PutMode::Update(read));
        let put = self.client.put_opts(&path, PutPayload::from(content.clone()), options);
        match bounded(ANSWER, put.boxed()).await {
            Ok(_) => Ok(true),
            Err(Failed::Store(Error::AlreadyExists { .. } | Error::Precondition { .. })) => Ok(false),
            Err(error) if knows_no_conditions(&error) => self.put(name, content).await.map(|()| true),
            Err(error) => Err(words(&error)),
        }
    }

    /// Delete an object; one that is not there is deleted already.
    pub async fn delete(&self, name: &str) -> Result<(), String> {
        let path = self.path(name);
        match bounded(ANSWER, self.client.delete(&path).boxed()).await {
            Ok(()) => Ok(()),
            Err(Failed::Store(Error::NotFound { source, .. })) if !no_bucket(&source.to_string()) => Ok(()),
            Err(error) => Err(words(&error)),
        }
    }
}

/// Why a request failed.
enum Failed {
    Store(Error),
    Late(Duration),
}

async fn bounded<T>(limit: Duration, doing: BoxFuture<'_, Result<T, Error>>) -> Result<T, Failed> {
    match tokio::time::timeout(limit, doing).await {
        Ok(done) => done.map_err(Failed::Store),
        Err(_) => Err(Failed::Late(limit)),
    }
}

/// Stores that know no conditional writes say so with 501, or 400.
fn knows_no_conditions(error: &Failed) -> bool {
    match error {
        Failed::Store(Error::NotImplemented | Error::NotSupported { .. }) => true,
        Failed::Store(error) => error.to_string().contains("NotImplemented"),
        Failed::Late(_) => false,
    }
}

fn no_bucket(said: &str) -> bool {
    said.contains("NoSuchBucket")
}

/// An error with its causes, once each. Nothing of it is a secret: keys are in no address and in no answer.
fn words(error: &Failed) -> String {
    match error {
        Failed::Late(limit) => format!("no answer within {} s", limit.as_secs()),
        Failed::Store(error) => {
            let mut said = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(next) = cause {
                let more = next.to_string();
                if !said.contains(&more) {
                    said = format!("{said}: {more}");
                }
                cause = next.source();
            }
            said.split_whitespace().collect::<Vec<_>>().join(" ")
        }
    }
}
