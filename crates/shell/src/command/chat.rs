//! `standfast chat`: a room in the terminal. What is typed is posted, what others post appears above the line.

use super::tail::{line_of, note, object, open};
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::User;
use client::{Event, Session};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use rules::id::RoomId;
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Lines that may wait to be posted.
const LINES_MAX: usize = 16;
/// What ends it.
const QUIT: &str = "/quit";
/// At the end, posts that are not acknowledged yet are waited for.
const LAST_ACKS_WAIT: Duration = Duration::from_secs(30);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: standfast chat --user ines --room Operations\n\
    Type a line to post it; /quit or Ctrl-D ends it.")]
pub struct Args {
    #[command(flatten)]
    user: User,
    /// The room's name
    #[arg(long, value_name = "ROOM")]
    room: String,
}

/// Chat until the person has enough.
///
/// # Errors
/// When the room may not be joined, or no server answers.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let http = args.user.sign_in(context).await?;
    let room = http.room(&args.room).await?;
    let (session, events) = open(&http);
    session.join(room.id, None).await;
    let _terminal = Terminal::keep();
    let (screen, lines) = type_lines(context)?;
    let mut talk = Talk { json: context.json, room: room.id, screen, waiting: 0 };
    talk.run(&session, events, lines).await?;
    session.close().await;
    Ok(())
}

/// Puts the terminal back as it was, should the end come while a line is being typed.
struct Terminal(Option<Termios>);

impl Terminal {
    fn keep() -> Self {
        Self(tcgetattr(std::io::stdin()).ok())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that has gone away needs no care.
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

/// Where others' lines are shown.
enum Screen {
    /// Above the line that is being typed.
    Above(Box<dyn ExternalPrinter + Send>),
    /// On standard output, notes on standard error.
    Plain,
}

struct Talk {
    json: bool,
    room: RoomId,
    screen: Screen,
    waiting: u64,
}

impl Talk {
    async fn run(
        &mut self,
        session: &Session,
        mut events: mpsc::Receiver<(u32, Event)>,
        mut lines: mpsc::Receiver<String>,
    ) -> Outcome {
        loop {
            tokio::select! {
                line = lines.recv() => match line {
                    Some(line) if line.trim() == QUIT => break,
                    Some(line) if line.trim().is_empty() => {}
                    Some(line) => {
                        self.waiting += 1;
                        session.post(self.room, Uuid::now_v7(), line).await;
                    }
                    None => break,
                },
                told = events.recv() => match told {
                    Some((_, event)) => self.show(event)?,
                    None => return Ok(()),
                },
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        let _ = tokio::time::timeout(LAST_ACKS_WAIT, async {
            while self.waiting > 0
                && let Some((_, event)) = events.recv().await
            {
                self.show(event)?;
            }
            Outcome::Ok(())
        })
        .await;
        if self.waiting > 0 {
            let count = self.waiting;
            return Err(Failure::Failed(format!("{count} of your posts were not acknowledged; they may be lost")));
        }
        Ok(())
    }

    fn show(&mut self, event: Event) -> Outcome {
        match event {
            Event::Entry(entry) if self.json => object(&entry),
            Event::Entry(entry) => self.print(&line_of(&entry), false),
            Event::JoinRefused { message, .. } => Err(Failure::Refused(message)),
            Event::Ended { reason } => Err(Failure::Failed(reason)),
            event => {
                if let Event::Acknowledged { again: false, .. } | Event::GivenUp { again: false, .. } = event {
                    self.waiting = self.waiting.saturating_sub(1);
                }
                note(&event).map_or(Ok(()), |note| self.print(&note, true))
            }
        }
    }

    fn print(&mut self, text: &str, is_note: bool) -> Outcome {
        match &mut self.screen {
            Screen::Above(printer) => {
                printer.print(format!("{text}\n")).map_err(|e| Failure::Failed(format!("write to the terminal: {e}")))
            }
            Screen::Plain if is_note => {
                output::say(text);
                Ok(())
            }
            Screen::Plain => output::line(text),
        }
    }
}

/// Read what is typed, in a thread of its own: reading from a terminal cannot be given up half-way.
fn type_lines(context: &Context) -> Result<(Screen, mpsc::Receiver<String>), Failure> {
    let (sender, lines) = mpsc::channel(LINES_MAX);
    let both = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !both || context.json {
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        return Ok((Screen::Plain, lines));
    }
    let failed = |e: ReadlineError| Failure::Failed(format!("open the terminal: {e}"));
    let mut editor = DefaultEditor::new().map_err(failed)?;
    let printer = editor.create_external_printer().map_err(failed)?;
    std::thread::spawn(move || {
        while let Ok(line) = editor.readline("> ") {
            // A session has no use for history over its end; within it, the arrow keys bring lines back.
            let _ = editor.add_history_entry(&line);
            let quits = line.trim() == QUIT;
            if sender.blocking_send(line).is_err() || quits {
                return;
            }
        }
    });
    Ok((Screen::Above(Box::new(printer)), lines))
}
