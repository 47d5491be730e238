//! The modelled pool as a small value: four hosts, the share, the messages under way, one run, and what is left of the
//! bounds. Names of the product are turned into small numbers here; `words` turns them back.

/// A host by number: `S1A`, `S1B`, `S2A`, `S2B`.
pub type HostNumber = u8;

pub const S1A: HostNumber = 0;
pub const S1B: HostNumber = 1;
pub const S2A: HostNumber = 2;
pub const S2B: HostNumber = 3;
pub const HOSTS: [HostNumber; 4] = [S1A, S1B, S2A, S2B];
pub const NAMES: [&str; 4] = ["s1a", "s1b", "s2a", "s2b"];
pub const SITES: [&str; 2] = ["site-1", "site-2"];

/// The site of a host.
pub fn site(host: HostNumber) -> u8 {
    host / 2
}

/// Most posts of one exploration.
pub const POSTS_MAX: usize = 4;
/// Epochs that are told apart.
pub const EPOCHS_MAX: usize = 13;

/// One entry of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A post; every one has a number of its own, so that two histories never look alike.
    Post(u8),
    /// A promotion for an epoch: a new timeline begins.
    Fork(u8),
    /// The database carries this epoch from here on: `begin_epoch` or `refuse_writers_before`.
    Epoch(u8),
}

/// Bits of an entry, and entries of a log.
const BITS: u8 = 5;
const ENTRIES_MAX: u8 = 24;

/// A log: a few entries of a few bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Log {
    bits: u128,
    len: u8,
}

impl Log {
    pub fn len(self) -> u8 {
        self.len
    }

    pub fn push(&mut self, entry: Entry) {
        assert!(self.len < ENTRIES_MAX, "the bounds of the model keep logs short");
        let code = match entry {
            Entry::Post(n) => n,
            Entry::Fork(e) => 3 + e,
            Entry::Epoch(e) => 17 + e,
        };
        assert!(code < 1 << BITS && entry != Entry::Fork(15), "the bounds of the model keep epochs few");
        self.bits |= u128::from(code) << (BITS * self.len);
        self.len += 1;
    }

    pub fn entries(self) -> impl DoubleEndedIterator<Item = Entry> {
        (0..self.len).map(move |at| match (self.bits >> (BITS * at)) as u8 & ((1 << BITS) - 1) {
            n @ 0..4 => Entry::Post(n),
            n @ 4..18 => Entry::Fork(n - 3),
            n => Entry::Epoch(n - 17),
        })
    }

    pub fn first(self, len: u8) -> Log {
        let mask = if len >= ENTRIES_MAX { u128::MAX } else { (1 << (BITS * len)) - 1 };
        Log { bits: self.bits & mask, len: len.min(self.len) }
    }

    pub fn is_prefix_of(self, other: Log) -> bool {
        self.len <= other.len && other.first(self.len) == self
    }

    /// The longest log that both begin with.
    pub fn common(self, other: Log) -> Log {
        let mut len = self.len.min(other.len);
        while self.first(len) != other.first(len) {
            len -= 1;
        }
        self.first(len)
    }

    /// The posts in it, a bit each.
    pub fn posts(self) -> u8 {
        self.entries().fold(0, |posts, entry| if let Entry::Post(n) = entry { posts | 1 << n } else { posts })
    }

    /// The epoch that the database carries.
    pub fn epoch(self) -> u8 {
        self.entries().rev().find_map(|e| if let Entry::Epoch(n) = e { Some(n) } else { None }).unwrap_or(1)
    }

    /// The epoch whose writer wrote the end of it.
    pub fn writer(self) -> u8 {
        self.entries().rev().find_map(|e| if let Entry::Fork(n) = e { Some(n) } else { None }).unwrap_or(1)
    }

    /// The epochs of the promotions that made it, a bit each.
    pub fn forks(self) -> u16 {
        self.entries().fold(0, |forks, entry| if let Entry::Fork(n) = entry { forks | 1 << n } else { forks })
    }

    /// Its length up to where its present timeline begins.
    pub fn beginning(self) -> u8 {
        let after = self.entries().rev().take_while(|e| !matches!(e, Entry::Fork(_))).count() as u8;
        if after == self.len { 0 } else { self.len - after }
    }

