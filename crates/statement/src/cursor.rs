//! Reading a text character by character: blanks, comments, words, quoted strings, values.

use crate::problem::{Problem, did_you_mean};
use crate::value::{Placed, Value};
use std::ops::Range;

/// How deep lists and tables may lie in each other.
const DEPTH_MAX: usize = 16;

/// A place in a text.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: usize,
    depth: usize,
}

/// Quotation marks that open or close a string; word processors put others in the place of those that were typed.
pub(crate) fn double_quote(c: char) -> bool {
    matches!(c, '"' | '“' | '”' | '„')
}

fn single_quote(c: char) -> bool {
    matches!(c, '\'' | '‘' | '’' | '‚')
}

/// Dashes that begin a parameter.
pub(crate) fn dash(c: char) -> bool {
    matches!(c, '-' | '–' | '—' | '―')
}

fn ends_word(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, ';' | '|' | '(' | ')' | '{' | '}' | ',' | '<' | '>' | '&')
        || double_quote(c)
        || single_quote(c)
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(crate) fn second(&self) -> Option<char> {
        self.rest().chars().nth(1)
    }

    pub(crate) fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    pub(crate) fn eat(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c);
        if there {
            self.bump();
        }
        there
    }

    /// The place of the next character, or of the end.
    pub(crate) fn here(&self) -> Range<usize> {
        self.at..self.at + self.peek().map_or(0, char::len_utf8)
    }

    /// A problem at the next character; at the end of the text it may be that more lines follow.
    pub(crate) fn expected(&self, what: &str) -> Problem {
        let found = match self.peek() {
            None => "the text ends here".to_owned(),
            Some('\n') => "the line ends here".to_owned(),
            Some('<') => "'<' opens a placeholder of the documentation: write the name itself".to_owned(),
            Some(c) => format!("'{c}' stands here"),
        };
        let mut problem = Problem::new(self.here(), format!("{what} is expected; {found}"));
        problem.incomplete = self.peek().is_none();
        problem
    }

    /// Pass blanks, comments (`#` to the end of the line, `<# … #>`) and lines that go on after a backtick.
    pub(crate) fn skip_blanks(&mut self) {
        loop {
            match (self.peek(), self.second()) {
                (Some('\n'), _) => return,
                (Some(c), _) if c.is_whitespace() => {
                    self.bump();
                }
                (Some('`'), Some('\n')) => self.at += 2,
                (Some('`'), Some('\r')) if self.rest().starts_with("`\r\n") => self.at += 3,
                (Some('#'), _) => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                (Some('<'), Some('#')) => self.at += self.rest().find("#>").map_or(self.rest().len(), |n| n + 2),
                _ => return,
            }
        }
    }

    /// Pass blanks, comments and ends of lines.
    pub(crate) fn skip_lines(&mut self) {
        self.skip_blanks();
        while self.eat('\n') {
            self.skip_blanks();
        }
    }

    /// Whether the statement ends here.
    pub(crate) fn at_end(&self) -> bool {
        matches!(self.peek(), None | Some('\n' | ';'))
    }

    /// A bare word, perhaps empty. A backtick takes away the meaning of the character behind it.
    pub(crate) fn word(&mut self, also_ends: &[char]) -> String {
        let mut word = String::new();
        while let Some(c) = self.peek() {
            if c == '`' {
                let mut after = self.clone();
                after.bump();
                match after.bump() {
                    None | Some('\n' | '\r') => break,
                    Some(c) => word.push(c),
                }
                self.at = after.at;
                continue;
            }
            if ends_word(c) || also_ends.contains(&c) {
                break;
            }
            word.push(c);
            self.bump();
        }
        word
    }

    /// A quoted string; the cursor stands at its opening quote.
    pub(crate) fn quoted(&mut self) -> Result<String, Problem> {
        let opening = self.here();
        let Some(mark) = self.bump() else { return Err(self.expected("a quoted text")) };
        let double = double_quote(mark);
        let closes = |c: char| if double { double_quote(c) } else { single_quote(c) };
        let mut text = String::new();
        while let Some(c) = self.bump() {
            if closes(c) {
                match self.peek() {
                    // A doubled quote is the quote itself.
                    Some(again) if closes(again) => {
                        text.push(again);
                        self.bump();
                    }
                    _ => return Ok(text),
                }
            } else if double && c == '`' {
                match self.bump() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some('0') => text.push('\0'),
                    Some(c) => text.push(c),
                    None => break,
                }
            } else {
                text.push(c);
            }
        }
        let mut problem = Problem::new(opening, "the text that this quotation mark opens is not closed");
        problem.incomplete = true;
        Err(problem)
    }

    /// Whether a quoted string begins here.
    pub(crate) fn at_quote(&self) -> bool {
        self.peek().is_some_and(|c| double_quote(c) || single_quote(c))
    }

    /// Whether a parameter's name begins here: a dash before a letter, or `-?`.
    pub(crate) fn at_parameter(&self) -> bool {
        self.peek().is_some_and(dash) && self.second().is_some_and(|c| c.is_alphabetic() || c == '?')
    }

    /// A value, or several with commas between them.
    pub(crate) fn value(&mut self, also_ends: &[char]) -> Result<Placed, Problem> {
        let first = self.single(also_ends)?;
        let start = first.at.start;
        let mut all = vec![first];
        loop {
            let mut ahead = self.clone();
            ahead.skip_blanks();
            if !ahead.eat(',') {
                break;
            }
            ahead.skip_lines();
            self.at = ahead.at;
            all.push(self.single(also_ends)?);
        }
        let end = all.last().map_or(start, |p| p.at.end);
        let value = match all.len() {
            1 => all.remove(0).value,
            _ => Value::List(all.into_iter().map(|p| p.value).collect()),
        };
        Ok(Placed { value, at: start..end })
    }

    fn single(&mut self, also_ends: &[char]) -> Result<Placed, Problem> {
        if self.depth >= DEPTH_MAX {
            return Err(Problem::new(
                self.here(),
                format!("lists and tables lie in each other at most {DEPTH_MAX} deep"),
            ));
        }
        self.depth += 1;
        let start = self.at;
        let value = match (self.peek(), self.second()) {
            (Some('@'), Some('{')) => self.table(),
            (Some('@'), Some('(')) => self.array(),
            (Some('$'), _) => self.variable(),
            _ if self.at_quote() => self.quoted().map(Value::Text),
            (Some('('), _) => Err(Problem::new(
                self.here(),
                "a command in parentheses is not possible here; hand its objects on with a pipeline: command | command",
            )),
            _ => {
                let word = self.word(also_ends);
                if self.at == start { Err(self.expected("a value")) } else { Ok(Value::Text(word)) }
            }
        };
        self.depth -= 1;
        value.map(|value| Placed { value, at: start..self.at })
    }

    fn variable(&mut self) -> Result<Value, Problem> {
        let start = self.at;
        let name = self.word(&['.', '=', ':']);
        match name.to_ascii_lowercase().as_str() {
            "$null" => Ok(Value::Null),
            "$true" => Ok(Value::Bool(true)),
            "$false" => Ok(Value::Bool(false)),
            _ => {
                let near = did_you_mean(&name, &["$Null", "$True", "$False"]);
                let message = format!(
                    "there is no variable {name}{near} (there are $Null, $True, $False, and $_ in Where-Object)"
                );
                Err(Problem::new(start..self.at, message))
            }
        }
    }

    /// `@{Key = value; Key = value}`.
    fn table(&mut self) -> Result<Value, Problem> {
        let opening = self.at..self.at + 2;
        self.at += 2;
        let mut pairs: Vec<(String, Value)> = Vec::new();
        loop {
            self.skip_lines();
            while self.eat(';') {
                self.skip_lines();
            }
            if self.eat('}') {
                return Ok(Value::Table(pairs));
            }
            if self.peek().is_none() {
                let mut problem = Problem::new(opening, "the table that '@{' opens is not closed with '}'");
                problem.incomplete = true;
                return Err(problem);
            }
            let at = self.at;
            let key = if self.at_quote() { self.quoted()? } else { self.word(&['=']) };
            if self.at == at {
                return Err(self.expected("a key such as Add, Remove or Replace"));
            }
            if pairs.iter().any(|(k, _)| k.eq_ignore_ascii_case(&key)) {
                return Err(Problem::new(at..self.at, format!("the key '{key}' stands here twice")));
            }
            self.skip_lines();
            if !self.eat('=') {
                return Err(self.expected(&format!("'=' after the key {key}")));
            }
            self.skip_lines();
            pairs.push((key, self.value(&[])?.value));
            self.skip_blanks();
            if !matches!(self.peek(), Some(';' | '}' | '\n') | None) {
                return Err(self.expected("';' or '}'"));
            }
        }
    }

    /// `@(a, b)`.
    fn array(&mut self) -> Result<Value, Problem> {
        let opening = self.at..self.at + 2;
        self.at += 2;
        self.skip_lines();
        let mut all = Vec::new();
        if self.peek() != Some(')') && self.peek().is_some() {
            match self.value(&[])?.value {
                Value::List(values) => all = values,
                one => all.push(one),
            }
            self.skip_lines();
        }
        if self.eat(')') {
            return Ok(Value::List(all));
        }
        if self.peek().is_some() {
            return Err(self.expected("',' or ')'"));
        }
        let mut problem = Problem::new(opening, "the list that '@(' opens is not closed with ')'");
        problem.incomplete = true;
        Err(problem)
    }
}
