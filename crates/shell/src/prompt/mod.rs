//! The shell: reading statements from a prompt or a script, and carrying them out by the same functions as the plain
//! commands.

pub mod counterpart;
mod line;
mod log;
mod services;
mod session;
mod show;
mod table;

use crate::command::Command;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use clap::{CommandFactory, Parser};
use session::Session;
use statement::{Known, Statement, What, parse};

/// A plain command in the shell.
#[derive(Debug, clap::Parser)]
#[command(name = "standfast", no_binary_name = true, arg_required_else_help = true)]
struct Line {
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// The names of all plain commands.
pub fn plain_names() -> Vec<String> {
    let line = Line::command();
    line.get_subcommands().map(|c| c.get_name().to_owned()).filter(|name| name != "shell").collect()
}

/// Carry out a plain command that is given in words.
///
/// # Errors
/// When it is mistyped, or does not succeed.
pub(crate) async fn plain(context: &Context, words: &[String]) -> Outcome {
    let line = match Line::try_parse_from(words) {
        Ok(line) => line,
        Err(error) if error.use_stderr() => {
            let said = error.render().to_string();
            return Err(Failure::Usage(said.trim_start_matches("error: ").trim_end().to_owned()));
        }
        Err(help) => return output::line(help.render().to_string().trim_end()),
    };
    if matches!(line.command, Command::Shell(_)) {
        return Err(Failure::Usage("this is the shell already".into()));
    }
    let context = Context { json: context.json || line.json, ..context.clone() };
    // A command may be the shell, whose future holds that of a command.
    Box::pin(line.command.run(&context)).await
}

/// Carry out a script. It is read as a whole first: when a statement is not understood, nothing is carried out.
///
/// # Errors
/// The first statement that is not understood or fails ends it.
pub async fn script(context: &Context, text: &str) -> Outcome {
    let names = plain_names();
    // Editors of other systems put a mark before the first character.
    let text = text.trim_start_matches('\u{feff}');
    let statements = parse(text, Known { plain: &names }).map_err(|p| Failure::Usage(p.render(text)))?;
    let mut session = Session::new(context.clone());
    let several = statements.len() > 1;
    for statement in statements {
        if statement.what == What::Exit {
            return Ok(());
        }
        session.carry_out(&statement).await.map_err(|failure| in_script(failure, &statement, text, several))?;
    }
    Ok(())
}

/// A failure in a script says which statement it was.
fn in_script(failure: Failure, statement: &Statement, text: &str, several: bool) -> Failure {
    if !several {
        return failure;
    }
    let line = text[..statement.at.start].matches('\n').count() + 1;
    let typed = statement.text.lines().next().unwrap_or_default();
    let with = |said: String| format!("{said}\n  the script ended at line {line}: {typed}");
    match failure {
        Failure::Usage(said) => Failure::Usage(with(said)),
        Failure::Refused(said) => Failure::Refused(with(said)),
        Failure::Waiting(said) => Failure::Waiting(with(said)),
        Failure::Failed(said) => Failure::Failed(with(said)),
        Failure::Alert(said) => Failure::Alert(with(said)),
        Failure::Closed => Failure::Closed,
    }
}

/// Read statements from the terminal until there are no more; one that fails is shown, and the next can be typed.
///
/// # Errors
/// When the terminal cannot be read, or nobody reads the output any more.
pub async fn interactive(context: &Context) -> Outcome {
    let names = plain_names();
    let mut session = Session::new(context.clone());
    let mut line = line::Prompt::open(context, &names)?;
    output::say("The reference's commands, and every plain one. help lists them, Tab completes, exit ends.");
    while let Some(text) = tokio::task::block_in_place(|| line.read())? {
        let statements = match parse(&text, Known { plain: &names }) {
            Ok(statements) => statements,
            Err(problem) => {
                output::say(&problem.render(&text));
                continue;
            }
        };
        for statement in statements {
            if statement.what == What::Exit {
                return Ok(());
            }
            match session.carry_out(&statement).await {
                Ok(()) => {}
                Err(Failure::Closed) => return Err(Failure::Closed),
                Err(failure) => {
                    output::say(&failure.to_string());
                    break;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use statement::catalogue::{CATALOGUE, ELSEWHERE};

    /// What the table names as the plain command is one.
    #[test]
    fn plain_commands_that_the_table_names_are_there() {
        let line = Line::command();
        let here = ELSEWHERE.iter().map(|(_, here)| *here).chain(CATALOGUE.iter().map(|c| c.plain));
        for typed in here.flat_map(|h| h.split([';', ',', ':', '('])).map(str::trim) {
            let Some(words) = typed.strip_prefix("standfast ") else { continue };
            let mut command = &line;
            for word in words.split(' ') {
                if !command.has_subcommands() || word == "help" {
                    break;
                }
                let found = command.find_subcommand(word);
                command = found.unwrap_or_else(|| panic!("'{typed}': there is no command {word}"));
            }
        }
    }
}
