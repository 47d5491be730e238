//! Matching what was typed behind a cmdlet's name with its parameters.

use crate::cmdlet::{Cmdlet, Here, Kind, Parameter};
use crate::problem::{Problem, did_you_mean};
use crate::value::{Placed, Value};
use std::ops::Range;

/// What was typed behind a name.
#[derive(Clone, Debug)]
pub(crate) enum Argument {
    /// `-Name`, perhaps with `:value`.
    Parameter { name: String, at: Range<usize>, value: Option<Placed> },
    /// A value.
    Value(Placed),
}

/// A cmdlet with values for its parameters.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The cmdlet.
    pub cmdlet: &'static Cmdlet,
    /// Where its name stands.
    pub at: Range<usize>,
    /// Objects come in by a pipeline.
    pub piped: bool,
    given: Vec<(&'static Parameter, Placed)>,
}

impl Bound {
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.given.iter().find(|(p, _)| p.name == name).map(|(_, placed)| &placed.value)
    }

    /// Whether the parameter was given.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        self.value(name).and_then(Value::texts).unwrap_or_default()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.value(name) == Some(&Value::Bool(true))
    }

    /// A switch that says yes, says no, or was not given.
    pub(crate) fn asked(&self, name: &str) -> Option<bool> {
        match self.value(name) {
            Some(Value::Bool(said)) => Some(*said),
            _ => None,
        }
    }

    pub(crate) fn at_of(&self, name: &str) -> Range<usize> {
        self.given.iter().find(|(p, _)| p.name == name).map_or(self.at.clone(), |(_, placed)| placed.at.clone())
    }

    /// Parameters that were given and do nothing here, each with the reason.
    pub(crate) fn notes(&self) -> Vec<String> {
        let notes = self.given.iter().filter_map(|(p, _)| match p.here {
            Here::Nothing(why) => Some(format!("-{} does nothing here: {why}", p.name)),
            Here::Does | Here::Refused(_) => None,
        });
        notes.filter(|note| !note.starts_with("-Verbose")).collect()
    }
}

/// Match arguments with the parameters of a cmdlet.
pub(crate) fn bind(
    cmdlet: &'static Cmdlet,
    at: Range<usize>,
    arguments: Vec<Argument>,
    piped: bool,
) -> Result<Bound, Problem> {
    let mut bound = Bound { cmdlet, at, piped, given: Vec::new() };
    let mut positional = Vec::new();
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        let (name, at, value) = match argument {
            Argument::Value(value) => {
                positional.push(value);
                continue;
            }
            Argument::Parameter { name, at, value } => (name, at, value),
        };
        let parameter = find(cmdlet, &name, &at)?;
        let value = match (value, parameter.kind) {
            (Some(value), _) => value,
            (None, Kind::Switch) => Placed { value: Value::Bool(true), at: at.clone() },
            (None, kind) => {
                let next = arguments.next_if(|a| matches!(a, Argument::Value(_)));
                let Some(Argument::Value(value)) = next else {
                    let message = format!("-{} needs a value: {}", parameter.name, kind.word());
                    return Err(Problem::new(at, message));
                };
                value
            }
        };
        give(&mut bound, parameter, value, at)?;
    }
    for value in positional {
        let next = cmdlet.parameters.iter().filter(|p| p.position.is_some() && !bound.has(p.name));
        let Some(parameter) = next.min_by_key(|p| p.position) else {
            let message = format!("{} takes no further value without a name; -{} …", cmdlet.name, first_name(cmdlet));
            return Err(Problem::new(value.at, message));
        };
        let at = value.at.clone();
        give(&mut bound, parameter, value, at)?;
    }
    check_sets(&bound)?;
    Ok(bound)
}

fn first_name(cmdlet: &Cmdlet) -> &'static str {
    cmdlet.parameters.first().map_or("WhatIf", |p| p.name)
}

