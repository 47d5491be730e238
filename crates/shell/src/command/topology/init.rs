//! `topology init`: questions, each with an explanation and a default, and the commented file.

use crate::failure::{Failure, Outcome};
use crate::output;
use cluster::topology::{LatencyClass, Topology};
use cluster::topology_draft::{Draft, DraftHost};
use cluster::topology_file::ACTIVE_SERVERS_MAX;
use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The file to write
    #[arg(default_value = "topology.toml")]
    file: PathBuf,
    /// Ask nothing, and take every default
    #[arg(long)]
    defaults: bool,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

/// Run the command.
///
/// # Errors
/// When the file is there already, the answers end too soon, or it cannot be written.
pub fn run(args: &Args) -> Outcome {
    if args.file.exists() && !args.force {
        return Err(Failure::Refused(format!(
            "{} is there already, and is left as it is; name another file, or replace it with --force",
            args.file.display()
        )));
    }
    let draft = if args.defaults {
        Draft::default()
    } else {
        let mut asker = Asker { answers: std::io::stdin().lock(), questions: std::io::stderr().lock() };
        ask(&mut asker)?
    };
    let text = draft.to_toml();
    Topology::from_toml(&text).map_err(|findings| {
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Failure::Failed(format!(
            "the answers do not make a topology together, and nothing is written: {}",
            said.join("; ")
        ))
    })?;
    write(&args.file, &text)?;
    let file = args.file.display();
    output::say(&format!("wrote {file}. Next:"));
    output::say(
        "  put it, with the pool's pool.secret, into the folder of each host, and start its agent and servers;",
    );
    output::say(&format!(
        "  for a pool that runs already: standfast topology diff {file}, then standfast topology publish {file}"
    ));
    Ok(())
}

fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text).map_err(|e| Failure::Failed(format!("write the topology {}: {e}", path.display())))
}

/// Asks a person, or reads a pipe.
struct Asker<R, W> {
    answers: R,
    questions: W,
}

impl<R: BufRead, W: Write> Asker<R, W> {
    fn say(&mut self, text: &str) {
        // Who has closed standard error does not want to hear it.
        let _ = writeln!(self.questions, "{text}");
    }

    /// Ask until the answer is one. An empty answer is the default.
    fn ask<T>(
        &mut self,
        explanation: &str,
        question: &str,
        default: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        self.say(&format!("\n{explanation}"));
        loop {
            let _ = write!(self.questions, "{question} [{default}]: ");
            let _ = self.questions.flush();
            let mut line = String::new();
            let read = self.answers.read_line(&mut line);
            if read.map_err(|e| Failure::Failed(format!("read the answer to '{question}': {e}")))? == 0 {
                return Err(Failure::Usage(format!(
                    "the answers ended before '{question}'; an empty line takes the default, and --defaults takes them all"
                )));
            }
            let answer = match line.trim() {
                "" => default,
                answer => answer,
            };
            match check(answer) {
                Ok(value) => return Ok(value),
                Err(reason) => self.say(&format!("  {answer}: {reason}")),
            }
        }
    }

    fn yes(&mut self, explanation: &str, question: &str) -> Result<bool, Failure> {
        self.ask(explanation, question, "yes", |answer| match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("answer yes or no".into()),
        })
    }
}

fn ask(asker: &mut Asker<impl BufRead, impl Write>) -> Result<Draft, Failure> {
    let mut draft = Draft::default();
    asker.say("An empty answer takes the default in brackets.");
    let says = "The pool's name, a fully qualified domain name: what clients know it by.";
    draft.pool = asker.ask(says, "Pool", &draft.pool, name)?;
    let says = "Two sites let the pool outlive one of them. With one there is no disaster recovery, only a mirror.";
    let two = asker.ask(says, "Sites, 1 or 2", "2", |answer| match answer {
        "1" => Ok(false),
        "2" => Ok(true),
        _ => Err("a pool has one or two sites".into()),
    })?;
    draft.sites.truncate(if two { 2 } else { 1 });
    for index in 0..draft.sites.len() {
        site(asker, &mut draft, index)?;
    }
    if two {
        let says = "The line between the sites. low: fast enough that servers of both sites use the database at once (2 and 2\n\
                    active, ha-dr §3 variant A). high: only servers near the principal are active (4 and 0, variant B).";
        draft.latency = asker.ask(says, "Latency, low or high", "high", |answer| match answer {
            "low" => Ok(LatencyClass::Low),
            "high" => Ok(LatencyClass::High),
            _ => Err("answer low or high".into()),
        })?;
    }
    copies(asker, &mut draft, two)?;
    servers(asker, &mut draft)?;
    Ok(draft)
}

