//! Countersigning: the agent of the backup looks at the rooms' heads in its own standby every few seconds, signs those that have
//! changed with a key of this host's own, and keeps them on this host's disk, where nobody who administers the principal's
//! database can change them. What the principal has later is compared with them: `standfast verify pool`.
//!
//! Bounded: a file is put aside when it is full, in the place of the one before, and the next one begins with the heads of all
//! rooms. The key never leaves this host.

use crate::database::Database;
use crate::error::Error;
use crate::files;
use crate::host::Host;
use crate::postgres::sql::described;
use cluster::name::DatabaseName;
use cluster::record::Part;
use cluster::topology_file::CONTENT_DATABASE;
use cluster::wal::Lsn;
use rand::RngCore;
use rules::chain::{Bytes, Hash};
use rules::head::{SeenHead, Sighting};
use rules::id::{Epoch, RoomId, Seq};
use rules::signature::SigningKey;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Client;
use wire::heads::Countersigned;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(3);
/// Longest time for a look.
const LOOK: Duration = Duration::from_secs(2);
/// A file that is so long is full.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Heads in one line.
const LINE_HEADS_MAX: usize = 5_000;

/// What was applied when the heads were read, or a little less; then the heads.
const APPLIED: &str = "SELECT coalesce(pg_last_wal_replay_lsn()::text, '0/0'), pg_is_in_recovery(),
    to_regclass('standfast.room_heads') IS NOT NULL";
const HEADS: &str = "SELECT h.room, h.last_seq, h.chain, (SELECT max(e.epoch) FROM standfast.epochs e)
    FROM standfast.room_heads h WHERE h.last_seq > 0 AND h.chain IS NOT NULL ORDER BY h.room";

/// Countersign for as long as the process lives.
pub async fn run(host: Arc<Host>) {
    let mut book: Option<Book> = None;
    let mut client: Option<Client> = None;
    let mut told = String::new();
    loop {
        tokio::time::sleep(EVERY).await;
        match round(&host, &mut book, &mut client).await {
            Ok(()) => told.clear(),
            Err(error) => {
                // What a failed write has left is cut off when the files are opened again.
                (client, book) = (None, None);
                let error = error.to_string();
                if error != told {
                    tracing::warn!(error, "rooms' heads are not countersigned now; trying again");
                    told = error;
                }
            }
        }
    }
}

async fn round(host: &Host, book: &mut Option<Book>, client: &mut Option<Client>) -> Result<(), Error> {
    let Some(database) = backup(host) else {
        *client = None;
        return Ok(());
    };
    let book = match book {
        Some(book) => book,
        None => book.insert(Book::open(&host.folder, &database.name)?),
    };
    let connected = match client.take().filter(|client| !client.is_closed()) {
        Some(connected) => connected,
        None => database.instance.sql.client().await?,
    };
    let looked = tokio::time::timeout(LOOK, look(&connected)).await;
    let late = |_| Error::Late {
        what: format!("the look at the rooms' heads in {}", database.name),
        seconds: LOOK.as_secs(),
        hint: "the standby may be busy applying the log".to_owned(),
    };
    let failed = |e: tokio_postgres::Error| Error::Sql {
        what: "look at the rooms' heads".to_owned(),
        database: database.name.to_string(),
        cause: described(&e),
    };
    let seen = looked.map_err(late)?.map_err(failed)?;
    *client = Some(connected);
    let Some((epoch, lsn, heads)) = seen else { return Ok(()) };
    let (pool, at_us) = (host.store.topology().pool, jiff::Timestamp::now().as_microsecond());
    book.note(&Sighting { pool, host: host.name.to_string(), epoch, lsn: lsn.0, at_us }, &heads)
}

/// The content database, if this host is its backup and it runs.
fn backup(host: &Host) -> Option<Arc<Database>> {
    let name = DatabaseName::from(CONTENT_DATABASE);
    let part = host.store.record()?.databases.get(&name)?.part_of(&host.name)?;
    let database = host.database(&name).filter(|_| part == Part::Backup)?;
    database.running().is_some().then_some(database)
}

/// The heads of all rooms that have entries; `None` while this is no standby with a chat schema.
async fn look(client: &Client) -> Result<Option<(Epoch, Lsn, Vec<SeenHead>)>, tokio_postgres::Error> {
    let row = client.query_one(APPLIED, &[]).await?;
    let lsn = row.get::<_, String>(0).parse().unwrap_or_default();
    if !row.get::<_, bool>(1) || !row.get::<_, bool>(2) {
        return Ok(None);
    }
    let rows = client.query(HEADS, &[]).await?;
    let epoch = rows.first().and_then(|row| row.get::<_, Option<i64>>(3)).map_or(Epoch::FIRST, Epoch);
    let head = |row: &tokio_postgres::Row| {
        let chain = Bytes::of(row.get::<_, &[u8]>(2))?;
        Some(SeenHead { room: RoomId(row.get(0)), seq: Seq(row.get(1)), chain })
    };
    Ok(Some((epoch, lsn, rows.iter().filter_map(head).collect())))
}

/// The files of countersigned heads, the one before first.
pub fn files_of(folder: &Path, database: &DatabaseName) -> [PathBuf; 2] {
    let folder = folder.join("heads");
    [folder.join(format!("{database}.before.jsonl")), folder.join(format!("{database}.jsonl"))]
}

/// What has been countersigned, and the key.
struct Book {
    key: SigningKey,
    file: File,
    path: PathBuf,
    before: PathBuf,
    bytes: u64,
    /// Each room's head in the present file.
    known: BTreeMap<RoomId, (Seq, Hash)>,
}

