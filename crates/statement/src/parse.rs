//! From a text to typed statements. The whole text is read before anything of it can be carried out.

use crate::action::Action;
use crate::bind::{Argument, Bound, bind};
use crate::catalogue::{CATALOGUE, ELSEWHERE, named};
use crate::cmdlet::Cmdlet;
use crate::cursor::Cursor;
use crate::database::{self, DatabaseStatement};
use crate::problem::Problem;
use crate::stage::{self, Stage};
use std::ops::Range;

/// What the surroundings know, beside what this language knows itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// Names of plain commands: a statement that begins with one of them is handed on word by word.
    pub plain: &'a [String],
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Where it stands, in bytes of the text.
    pub at: Range<usize>,
    /// As it was typed.
    pub text: String,
    /// What it is.
    pub what: What,
}

/// What a statement is.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Cmdlets, handing objects on.
    Pipeline(Pipeline),
    /// A database statement.
    Database(DatabaseStatement),
    /// A plain command, in words.
    Plain(Vec<String>),
    /// `exit`, `quit`.
    Exit,
}

/// Cmdlets, handing objects on.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// Where the objects come from.
    pub first: Call,
    /// What becomes of them.
    pub stages: Vec<Stage>,
    /// The file that they are written into (`>`), in place of the screen.
    pub to_file: Option<String>,
}

/// A cmdlet with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name, as the reference writes it.
    pub name: &'static str,
    /// What it asks for.
    pub action: Action,
    /// `-WhatIf`: only say what would be done.
    pub what_if: bool,
    /// `-Confirm`: ask first.
    pub confirm: bool,
    /// `-Force`.
    pub force: bool,
    /// `-Report`: the file for a log.
    pub report: Option<String>,
    /// Parameters that do nothing here, each with the reason.
    pub notes: Vec<String>,
}

/// Read a whole text.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(text: &str, known: Known<'_>) -> Result<Vec<Statement>, Problem> {
    let mut cursor = Cursor::new(text);
    let mut statements = Vec::new();
    loop {
        cursor.skip_lines();
        while cursor.eat(';') {
            cursor.skip_lines();
        }
        if cursor.rest().starts_with("--") {
            cursor.at += cursor.rest().find('\n').unwrap_or(cursor.rest().len());
            continue;
        }
        if cursor.peek().is_none() {
            return Ok(statements);
        }
        let start = cursor.at;
        let what = statement(&mut cursor, known)?;
        cursor.skip_blanks();
        if !cursor.at_end() {
            return Err(cursor.expected("the end of the statement, '|' or ';'"));
        }
        let typed = text[start..cursor.at].trim_end().to_owned();
        statements.push(Statement { at: start..start + typed.len(), text: typed, what });
    }
}

fn statement(cursor: &mut Cursor<'_>, known: Known<'_>) -> Result<What, Problem> {
    if cursor.peek() == Some('(') {
        return parenthesised(cursor).map(What::Pipeline);
    }
    let start = cursor.at;
    let word = cursor.clone().word(&[]);
    let lower = word.to_ascii_lowercase();
    let at = start..start + word.len();
    if matches!(lower.as_str(), "exit" | "quit") {
        cursor.word(&[]);
        return Ok(What::Exit);
    }
    if lower == "standfast" {
        cursor.word(&[]);
        return plain(cursor).map(What::Plain);
    }
    if known.plain.contains(&lower) && !is_database(cursor, &lower) {
        return plain(cursor).map(What::Plain);
    }
    if database::begins(&word) {
        return database::read(cursor).map(What::Database);
    }
    if word.is_empty() {
        return Err(cursor.expected("a command"));
    }
    if cmdlet(&lower).is_none() {
        return Err(unknown(&word, at, known));
    }
    pipeline(cursor).map(What::Pipeline)
}

