//! Rows: what a command that shows something hands on, property by property, in the reference's names.

use std::cmp::Ordering;

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// A truth value.
    Bool(bool),
    /// Nothing, or not known.
    Null,
    /// Several texts.
    List(Vec<String>),
}

/// An object: its properties in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(pub Vec<(&'static str, Cell)>);

impl Row {
    /// The property of that name, in upper or lower case.
    pub fn get(&self, name: &str) -> Option<&Cell> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, cell)| cell)
    }

    /// The names of the properties.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Text(text) => f.write_str(text),
            Cell::Number(number) => write!(f, "{number}"),
            Cell::Bool(true) => f.write_str("True"),
            Cell::Bool(false) => f.write_str("False"),
            Cell::Null => Ok(()),
            Cell::List(all) => f.write_str(&all.join(", ")),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Cell::Bool(value)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Null, Into::into)
    }
}

/// Whether a text fits a pattern with `*` (anything) and `?` (one character); upper and lower case do not matter.
pub fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    let (mut t, mut p) = (0, 0);
    // Where to go on when the rest does not fit: behind the last star, one character of the text further on.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                t += 1;
                p += 1;
            }
            _ => match star {
                Some((after, at)) => {
                    p = after;
                    t = at + 1;
                    star = Some((after, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Whether a cell is equal to a value that was typed: texts in any case, numbers as numbers.
pub fn equal(cell: &Cell, value: &crate::Value) -> bool {
    use crate::Value;
    match (cell, value) {
        (Cell::Null, Value::Null) => true,
        (Cell::Bool(cell), Value::Bool(value)) => cell == value,
        (Cell::Text(cell), Value::Text(value)) => cell.to_lowercase().cmp(&value.to_lowercase()) == Ordering::Equal,
        (Cell::List(cells), Value::Text(value)) => cells.iter().any(|c| c.eq_ignore_ascii_case(value)),
        (cell @ (Cell::Number(_) | Cell::Bool(_)), Value::Text(value)) => cell.to_string().eq_ignore_ascii_case(value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_administrators_expect() {
        for (text, pattern, fits) in [
            ("service:atl-cs-001", "service:*", true),
            ("atl-cs-001.litwareinc.com", "*.LITWAREINC.com", true),
            ("atl-cs-001.litwareinc.com", "*.contoso.com", false),
            ("abcbc", "a*bc", true),
            ("abc", "a?c", true),
            ("abc", "abc*", true),
            ("", "*", true),
            ("x", "", false),
        ] {
            assert_eq!(like(text, pattern), fits, "{text} {pattern}");
        }
    }
}
