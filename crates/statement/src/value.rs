//! Values as they are typed: texts, lists, tables, `$Null`, `$True`, `$False`.

use std::ops::Range;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A bare word or a quoted string.
    Text(String),
    /// `$Null`.
    Null,
    /// `$True`, `$False`.
    Bool(bool),
    /// `a, b` or `@(a, b)`.
    List(Vec<Value>),
    /// `@{Key = value, value; Key = value}`.
    Table(Vec<(String, Value)>),
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) value: Value,
    pub(crate) at: Range<usize>,
}

impl Value {
    /// The texts of a text, of a list of texts, or of nothing (`$Null`); `None` when there is something else in it.
    pub fn texts(&self) -> Option<Vec<String>> {
        match self {
            Value::Text(text) => Some(vec![text.clone()]),
            Value::Null => Some(Vec::new()),
            Value::Bool(_) | Value::Table(_) => None,
            Value::List(all) => {
                let texts: Option<Vec<Vec<String>>> = all.iter().map(Value::texts).collect();
                texts.map(|texts| texts.concat())
            }
        }
    }

    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Null => "$Null",
            Value::Bool(_) => "a truth value",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}
