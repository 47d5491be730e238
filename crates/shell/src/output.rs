//! What a command prints: data to standard output, talk to standard error.

use crate::failure::{Failure, Outcome};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;

/// What is printed while a log of it is wanted.
static LOG: Mutex<Option<String>> = Mutex::new(None);

/// Keep what is printed from now on.
pub fn begin_log() {
    *LOG.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(String::new());
}

/// What was printed since the log was begun.
pub fn end_log() -> String {
    LOG.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take().unwrap_or_default()
}

fn log(text: &str) {
    if let Some(log) = LOG.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_mut() {
        log.push_str(text);
        log.push('\n');
    }
}

/// Print a value as one JSON document.
///
/// # Errors
/// When standard output is closed.
pub fn json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::Failed(format!("write JSON: {e}")))?;
    line(&text)
}

/// Print a line of data.
///
/// # Errors
/// When standard output is closed.
pub fn line(text: &str) -> Outcome {
    log(text);
    writeln!(std::io::stdout().lock(), "{text}").map_err(|e| match e.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Failed(format!("write to standard output: {e}")),
    })
}

/// Print a value as JSON on one line: an event of a stream.
///
/// # Errors
/// When standard output is closed.
pub fn json_line(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string(value).map_err(|e| Failure::Failed(format!("write JSON: {e}")))?;
    line(&text)
}

/// Begin a screen anew: from the top on a terminal, after an empty line elsewhere.
///
/// # Errors
/// When standard output is closed.
pub fn fresh_screen() -> Outcome {
    line(if std::io::stdout().is_terminal() { "\u{1b}[H\u{1b}[2J" } else { "" })
}

/// Say something to the person; never data.
pub fn say(text: &str) {
    log(text);
    // Who has closed standard error does not want to hear it.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Ask a question that is answered by yes or no; no when nobody is there to answer.
pub fn confirm(question: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        say("nobody is here to answer; add --yes to go on without being asked");
        return false;
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{question} [y/N] ");
    let _ = err.flush();
    drop(err);
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes" | "Yes")
}

/// How many columns a line may have: what the terminal says, or `COLUMNS`, or 120 where neither does.
pub fn columns() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|n| n.parse().ok());
    said.or_else(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))).unwrap_or(120)
}

/// Print rows as columns that line up; the last one is as wide as it likes.
///
/// # Errors
/// When standard output is closed.
pub fn table(rows: &[Vec<String>]) -> Outcome {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        line(text.trim_end())?;
    }
    Ok(())
}