/// Whether a word that is a plain command too begins a database statement here.
fn is_database(cursor: &Cursor<'_>, word: &str) -> bool {
    let mut ahead = cursor.clone();
    ahead.word(&[]);
    ahead.skip_blanks();
    let next = ahead.word(&[]).to_ascii_lowercase();
    matches!(word, "restore" | "backup") && matches!(next.as_str(), "database" | "log")
}

/// The cmdlet of a name or of one of its short ones.
fn cmdlet(word: &str) -> Option<&'static Cmdlet> {
    match word {
        "help" | "man" | "?" => named("Get-Help"),
        "gcm" => named("Get-Command"),
        _ => named(word),
    }
}

fn unknown(word: &str, at: Range<usize>, known: Known<'_>) -> Problem {
    if let Some((name, here)) = ELSEWHERE.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
        let here = if here.is_empty() { "nothing here does the same yet" } else { here };
        return Problem::new(at, format!("{name} is not part of this shell; here: {here}"));
    }
    let mut names: Vec<&str> = CATALOGUE.iter().map(|c| c.name).collect();
    names.extend(database::FIRST_WORDS);
    names.extend(known.plain.iter().map(String::as_str));
    names.extend(["help", "exit"]);
    let mut problem = Problem::unknown(at, "command", word, &names);
    if !problem.message.contains("did you mean") {
        problem.message.push_str("; Get-Command lists the cmdlets, help explains the rest");
    }
    problem
}

/// Words up to the end of the line; what they mean is the plain command's business.
fn plain(cursor: &mut Cursor<'_>) -> Result<Vec<String>, Problem> {
    let mut words = Vec::new();
    loop {
        cursor.skip_blanks();
        if cursor.at_end() {
            return Ok(words);
        }
        let mut word = String::new();
        while let Some(c) = cursor.peek() {
            if c.is_whitespace() || c == ';' {
                break;
            }
            if cursor.at_quote() {
                word.push_str(&cursor.quoted()?);
                continue;
            }
            let before = cursor.at;
            word.push_str(&cursor.word(&[]));
            // Brackets and the like are ordinary characters of a plain command's words.
            if cursor.at == before {
                match cursor.bump() {
                    Some('`') if cursor.peek().is_none() => return Err(cursor.expected("the rest of the line")),
                    Some(c) => word.push(c),
                    None => break,
                }
            }
        }
        words.push(word);
    }
}

/// `( pipeline )`, perhaps with `.ToString()`, perhaps into a file.
fn parenthesised(cursor: &mut Cursor<'_>) -> Result<Pipeline, Problem> {
    let opening = cursor.here();
    cursor.bump();
    cursor.skip_lines();
    let word = cursor.clone().word(&[]);
    if cmdlet(&word.to_ascii_lowercase()).is_none() {
        let at = cursor.at..cursor.at + word.len();
        return if word.is_empty() {
            Err(cursor.expected("a cmdlet"))
        } else {
            Err(unknown(&word, at, Known::default()))
        };
    }
    let mut pipeline = pipeline(cursor)?;
    cursor.skip_lines();
    if !cursor.eat(')') {
        let mut problem = Problem::new(opening, "the '(' is not closed with ')'");
        problem.incomplete = cursor.peek().is_none();
        return Err(problem);
    }
    if cursor.eat('.') {
        let at = cursor.at;
        let method = cursor.word(&[]);
        if !method.eq_ignore_ascii_case("ToString") {
            return Err(Problem::unknown(at..cursor.at, "method", &method, &["ToString()"]));
        }
        if !(cursor.eat('(') && cursor.eat(')')) {
            return Err(cursor.expected("'()' after ToString"));
        }
    }
    redirection(cursor, &mut pipeline)?;
    Ok(pipeline)
}

fn redirection(cursor: &mut Cursor<'_>, pipeline: &mut Pipeline) -> Result<(), Problem> {
    cursor.skip_blanks();
    if cursor.eat('>') {
        cursor.skip_blanks();
        let file = cursor.value(&[])?;
        let texts = file.value.texts().unwrap_or_default();
        let [path] = &texts[..] else { return Err(Problem::new(file.at, "one file is expected after '>'")) };
        pipeline.to_file = Some(path.clone());
    }
    Ok(())
}

