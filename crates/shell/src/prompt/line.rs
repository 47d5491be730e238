//! The line that is typed in: completion, continuation, history.

use crate::failure::Failure;
use crate::folder::Context;
use crate::output;
use cluster::runbook::ALL;
use rustyline::completion::Completer;
use rustyline::config::{CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Editor, Helper};
use statement::complete::{Surroundings, complete};
use statement::{Known, parse};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The history's file in the administrator's folder.
const HISTORY: &str = "shell-history";
/// Lines of history that are read back.
const HISTORY_MAX: usize = 1_000;

/// Reads statements from the terminal.
pub(super) struct Prompt {
    editor: Editor<Language, MemHistory>,
    history: PathBuf,
    told: bool,
}

struct Language {
    around: Surroundings,
}

impl Prompt {
    pub(super) fn open(context: &Context, plain: &[String]) -> Result<Self, Failure> {
        let config = Config::builder().completion_type(CompletionType::List).build();
        let opened = Editor::with_history(config, MemHistory::new());
        let mut editor = opened.map_err(|e| Failure::Failed(format!("open the terminal: {e}")))?;
        editor.set_helper(Some(Language { around: surroundings(context, plain) }));
        let history = context.dir.join(HISTORY);
        let text = std::fs::read_to_string(&history).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(HISTORY_MAX)..] {
            // A line that is like the one before it is left out.
            let _ = editor.add_history_entry(one_line_back(line));
        }
        Ok(Self { editor, history, told: false })
    }

    /// The next statements; `None` at the end of the input.
    pub(super) fn read(&mut self) -> Result<Option<String>, Failure> {
        loop {
            match self.editor.readline("standfast> ") {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    let new = self.editor.add_history_entry(text.as_str()).unwrap_or(false);
                    if new {
                        self.keep(&text);
                    }
                    return Ok(Some(text));
                }
                // Ctrl-C gives the line up, Ctrl-D ends the shell.
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(Failure::Failed(format!("read from the terminal: {error}"))),
            }
        }
    }

    /// Keep a line; a folder that takes no files is mentioned once.
    fn keep(&mut self, text: &str) {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.history);
        let kept = file.and_then(|mut file| writeln!(file, "{}", one_line(text)));
        if let Err(error) = kept
            && !std::mem::replace(&mut self.told, true)
        {
            output::say(&format!("history is not kept: {}: {error}", self.history.display()));
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn one_line_back(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some(c) => text.push(c),
                None => {}
            },
            c => text.push(c),
        }
    }
    text
}

/// The names that this pool knows. Without a folder only the language's own words are completed.
fn surroundings(context: &Context, plain: &[String]) -> Surroundings {
    let steps = ALL.iter().map(|r| (r.name.to_owned(), r.steps.iter().map(|s| s.id.to_owned()).collect()));
    let mut around = Surroundings { plain: plain.to_vec(), steps: steps.collect(), ..Surroundings::default() };
    if let Ok(folder) = context.folder() {
        around.pool = folder.topology.pool;
        around.hosts = folder.topology.hosts.iter().map(|h| h.name.to_string()).collect();
        around.servers = folder.topology.servers.iter().map(|s| s.name.to_string()).collect();
        around.databases = folder.topology.databases.iter().map(|d| d.name.to_string()).collect();
    }
    around
}

impl Completer for Language {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &rustyline::Context<'_>,
    ) -> Result<(usize, Vec<String>), ReadlineError> {
        let found = complete(line.get(..at).unwrap_or_default(), &self.around);
        Ok((found.from, found.words))
    }
}

impl Validator for Language {
    /// A statement that is not at its end goes on in the next line.
    fn validate(&self, ctx: &mut ValidationContext<'_>) -> Result<ValidationResult, ReadlineError> {
        let text = ctx.input();
        let incomplete = text.ends_with('`')
            || matches!(parse(text, Known { plain: &self.around.plain }), Err(p) if p.incomplete && goes_on(text));
        Ok(if incomplete { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

/// Whether something that was opened is not closed, or a pipeline has no next command. Other texts that end too early are
/// shown as mistakes at once.
fn goes_on(text: &str) -> bool {
    let last = text.trim_end().chars().next_back();
    let open = |c: char, d: char| text.matches(c).count() > text.matches(d).count();
    matches!(last, Some('|' | ',')) || open('{', '}') || open('(', ')') || text.matches(['"', '\'']).count() % 2 == 1
}

impl Hinter for Language {
    type Hint = String;
}

impl Highlighter for Language {}

impl Helper for Language {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_over_several_lines_is_one_line_of_history() {
        let text = "Get-CsService `\n  -PersistentChatServer # C:\\new";
        assert!(!one_line(text).contains('\n'));
        assert_eq!(one_line_back(&one_line(text)), text);
    }
}
