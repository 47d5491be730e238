//! What follows a `|`: a small real implementation over rows.

use crate::cursor::{Cursor, dash};
use crate::parse::Call;
use crate::problem::Problem;
use crate::row::{Cell, Row, equal, like};
use crate::value::Value;

/// A stage of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Where-Object.
    Where(Condition),
    /// Select-Object.
    Select {
        /// Only these properties.
        properties: Vec<String>,
        /// The values of this property, in place of the objects.
        expand: Option<String>,
        /// Only so many, from the first on.
        first: Option<usize>,
    },
    /// Format-List, Format-Table.
    Format {
        /// A property a line.
        list: bool,
        /// Only these properties.
        properties: Vec<String>,
    },
    /// A cmdlet that takes the objects.
    Call(Box<Call>),
}

/// Comparisons with `-and` and `-or` between them, taken from left to right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    first: Comparison,
    rest: Vec<(Join, Comparison)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Join {
    And,
    Or,
}

/// `$_.Property -eq value`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Comparison {
    property: String,
    operator: Operator,
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Like,
    NotLike,
}

const OPERATORS: &[(&str, Operator)] =
    &[("eq", Operator::Equal), ("ne", Operator::NotEqual), ("like", Operator::Like), ("notlike", Operator::NotLike)];

/// Names of the stages that work on any rows, with the short ones of PowerShell.
pub(crate) const NAMES: &[(&str, &[&str])] = &[
    ("Where-Object", &["where", "?"]),
    ("Select-Object", &["select"]),
    ("Format-List", &["fl"]),
    ("Format-Table", &["ft"]),
];

impl Condition {
    /// Whether it holds for a row. A property that a row does not have is nothing.
    pub fn holds(&self, row: &Row) -> bool {
        self.rest.iter().fold(self.first.holds(row), |so_far, (join, comparison)| match join {
            Join::And => so_far && comparison.holds(row),
            Join::Or => so_far || comparison.holds(row),
        })
    }

    /// The properties that are compared.
    pub fn properties(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.first).chain(self.rest.iter().map(|(_, c)| c)).map(|c| c.property.as_str())
    }
}

impl Comparison {
    fn holds(&self, row: &Row) -> bool {
        let cell = row.get(&self.property).unwrap_or(&Cell::Null);
        let pattern = || if let Value::Text(text) = &self.value { text.as_str() } else { "" };
        match self.operator {
            Operator::Equal => equal(cell, &self.value),
            Operator::NotEqual => !equal(cell, &self.value),
            Operator::Like => like(&cell.to_string(), pattern()),
            Operator::NotLike => !like(&cell.to_string(), pattern()),
        }
    }
}

impl Stage {
    /// The rows behind this stage; those of a cmdlet or a form are handed on as they are.
    pub fn apply(&self, rows: Vec<Row>) -> Vec<Row> {
        match self {
            Stage::Where(condition) => rows.into_iter().filter(|row| condition.holds(row)).collect(),
            Stage::Select { properties, expand, first } => {
                let rows = rows.into_iter().take(first.unwrap_or(usize::MAX));
                match expand {
                    Some(property) => rows.flat_map(|row| expanded(&row, property)).collect(),
                    None if properties.is_empty() => rows.collect(),
                    None => rows.map(|row| only(&row, properties)).collect(),
                }
            }
            Stage::Format { properties, .. } if !properties.is_empty() => {
                rows.into_iter().map(|row| only(&row, properties)).collect()
            }
            Stage::Format { .. } | Stage::Call(_) => rows,
        }
    }
}

/// The properties of these names or patterns, in that order.
fn only(row: &Row, properties: &[String]) -> Row {
    let wanted = properties.iter().flat_map(|p| row.0.iter().filter(move |(name, _)| like(name, p)).cloned());
    Row(wanted.collect())
}

fn expanded(row: &Row, property: &str) -> Vec<Row> {
    let Some((name, cell)) = row.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(property)) else { return Vec::new() };
    match cell {
        Cell::List(all) => all.iter().map(|text| Row(vec![(*name, text.clone().into())])).collect(),
        other => vec![Row(vec![(*name, other.clone())])],
    }
}

