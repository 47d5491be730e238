//! `standfast audit`: the ledger against the pool.

use super::verify::public_key;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::administrator;
use client::audit::read::{LedgerFile, audit};
use client::audit::{RewoundPost, Verdict};
use rules::signature::PublicKey;
use std::path::PathBuf;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: standfast audit --ledger ledger.jsonl\n\
    Exit code 0: nothing lost, duplicated or out of order. 3: something was. docs/ledger.md has the rules.")]
pub struct Args {
    /// The ledger that standfast replay wrote
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
    /// A key that receipts may be signed with beside that of the pool's folder, as standfast verify key printed it; may be given
    /// several times
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    key: Vec<PublicKey>,
}

/// Compare, print what was found, and end with the sum.
///
/// # Errors
/// When the ledger or a log cannot be read; `Refused` when a promise was broken.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let mut ledger = LedgerFile::open(&args.ledger).map_err(|e| Failure::Usage(e.to_string()))?;
    let (folder, http) = administrator(context).await?;
    let keys = [folder.secret.signing_key().public()].into_iter().chain(args.key).collect();
    let verdict = audit(&http, &mut ledger, keys).await?;
    ledger.notes.iter().for_each(|note| output::say(note));
    if context.json {
        output::json(&verdict)?;
    } else {
        print(&verdict)?;
    }
    if verdict.is_clean() { Ok(()) } else { Err(Failure::Refused("the ledger and the pool do not agree".into())) }
}

fn print(verdict: &Verdict) -> Outcome {
    for finding in &verdict.findings {
        output::line(&finding.what)?;
    }
    let more = verdict.broken() - verdict.findings.len() as u64;
    if more > 0 {
        output::line(&format!("… and {more} more"))?;
    }
    for post in &verdict.rewound_posts {
        output::line(&rewound(post))?;
    }
    output::line(&format!("deliveries compared {}, reconnects {}", verdict.seen, verdict.disconnected))?;
    if verdict.re_offered > 0 {
        let count = verdict.re_offered;
        output::line(&format!("re-offered {count}: a failover took them, and their authors have posted them again"))?;
    }
    if verdict.late > 0 {
        let count = verdict.late;
        output::line(&format!(
            "late arrivals {count}: a failover took them, and they came back from the lost site's disk"
        ))?;
    }
    if verdict.receipts > 0 {
        let Verdict { receipts, receipts_rewound, unproved, .. } = verdict;
        output::line(&format!(
            "receipts {receipts}, of those {receipts_rewound} about what a failover took, {unproved} do not fit"
        ))?;
    }
    output::line(&verdict.line())
}

fn rewound(post: &RewoundPost) -> String {
    let at = jiff::Timestamp::from_millisecond(post.at_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let RewoundPost { room, seq, epoch, author, hash, .. } = post;
    format!("rewound: room '{room}', number {seq} of epoch {epoch}, by {author} at {at:.3}, SHA-256 {hash}")
}
