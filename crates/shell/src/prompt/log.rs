//! `-Report FILE` of a statement: what it printed, with time and outcome, as a plain page of HTML.

use crate::failure::{Failure, Outcome};
use crate::output;

/// Carry something out, and write what it printed into a file, whatever comes of it.
///
/// # Errors
/// Those of what is carried out; else when the file cannot be written.
pub(super) async fn around(title: &str, file: &str, work: impl Future<Output = Outcome>) -> Outcome {
    let begun = jiff::Timestamp::now();
    output::begin_log();
    let outcome = work.await;
    let printed = output::end_log();
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
    fn what_was_printed_is_text_and_nothing_else() {
        let page = page("x <script>", "a", "b", "1 < 2 & \"3\"", "done");
        assert!(page.contains("<pre>1 &lt; 2 &amp; &quot;3&quot;</pre>"), "{page}");
        assert!(!page.contains("<script>"), "{page}");
    }
}
