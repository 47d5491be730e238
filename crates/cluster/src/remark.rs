//! What a check says: the rule, what is so, and what a person can do.

use serde::Serialize;

/// A rule, and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// The rule or the gap of the reference: `ha-dr §9, R4`.
    pub rule: &'static str,
    /// What is so.
    pub why: String,
    /// What a person can do; empty when nothing need be done.
    pub hint: String,
}

impl Remark {
    /// A remark.
    pub fn new(rule: &'static str, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { rule, why: why.into(), hint: hint.into() }
    }
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hint = if self.hint.is_empty() { String::new() } else { format!("; {}", self.hint) };
        write!(f, "{}{hint} ({})", self.why, self.rule)
    }
}