    /// The epoch in which whoever opens it would write: it was promoted for it, or refuses older ones.
    pub fn stands_for(self) -> u8 {
        self.writer().max(self.epoch())
    }

    /// The same, of the epochs up to this one.
    pub fn stands_for_by(self, last: u8) -> u8 {
        let begun = self.entries().filter_map(|e| if let Entry::Epoch(n) = e { Some(n) } else { None });
        self.writer().max(begun.filter(|n| *n <= last).max().unwrap_or(1))
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[")?;
        for entry in self.entries() {
            match entry {
                Entry::Post(n) => write!(f, "p{n} ")?,
                Entry::Fork(n) => write!(f, "fork{n} ")?,
                Entry::Epoch(n) => write!(f, "epoch{n} ")?,
            }
        }
        f.write_str("]")
    }
}

/// The pool's record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Record {
    pub epoch: u8,
    pub version: u8,
    pub failed_over: bool,
    /// The home site.
    pub home: u8,
    /// The site whose servers are active.
    pub active: Option<u8>,
    pub principal: Option<HostNumber>,
    /// With whether the pair is synchronised.
    pub mirror: Option<(HostNumber, bool)>,
    pub backup: Option<HostNumber>,
    pub backup_mirror: Option<HostNumber>,
    /// For each site the epoch that declared it lost; 0 for none.
    pub lost: [u8; 2],
    /// The run that holds the pool, with its runbook; 0 for none.
    pub run: u8,
}

impl Record {
    /// Whether it replaces `other`.
    pub fn supersedes(&self, other: &Record) -> bool {
        (self.epoch, self.version) > (other.epoch, other.version)
    }
}

/// PostgreSQL on a host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Postgres {
    Stopped,
    Standby,
    Writer,
}

/// The orders that failing over, failing back and switching give.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ask {
    Fence(u8),
    CloseShare(u8),
    ApplyAtOnce,
    HoldBackAgain,
    StopLogShipping,
    CopyRemainingLog,
    ApplyRemainingLog,
    DisconnectSessions,
    Promote(u8),
    Checkpoint,
    SalvageTail(HostNumber),
    Rewind(HostNumber),
    HandOver(u8),
    StartLogShipping,
    /// For an epoch, by who was the writer of the other one.
    Reopen(u8, u8),
}

/// A stamp: epoch, number.
pub type Stamp = (u8, u8);

/// An order with its stamp and run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamped {
    pub stamp: Stamp,
    pub run: u8,
    pub ask: Ask,
}

/// How far an order is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum How {
    Running,
    Done,
    Failed,
}

/// A host: its disk, and what lives in memory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Host {
    /// The machine is on, and so is its agent: an agent that dies is started again at once.
    pub up: bool,
    /// Another site has answered since the agent started.
    pub heard_other_site: bool,
    pub record: Record,
    pub postgres: Postgres,
    /// A stopped instance was stopped cleanly.
    pub clean: bool,
    /// There is a `standby.signal`.
    pub standby_signal: bool,
    pub log: Log,
    /// What the copy job has copied from the share and nobody has applied yet.
    pub copied: Log,
    /// Where PostgreSQL is configured to stream from.
    pub upstream: Option<HostNumber>,
    /// The mirror in `synchronous_standby_names`.
    pub waits_for: Option<HostNumber>,
    /// Commits really wait by now: the checkpointer has taken the setting.
    pub waits_really: bool,
    /// The agent has asked for "synchronised" and got no answer, or cannot know whether it had.
    pub unanswered: bool,
    // The agent's memory, with 0 for "none".
    pub history: u8,
    pub handed_over: u8,
    /// The mirror that has all of it, if the writer was stopped at once.
    pub left_to: Option<HostNumber>,
    pub fenced_by: u8,
    pub shipping_stopped_in: u8,
    pub share_epoch: u8,
    pub latest: Stamp,
    pub order: Option<(Stamped, How)>,
    /// Orders being carried out, the first one under way, with how far it is.
    pub executing: Vec<(Stamped, u8)>,
    /// Posts in the salvage folder, a bit each.
    pub salvage: u8,
}