fn pipeline(cursor: &mut Cursor<'_>) -> Result<Pipeline, Problem> {
    let first = call(cursor, false)?;
    let mut pipeline = Pipeline { first, stages: Vec::new(), to_file: None };
    loop {
        cursor.skip_blanks();
        if !cursor.eat('|') {
            redirection(cursor, &mut pipeline)?;
            return Ok(pipeline);
        }
        cursor.skip_lines();
        pipeline.stages.push(next_stage(cursor)?);
    }
}

fn next_stage(cursor: &mut Cursor<'_>) -> Result<Stage, Problem> {
    let start = cursor.at;
    let word = cursor.clone().word(&[]);
    let lower = word.to_ascii_lowercase();
    for (name, short) in stage::NAMES {
        if name.eq_ignore_ascii_case(&word) || short.contains(&lower.as_str()) {
            cursor.word(&[]);
            return stage::read(name, cursor);
        }
    }
    let at = start..start + word.len();
    match named(&lower) {
        Some(cmdlet) if cmdlet.parameters.iter().any(|p| p.pipeline) => Ok(Stage::Call(Box::new(call(cursor, true)?))),
        Some(cmdlet) => Err(Problem::new(at, format!("{} takes no objects of a pipeline", cmdlet.name))),
        None if word.is_empty() => Err(cursor.expected("a command behind '|'")),
        None => {
            let mut names: Vec<&str> = stage::NAMES.iter().map(|(name, _)| *name).collect();
            names.extend(CATALOGUE.iter().filter(|c| c.parameters.iter().any(|p| p.pipeline)).map(|c| c.name));
            let mut problem = Problem::unknown(at, "command behind a pipeline's '|'", &word, &names);
            if !problem.message.contains("did you mean") {
                problem.message.push_str(&format!(" (there are: {})", names.join(", ")));
            }
            Err(problem)
        }
    }
}

/// A cmdlet with its arguments.
fn call(cursor: &mut Cursor<'_>, piped: bool) -> Result<Call, Problem> {
    let start = cursor.at;
    let word = cursor.word(&[]);
    let at = start..cursor.at;
    let Some(cmdlet) = cmdlet(&word.to_ascii_lowercase()) else { return Err(unknown(&word, at, Known::default())) };
    let mut arguments = Vec::new();
    loop {
        cursor.skip_blanks();
        if cursor.at_end() || matches!(cursor.peek(), Some('|' | ')' | '>')) {
            break;
        }
        if !cursor.at_parameter() {
            arguments.push(Argument::Value(cursor.value(&[])?));
            continue;
        }
        let start = cursor.at;
        cursor.bump();
        let name = if cursor.eat('?') { "?".to_owned() } else { cursor.word(&[':']) };
        let at = start..cursor.at;
        if name == "?" {
            return Ok(help_of(cmdlet));
        }
        let mut value = None;
        if cursor.eat(':') {
            cursor.skip_blanks();
            value = Some(cursor.value(&[])?);
        }
        arguments.push(Argument::Parameter { name, at, value });
    }
    called(&bind(cmdlet, at, arguments, piped)?)
}

fn called(bound: &Bound) -> Result<Call, Problem> {
    Ok(Call {
        name: bound.cmdlet.name,
        action: Action::of(bound)?,
        what_if: bound.flag("WhatIf"),
        confirm: bound.asked("Confirm").unwrap_or(false),
        force: bound.flag("Force"),
        report: bound.text("Report"),
        notes: bound.notes(),
    })
}

fn help_of(cmdlet: &Cmdlet) -> Call {
    Call {
        name: "Get-Help",
        action: Action::Help { name: Some(cmdlet.name.to_owned()), examples: false, parameter: None },
        what_if: false,
        confirm: false,
        force: false,
        report: None,
        notes: Vec::new(),
    }
}
