//! Pages of the documentation that are generated from code, so that they cannot say something else than it does.

use cluster::runbook::{Runbook, Undo};
use statement::catalogue::{CATALOGUE, ELSEWHERE};
use statement::cmdlet::Here;
use statement::database::FORMS;
use statement::terms::{STEP_STATEMENTS, TERMS, statement_of};
use std::fmt::Write;

/// Every generated page: its path in the repository and its text.
pub fn all() -> Vec<(String, String)> {
    let runbooks = cluster::runbook::ALL.iter().map(|r| (format!("docs/runbooks/{}-steps.md", r.name), runbook(r)));
    runbooks
        .chain([
            ("docs/reference-terms.md".to_owned(), reference_terms()),
            ("docs/metrics.md".to_owned(), crate::metrics_page::metrics()),
        ])
        .collect()
}

/// A text in a cell of a table.
pub(crate) fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Every term and command of the reference and its counterpart here.
pub fn reference_terms() -> String {
    let mut page = String::from(
        "# Every term and command of the reference, and its counterpart here\n\nGenerated from the code by `cargo run -p \
         xtask`; a test compares it. `standfast shell` reads the commands; `Get-Help NAME` there says more.\n",
    );
    let mut add = |text: &str| page.push_str(text);
    add(
        "\n## The steps of the procedures\n\nIn the reference's order. POOL, PRINCIPAL, SERVER, SHARE and FILE stand for names.\n",
    );
    for name in ["failover", "failback"] {
        add(&format!(
            "\n### {name}\n\n| reference | there | in `standfast shell` | step |\n| --- | --- | --- | --- |\n"
        ));
        for row in STEP_STATEMENTS.iter().filter(|s| s.runbook == name) {
            let step = cluster::runbook::named(name).and_then(|r| r.step(row.step)).map_or("", |(_, s)| s.reference);
            let step = if step.is_empty() { "–" } else { step };
            let (there, here) = (cell(row.reference), cell(row.statement));
            add(&format!("| {step} | {there} | `{here}` | `standfast step {name} {}` |\n", row.step));
        }
    }
    add("\n## Cmdlets\n\n| cmdlet | what it does | plain command |\n| --- | --- | --- |\n");
    for cmdlet in CATALOGUE {
        add(&format!(
            "| `{}` | {} {} | `{}` |\n",
            cmdlet.name,
            cell(cmdlet.synopsis),
            cell(cmdlet.here),
            cell(cmdlet.plain)
        ));
    }
    add(
        "\nParameters that are accepted and do nothing here, or are refused:\n\n| cmdlet | parameter | why |\n| --- | --- | --- |\n",
    );
    for cmdlet in CATALOGUE {
        // Roles of Get-CsService that no pool here has are one row.
        let mut said = std::collections::BTreeSet::new();
        for parameter in cmdlet.parameters {
            let why = match parameter.here {
                Here::Does => continue,
                Here::Nothing(why) => why.to_owned(),
                Here::Refused(why) => format!("refused: {why}"),
            };
            let name =
                if said.insert(why.clone()) || cmdlet.name != "Get-CsService" { parameter.name } else { continue };
            let more = if cmdlet.name == "Get-CsService" { " and the reference's other roles" } else { "" };
            add(&format!("| `{}` | `-{name}`{more} | {} |\n", cmdlet.name, cell(&why)));
        }
    }
    add("\n## Database statements\n\n| statement | what it does |\n| --- | --- |\n");
    for form in FORMS {
        add(&format!("| `{}` | {} |\n", cell(form.form), cell(form.says)));
    }
    add("\n## Cmdlets that are not part of the shell\n\n| cmdlet | here |\n| --- | --- |\n");
    for (name, here) in ELSEWHERE {
        let here = if here.is_empty() { "not there yet" } else { here };
        add(&format!("| `{name}` | {} |\n", cell(here)));
    }
    add("\n## Terms\n\n| there | here | remark |\n| --- | --- | --- |\n");
    for (there, here, remark) in TERMS {
        add(&format!("| {} | {} | {} |\n", cell(there), cell(here), cell(remark)));
    }
    page
}

/// The page of one runbook.
pub fn runbook(runbook: &Runbook) -> String {
    let typed = STEP_STATEMENTS.iter().any(|s| s.runbook == runbook.name);
    let mut page = format!(
        "# {}: the steps\n\nGenerated from the code by `cargo run -p xtask`; a test compares it.\n\n{}\n\n\
         | step | reference | what is done | undo | waits at most before it says so |{}\n| --- | --- | --- | --- | --- |{}\n",
        runbook.name,
        runbook.says,
        if typed { " in `standfast shell` |" } else { "" },
        if typed { " --- |" } else { "" }
    );
    for step in runbook.steps {
        let reference = if step.reference.is_empty() { "added for safety" } else { step.reference };
        let undo = match step.undo {
            Undo::Nothing => "leaves nothing behind",
            Undo::RestoreRecord => "the old record",
            Undo::PointOfNoReturn => "**from here on, forward only**",
        };
        let patience = step.patience_ms as f64 / 1000.0;
        let statement = match statement_of(runbook.name, step.id) {
            Some(row) => format!(" `{}` |", cell(row.statement)),
            None if typed => " with the next one |".to_owned(),
            None => String::new(),
        };
        writeln!(page, "| `{}` | {reference} | {} | {undo} | {patience} s |{statement}", step.id, step.says)
            .expect("writing to a string cannot fail");
    }
    page
}
