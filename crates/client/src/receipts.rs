//! Checking receipts offline: a file of them, or a ledger that kept them, and the keys that are trusted.

use rules::receipt::{Checker, Unproved};
use rules::signature::PublicKey;
use serde::Serialize;
use std::io::{BufRead, Read};
use wire::ledger::LedgerLine;
use wire::receipt::Receipt;

/// Longest line that is read: a receipt, its ledger's line and some blanks, by far.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Receipts that do not fit which are kept word for word; the others are counted.
const FINDINGS_MAX: usize = 200;

/// What a file of receipts came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Receipts in it.
    pub receipts: u64,
    /// Those of them that do not fit.
    pub unproved: u64,
    /// The first of those.
    pub findings: Vec<Finding>,
}

/// A receipt that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its line, from 1.
    pub line: u64,
    /// What is wrong with it, for people.
    pub why: String,
}

/// Why a file cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// A line is neither a receipt nor one of a ledger.
    #[error("line {line} is neither a receipt nor a line of a ledger: {why}")]
    Line {
        /// Which line, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
}

/// Check every receipt in a file: one in each line, by itself or as `receipt` of something larger, such as a line of a ledger.
/// Other lines of a ledger are passed over.
///
/// # Errors
/// When it cannot be read, or holds something else. A receipt that does not fit is no error: it is in the answer.
pub fn check_file(mut from: impl BufRead, keys: Vec<PublicKey>) -> Result<Checked, FileError> {
    let mut checker = Checker::trusting(keys);
    let mut checked = Checked::default();
    let (mut text, mut line) = (Vec::new(), 0);
    loop {
        text.clear();
        if Read::take(&mut from, LINE_BYTES_MAX).read_until(b'\n', &mut text)? == 0 {
            return Ok(checked);
        }
        line += 1;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let Some(judged) = judge(&mut checker, &text).map_err(|why| FileError::Line { line, why })? else { continue };
        checked.receipts += 1;
        if let Err(why) = judged {
            checked.unproved += 1;
            if checked.findings.len() < FINDINGS_MAX {
                checked.findings.push(Finding { line, why });
            }
        }
    }
}

/// A line with a receipt: whether that is proved. `None`: a line without one.
fn judge(checker: &mut Checker, text: &[u8]) -> Result<Option<Result<(), String>>, String> {
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let receipt = value.get("receipt").filter(|receipt| !receipt.is_null());
    if receipt.is_none() && value.get("signature").is_none() {
        let is_ledger = value.get("line").is_some_and(serde_json::Value::is_string);
        return if is_ledger { Ok(None) } else { Err("it has no receipt".to_owned()) };
    }
    let receipt: Receipt = serde_json::from_value(receipt.unwrap_or(&value).clone()).map_err(|e| e.to_string())?;
    let ack = value.get("line").map(|_| serde_json::from_value::<LedgerLine>(value.clone()).map_err(|e| e.to_string()));
    let beside = ack.transpose()?.filter(|ack| !is_about(ack, &receipt));
    Ok(Some(match beside {
        Some(_) => Err(format!("{}: {BESIDE}", named(&receipt))),
        None => check(checker, &receipt).map_err(|e| format!("{}: {e}", named(&receipt))),
    }))
}

/// What is said of a receipt that stands in another acknowledgement's line.
pub const BESIDE: &str = "it states another place than the acknowledgement that it came with";

/// Whether an acknowledgement of a ledger is the one that a receipt is about.
pub fn is_about(ack: &LedgerLine, receipt: &Receipt) -> bool {
    match ack {
        LedgerLine::Ack { room, seq, epoch, client_id, .. } => {
            (*room, *seq, *epoch, *client_id) == (receipt.room, receipt.seq, receipt.epoch, receipt.client_id)
        }
        _ => false,
    }
}

/// Check one receipt.
///
/// # Errors
/// When no trusted key has signed what it states.
pub fn check(checker: &mut Checker, receipt: &Receipt) -> Result<(), Unproved> {
    checker.check(&receipt.statement(), &receipt.proof())
}

/// A receipt in a sentence, for people.
pub fn named(receipt: &Receipt) -> String {
    let Receipt { room, seq, epoch, client_id, durable, .. } = receipt;
    format!("the receipt of post {client_id} (room {room}, number {seq}, epoch {epoch}, durable on: {durable})")
}

#[cfg(test)]
#[path = "receipts_tests.rs"]
mod tests;
