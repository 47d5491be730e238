//! Rows on the screen: a table when they are narrow, a property a line when they are not, objects with `--json`.

use crate::failure::Outcome;
use crate::output;
use serde_json::{Map, Value};
use statement::{Cell, Row};

/// Most properties that a table has when nobody asks for one.
const COLUMNS_MAX: usize = 6;

/// How rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As fits.
    Any,
    /// A line an object.
    Table,
    /// A line a property.
    List,
    /// Only the values, a line each.
    Values,
}

/// Show rows.
pub(super) fn rows(rows: &[Row], form: Form, json: bool) -> Outcome {
    if json {
        return output::json(&rows.iter().map(object).collect::<Vec<_>>());
    }
    text(rows, form).iter().try_for_each(|line| output::line(line))
}

/// Rows as lines.
pub(super) fn text(rows: &[Row], form: Form) -> Vec<String> {
    let names = rows.first().map(Row::names).unwrap_or_default();
    match form {
        Form::Values => rows.iter().flat_map(|r| r.0.iter().map(|(_, cell)| cell.to_string())).collect(),
        Form::Table => table(rows, &names),
        Form::Any if names.len() <= COLUMNS_MAX => table(rows, &names),
        Form::Any | Form::List => list(rows),
    }
}

fn table(rows: &[Row], names: &[&'static str]) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let cell = |row: &Row, name: &str| row.get(name).map(Cell::to_string).unwrap_or_default();
    let width =
        |name: &&'static str| rows.iter().map(|r| cell(r, name).chars().count()).chain([name.len()]).max().unwrap_or(0);
    let widths: Vec<usize> = names.iter().map(width).collect();
    let line = |cells: Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(names.iter().map(|n| (*n).to_owned()).collect())];
    lines.push(line(names.iter().map(|n| "-".repeat(n.len())).collect()));
    lines.extend(rows.iter().map(|row| line(names.iter().map(|name| cell(row, name)).collect())));
    lines
}

fn list(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let width = row.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        lines.extend(row.0.iter().map(|(name, cell)| format!("{name:<width$} : {cell}").trim_end().to_owned()));
    }
    lines
}

fn object(row: &Row) -> Value {
    let value = |cell: &Cell| match cell {
        Cell::Text(text) => Value::from(text.clone()),
        Cell::Number(number) => Value::from(*number),
        Cell::Bool(value) => Value::from(*value),
        Cell::Null => Value::Null,
        Cell::List(all) => Value::from(all.clone()),
    };
    Value::Object(row.0.iter().map(|(name, cell)| ((*name).to_owned(), value(cell))).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_properties_are_a_table_and_many_a_list() {
        let few = vec![
            Row(vec![("Name", "agent".into()), ("Up", true.into())]),
            Row(vec![("Name", "server-1".into()), ("Up", Cell::Null)]),
        ];
        assert_eq!(text(&few, Form::Any), ["Name      Up", "----      --", "agent     True", "server-1"]);
        assert_eq!(text(&few, Form::List)[..3], ["Name : agent", "Up   : True", ""]);
        assert_eq!(text(&few, Form::Values), ["agent", "True", "server-1", ""]);
        assert!(text(&[], Form::Any).is_empty());
    }
}