impl Host {
    /// Handed over for an epoch that never began: `State::is_overruled_by`.
    pub fn is_overruled_by(&self, epoch: u8) -> bool {
        self.handed_over > epoch
    }

    /// `State::is_behind`.
    pub fn is_behind(&self, epoch: u8) -> bool {
        self.history < epoch || self.is_overruled_by(epoch)
    }
}

/// Something on its way over the network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    pub from: HostNumber,
    pub to: HostNumber,
    /// The sender still waits for the answer; one that nobody waits for any more may come at any time.
    pub awaited: bool,
    pub what: What,
}

/// What is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum What {
    Give(Stamped),
    SetRecord {
        record: Record,
        /// The run is over when this is taken.
        ends_run: bool,
    },
}

/// The runbooks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Book {
    Failover,
    Failback,
    Switch,
    Force,
    Planned,
}

pub const BOOKS: [Book; 5] = [Book::Failover, Book::Failback, Book::Switch, Book::Force, Book::Planned];

impl Book {
    /// The runbook of a run, by the run's number.
    pub fn of(run: u8) -> Book {
        BOOKS[usize::from(run % 5)]
    }

    /// The number of the first run of this runbook after all those so far.
    pub fn number_after(self, last: u8) -> u8 {
        (last / 5 + 1) * 5 + self as u8
    }

    /// The site whose authority carries it, when this one is home.
    pub fn carrier(self, home: u8) -> u8 {
        match self {
            Book::Failover | Book::Failback => 1,
            Book::Switch | Book::Force | Book::Planned => home,
        }
    }

    /// Whether it is a change of places within a pair.
    pub fn switches(self) -> bool {
        matches!(self, Book::Switch | Book::Force)
    }
}

/// A run: its journal, and what its process remembers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Run {
    pub id: u8,
    pub book: Book,
    /// The record when it began.
    pub before: Record,
    /// Steps whose being done is in the journal.
    pub done: u8,
    /// Steps that have given orders, a bit each.
    pub ordered: u16,
    /// It is being undone: `done` counts the steps of that.
    pub undoing: bool,
    /// The journal is at its end.
    pub over: bool,
    // In memory only.
    pub claimed: bool,
    pub acted: bool,
}

/// What may still happen, so that the exploration ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Bounds {
    pub posts: u8,
    /// Agents that die and start again; with the authority's agent its conductor.
    pub agent_crashes: u8,
    /// Hosts of site 2, or the mirror, that lose power and come back.
    pub reboots: u8,
    /// Site 1 loses power.
    pub site_losses: u8,
    /// A host of the pair loses power and comes back later, or never.
    pub host_losses: u8,
    /// The links between the sites are cut.
    pub cuts: u8,
    /// Messages that arrive long after their sender gave up.
    pub delays: u8,
    /// PostgreSQL of the writer that is stopped cleanly by the operating system.
    pub clean_stops: u8,
    pub failovers: u8,
    pub failbacks: u8,
    pub switches: u8,
    pub forces: u8,
    pub planned: u8,
    /// Runs that an administrator wants undone.
    pub aborts: u8,
}

/// The whole pool.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub hosts: [Host; 4],
    /// What lies in the share, by the epoch of the writer that shipped it.
    pub share: [Log; EPOCHS_MAX],
    /// The share takes files of this epoch and later ones.
    pub share_open_from: u8,
    pub network: Vec<Message>,
    pub linked: bool,
    /// The latest run of each site's authority.
    pub runs: [Option<Run>; 2],
    /// The number of the next stamp, as the journal has it.
    pub next_stamp: u8,
    pub left: Bounds,
    /// Posts made so far.
    pub posts: u8,
    /// The epoch and host that acknowledged each post; 0 while it is not acknowledged.
    pub acknowledged: [(u8, HostNumber); POSTS_MAX],
    /// The promotions that had made the history in which each was acknowledged, a bit for each epoch.
    pub acknowledged_after: [u16; POSTS_MAX],
    /// Hosts that a record of each epoch has named principal, a bit each: only there a server can write in that epoch.
    pub named: [u8; EPOCHS_MAX],
    /// Epochs whose beginning may lose what was acknowledged, a bit each: a failover's, and a forced switch's to a mirror of
    /// which the record promises nothing.
    pub loses: u16,
    /// Epochs that a forced switch began, a bit each: what nobody has acknowledged may be gone, wherever it was shipped to.
    pub forced: u16,
}

