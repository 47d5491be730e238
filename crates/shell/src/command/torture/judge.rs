//! The judgement: the ledger against the pool, and what the programs wrote of themselves that they must never have to write.

use super::strike::World;
use crate::signed_in::administrator;
use client::audit::Verdict;
use client::audit::read::{LedgerFile, audit};
use lab::torture::Kind;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long what a lost site had acknowledged alone may take to come home when its disks are back.
const COMES_HOME: Duration = Duration::from_secs(60);
/// Time between two audits meanwhile.
const AGAIN: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Default)]
pub(super) struct Judgement {
    pub acknowledged: u64,
    pub late: u64,
    pub rewound: u64,
    pub findings: Vec<String>,
}

/// Knows how long each log was when the episode began.
pub(super) struct Judge {
    logs: BTreeMap<PathBuf, u64>,
}

impl Judge {
    pub(super) fn begin(world: &World) -> Self {
        Self { logs: logs(world.dir()).into_iter().map(|path| (path.clone(), length(&path))).collect() }
    }

    /// Judge the episode.
    pub(super) async fn end(&self, world: &World, ledger: &Path, kind: Kind) -> Judgement {
        let mut judgement = match audited(world, ledger).await {
            Ok(verdict) => of(&verdict),
            Err(why) => Judgement { findings: vec![format!("the audit failed: {why}")], ..Judgement::default() },
        };
        for path in logs(world.dir()) {
            let before = self.logs.get(&path).copied().unwrap_or(0);
            let text = std::fs::read(&path).unwrap_or_default();
            // A log that was put aside meanwhile has begun anew.
            let from = usize::try_from(before).unwrap_or(0);
            let text = String::from_utf8_lossy(text.get(from..).unwrap_or(&text)).into_owned();
            let said =
                text.lines().filter(|line| is_alarming(line, kind)).map(|line| format!("{}: {line}", path.display()));
            judgement.findings.extend(said.take(3));
        }
        judgement
    }
}

/// PostgreSQL panics when its disk is full, and has to; nothing else may.
fn is_alarming(line: &str, kind: Kind) -> bool {
    let full = kind == Kind::Disk && line.contains("No space left on device");
    (line.contains("PANIC:") && !full) || line.contains("panicked at")
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for host in std::fs::read_dir(dir.join("hosts")).into_iter().flatten().flatten() {
        let own = std::fs::read_dir(host.path()).into_iter().flatten().flatten().map(|e| e.path());
        found.extend(own.filter(|p| p.extension().is_some_and(|x| x == "log")));
        let databases = std::fs::read_dir(host.path().join("pg")).into_iter().flatten().flatten();
        found.extend(databases.map(|d| d.path().join("log")).filter(|p| p.is_file()));
    }
    found
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

/// Audit until everything has come home, or for as long as that may take.
async fn audited(world: &World, ledger: &Path) -> Result<Verdict, String> {
    let began = Instant::now();
    loop {
        let mut file = LedgerFile::open(ledger).map_err(|e| e.to_string())?;
        let (folder, http) = administrator(&world.context).await.map_err(|e| e.to_string())?;
        let keys = vec![folder.secret.signing_key().public()];
        let verdict = audit(&http, &mut file, keys).await.map_err(|e| e.to_string())?;
        if verdict.rewound == 0 || began.elapsed() > COMES_HOME {
            return Ok(verdict);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn of(verdict: &Verdict) -> Judgement {
    let mut findings: Vec<String> = verdict.findings.iter().map(|finding| finding.what.clone()).take(20).collect();
    if !verdict.is_clean() {
        findings.insert(0, verdict.line());
    }
    if verdict.rewound > 0 {
        findings.push(format!("{} acknowledged posts have not come home from a lost site's disk", verdict.rewound));
    }
    Judgement { acknowledged: verdict.acknowledged, late: verdict.late, rewound: verdict.rewound, findings }
}
