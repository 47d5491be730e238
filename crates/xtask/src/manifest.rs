//! The crates as their manifests have them, to be compared with the table in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each crate of the workspace with the workspace crates that its shipped code uses.
pub fn crates(root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    let folder = std::fs::read_dir(root.join("crates")).expect("the workspace has crates");
    for entry in folder.flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path().join("Cargo.toml")) else { continue };
        let manifest: toml::Table = text.parse().expect("cargo has read this manifest");
        let uses = manifest.get("dependencies").and_then(|d| d.as_table()).into_iter().flatten();
        all.insert(
            entry.file_name().to_string_lossy().into_owned(),
            uses.map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(),
        );
    }
    let names: BTreeSet<String> = all.keys().cloned().collect();
    for uses in all.values_mut() {
        uses.retain(|name| names.contains(name));
    }
    all
}

/// The same from the table in ARCHITECTURE.md: crate and "may use".
pub fn table(architecture: &str) -> BTreeMap<String, BTreeSet<String>> {
    architecture
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [name, _, _, uses] = cells.as_slice() else { return None };
            let words = uses.split(", ").filter(|u| *u != "—").map(str::to_owned).collect();
            Some((name.trim_matches('`').to_owned(), words))
        })
        .collect()
}
