//! The known name that somebody meant who mistyped it.

/// The known name that is nearest to a mistyped one, if any is near.
pub fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|name| (distance(unknown, name), *name));
    scored.min().filter(|(d, name)| *d <= 1 + name.len() / 3).map(|(_, name)| name)
}

/// The same where upper and lower case do not matter.
pub fn nearest_in_any_case<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let unknown = unknown.to_lowercase();
    let scored = known.iter().map(|name| (distance(&unknown, &name.to_lowercase()), *name));
    scored.min().filter(|(d, name)| *d <= 1 + name.len() / 3).map(|(_, name)| name)
}

/// Edits that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_finds_its_nearest_and_a_strange_one_none() {
        assert_eq!(nearest("autority", &["name", "authority"]), Some("authority"));
        assert_eq!(nearest("qqqqqqq", &["name", "authority"]), None);
        assert_eq!(nearest_in_any_case("GET-csservce", &["Get-CsService", "Get-CsTopology"]), Some("Get-CsService"));
    }
}
