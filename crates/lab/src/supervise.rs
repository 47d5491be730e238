//! The supervisor: holds the relay, starts the processes, and does what commands ask over its socket.

use crate::host_folder;
use crate::layout::{HostLayout, Layout};
use crate::processes;
use crate::protocol::{Answer, LinkState, Links, ProcessStatus, Request, socket};
use crate::relay;
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// How long a process may take to end when it is asked to.
const END: Duration = Duration::from_secs(15);

/// Start a supervisor that outlives its caller.
pub fn detach(dir: &Path, program: &Path) -> Result<(), String> {
    let log = dir.join("lab.log");
    let file = append(&log)?;
    let errors = file.try_clone().map_err(|e| e.to_string())?;
    Command::new(program)
        .args(["lab", "supervise", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map(|_| ())
        .map_err(|e| format!("start the lab's supervisor: {e}"))
}

fn append(path: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|e| format!("open {}: {e}", path.display()))
}

/// How many threads a server works with (`standfast serve --threads`); its agent hands it on.
const SERVER_THREADS: &str = "STANDFAST_SERVER_THREADS";
/// How long an agent may take to answer after it was started.
const AGENT_ANSWERS: Duration = Duration::from_secs(30);

/// A lab's servers share one machine, two of them active: each takes half of the processors, where on a machine of its own
/// it would take all.
fn server_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// A lab under supervision.
struct Supervisor {
    dir: PathBuf,
    program: PathBuf,
    layout: Layout,
    /// Links that are not as they should be. Of several that a link is among, the narrowest counts.
    faults: BTreeMap<Links, LinkState>,
    /// One for each link of the layout.
    links: Vec<watch::Sender<LinkState>>,
    /// Pid and start time by host and name.
    started: BTreeMap<(String, String), (i32, u64)>,
}

/// Supervise a lab until it is taken down.
///
/// # Errors
/// When a port or the socket is taken, for people.
pub async fn run(dir: &Path, program: &Path) -> Result<(), String> {
    let dir = dir.canonicalize().map_err(|e| format!("find {}: {e}", dir.display()))?;
    let layout = Layout::read(&dir)?;
    let mut links = Vec::with_capacity(layout.links.len());
    for link in &layout.links {
        let state = watch::Sender::new(LinkState::Up);
        relay::open(link, state.subscribe()).await?;
        links.push(state);
    }
    let path = socket(&dir);
    // Nobody answered on it, or this supervisor would not have been started.
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(|e| format!("listen on {}: {e}", path.display()))?;
    let mut lab = Supervisor {
        dir,
        program: program.to_owned(),
        layout,
        faults: BTreeMap::new(),
        links,
        started: BTreeMap::new(),
    };
    for host in lab.layout.hosts.clone() {
        lab.start_agent(&host.host, &BTreeMap::new(), false)?;
    }
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|e| format!("listen for signals: {e}"))?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted { Ok((stream, _)) => stream, Err(_) => continue },
            _ = term.recv() => break,
        };
        if lab.answer(stream).await {
            break;
        }
    }
    let _ = fs::remove_file(&path);
    Ok(())
}