impl State {
    pub fn host(&self, host: HostNumber) -> &Host {
        &self.hosts[usize::from(host)]
    }

    pub fn host_mut(&mut self, host: HostNumber) -> &mut Host {
        &mut self.hosts[usize::from(host)]
    }

    /// Whether `to` answers `from`.
    pub fn reaches(&self, from: HostNumber, to: HostNumber) -> bool {
        self.host(to).up && self.host(from).up && (site(from) == site(to) || self.linked)
    }

    /// The run of that number, if it is the latest of its authority.
    pub fn run(&self, number: u8) -> Option<&Run> {
        self.runs.iter().flatten().find(|run| run.id == number)
    }

    /// Whether a standby has a stream from its source now: on one history, both running, nothing between them.
    pub fn streams(&self, standby: HostNumber) -> bool {
        let to = self.host(standby);
        to.postgres == Postgres::Standby
            && to.upstream.is_some_and(|up| {
                let from = self.host(up);
                from.postgres != Postgres::Stopped && self.reaches(standby, up) && to.log.is_prefix_of(from.log)
            })
    }

    /// The newest record on any disk.
    pub fn newest_record(&self) -> Record {
        let all = self.hosts.iter().map(|h| h.record);
        all.reduce(|best, r| if r.supersedes(&best) { r } else { best }).expect("there are four hosts")
    }

    /// Stop PostgreSQL at once.
    pub fn stop(&mut self, host: HostNumber, cleanly: bool) {
        let host = self.host_mut(host);
        if host.postgres != Postgres::Stopped {
            host.postgres = Postgres::Stopped;
            host.clean = cleanly;
            // An answer that was heard before the stop says nothing about what happened since.
            host.heard_other_site = false;
        }
    }

    /// Acknowledge what may be acknowledged: a post is, as soon as its writer does not wait, or no longer has to.
    pub fn acknowledge(&mut self) {
        for writer in HOSTS {
            let host = self.host(writer);
            if host.postgres != Postgres::Writer {
                continue;
            }
            let confirmed = match host.waits_for.filter(|_| host.waits_really) {
                None => host.log.posts(),
                Some(mirror) if self.host(mirror).upstream == Some(writer) && self.streams(mirror) => {
                    self.host(mirror).log.posts()
                }
                Some(_) => 0,
            };
            let (mine, epoch, forks) = (confirmed & host.log.posts(), host.log.writer(), host.log.forks());
            for post in 0..POSTS_MAX {
                if mine & 1 << post != 0 && self.acknowledged[post].0 == 0 {
                    self.acknowledged[post] = (epoch, writer);
                    self.acknowledged_after[post] = forks;
                }
            }
        }
    }

    /// Number stamps anew from 1, in their order: only their order means anything.
    pub fn canonical(&mut self) {
        let mut numbers: Vec<u8> = Vec::new();
        self.each_number(|n| numbers.push(*n));
        numbers.sort_unstable();
        numbers.dedup();
        numbers.retain(|n| *n != 0);
        let rank = |n: u8| numbers.iter().position(|m| *m == n).map_or(0, |at| at as u8 + 1);
        self.each_number(|n| *n = rank(*n));
        self.next_stamp = numbers.len() as u8 + 1;
    }

    fn each_number(&mut self, mut with: impl FnMut(&mut u8)) {
        for host in &mut self.hosts {
            with(&mut host.latest.1);
            if let Some((order, _)) = &mut host.order {
                with(&mut order.stamp.1);
            }
            host.executing.iter_mut().for_each(|(order, _)| with(&mut order.stamp.1));
        }
        for message in &mut self.network {
            if let What::Give(order) = &mut message.what {
                with(&mut order.stamp.1);
            }
        }
    }
}
