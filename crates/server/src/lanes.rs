//! Which lane writes a post: pure.
//!
//! There are two, so that rooms which ask for the principal's disk alone go on while every other commit waits for a mirror that
//! hangs. Their rooms are disjoint at any moment, and a room's posts keep their order when it goes from one to the other: a post
//! goes where posts of its room wait already; a lane hands over all that it has of a room, in order, and what still lies in its
//! queue follows; the other one hands nothing back before all has come.

use rules::durability::Rule;
use rules::id::RoomId;
use std::collections::HashMap;

/// Rooms of which something is known.
const ROOMS_MAX: usize = 100_000;

/// A lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Lane {
    /// Its commits wait for the mirror, as long as the pair is synchronised.
    #[default]
    Mirror,
    /// Its commits wait for the principal's own disk alone.
    Disk,
}

impl Lane {
    /// All there are.
    pub const ALL: [Self; 2] = [Lane::Mirror, Lane::Disk];

    /// The lane in which rooms with this rule belong.
    pub fn of(rule: Rule) -> Self {
        if rule.is_disk() { Lane::Disk } else { Lane::Mirror }
    }

    fn other(self) -> Self {
        match self {
            Lane::Mirror => Lane::Disk,
            Lane::Disk => Lane::Mirror,
        }
    }

    /// Its place in a list of both.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// What a lane does with the posts of a room that it has taken out of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It writes them.
    Here,
    /// It hands all of them over.
    Over,
}

/// A room's posts, and where it belongs.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    known: Option<Lane>,
    /// The lane that has the oldest of its posts.
    front: Lane,
    /// Posts that wait, by lane.
    waiting: [u32; 2],
}

impl Place {
    fn has(&self, lane: Lane) -> bool {
        self.waiting[lane.index()] > 0
    }

    /// The lane in which the newest of its posts wait, if any do.
    fn back(&self) -> Option<Lane> {
        [self.front.other(), self.front].into_iter().find(|lane| self.has(*lane))
    }

    fn add(&mut self, lane: Lane) {
        if self.back().is_none() {
            self.front = lane;
        }
        self.waiting[lane.index()] += 1;
    }

    fn remove(&mut self, lane: Lane) {
        let waiting = &mut self.waiting[lane.index()];
        *waiting = waiting.saturating_sub(1);
        if !self.has(self.front) {
            self.front = self.back().unwrap_or(self.front);
        }
    }
}

/// Where rooms' posts wait and belong.
#[derive(Debug, Default)]
pub struct Lanes {
    rooms: HashMap<RoomId, Place>,
}

impl Lanes {
    fn place(&self, room: RoomId) -> Place {
        self.rooms.get(&room).copied().unwrap_or_default()
    }

    fn place_mut(&mut self, room: RoomId) -> &mut Place {
        if self.rooms.len() >= ROOMS_MAX && !self.rooms.contains_key(&room) {
            self.rooms.retain(|_, place| place.back().is_some());
        }
        self.rooms.entry(room).or_default()
    }

    /// Where the room belongs, as its rule was last seen. What is wrong or unknown does no harm but a way through the other lane.
    pub fn learn(&mut self, room: RoomId, lane: Lane) {
        self.place_mut(room).known = Some(lane);
    }

    /// Where the room belongs, if that is known.
    pub fn known(&self, room: RoomId) -> Option<Lane> {
        self.place(room).known
    }

    /// A post has arrived: the lane that it goes to.
    pub fn arrive(&mut self, room: RoomId) -> Lane {
        let place = self.place_mut(room);
        let lane = place.back().or(place.known).unwrap_or_default();
        place.add(lane);
        lane
    }

    /// A post waits no more in this lane.
    pub fn resolved(&mut self, room: RoomId, lane: Lane) {
        let Some(place) = self.rooms.get_mut(&room) else { return };
        place.remove(lane);
        // A room that is not known when its posts have their outcome may be none.
        if place.known.is_none() && place.back().is_none() {
            self.rooms.remove(&room);
        }
    }

    /// A lane has taken a room's posts out of its queue, and the room belongs in `wanted`, or has to stay where it is.
    pub fn course(&self, room: RoomId, lane: Lane, wanted: Lane) -> Course {
        let place = self.place(room);
        match (place.has(lane.other()), place.front == lane) {
            // The rest of what went over already.
            (true, false) => Course::Over,
            // More is on its way from there.
            (true, true) => Course::Here,
            (false, _) if wanted != lane => Course::Over,
            (false, _) => Course::Here,
        }
    }

    /// A post goes over from a lane to the other one, which is returned.
    pub fn hand_over(&mut self, room: RoomId, from: Lane) -> Lane {
        let (to, place) = (from.other(), self.place_mut(room));
        if !place.has(to) {
            place.front = to;
        }
        place.waiting[to.index()] += 1;
        place.remove(from);
        to
    }

    /// Whether a lane writes what is older than all posts of the room that wait.
    pub fn writes_first(&self, room: RoomId, lane: Lane) -> bool {
        let place = self.place(room);
        if place.back().is_some() { place.front == lane } else { lane == Lane::Mirror }
    }