impl Book {
    /// Go on where the last agent stopped. A line that it was killed in is cut off.
    fn open(folder: &Path, database: &DatabaseName) -> Result<Self, Error> {
        let key = key(folder)?;
        let [before, path] = files_of(folder, database);
        std::fs::create_dir_all(folder.join("heads")).map_err(Error::file("make the folder of countersigned heads"))?;
        let failed = || Error::file(format!("open {}", path.display()));
        let open = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
        let file = open.map_err(failed())?;
        let (mut known, mut bytes, mut line) = (BTreeMap::new(), 0, String::new());
        let mut reader = BufReader::new(&file);
        loop {
            line.clear();
            let read = reader.read_line(&mut line).map_err(failed())? as u64;
            let Some(signed) = serde_json::from_str::<Countersigned>(&line).ok().filter(|_| line.ends_with('\n'))
            else {
                break;
            };
            bytes += read;
            known.extend(signed.heads.into_iter().map(|(room, seq, chain)| (room, (seq, chain))));
        }
        file.set_len(bytes).map_err(failed())?;
        Ok(Self { key, file, path, before, bytes, known })
    }

    /// Sign and keep the heads that are not known yet.
    fn note(&mut self, sighting: &Sighting, heads: &[SeenHead]) -> Result<(), Error> {
        let is_new = |head: &&SeenHead| self.known.get(&head.room) != Some(&(head.seq, head.chain));
        if !heads.iter().any(|head| is_new(&head)) {
            return Ok(());
        }
        if self.bytes >= FILE_BYTES_MAX {
            self.begin_anew()?;
        }
        let changed: Vec<SeenHead> =
            heads.iter().filter(|head| self.known.get(&head.room) != Some(&(head.seq, head.chain))).copied().collect();
        let failed = || Error::file(format!("write {}", self.path.display()));
        for heads in changed.chunks(LINE_HEADS_MAX) {
            let signed = Countersigned::new(sighting, heads, &self.key);
            let mut line = serde_json::to_vec(&signed).map_err(std::io::Error::other).map_err(failed())?;
            line.push(b'\n');
            self.file.write_all(&line).map_err(failed())?;
            self.bytes += line.len() as u64;
        }
        self.file.sync_data().map_err(failed())?;
        self.known.extend(changed.into_iter().map(|head| (head.room, (head.seq, head.chain))));
        Ok(())
    }

    /// Put the full file aside. The next one holds every head, so what was aside before is not missed.
    fn begin_anew(&mut self) -> Result<(), Error> {
        let failed = || Error::file(format!("put {} aside", self.path.display()));
        std::fs::rename(&self.path, &self.before).map_err(failed())?;
        let open = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path);
        self.file = open.map_err(failed())?;
        self.bytes = 0;
        self.known.clear();
        Ok(())
    }
}

/// This host's own key, made at first use.
fn key(folder: &Path) -> Result<SigningKey, Error> {
    let path = folder.join("heads").join("key");
    let what = format!("read {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => Bytes::from_hex(text.trim()).map(|seed| SigningKey::from_seed(&seed)).ok_or_else(|| {
            let cause = "it is no key; put it aside, and the agent makes another one".to_owned();
            Error::HostFolder { path: path.display().to_string(), cause }
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut seed = [0; 32];
            rand::rng().fill_bytes(&mut seed);
            let seed = Bytes(seed);
            files::replace(&path, format!("{seed}\n").as_bytes(), 0o600).map_err(Error::file(what))?;
            Ok(SigningKey::from_seed(&seed))
        }
        Err(error) => Err(Error::file(what)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<Countersigned> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn only_what_changed_is_signed_and_a_killed_agents_half_line_is_cut_off() {
        let folder = std::env::temp_dir().join(format!("standfast-heads-{}", std::process::id()));
        let database = DatabaseName::from("mgc");
        let sighting = Sighting { pool: "north".into(), host: "s2a".into(), epoch: Epoch(1), lsn: 7, at_us: 1 };
        let head = |room, seq| SeenHead { room: RoomId(room), seq: Seq(seq), chain: Bytes([seq as u8; 32]) };
        let [before, path] = files_of(&folder, &database);
        let mut book = Book::open(&folder, &database).unwrap();
        book.note(&sighting, &[head(1, 3), head(2, 5)]).unwrap();
        book.note(&sighting, &[head(1, 3), head(2, 5)]).unwrap();
        book.note(&sighting, &[head(1, 4), head(2, 5)]).unwrap();
        let all = lines(&path);
        assert_eq!(all.iter().map(|line| line.heads.len()).collect::<Vec<_>>(), [2, 1]);
        assert!(all.iter().all(|line| line.is_signed() && line.key == book.key.public()));
        let mut forged = all[1].clone();
        forged.heads[0].1 = Seq(9);
        assert!(!forged.is_signed());

        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"pool\":").unwrap();
        let mut again = Book::open(&folder, &database).unwrap();
        assert_eq!(again.key.public(), book.key.public());
        again.note(&sighting, &[head(1, 4), head(2, 6)]).unwrap();
        assert_eq!(lines(&path).iter().map(|line| line.heads.len()).collect::<Vec<_>>(), [2, 1, 1]);

        // A full file makes way, and the next one has every head.
        again.bytes = FILE_BYTES_MAX;
        again.note(&sighting, &[head(1, 4), head(2, 7)]).unwrap();
        assert_eq!(lines(&before).len(), 3);
        assert_eq!(lines(&path).iter().map(|line| line.heads.len()).collect::<Vec<_>>(), [2]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
