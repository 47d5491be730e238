//! `-Report FILE` of a statement: what it printed, with time and outcome, as a plain page of HTML.

use crate::failure::{Failure, Outcome};
use crate::output;
use std::path::Path;
use std::time::SystemTime;

/// Carry something out, and write what it printed into a file, whatever comes of it. A run writes a report of its own, with
/// evidence step by step, into the same file: that one stays.
///
/// # Errors
/// Those of what is carried out; else when the file cannot be written.
pub(super) async fn around(title: &str, file: &str, work: impl Future<Output = Outcome>) -> Outcome {
    let folder = Path::new(file).parent().filter(|f| !f.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|f| !f.is_dir()) {
        let folder = folder.display();
        return Err(Failure::Usage(format!("there is no folder {folder} for the report {file}; nothing was done")));
    }
    let (begun, since) = (jiff::Timestamp::now(), SystemTime::now());
    output::begin_log();
    let outcome = work.await;
    let printed = output::end_log();
    if std::fs::metadata(file).and_then(|m| m.modified()).is_ok_and(|at| at >= since) {
        return outcome;
    }
    let came_of_it = match &outcome {
        Ok(()) => "done".to_owned(),
        Err(failure) => format!("exit code {}: {failure}", failure.code()),
    };
    let page = page(title, &begun.to_string(), &jiff::Timestamp::now().to_string(), &printed, &came_of_it);
    let written = std::fs::write(file, page);
    outcome?;
    written.map_err(|e| Failure::Failed(format!("it is done, but the report {file} could not be written: {e}")))?;
    output::say(&format!("report: {file}"));
    Ok(())
}

/// The words that let a run write its report, where it can: into a page or as data.
pub(super) fn of_run(report: Option<&str>) -> Vec<String> {
    let ending = |file: &&str| {
        let ending = Path::new(file).extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        matches!(ending.as_str(), "html" | "htm" | "json")
    };
    report.filter(ending).map_or_else(Vec::new, |file| vec!["--report".to_owned(), file.to_owned()])
}

fn page(title: &str, begun: &str, ended: &str, printed: &str, outcome: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title></head>\n<body>\n<h1><code>{0}</code></h1>\n\
         <p>begun {1}, ended {2}</p>\n<pre>{3}</pre>\n<p>outcome: {4}</p>\n</body></html>\n",
        escaped(title),
        escaped(begun),
        escaped(ended),
        escaped(printed),
        escaped(outcome)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_reports_into_a_page_or_as_data() {
        assert_eq!(of_run(Some("C:\\Logs\\a.HTML")).len(), 2);
        assert_eq!(of_run(Some("a.json")), ["--report", "a.json"]);
        assert!(of_run(Some("Topology.xml")).is_empty() && of_run(None).is_empty());
    }

    #[test]
    fn what_was_printed_is_text_and_nothing_else() {
        let page = page("x <script>", "a", "b", "1 < 2 & \"3\"", "done");
        assert!(page.contains("<pre>1 &lt; 2 &amp; &quot;3&quot;</pre>"), "{page}");
        assert!(!page.contains("<script>"), "{page}");
    }
}