    /// Such a post waits in this lane.
    pub fn take_first(&mut self, room: RoomId, lane: Lane) {
        self.place_mut(room).add(lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choices::Choices;
    use std::collections::VecDeque;

    const ROOM: RoomId = RoomId(7);

    #[test]
    fn a_post_goes_where_its_room_belongs_unless_some_wait_elsewhere() {
        let mut lanes = Lanes::default();
        assert_eq!((lanes.known(ROOM), lanes.arrive(ROOM)), (None, Lane::Mirror));
        lanes.learn(ROOM, Lane::Disk);
        assert_eq!(lanes.arrive(ROOM), Lane::Mirror);
        lanes.resolved(ROOM, Lane::Mirror);
        lanes.resolved(ROOM, Lane::Mirror);
        assert_eq!(lanes.arrive(ROOM), Lane::Disk);
        lanes.learn(ROOM, Lane::Mirror);
        assert_eq!(lanes.arrive(ROOM), Lane::Disk);
    }

    #[test]
    fn what_is_in_the_queue_follows_what_went_over_and_nothing_comes_back_before_it() {
        let mut lanes = Lanes::default();
        (0..3).for_each(|_| assert_eq!(lanes.arrive(ROOM), Lane::Mirror));
        assert_eq!(lanes.course(ROOM, Lane::Mirror, Lane::Disk), Course::Over);
        assert_eq!(lanes.hand_over(ROOM, Lane::Mirror), Lane::Disk);
        assert_eq!(lanes.arrive(ROOM), Lane::Mirror);
        assert_eq!(lanes.course(ROOM, Lane::Mirror, Lane::Mirror), Course::Over);
        assert_eq!(lanes.course(ROOM, Lane::Disk, Lane::Mirror), Course::Here);
        assert!(lanes.writes_first(ROOM, Lane::Disk) && !lanes.writes_first(ROOM, Lane::Mirror));
        (0..3).for_each(|_| assert_eq!(lanes.hand_over(ROOM, Lane::Mirror), Lane::Disk));
        assert_eq!(lanes.course(ROOM, Lane::Disk, Lane::Mirror), Course::Over);
        assert_eq!(lanes.arrive(ROOM), Lane::Disk);
    }

    #[test]
    fn what_is_older_than_all_that_waits_is_written_where_the_oldest_waits() {
        let mut lanes = Lanes::default();
        assert!(lanes.writes_first(ROOM, Lane::Mirror) && !lanes.writes_first(ROOM, Lane::Disk));
        lanes.learn(ROOM, Lane::Disk);
        lanes.arrive(ROOM);
        assert!(lanes.writes_first(ROOM, Lane::Disk) && !lanes.writes_first(ROOM, Lane::Mirror));
        lanes.resolved(ROOM, Lane::Disk);
        lanes.take_first(ROOM, Lane::Mirror);
        assert_eq!(lanes.arrive(ROOM), Lane::Mirror);
    }

    /// Posts of one room through both lanes, whose opinion of it changes at random: the log, by number.
    fn log_of(seed: u64, follows: bool) -> Vec<u64> {
        let (mut choices, mut lanes) = (Choices(seed), Lanes::default());
        let mut queues: [VecDeque<u64>; 2] = Default::default();
        let mut taken: [Vec<u64>; 2] = Default::default();
        let (mut log, mut posted) = (Vec::new(), 0);
        for step in 0..400 {
            if step < 300 && choices.next(3) > 0 {
                posted += 1;
                queues[lanes.arrive(ROOM).index()].push_back(posted);
            }
            let lane = Lane::ALL[choices.next(2) as usize];
            let wanted = Lane::ALL[choices.next(2) as usize];
            lanes.learn(ROOM, wanted);
            let (queue, batch) = (&mut queues[lane.index()], &mut taken[lane.index()]);
            if batch.is_empty() {
                // Taken now and written in a later step: the other lane goes on in between.
                let count = (1 + choices.next(3) as usize).min(queue.len());
                batch.extend(queue.drain(..count));
                let over = lanes.course(ROOM, lane, wanted) == Course::Over && (follows || wanted != lane);
                if over {
                    for post in std::mem::take(batch) {
                        queues[lanes.hand_over(ROOM, lane).index()].push_back(post);
                    }
                }
            } else {
                for post in std::mem::take(batch) {
                    log.push(post);
                    lanes.resolved(ROOM, lane);
                }
            }
        }
        for lane in [lanes.place(ROOM).front, lanes.place(ROOM).front.other()] {
            log.append(&mut taken[lane.index()]);
            log.extend(queues[lane.index()].drain(..));
        }
        assert_eq!(log.len() as u64, posted);
        log
    }

    #[test]
    fn a_room_keeps_its_order_however_often_it_goes_from_lane_to_lane() {
        for seed in 0..500 {
            let log = log_of(seed, true);
            assert!(log.is_sorted(), "seed {seed}: {log:?}");
        }
        assert!((0..500).any(|seed| !log_of(seed, false).is_sorted()), "the walk does not find what it is for");
    }
}