fn site(asker: &mut Asker<impl BufRead, impl Write>, draft: &mut Draft, index: usize) -> Result<(), Failure> {
    let (before, rest) = draft.sites.split_at_mut(index);
    let Some(site) = rest.first_mut() else { return Ok(()) };
    let says = match index {
        0 => "The first site, where the pool is at home in state Normal.",
        _ => "The second site, where the pool goes when the first is lost.",
    };
    let default = site.name.clone();
    site.name = asker.ask(says, &format!("Name of site {}", index + 1), &default, |answer| {
        if before.iter().any(|s| s.name == answer) {
            return Err("the first site has this name; give each its own".into());
        }
        name(answer)
    })?;
    let default: Vec<String> = site.hosts.iter().map(|h| format!("{}={}", h.name, h.address)).collect();
    let says = "Its hosts, as NAME=ADDRESS, with blanks in between. The first keeps the management store and the first copy of the\n\
                database, the second its mirror; chat servers are spread over all.";
    let question = format!("Hosts at {}", site.name);
    site.hosts = asker.ask(says, &question, &default.join(" "), |answer| {
        let taken: Vec<&DraftHost> = before.iter().flat_map(|s| &s.hosts).collect();
        hosts(answer, &taken)
    })?;
    Ok(())
}

fn copies(asker: &mut Asker<impl BufRead, impl Write>, draft: &mut Draft, two: bool) -> Result<(), Failure> {
    let beside = |draft: &Draft, site: usize| draft.sites.get(site).is_some_and(|s| s.hosts.len() > 1);
    draft.mirror = if beside(draft, 0) {
        let says = "A mirror beside the primary: an acknowledged post is on both, and the loss of one costs nothing.";
        asker.yes(says, "Mirror, yes or no")?
    } else {
        asker.say("\nNo mirror: the first site has one host, and a mirror takes one of its own (ha-dr §4).");
        false
    };
    draft.backup = two && {
        let says = "A backup at the second site, fed by log shipping: what a failover brings online.";
        asker.yes(says, "Backup, yes or no")?
    };
    draft.backup_mirror = draft.backup
        && if beside(draft, 1) {
            let says = "A warm mirror beside the backup: after a failover the new principal has its mirror at once.";
            asker.yes(says, "Backup mirror, yes or no")?
        } else {
            asker.say("\nNo backup mirror: the second site has one host.");
            false
        };
    if draft.backup {
        let says = "The log share: a folder that every database host of both sites reads and writes under the same path, best on a\n\
                    machine of neither site.";
        draft.share = asker.ask(says, "Share", &draft.share.clone(), |answer| {
            if answer.starts_with('/') && answer.len() > 1 && !answer.contains("..") && !answer.contains(['"', '\\']) {
                Ok(answer.to_owned())
            } else {
                Err("write an absolute path, from / on".into())
            }
        })?;
    }
    Ok(())
}

fn servers(asker: &mut Asker<impl BufRead, impl Write>, draft: &mut Draft) -> Result<(), Failure> {
    draft.sites.iter_mut().skip(1).for_each(|s| s.servers = 1);
    for index in 0..draft.sites.len() {
        let most = draft.servers_left(index);
        let says = format!(
            "Chat servers of {}. A pool has at most eight, of which at most four are active.",
            draft.sites[index].name
        );
        let question = format!("Servers at {}, 1 to {most}", draft.sites[index].name);
        let default = most.min(2).to_string();
        draft.sites[index].servers = asker.ask(&says, &question, &default, |answer| {
            let number = answer.parse().ok().filter(|n| (1..=most).contains(n));
            number.ok_or_else(|| format!("answer with a number from 1 to {most}"))
        })?;
    }
    let may = draft.may_be_active();
    let all: Vec<String> = draft.servers().into_iter().map(|(_, name)| name).collect();
    let says = format!(
        "Which are active in state Normal, with blanks in between; the others are in reserve. There are: {}.",
        all.join(" ")
    );
    draft.active = asker
        .ask(&says, "Active servers", &draft.active_by_default().join(" "), |answer| active(answer, &all, &may))?;
    Ok(())
}

fn active(answer: &str, all: &[String], may: &[String]) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for name in words(answer) {
        if !all.iter().any(|s| s == name) {
            return Err(format!("there is no server '{name}'"));
        }
        if !may.iter().any(|s| s == name) {
            return Err(format!("{name} is far from the principal, over a line of high latency (ha-dr §9, R4)"));
        }
        if !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    match names.len() {
        0 => Err("name at least one".into()),
        n if n > ACTIVE_SERVERS_MAX => Err(format!("at most {ACTIVE_SERVERS_MAX} may be active (ha-dr §1)")),
        _ => Ok(names),
    }
}