/// Read a stage of these names; the cursor stands behind the name.
pub(crate) fn read(name: &'static str, cursor: &mut Cursor<'_>) -> Result<Stage, Problem> {
    match name {
        "Where-Object" => {
            cursor.skip_blanks();
            let block = cursor.eat('{');
            let condition = condition(cursor, block)?;
            if block {
                cursor.skip_lines();
                if !cursor.eat('}') {
                    return Err(cursor.expected("-and, -or or '}'"));
                }
            }
            Ok(Stage::Where(condition))
        }
        "Select-Object" => select(cursor),
        _ => Ok(Stage::Format { list: name == "Format-List", properties: properties(cursor)? }),
    }
}

fn condition(cursor: &mut Cursor<'_>, block: bool) -> Result<Condition, Problem> {
    let first = comparison(cursor, block)?;
    let mut rest = Vec::new();
    loop {
        let mut ahead = cursor.clone();
        if block {
            ahead.skip_lines();
        } else {
            ahead.skip_blanks();
        }
        if !ahead.at_parameter() {
            return Ok(Condition { first, rest });
        }
        let at = ahead.at;
        ahead.bump();
        let join = match ahead.word(&[]).to_ascii_lowercase().as_str() {
            "and" => Join::And,
            "or" => Join::Or,
            _ => return Err(Problem::new(at..ahead.at, "-and or -or is expected between two comparisons")),
        };
        *cursor = ahead;
        rest.push((join, comparison(cursor, block)?));
    }
}

fn comparison(cursor: &mut Cursor<'_>, block: bool) -> Result<Comparison, Problem> {
    if block {
        cursor.skip_lines();
    } else {
        cursor.skip_blanks();
    }
    let at = cursor.at;
    let word = cursor.word(&[]);
    let bare = word.strip_prefix("$_.").or_else(|| word.strip_prefix("$PSItem."));
    let property = match (bare, block) {
        (Some(property), _) => property.to_owned(),
        (None, false) if !word.is_empty() && !word.starts_with(['-', '$']) => word,
        (None, _) => {
            cursor.at = at;
            return Err(cursor.expected("a property such as $_.Status"));
        }
    };
    cursor.skip_blanks();
    if !cursor.peek().is_some_and(dash) {
        return Err(cursor.expected("a comparison: -eq, -ne, -like or -notlike"));
    }
    let at = cursor.at;
    cursor.bump();
    let name = cursor.word(&[]);
    let Some((_, operator)) = OPERATORS.iter().find(|(n, _)| n.eq_ignore_ascii_case(&name)) else {
        let known: Vec<&str> = OPERATORS.iter().map(|(n, _)| *n).collect();
        return Err(Problem::unknown(at..cursor.at, "comparison", &name, &known));
    };
    cursor.skip_blanks();
    let value = cursor.value(&[])?.value;
    Ok(Comparison { property, operator: *operator, value })
}

fn select(cursor: &mut Cursor<'_>) -> Result<Stage, Problem> {
    let (mut names, mut expand, mut first) = (Vec::new(), None, None);
    loop {
        cursor.skip_blanks();
        if !cursor.at_parameter() {
            let more = properties(cursor)?;
            if more.is_empty() {
                return Ok(Stage::Select { properties: names, expand, first });
            }
            names.extend(more);
            continue;
        }
        let at = cursor.at;
        cursor.bump();
        let name = cursor.word(&[':']);
        let known = ["ExpandProperty", "Property", "First"];
        let fits = known.iter().find(|k| k.to_ascii_lowercase().starts_with(&name.to_ascii_lowercase()));
        let Some(parameter) = fits else {
            return Err(Problem::unknown(at..cursor.at, "parameter of Select-Object", &name, &known));
        };
        cursor.eat(':');
        cursor.skip_blanks();
        let value = cursor.value(&[])?;
        let texts = value.value.texts().unwrap_or_default();
        match (*parameter, texts.first()) {
            ("ExpandProperty", Some(property)) => expand = Some(property.clone()),
            ("First", Some(count)) => {
                let message = "-First takes a number of objects";
                first = Some(count.parse().map_err(|_| Problem::new(value.at.clone(), message))?);
            }
            (_, Some(_)) => names.extend(texts),
            (_, None) => return Err(Problem::new(value.at, "the name of a property is expected")),
        }
    }
}

/// Names with commas between them, up to the end of the stage.
fn properties(cursor: &mut Cursor<'_>) -> Result<Vec<String>, Problem> {
    cursor.skip_blanks();
    if cursor.at_end() || matches!(cursor.peek(), Some('|' | ')' | '>')) {
        return Ok(Vec::new());
    }
    let placed = cursor.value(&[])?;
    placed.value.texts().ok_or_else(|| Problem::new(placed.at, "names of properties are expected"))
}
