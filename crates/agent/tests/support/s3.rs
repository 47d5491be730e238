//! An S3 server that other people wrote (s3s-fs), on a port and in a folder of the test's own. It can be stopped, and started
//! again where it was.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::path::{Path, PathBuf};

/// What opens it.
pub const ACCESS_KEY: &str = "standfast";
/// And its secret.
pub const SECRET_KEY: &str = "a secret of the tests";
/// Its only bucket.
pub const BUCKET: &str = "log";

/// The server.
pub struct S3 {
    /// Its port.
    pub port: u16,
    root: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
}

impl S3 {
    /// A server with an empty bucket, at a port.
    pub fn start(root: &Path, port: u16) -> Self {
        std::fs::create_dir_all(root.join(BUCKET)).unwrap();
        let mut server = Self { port, root: root.to_owned(), runtime: None };
        server.start_again();
        server
    }

    /// Where it is reached.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The folder of the bucket.
    pub fn bucket(&self) -> PathBuf {
        self.root.join(BUCKET)
    }

    /// The key, as an agent reads it.
    pub fn credentials() -> String {
        format!("access_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"\n")
    }

    /// Nobody answers any more; connections are closed.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// It answers again.
    pub fn start_again(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&self.root).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let at = ("127.0.0.1", self.port);
        // Bound at once, so that whoever calls this finds it answering. Connections of before do not hold the port.
        let listener = std::net::TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}