/// The parameter of a name, or of the beginning of one that only it has.
fn find(cmdlet: &'static Cmdlet, name: &str, at: &Range<usize>) -> Result<&'static Parameter, Problem> {
    let lower = name.to_ascii_lowercase();
    let all: Vec<&'static Parameter> = cmdlet.all_parameters().collect();
    if let Some(exact) = all.iter().find(|p| p.name.eq_ignore_ascii_case(name)) {
        return Ok(exact);
    }
    let fitting: Vec<&&Parameter> = all.iter().filter(|p| p.name.to_ascii_lowercase().starts_with(&lower)).collect();
    match fitting[..] {
        [only] => Ok(only),
        [] => {
            let names: Vec<&str> = all.iter().map(|p| p.name).collect();
            let near = match did_you_mean(name, &names) {
                near if near.is_empty() => format!("; it has -{}", names.join(", -")),
                near => near.replacen('\'', "'-", 1),
            };
            Err(Problem::new(at.clone(), format!("{} has no parameter '-{name}'{near}", cmdlet.name)))
        }
        _ => {
            let names: Vec<String> = fitting.iter().map(|p| format!("-{}", p.name)).collect();
            Err(Problem::new(at.clone(), format!("-{name} could be {}; write more of it", names.join(" or "))))
        }
    }
}

fn give(bound: &mut Bound, parameter: &'static Parameter, value: Placed, at: Range<usize>) -> Result<(), Problem> {
    if bound.has(parameter.name) {
        return Err(Problem::new(at, format!("-{} stands here twice", parameter.name)));
    }
    if let Here::Refused(why) = parameter.here {
        return Err(Problem::new(at, format!("-{} is refused here: {why}", parameter.name)));
    }
    let value = fitting(parameter, value)?;
    bound.given.push((parameter, value));
    Ok(())
}

/// The value as the parameter takes it.
fn fitting(parameter: &Parameter, placed: Placed) -> Result<Placed, Problem> {
    let name = parameter.name;
    let wrong = |message: String| Err(Problem::new(placed.at.clone(), message));
    match (parameter.kind, &placed.value) {
        (Kind::Text | Kind::Name(_), Value::Text(text)) if text.trim().is_empty() => {
            wrong(format!("-{name} is empty; it takes {}", parameter.kind.word()))
        }
        (Kind::Text | Kind::Name(_), Value::Text(_)) => Ok(placed),
        (Kind::Switch | Kind::Truth, Value::Bool(_)) => Ok(placed),
        (Kind::Switch | Kind::Truth, Value::Text(text))
            if matches!(text.to_ascii_lowercase().as_str(), "1" | "true") =>
        {
            Ok(Placed { value: Value::Bool(true), ..placed })
        }
        (Kind::Switch | Kind::Truth, Value::Text(text))
            if matches!(text.to_ascii_lowercase().as_str(), "0" | "false") =>
        {
            Ok(Placed { value: Value::Bool(false), ..placed })
        }
        (Kind::Choice(words), Value::Text(text)) => match words.iter().find(|w| w.eq_ignore_ascii_case(text)) {
            Some(word) => Ok(Placed { value: Value::Text((*word).to_owned()), ..placed }),
            None => wrong(format!("-{name} takes {}, and not '{text}'{}", words.join(", "), did_you_mean(text, words))),
        },
        (Kind::Texts, value) if value.texts().is_some() => Ok(placed),
        (Kind::Table, Value::Table(_)) => Ok(placed),
        (Kind::ListChange, Value::Table(_)) => Ok(placed),
        (Kind::ListChange, value) if value.texts().is_some() => Ok(placed),
        (Kind::Object, _) => wrong(format!("-{name} takes objects of a pipeline: command | cmdlet")),
        (kind, value) => wrong(format!("-{name} takes {}, and {} stands here", kind.word(), value.kind())),
    }
}

/// Exactly one parameter set has to fit, with everything that it requires.
fn check_sets(bound: &Bound) -> Result<(), Problem> {
    let cmdlet = bound.cmdlet;
    let sets: Vec<&'static str> = if cmdlet.sets.is_empty() { vec![""] } else { cmdlet.sets.to_vec() };
    let belongs = |p: &Parameter, set: &str| p.sets.is_empty() || p.sets.contains(&set);
    let possible: Vec<&'static str> =
        sets.into_iter().filter(|set| bound.given.iter().all(|(p, _)| belongs(p, set))).collect();
    if possible.is_empty() {
        let mut own = bound.given.iter().filter(|(p, _)| !p.sets.is_empty());
        let first = own.next().map_or("", |(p, _)| p.name);
        let clash = bound.given.iter().rev().find(|(p, _)| !p.sets.is_empty() && p.name != first);
        let (other, at) = clash.map_or(("", bound.at.clone()), |(p, placed)| (p.name, placed.at.clone()));
        return Err(Problem::new(at, format!("-{first} and -{other} exclude each other; give one of them")));
    }
    let mut lacking: Vec<(usize, Vec<&'static str>)> = Vec::new();
    for set in possible {
        let required = cmdlet.parameters.iter().filter(|p| p.required && belongs(p, set));
        let stands = |p: &Parameter| bound.has(p.name) || (p.pipeline && bound.piped);
        let missing: Vec<&'static str> = required.filter(|p| !stands(p)).map(|p| p.name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        lacking.push((missing.len(), missing));
    }
    let least = lacking.iter().map(|(n, _)| *n).min().unwrap_or(0);
    let ways = lacking.into_iter().filter(|(n, _)| *n == least);
    let ways: Vec<String> = ways.map(|(_, missing)| format!("-{}", missing.join(" and -"))).collect();
    Err(Problem::new(bound.at.clone(), format!("{} needs {} as well", cmdlet.name, ways.join(", or "))))
}
