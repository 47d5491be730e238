//! What a compiler does not check: the map is true, files stay small, generated pages are current.

use std::collections::BTreeSet;
use std::fs;

/// Longest file of code, in lines.
const FILE_LINES_MAX: usize = 600;

/// Files that are longer, with their present length: this list may only shrink.
const LONGER_FILES: &[(&str, usize)] = &[];

#[test]
fn the_table_in_architecture_is_what_the_manifests_say() {
    let root = xtask::root();
    let mut manifests = xtask::manifest::crates(&root);
    manifests.remove("xtask");
    let mut table = xtask::manifest::table(&fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    let everything: BTreeSet<String> = manifests.keys().filter(|n| *n != "standfast").cloned().collect();
    table.insert("standfast".into(), everything);
    assert_eq!(
        table.keys().collect::<Vec<_>>(),
        manifests.keys().collect::<Vec<_>>(),
        "ARCHITECTURE.md names other crates than there are"
    );
    for (name, uses) in &manifests {
        let more: Vec<_> = uses.difference(&table[name]).collect();
        assert!(more.is_empty(), "{name} uses {more:?}, which ARCHITECTURE.md does not allow it");
    }
}

#[test]
fn every_path_that_architecture_names_exists() {
    let root = xtask::root();
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let paths: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|t| t.starts_with("crates/")).collect();
    assert!(!paths.is_empty());
    for path in paths {
        assert!(root.join(path).exists(), "ARCHITECTURE.md names {path}, which does not exist");
    }
}

#[test]
fn files_are_about_one_thing() {
    let root = xtask::root();
    for path in xtask::files(&root.join("crates"), "rs") {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        let most = LONGER_FILES.iter().find(|(n, _)| *n == name).map_or(FILE_LINES_MAX, |(_, l)| *l);
        assert!(lines <= most, "{name} has {lines} lines, at most {most} are allowed: split it by what it is about");
    }
}

#[test]
fn generated_pages_are_current() {
    let root = xtask::root();
    for (path, text) in xtask::pages::all() {
        let there = fs::read_to_string(root.join(&path)).unwrap_or_default();
        assert!(there == text, "{path} is not what the code says; run: cargo run -p xtask");
    }
}

#[test]
fn only_store_and_agent_speak_sql() {
    let root = xtask::root();
    for path in xtask::files(&root.join("crates"), "toml") {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let shipped = text.split("[dev-dependencies]").next().unwrap();
        let speaks = shipped.contains("tokio-postgres");
        let may = matches!(name.as_str(), "store" | "agent");
        assert!(
            may || !speaks,
            "{name} links a PostgreSQL client; chat SQL belongs into store, administration into agent"
        );
    }
}

#[test]
fn every_markdown_link_leads_somewhere() {
    let root = xtask::root();
    for page in xtask::files(&root, "md") {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap();
            assert!(
                page.parent().unwrap().join(file).exists(),
                "{} links to {target}, which is not there",
                page.display()
            );
        }
    }
}

#[test]
fn steps_pages_and_statements_agree() {
    use statement::terms::{STEP_STATEMENTS, statement_of};
    let root = xtask::root();
    for runbook in [cluster::failover::FAILOVER, cluster::failback::FAILBACK] {
        let page = fs::read_to_string(root.join(format!("docs/runbooks/{}-steps.md", runbook.name))).unwrap();
        for step in runbook.steps.iter().filter(|s| !s.reference.is_empty()) {
            let row = statement_of(runbook.name, step.id);
            let row =
                row.unwrap_or_else(|| panic!("step {} has the number {} and no statement", step.id, step.reference));
            let line = page.lines().find(|l| l.contains(&format!("`{}`", step.id))).unwrap_or_default();
            assert!(line.contains(row.statement), "the page of {} does not say how {} is typed", runbook.name, step.id);
        }
    }
    for row in STEP_STATEMENTS {
        let runbook = cluster::runbook::named(row.runbook).unwrap();
        assert!(runbook.step(row.step).is_some(), "the statement {} is for a step that is not there", row.statement);
    }
    // Every command that the hand-written pages show is one.
    let plain =
        ["pool", "failover", "failback", "step", "mirror", "runbook", "lab", "shell", "topology"].map(str::to_owned);
    for page in ["failover", "failback"] {
        let text = fs::read_to_string(root.join(format!("docs/runbooks/{page}.md"))).unwrap();
        for typed in text.split('`').skip(1).step_by(2).filter(|t| t.starts_with("standfast ")) {
            let known = statement::Known { plain: &plain };
            assert!(statement::parse(typed, known).is_ok(), "{page}.md shows `{typed}`, which is not understood");
        }
    }
}

/// Names of metrics in a text, as series are named: those of a histogram without their endings.
fn metrics_named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("standfast_"));
    let histogram = |word: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        base.filter(|base| wire::metrics::catalogue::ALL.iter().any(|m| m.name == *base)).map(str::to_owned)
    };
    words.map(|word| histogram(word).unwrap_or_else(|| word.to_owned())).collect()
}

#[test]
fn the_dashboard_and_the_alert_rules_name_metrics_that_there_are() {
    let root = xtask::root();
    let all: BTreeSet<&str> = wire::metrics::catalogue::ALL.iter().map(|m| m.name).collect();
    for file in ["ops/grafana/standfast.json", "ops/prometheus/alerts.yml", "docs/runbooks/preflight.md"] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let named = metrics_named(&text);
        assert!(named.len() > 3, "{file} names metrics");
        // A name that a sentence shortens, as `standfast_preflight_…`, ends in a bar; so does the example's file name there.
        let unknown: Vec<_> = named
            .iter()
            .filter(|n| !all.contains(n.as_str()) && !n.ends_with('_') && *n != "standfast_failover")
            .collect();
        assert!(
            unknown.is_empty(),
            "{file} names metrics that nobody writes: {unknown:?}; docs/metrics.md has those there are"
        );
    }
}
