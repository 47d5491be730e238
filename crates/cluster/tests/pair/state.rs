//! The modelled pair as a small value: two hosts with a database, the witness, the three links between them, and what is
//! left of the bounds.

/// A host with a database, by number.
pub type Number = usize;

pub const A: Number = 0;
pub const B: Number = 1;
pub const HOSTS: [Number; 2] = [A, B];

/// The other partner.
pub fn partner(host: Number) -> Number {
    1 - host
}

/// One entry of a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Entry {
    /// A post; every one has a number of its own.
    Post(u8),
    /// A promotion: the database carries this epoch from here on.
    Begin(u8),
}

/// A log.
pub type Log = Vec<Entry>;

/// The posts in a log, a bit each.
pub fn posts(log: &[Entry]) -> u8 {
    log.iter().fold(0, |all, e| if let Entry::Post(n) = e { all | 1 << n } else { all })
}

/// The epoch that a database carries.
pub fn epoch_of(log: &[Entry]) -> u8 {
    log.iter().rev().find_map(|e| if let Entry::Begin(n) = e { Some(*n) } else { None }).unwrap_or(1)
}

/// The pool's record, as far as it concerns the pair.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Record {
    pub epoch: u8,
    pub version: u8,
    pub principal: Option<Number>,
    pub mirror: Option<(Number, bool)>,
    /// The take-over that holds the pool; 0 for none.
    pub run: u8,
}

impl Record {
    pub fn supersedes(&self, other: &Record) -> bool {
        (self.epoch, self.version) > (other.epoch, other.version)
    }

    pub fn synchronised(&self) -> bool {
        self.mirror.is_some_and(|(_, synchronised)| synchronised)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Postgres {
    /// No data: never had any, or its disk was lost.
    Absent,
    Stopped,
    Standby,
    Writer,
}

/// What an agent was last ordered, and by which run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ordered {
    Fence(u8),
    Promote(u8),
}

/// A host with a database: its disk, and what lives in memory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Host {
    /// The machine is on.
    pub up: bool,
    pub postgres: Postgres,
    /// A stopped instance is a standby's.
    pub standby_signal: bool,
    pub log: Log,
    /// `None` after the disk was lost.
    pub record: Option<Record>,
    /// The newest epoch whose history it is part of.
    pub history: u8,
    pub fenced_by: u8,
    /// The latest order, with the run that gave it.
    pub order: Option<(u8, Ordered)>,
    /// Commits are to wait for the partner.
    pub waits: bool,
    /// They really do by now.
    pub waits_really: bool,
    /// "Synchronised" was asked for and not answered, or nobody can know.
    pub unanswered: bool,
    /// Witness or partner have answered since the database stopped.
    pub heard: bool,
}

/// A take-over: its journal, and what its process remembers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Run {
    pub id: u8,
    pub before: Record,
    /// It saw the principal refuse connections, not merely silent.
    pub refused: bool,
    pub done: u8,
    // In memory only.
    pub claimed: bool,
    pub acted: bool,
}

/// The witness: the authority of the record.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Witness {
    pub up: bool,
    pub record: Option<Record>,
    /// Which of the partners it has heard since its disk was lost: somebody may know more than it does.
    pub heard: [bool; 2],
    pub run: Option<Run>,
    /// Take-overs begun so far.
    pub runs: u8,
}

/// A request of a host to record whether the pair is synchronised, on its way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Request {
    pub from: Number,
    pub record: Record,
}

/// What may still happen, so that the exploration ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Bounds {
    pub posts: u8,
    /// A machine loses power and comes back.
    pub crashes: u8,
    /// A database is killed alone.
    pub kills: u8,
    /// A link is cut.
    pub cuts: u8,
    /// A request arrives long after its sender gave up.
    pub delays: u8,
    /// A disk is lost.
    pub disks: u8,
}

/// The link between the partners; those to the witness follow, A's first.
pub const PARTNERS: usize = 0;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub hosts: [Host; 2],
    pub witness: Witness,
    /// Which of the links are whole.
    pub links: [bool; 3],
    pub late: Vec<Request>,
    pub left: Bounds,
    /// Posts made so far.
    pub made: u8,
    /// The host and epoch that acknowledged each post.
    pub acknowledged: Vec<Option<(Number, u8)>>,
    /// The disk of a principal that ran exposed was lost, and with it what nobody else had.
    pub excused: bool,
}

impl State {
    /// A synchronised pair, everybody in touch.
    pub fn synchronised(left: Bounds) -> State {
        let record = Record { epoch: 1, version: 1, principal: Some(A), mirror: Some((B, true)), run: 0 };
        let host = |postgres, waits| Host {
            up: true,
            postgres,
            standby_signal: postgres == Postgres::Standby,
            log: Log::new(),
            record: Some(record),
            history: 1,
            fenced_by: 0,
            order: None,
            waits,
            waits_really: waits,
            unanswered: false,
            heard: true,
        };
        State {
            hosts: [host(Postgres::Writer, true), host(Postgres::Standby, false)],
            witness: Witness { up: true, record: Some(record), heard: [true; 2], run: None, runs: 0 },
            links: [true; 3],
            late: Vec::new(),
            left,
            made: 0,
            acknowledged: vec![None; usize::from(left.posts)],
            excused: false,
        }
    }

    /// Whether the partners see each other.
    pub fn partners_meet(&self) -> bool {
        self.hosts[A].up && self.hosts[B].up && self.links[PARTNERS]
    }

    /// Whether a host and the witness see each other.
    pub fn meets_witness(&self, host: Number) -> bool {
        self.hosts[host].up && self.witness.up && self.links[1 + host]
    }

    /// Whether a standby has a stream: it takes its partner for the principal, which runs on the same history.
    pub fn streams(&self, standby: Number) -> bool {
        let (to, from) = (&self.hosts[standby], &self.hosts[partner(standby)]);
        to.postgres == Postgres::Standby
            && to.record.is_some_and(|r| r.principal == Some(partner(standby)))
            && matches!(from.postgres, Postgres::Writer | Postgres::Standby)
            && self.partners_meet()
            && from.log.starts_with(&to.log)
    }

    /// Acknowledge what may be acknowledged.
    pub fn acknowledge(&mut self) {
        for host in HOSTS {
            let (own, other) = (&self.hosts[host], &self.hosts[partner(host)]);
            if own.postgres != Postgres::Writer {
                continue;
            }
            let confirmed = match (own.waits && own.waits_really, self.streams(partner(host))) {
                (false, _) => posts(&own.log),
                (true, true) => posts(&own.log) & posts(&other.log),
                (true, false) => 0,
            };
            let epoch = epoch_of(&own.log);
            for (post, by) in self.acknowledged.iter_mut().enumerate() {
                if confirmed & 1 << post != 0 && by.is_none() {
                    *by = Some((host, epoch));
                }
            }
        }
    }

    /// Stop a database at once.
    pub fn stop(&mut self, host: Number) {
        let h = &mut self.hosts[host];
        if matches!(h.postgres, Postgres::Standby | Postgres::Writer) {
            h.postgres = Postgres::Stopped;
            h.heard = false;
            h.unanswered = true;
        }
    }
}