fn words(answer: &str) -> impl Iterator<Item = &str> {
    answer.split([' ', ',', '\t']).filter(|w| !w.is_empty())
}

fn name(answer: &str) -> Result<String, String> {
    let plain = answer.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain { Ok(answer.to_owned()) } else { Err("use letters, digits, '-', '_' and '.'".into()) }
}

fn hosts(answer: &str, taken: &[&DraftHost]) -> Result<Vec<DraftHost>, String> {
    let mut hosts: Vec<DraftHost> = Vec::new();
    let mut addresses: BTreeSet<&str> = taken.iter().map(|h| h.address.as_str()).collect();
    for word in words(answer) {
        let (host, address) = word.split_once('=').ok_or_else(|| format!("'{word}' is no NAME=ADDRESS"))?;
        let host = name(host).map_err(|reason| format!("'{host}': {reason}"))?;
        let v6 = address.starts_with('[') && address.ends_with(']');
        let plain = !address.is_empty() && address.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !v6 && !plain {
            return Err(format!("'{address}' is no address; write it without a port, and IPv6 in brackets"));
        }
        if host.is_empty() || hosts.iter().any(|h| h.name == host) || taken.iter().any(|h| h.name == host) {
            return Err(format!("'{host}': give each host a name of its own"));
        }
        if !addresses.insert(address) {
            return Err(format!("{address} is the address of two hosts"));
        }
        hosts.push(DraftHost { name: host, address: address.to_owned() });
    }
    if hosts.is_empty() { Err("a site has at least one host".into()) } else { Ok(hosts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file that these answers make, and what was said meanwhile.
    fn answered(answers: &str) -> (Result<Topology, String>, String) {
        let mut said = Vec::new();
        let draft = ask(&mut Asker { answers: answers.as_bytes(), questions: &mut said });
        let topology = draft.map_err(|f| f.to_string()).map(|d| {
            let text = d.to_toml();
            Topology::from_toml(&text).unwrap_or_else(|f| panic!("{f:?}\n{text}"))
        });
        (topology, String::from_utf8(said).expect("it is text"))
    }

    #[test]
    fn empty_answers_make_the_default() {
        let (topology, _) = answered(&"\n".repeat(20));
        let default = Topology::from_toml(&Draft::default().to_toml()).expect("the default passes");
        assert_eq!(topology, Ok(default));
    }

    #[test]
    fn one_site_with_one_host_is_asked_little() {
        let (topology, said) = answered("chat.test\n1\nhere\none=192.0.2.1\n1\n\n");
        let topology = topology.expect("these are enough");
        assert_eq!((topology.hosts.len(), topology.servers.len(), topology.sites.len()), (1, 1, 1));
        assert!(topology.databases[0].mirror.is_none() && topology.databases[0].backup.is_none());
        assert!(said.contains("No mirror: the first site has one host"), "{said}");
    }

    #[test]
    fn a_wrong_answer_is_asked_again_with_the_reason() {
        let wrong = "a b\nchat.test\n3\n2\n\n10.0.0.1\na=10.0.0.1:80\na=10.0.0.1 a=10.0.0.2\na=10.0.0.1 b=10.0.0.2\nsite-1\n\n\
                     c=10.0.0.1\nc=10.0.1.1 d=10.0.1.2\nfast\nhigh\nmaybe\nyes\n\n\nshare\n/share\n9\n4\n5\n4\nserver-1 server-5\n\
                     server-9\nserver-1 server-2\n";
        let (topology, said) = answered(wrong);
        let topology = topology.expect("it ends well");
        assert_eq!(topology.servers.len(), 8);
        for reason in [
            "letters, digits",
            "one or two sites",
            "no NAME=ADDRESS",
            "without a port",
            "a name of its own",
            "the first site has this name",
            "the address of two hosts",
            "low or high",
            "yes or no",
            "absolute path",
            "from 1 to 7",
            "from 1 to 4",
            "R4",
            "there is no server 'server-9'",
        ] {
            assert!(said.contains(reason), "{reason}\n{said}");
        }
    }

    #[test]
    fn answers_that_end_too_soon_are_named() {
        let (topology, _) = answered("chat.test\n");
        assert!(topology.expect_err("there is no answer").contains("ended before 'Sites"));
    }
}
