//! Help, from the table.

use crate::catalogue::{CATALOGUE, ELSEWHERE};
use crate::cmdlet::{Cmdlet, Here, OF_CHANGES, Parameter};
use crate::database::{FORMS, Form};
use crate::problem::did_you_mean;
use crate::row::{Row, like};

/// What there is, in a few lines.
pub fn overview() -> String {
    let mut text = String::from(
        "Cmdlets of the reference (Get-Command lists them, Get-Help NAME explains one), database statements of its \
         procedures, and every plain standfast command, such as: pool status, failover, step failover STEP.\n\nCMDLETS\n",
    );
    for cmdlet in CATALOGUE {
        text.push_str(&format!("  {:<40} {}\n", cmdlet.name, cmdlet.synopsis));
    }
    text.push_str("\nDATABASE STATEMENTS\n");
    for form in FORMS {
        text.push_str(&format!("  {}\n      {}\n", form.form, form.says));
    }
    text.push_str(
        "\nA '#' begins a comment; a backtick at the end of a line goes on in the next; exit ends the shell.",
    );
    text
}

/// Help on a cmdlet or a database statement.
///
/// # Errors
/// When there is none of that name, with the nearest one.
pub fn on(name: &str, examples: bool, parameter: Option<&str>) -> Result<String, String> {
    if let Some(cmdlet) = CATALOGUE.iter().find(|c| c.name.eq_ignore_ascii_case(name)) {
        return Ok(match parameter {
            Some(pattern) => parameters_like(cmdlet, pattern)?,
            None if examples => examples_of(cmdlet),
            None => whole(cmdlet),
        });
    }
    let plain = name.trim_start_matches("exec ").to_ascii_lowercase();
    let forms: Vec<&Form> = FORMS.iter().filter(|f| f.names.contains(&plain.as_str())).collect();
    if !forms.is_empty() {
        let lines: Vec<String> = forms.iter().map(|f| format!("{}\n    {}", f.form, f.says)).collect();
        return Ok(lines.join("\n\n"));
    }
    if let Some((name, here)) = ELSEWHERE.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
        let here = if here.is_empty() { "nothing here does the same yet" } else { here };
        return Ok(format!("{name}: not part of this shell; here: {here}"));
    }
    let mut known: Vec<&str> = CATALOGUE.iter().map(|c| c.name).collect();
    known.extend(FORMS.iter().flat_map(|f| f.names));
    Err(format!("there is no help on '{name}'{}; help alone shows what there is", did_you_mean(name, &known)))
}

/// Cmdlets whose names fit a pattern, as rows.
pub fn commands(pattern: &str) -> Vec<Row> {
    let fitting = CATALOGUE.iter().filter(|c| like(c.name, pattern));
    fitting
        .map(|c| Row(vec![("CommandType", "Cmdlet".into()), ("Name", c.name.into()), ("Synopsis", c.synopsis.into())]))
        .collect()
}

fn whole(cmdlet: &Cmdlet) -> String {
    let mut text = format!("NAME\n    {}\n\nSYNOPSIS\n    {}\n", cmdlet.name, cmdlet.synopsis);
    text.push_str("\nSYNTAX\n");
    let all = [""];
    for set in if cmdlet.sets.is_empty() { &all[..] } else { cmdlet.sets } {
        let line = syntax(cmdlet, set);
        text.push_str(&format!("    {line}\n"));
    }
    if !cmdlet.here.is_empty() {
        text.push_str(&format!("\nHERE\n    {}\n", cmdlet.here));
    }
    text.push_str("\nPARAMETERS\n");
    for parameter in cmdlet.all_parameters() {
        text.push_str(&one(parameter));
    }
    if !cmdlet.shows.is_empty() {
        text.push_str(&format!("\nPROPERTIES\n    {}\n", cmdlet.shows.join(", ")));
    }
    text.push_str(&format!("\nEXAMPLES\n{}\n\nPLAIN COMMAND\n    {}", examples_of(cmdlet), cmdlet.plain));
    text
}

/// One line of syntax, as PowerShell writes it.
pub fn syntax(cmdlet: &Cmdlet, set: &str) -> String {
    let mut line = cmdlet.name.to_owned();
    let changes = if cmdlet.changes { OF_CHANGES } else { &[] };
    let own = cmdlet.parameters.iter().chain(changes);
    for parameter in own.filter(|p| p.sets.is_empty() || p.sets.contains(&set)) {
        // Switches of roles that no pool here has are many; one word stands for them.
        if parameter.sets == ["Other"] {
            continue;
        }
        let name = format!("-{}", parameter.name);
        let name = if parameter.position.is_some() { format!("[{name}]") } else { name };
        let value = match parameter.kind {
            crate::cmdlet::Kind::Switch => String::new(),
            kind => format!(" <{}>", kind.word()),
        };
        line.push_str(&if parameter.required { format!(" {name}{value}") } else { format!(" [{name}{value}]") });
    }
    line.push_str(if set == "Other" { " -ROLE [<CommonParameters>]" } else { " [<CommonParameters>]" });
    line
}

fn one(parameter: &Parameter) -> String {
    let mut text = format!("    -{} <{}>\n        {}", parameter.name, parameter.kind.word(), parameter.says);
    if parameter.required {
        text.push_str(" Required.");
    }
    if !parameter.default.is_empty() {
        text.push_str(&format!(" Left out: {}.", parameter.default));
    }
    if !parameter.sets.is_empty() {
        text.push_str(&format!(" Set {}.", parameter.sets.join(", ")));
    }
    text.push_str(&match parameter.here {
        Here::Does => "\n".to_owned(),
        Here::Nothing(why) => format!(" Does nothing here: {why}.\n"),
        Here::Refused(why) => format!(" Refused here: {why}.\n"),
    });
    text
}

fn examples_of(cmdlet: &Cmdlet) -> String {
    let examples = cmdlet.examples.iter().map(|(typed, says)| format!("    {typed}\n        {says}"));
    examples.collect::<Vec<_>>().join("\n")
}

fn parameters_like(cmdlet: &Cmdlet, pattern: &str) -> Result<String, String> {
    let pattern = pattern.trim_start_matches('-');
    let found: Vec<String> = cmdlet.all_parameters().filter(|p| like(p.name, pattern)).map(one).collect();
    if found.is_empty() {
        let names: Vec<&str> = cmdlet.all_parameters().map(|p| p.name).collect();
        return Err(format!("{} has no parameter '{pattern}'{}", cmdlet.name, did_you_mean(pattern, &names)));
    }
    Ok(found.concat().trim_end().to_owned())
}
