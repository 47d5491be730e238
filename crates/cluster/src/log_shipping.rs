//! Log shipping to a backup: stream when it can, files when it must, and back by itself.

/// What the backup's agent sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedView {
    /// Copy and restore jobs and stream are on (not after `StopLogShipping`).
    pub enabled: bool,
    /// The record names a source for the stream.
    pub has_upstream: bool,
    /// The stream is up now.
    pub streaming: bool,
    /// Milliseconds since the stream was last up, or since the agent began to watch.
    pub stream_down_ms: u64,
    /// Whether the source's port took a connection at the last try; `None` before the first.
    pub upstream_reachable: Option<bool>,
    /// PostgreSQL has a `primary_conninfo` now.
    pub stream_configured: bool,
    /// PostgreSQL has a `restore_command` now.
    pub files_configured: bool,
}

/// How the instance is to be fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Set `primary_conninfo`.
    pub stream: bool,
    /// Set `restore_command` and copy from the share, partial segments included.
    pub files: bool,
}

/// A stream that is down this long, in milliseconds, with its source out of reach, is taken out of PostgreSQL's
/// configuration: libpq's shortest connection time-out is 2 s, and while PostgreSQL tries, it applies no files.
pub const STREAM_DOWN_MS: u64 = 200;

/// How the instance is to be fed, given what is seen.
pub fn feed(view: &FeedView) -> Feed {
    if !view.enabled {
        return Feed { stream: false, files: false };
    }
    let unreachable = view.upstream_reachable == Some(false) && view.stream_down_ms >= STREAM_DOWN_MS;
    Feed { stream: view.has_upstream && (view.streaming || !unreachable), files: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> FeedView {
        FeedView {
            enabled: true,
            has_upstream: true,
            streaming: true,
            stream_down_ms: 0,
            upstream_reachable: Some(true),
            stream_configured: true,
            files_configured: true,
        }
    }

    #[test]
    fn both_feeds_are_on_as_a_rule() {
        assert_eq!(feed(&view()), Feed { stream: true, files: true });
    }

    #[test]
    fn files_alone_while_the_source_is_out_of_reach() {
        let cut = FeedView { streaming: false, stream_down_ms: 500, upstream_reachable: Some(false), ..view() };
        assert_eq!(feed(&cut), Feed { stream: false, files: true });
        let healed = FeedView { upstream_reachable: Some(true), stream_configured: false, ..cut };
        assert_eq!(feed(&healed), Feed { stream: true, files: true });
    }

    #[test]
    fn nothing_is_fed_after_log_shipping_was_stopped() {
        assert_eq!(feed(&FeedView { enabled: false, ..view() }), Feed { stream: false, files: false });
    }
}
