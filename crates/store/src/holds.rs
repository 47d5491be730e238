//! Whether connections to one place hold: when one of them has ended, all are done with.

use tokio::sync::watch;

/// How they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hold,
    /// One broke, or all were closed here.
    Broken,
    /// The other end sent them away: it is being stopped, or writes in another epoch.
    SentAway,
}

/// Whether connections hold; each of its clones tells the same.
#[derive(Clone, Debug)]
pub(crate) struct Holds(watch::Sender<State>);

impl Holds {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(State::Hold))
    }

    /// They are done with. What was said first stays.
    pub(crate) fn end(&self, sent_away: bool) {
        self.0.send_if_modified(|state| {
            let held = *state == State::Hold;
            if held {
                *state = if sent_away { State::SentAway } else { State::Broken };
            }
            held
        });
    }

    /// Whether one has ended.
    pub(crate) fn is_over(&self) -> bool {
        *self.0.borrow() != State::Hold
    }

    /// Whether the other end sent them away.
    pub(crate) fn were_sent_away(&self) -> bool {
        *self.0.borrow() == State::SentAway
    }

    /// Returns when one has ended.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut states = self.0.subscribe();
        async move {
            // An error means that every sender is gone, and with them every connection.
            let _ = states.wait_for(|state| *state != State::Hold).await;
        }
    }
}
