//! TLS to a PostgreSQL that somebody else operates: every `sslmode` against a real server, and what each refusal says.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../standfast/tests/support/pair.rs"]
mod pair;

use pair::{PASSWORD, Pair};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rules::id::Epoch;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::{FirstAdministrator, Store, StoreError, Target};

/// An authority, and what it signs.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Authority { certificate, issuer: Issuer::new(parameters, key) }
    }

    /// A certificate for `localhost`, with its key.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A folder of this test's own, gone at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct World {
    theirs: Pair,
    folder: PathBuf,
}

impl World {
    /// Open a store at `host` with these options. Whether its connections are encrypted, or what was wrong.
    async fn open(&self, host: &str, options: &str) -> Result<bool, String> {
        let dsn = format!("postgresql://chat@{host}:{}/talk{options}", self.theirs.ports[0]);
        let target = Target::existing(&dsn, Some(PASSWORD), &self.folder, "server-1")?;
        let first = FirstAdministrator { name: "admin".into(), password_hash: "none".into() };
        let began = Instant::now();
        let _open = loop {
            match Store::open(&target, Epoch::FIRST, &first).await {
                Ok(open) => break open,
                // The machine is busy: a server tries again as well.
                Err(error @ StoreError::TimedOut { .. }) => {
                    assert!(began.elapsed() < Duration::from_secs(30), "{host} {options}: {error}");
                }
                Err(error) => {
                    assert!(!error.is_passing(), "{host} {options}: a person has to look: {error}");
                    return Err(error.to_string());
                }
            }
        };
        let asked = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'server-1'";
        Ok(self.theirs.value(0, asked) == "t")
    }

    async fn check(&self, host: &str, options: &str, expect: Result<bool, &str>) {
        match (self.open(host, options).await, expect) {
            (Ok(encrypted), Ok(expected)) => assert_eq!(encrypted, expected, "{host} {options}"),
            (Err(said), Err(part)) => assert!(said.contains(part), "{host} {options}: {said}"),
            (got, expected) => panic!("{host} {options}: {got:?}, not {expected:?}"),
        }
        // Its sessions are gone before the next one is looked at.
        let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'server-1'";
        while self.theirs.value(0, left) != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn world(name: &str) -> (Folder, World) {
    let folder = Folder(std::env::temp_dir().join(format!("standfast-test-{name}-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = Pair::start(&folder.0);
    let world = World { theirs, folder: folder.0.clone() };
    (folder, world)
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

#[tokio::test]
async fn each_sslmode_means_what_it_means_to_libpq() {
    let (_folder, world) = world("tls");
    // Without TLS there.
    world.check("localhost", "", Ok(false)).await;
    world.check("localhost", "?sslmode=prefer", Ok(false)).await;
    world.check("localhost", "?sslmode=require", Err("the server has no TLS")).await;
    world.check("localhost", "?sslmode=verify-full&sslrootcert=ours.pem", Err("ours.pem")).await;

    let (ours, other) = (Authority::new("ours"), Authority::new("another"));
    write(&world.folder, "ours.pem", &ours.certificate);
    write(&world.folder, "another.pem", &other.certificate);
    write(&world.folder, "empty.pem", "");
    let (certificate, key) = ours.sign();
    world.theirs.speak_tls(&certificate, &key);
    world.check("localhost", "", Ok(true)).await;
    world.check("localhost", "?sslmode=disable", Ok(false)).await;
    world.check("127.0.0.1", "?sslmode=require", Ok(true)).await;
    world.check("127.0.0.1", "?sslmode=require&sslrootcert=another.pem", Err("not trusted here")).await;
    world.check("127.0.0.1", "?sslmode=verify-ca&sslrootcert=ours.pem", Ok(true)).await;
    world.check("127.0.0.1", "?sslmode=verify-full&sslrootcert=ours.pem", Err("is not for 127.0.0.1")).await;
    world.check("localhost", "?sslmode=verify-full&sslrootcert=ours.pem", Ok(true)).await;
    world.check("localhost", "?sslmode=verify-full&sslrootcert=another.pem", Err("another.pem")).await;
    world.check("localhost", "?sslmode=verify-full", Err("authority that is not trusted")).await;
    world.check("localhost", "?sslmode=verify-ca&sslrootcert=empty.pem", Err("holds no certificate")).await;
}
