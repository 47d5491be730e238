//! What is wrong with a text, and where.

use rules::nearest::nearest_in_any_case;
use std::ops::Range;

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, in bytes of the text.
    pub at: Range<usize>,
    /// What is wrong and what would be right.
    pub message: String,
    /// The text ends too early: more lines may make it right.
    pub incomplete: bool,
}

impl Problem {
    /// A problem at a place.
    pub fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), incomplete: false }
    }

    /// A name that is not known, with the nearest one that is.
    pub fn unknown(at: Range<usize>, what: &str, name: &str, known: &[&str]) -> Self {
        Self::new(at, format!("there is no {what} '{name}'{}", did_you_mean(name, known)))
    }

    /// Line and column of the problem, both from 1 on; columns count characters.
    pub fn place(&self, text: &str) -> (usize, usize) {
        let before = &text[..floor(text, self.at.start)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    /// The problem for people: line and column, the line itself, and carets below the place.
    pub fn render(&self, text: &str) -> String {
        let (line, column) = self.place(text);
        let shown = text.split('\n').nth(line - 1).unwrap_or_default().trim_end();
        let start = floor(text, self.at.start);
        let end = floor(text, self.at.end.max(start));
        let marked = text[start..end].split('\n').next().unwrap_or_default().chars().count();
        let room = (shown.chars().count() + 1).saturating_sub(column - 1).max(1);
        let carets = "^".repeat(marked.clamp(1, room));
        format!("{line}:{column}: {}\n  {shown}\n  {}{carets}", self.message, " ".repeat(column - 1))
    }
}

/// The nearest known name as the end of a sentence, or nothing when none is near.
pub fn did_you_mean(name: &str, known: &[&str]) -> String {
    nearest_in_any_case(name, known).map_or(String::new(), |near| format!("; did you mean '{near}'?"))
}

/// The place itself, or the start of the character that it lies in.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_line_column_and_carets() {
        let text = "use master\nkill größe x";
        let at = text.find("größe").expect("it is there");
        let shown = Problem::new(at..at + "größe".len(), "no number").render(text);
        assert_eq!(shown, "2:6: no number\n  kill größe x\n       ^^^^^");
        assert_eq!(Problem::new(999..1000, "at the end").render("go"), "1:3: at the end\n  go\n    ^");
    }
}