impl Supervisor {
    /// Answer one request; tells whether the lab is down.
    async fn answer(&mut self, stream: UnixStream) -> bool {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        if stream.read_line(&mut line).await.is_err() {
            return false;
        }
        let request: Request = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(_) => return false,
        };
        let down = request == Request::Down;
        let answer = self.carry_out(request).await.unwrap_or_else(|message| Answer::Refused { message });
        let down = down && matches!(answer, Answer::Done { .. });
        if let Ok(mut text) = serde_json::to_vec(&answer) {
            text.push(b'\n');
            // Who asked may be gone; what was asked is done all the same.
            let _ = stream.get_mut().write_all(&text).await;
        }
        down
    }

    async fn carry_out(&mut self, request: Request) -> Result<Answer, String> {
        let done = |message: String| Ok(Answer::Done { message });
        match request {
            Request::Status => Ok(Answer::Status {
                processes: self.status(),
                link: self.faults.get(&Links::BetweenSites).copied().unwrap_or(LinkState::Up),
                links: self.faults.clone().into_iter().filter(|(which, _)| *which != Links::BetweenSites).collect(),
            }),
            Request::Kill { target } => {
                let all = self.family(&target)?;
                self.keep_down(&target).await?;
                processes::end_all(&all, Signal::SIGKILL, END).await?;
                done(format!("killed {target}: {} processes", all.len()))
            }
            Request::Freeze { target } => {
                let all = self.signal(&target, Signal::SIGSTOP)?;
                done(format!("froze {target}: {all} processes"))
            }
            Request::Thaw { target } => {
                let all = self.signal(&target, Signal::SIGCONT)?;
                done(format!("thawed {target}: {all} processes"))
            }
            Request::Start { target, env, without_peer } => {
                let started = self.start(&target, &env, without_peer).await?;
                done(format!("started {started} processes of {target}"))
            }
            Request::Link { state, which } => {
                self.set_links(state, &which)?;
                done(match state {
                    LinkState::Up => format!("{which} are up"),
                    LinkState::Down => format!("{which} are down"),
                    LinkState::Frozen => format!("{which} are frozen"),
                    LinkState::Delayed(ms) => format!("{which} take {ms} ms each way"),
                })
            }
            Request::Down => {
                self.down().await?;
                done("everything is stopped".into())
            }
        }
    }

    /// Send a signal to what a target means, with descendants; tells how many there were.
    fn signal(&self, target: &str, signal: Signal) -> Result<usize, String> {
        let all = self.family(target)?;
        for pid in &all {
            // One that ends meanwhile needs no signal.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), signal);
        }
        Ok(all.len())
    }

    /// Change links.
    fn set_links(&mut self, state: LinkState, which: &Links) -> Result<(), String> {
        let mut among = self.layout.links.iter().filter(|l| which.contain(&l.from, &l.host, l.within_site));
        if among.next().is_none() {
            let hosts: BTreeSet<&str> = self.layout.hosts.iter().map(|h| h.host.as_str()).collect();
            let hosts = hosts.into_iter().collect::<Vec<_>>().join(", ");
            return Err(format!(
                "this lab has none of {which}; its hosts are {hosts}, and only those of a lab with witnesses have links of \
                 their own (standfast lab up --witness)"
            ));
        }
        if state == LinkState::Up {
            self.faults.remove(which);
        } else {
            self.faults.insert(which.clone(), state);
        }
        for (link, sender) in self.layout.links.iter().zip(&self.links) {
            // In the order of the enumeration, the narrowest comes last.
            let mut faults = self.faults.iter().rev();
            let fault = faults.find(|(which, _)| which.contain(&link.from, &link.host, link.within_site));
            let state = fault.map_or(LinkState::Up, |(_, state)| *state);
            sender.send_if_modified(|now| std::mem::replace(now, state) != state);
        }
        Ok(())
    }

    fn status(&self) -> Vec<ProcessStatus> {
        let mut all = Vec::new();
        for host in &self.layout.hosts {
            let postgres = processes::postmasters(&host_folder(&self.dir, &host.host));
            if !host.witness {
                let (host, name) = (host.host.clone(), "postgres".into());
                all.push(ProcessStatus { host, name, pid: postgres.first().copied() });
            }
            for name in std::iter::once("agent").chain(host.servers.iter().map(String::as_str)) {
                let pid = self.running(&host.host, name);
                all.push(ProcessStatus { host: host.host.clone(), name: name.to_owned(), pid });
            }
        }
        all
    }

    fn running(&self, host: &str, name: &str) -> Option<i32> {
        if name != "agent" {
            return processes::server(&host_folder(&self.dir, host), name).pid;
        }
        let (pid, start) = self.started.get(&(host.to_owned(), name.to_owned()))?;
        processes::runs(*pid, *start).then_some(*pid)
    }

    /// What a target means: hosts with the names of processes on them.
    fn find(&self, target: &str) -> Result<Vec<(HostLayout, Vec<String>)>, String> {
        let whole = |h: &HostLayout| {
            let mut names = vec!["agent".to_owned(), "postgres".to_owned()];
            names.extend(h.servers.clone());
            (h.clone(), names)
        };
        let mut found: Vec<_> =
            self.layout.hosts.iter().filter(|h| h.site == target || h.host == target).map(whole).collect();
        for host in &self.layout.hosts {
            for name in host.servers.iter().map(String::as_str).chain(["agent", "postgres"]) {
                let server = host.servers.iter().any(|s| s == name) && name == target;
                if server || target == format!("{}/{name}", host.host) {
                    found.push((host.clone(), vec![name.to_owned()]));
                }
            }
        }
        if found.is_empty() {
            let hosts: Vec<&str> = self.layout.hosts.iter().map(|h| h.host.as_str()).collect();
            let sites: BTreeSet<&str> = self.layout.hosts.iter().map(|h| h.site.as_str()).collect();
            return Err(format!(
                "there is no '{target}' in this lab; name a site ({}), a host ({}), a server, or a process such as {}/postgres",
                sites.into_iter().collect::<Vec<_>>().join(", "),
                hosts.join(", "),
                hosts[0]
            ));
        }
        Ok(found)
    }

    fn pids(&self, target: &str) -> Result<Vec<i32>, String> {
        let mut pids = Vec::new();
        for (host, names) in self.find(target)? {
            for name in names {
                if name == "postgres" {
                    pids.extend(processes::postmasters(&host_folder(&self.dir, &host.host)));
                } else {
                    pids.extend(self.running(&host.host, &name));
                }
            }
        }
        Ok(pids)
    }

    /// What a target means, with everything below it. The servers of a host are children of the agent that started them, and
    /// are not meant with it.
    fn family(&self, target: &str) -> Result<BTreeSet<i32>, String> {
        let pids = self.pids(target)?;
        let mut all = processes::with_descendants(&pids);
        for host in &self.layout.hosts {
            for server in processes::servers(&host_folder(&self.dir, &host.host)) {
                all.retain(|pid| pids.contains(pid) || Some(*pid) != self.running(&host.host, &server));
            }
        }
        Ok(all)
    }

    /// A server that is killed by its own name stays down until it is started: its agent, where there is one, is told to stop
    /// it. With a whole host or site the agent goes as well, and starts what it did when it comes again.
    async fn keep_down(&self, target: &str) -> Result<(), String> {
        for host in &self.layout.hosts {
            let named = |s: &&String| *s == target || format!("{}/{s}", host.host) == target;
            if let Some(server) = host.servers.iter().find(named)
                && self.running(&host.host, "agent").is_some()
            {
                self.service(&["stop", server, "--now", "--yes", "--no-wait"]).await?;
            }
        }
        Ok(())
    }

    /// `standfast service …` on this lab. An agent that runs and does not answer yet may just have been started.
    async fn service(&self, arguments: &[&str]) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let mut command = tokio::process::Command::new(&self.program);
            command.arg("service").args(arguments).arg("--dir").arg(&self.dir).stdin(Stdio::null());
            let done = command.output().await.map_err(|e| format!("run {}: {e}", self.program.display()))?;
            if done.status.success() {
                return Ok(());
            }
            if began.elapsed() > AGENT_ANSWERS {
                return Err(String::from_utf8_lossy(&done.stderr).trim().to_owned());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn start(
        &mut self,
        target: &str,
        env: &BTreeMap<String, String>,
        without_peer: bool,
    ) -> Result<usize, String> {
        let mut count = 0;
        for (host, names) in self.find(target)? {
            let folder = host_folder(&self.dir, &host.host);
            for name in names {
                // A database is started by its agent, if the agent runs and finds that it may.
                if name == "agent" {
                    count += usize::from(self.start_agent(&host.host, env, without_peer)?);
                } else if name != "postgres" && self.running(&host.host, "agent").is_none() {
                    return Err(format!(
                        "{name} is started by the agent of {0}, which does not run; standfast lab start {0}/agent starts both",
                        host.host
                    ));
                } else if name != "postgres" && processes::server(&folder, &name).is_stopped {
                    self.service(&["start", &name, "--no-wait"]).await?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    /// Start an agent, unless it runs. It starts the databases and the servers of its host.
    fn start_agent(&mut self, host: &str, env: &BTreeMap<String, String>, without_peer: bool) -> Result<bool, String> {
        if self.running(host, "agent").is_some() {
            return Ok(false);
        }
        let folder = host_folder(&self.dir, host);
        let log = append(&folder.join("agent.log"))?;
        let errors = log.try_clone().map_err(|e| e.to_string())?;
        let mut command = tokio::process::Command::new(&self.program);
        command.args(["agent", "--host", host, "--dir"]).arg(&folder);
        if without_peer {
            command.arg("--without-peer");
        }
        command.env(SERVER_THREADS, server_threads().to_string());
        command.envs(env).stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let mut child = command.spawn().map_err(|e| format!("start the agent of {host}: {e}"))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let entry = pid.and_then(|pid| Some((pid, processes::start_of(pid)?)));
        let entry = entry.ok_or_else(|| format!("the agent of {host} ended at once; see {}", folder.display()))?;
        self.started.insert((host.to_owned(), "agent".to_owned()), entry);
        tokio::spawn(async move {
            // Its end is collected here, so that it never stays as a zombie.
            let _ = child.wait().await;
        });
        Ok(true)
    }

    /// Stop agents, then the servers that they kept, then databases, each cleanly.
    async fn down(&mut self) -> Result<(), String> {
        let mut servers = BTreeSet::new();
        let mut agents = BTreeSet::new();
        for host in &self.layout.hosts {
            let known = processes::servers(&host_folder(&self.dir, &host.host));
            servers.extend(known.iter().filter_map(|s| self.running(&host.host, s)));
            agents.extend(self.running(&host.host, "agent"));
        }
        // Servers end at once: there is no other one that their clients could move to.
        for (group, signal) in [(agents, Signal::SIGTERM), (servers, Signal::SIGINT)] {
            if processes::end_all(&group, signal, END).await.is_err() {
                processes::end_all(&group, Signal::SIGKILL, END).await?;
            }
        }
        // Writers first, so that their standbys receive everything.
        for host in &self.layout.hosts {
            let postgres = processes::postmasters(&host_folder(&self.dir, &host.host)).into_iter().collect();
            if processes::end_all(&postgres, Signal::SIGINT, END).await.is_err() {
                processes::end_all(&postgres, Signal::SIGQUIT, END).await?;
            }
        }
        Ok(())
    }
}
