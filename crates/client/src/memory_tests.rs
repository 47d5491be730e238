use super::*;

const ROOM: RoomId = RoomId(7);

/// A session's memory with a server that answers by hand.
struct World {
    memory: Memory,
    now: Instant,
    events: Vec<Event>,
}

impl World {
    fn new() -> Self {
        Self { memory: Memory::default(), now: Instant::now(), events: Vec::new() }
    }

    fn hear(&mut self, frame: ServerFrame) -> Result<(), String> {
        self.memory.hear(frame, self.now, &mut self.events)
    }

    fn welcome(&mut self, epoch: i64) {
        let welcome = ServerFrame::Welcome {
            user: "ada".into(),
            server: "server-1".into(),
            pool_name: "north".into(),
            epoch: Epoch(epoch),
            servers: Vec::new(),
            post_bytes_max: 1,
            pool: wire::chat::PoolStands::default(),
        };
        self.hear(welcome).unwrap();
    }

    fn sent(&mut self) -> Vec<ClientFrame> {
        let mut frames = Vec::new();
        self.memory.due(self.now, &mut frames);
        frames
    }

    /// What was sent, in short: `join:1 after 5`, `post:2 a`.
    fn said(&mut self) -> Vec<String> {
        let short = |frame: &ClientFrame| match frame {
            ClientFrame::Join { after: Some(c), .. } => format!("join after {}/{}", c.epoch, c.seq),
            ClientFrame::Join { .. } => "join".to_owned(),
            ClientFrame::Leave { .. } => "leave".to_owned(),
            ClientFrame::Post { text, .. } => format!("post {text}"),
            ClientFrame::Hello { .. } => "hello".to_owned(),
        };
        let frames = self.sent();
        frames.iter().map(short).collect()
    }

    fn joined(&mut self, head: (i64, i64), rewound_from: Option<i64>) {
        let id = self.memory.next_request - 1;
        let id = match self.memory.rooms[&ROOM].place {
            Place::Asked(asked) => asked,
            _ => id,
        };
        let head = Cursor { epoch: Epoch(head.0), seq: Seq(head.1) };
        let rewound_from = rewound_from.map(Seq);
        self.hear(ServerFrame::Joined { id, room: ROOM, name: "tea".into(), head, rewound_from }).unwrap();
    }

    fn entry(&mut self, epoch: i64, seq: i64) -> Result<(), String> {
        let content = wire::chat::Content::Post { text: "x".into() };
        let (epoch, seq) = (Epoch(epoch), Seq(seq));
        let (client_id, late) = (None, None);
        let entry = Entry { room: ROOM, seq, epoch, author: "bob".into(), at_us: 0, client_id, late, content };
        self.hear(ServerFrame::Entry(entry))
    }

    /// An own post that was `first` is delivered as a late arrival.
    fn own_late(&mut self, client_id: Uuid, now: (i64, i64), first: (i64, i64)) {
        let content = wire::chat::Content::Post { text: "x".into() };
        let late = wire::chat::Late { epoch: Epoch(first.0), seq: Seq(first.1), at_us: 0 };
        let (epoch, seq, client_id, late) = (Epoch(now.0), Seq(now.1), Some(client_id), Some(late));
        let entry = Entry { room: ROOM, seq, epoch, author: "ada".into(), at_us: 0, client_id, late, content };
        self.hear(ServerFrame::Entry(entry)).unwrap();
    }

    fn post(&mut self, text: &str) -> Uuid {
        let id = Uuid::now_v7();
        self.memory.post(ROOM, id, text.into(), self.now);
        id
    }

    fn request_of(&self, client_id: Uuid) -> u64 {
        self.memory.outgoing.iter().find(|p| p.client_id == client_id).and_then(|p| p.request).expect("it was sent")
    }

    fn ack(&mut self, client_id: Uuid, epoch: i64, seq: i64) {
        let id = self.request_of(client_id);
        let (seq, epoch) = (Seq(seq), Epoch(epoch));
        self.hear(ServerFrame::Ack {
            id,
            room: ROOM,
            client_id,
            seq,
            epoch,
            at_us: 0,
            repeated: false,
            durable: Durable::Disk,
            less_than: None,
            receipt: None,
        })
        .unwrap();
    }

    fn refuse(&mut self, client_id: Uuid, code: RefusalCode) {
        let id = self.request_of(client_id);
        self.hear(ServerFrame::Refused { id, code, message: "no".into() }).unwrap();
    }

    fn reconnect(&mut self, epoch: i64) {
        self.memory.cut(&mut self.events);
        self.welcome(epoch);
    }
}

fn in_room() -> World {
    let mut world = World::new();
    world.memory.join(ROOM, None);
    world.welcome(1);
    assert_eq!(world.said(), ["join"]);
    world.joined((1, 0), None);
    world
}

#[test]
fn posts_wait_for_the_join_and_keep_their_order() {
    let mut world = World::new();
    world.memory.join(ROOM, None);
    world.post("a");
    world.post("b");
    assert!(world.said().is_empty(), "nothing before welcome");
    world.welcome(1);
    assert_eq!(world.said(), ["join"]);
    world.joined((1, 40), None);
    assert_eq!(world.said(), ["post a", "post b"]);
    assert!(world.entry(1, 11).is_ok(), "history of 30 begins with entry 11 of 40");
}

#[test]
fn what_is_unacknowledged_is_offered_again_and_what_is_acknowledged_is_not() {
    let mut world = in_room();
    let (a, _b) = (world.post("a"), world.post("b"));
    assert_eq!(world.said(), ["post a", "post b"]);
    world.entry(1, 1).unwrap();
    world.ack(a, 1, 1);
    world.reconnect(1);
    assert_eq!(world.said(), ["join after 1/1"]);
    world.joined((1, 1), None);
    assert_eq!(world.said(), ["post b"]);
}

#[test]
fn own_posts_that_a_failover_lost_are_offered_again_before_new_ones() {
    let mut world = in_room();
    let ids = [world.post("a"), world.post("b"), world.post("c")];
    world.said();
    for (seq, id) in (1..).zip(ids) {
        world.entry(1, seq).unwrap();
        world.ack(id, 1, seq);
    }
    world.post("d");
    world.reconnect(2);
    assert_eq!(world.said(), ["join after 1/3"]);
    world.joined((1, 1), Some(2));
    assert!(world.events.contains(&Event::Rewound { room: ROOM, from: Seq(2) }));
    assert_eq!(world.said(), ["post b", "post c", "post d"]);
    world.ack(ids[1], 2, 2);
    assert!(matches!(world.events.last(), Some(Event::Acknowledged { again: true, seq: Seq(2), .. })));
    // Confirmed in epoch 2: another connection in epoch 2 asks for nothing.
    world.entry(2, 2).unwrap();
}

#[test]
fn an_own_post_that_was_acknowledged_but_never_delivered_is_asked_about() {
    let mut world = in_room();
    let a = world.post("a");
    world.said();
    world.ack(a, 1, 1);
    world.reconnect(2);
    assert_eq!(world.said(), ["join after 1/0"]);
    // The cursor lies below what was lost, so the server has nothing to say about it.
    world.joined((1, 0), None);
    assert_eq!(world.said(), ["post a"]);
}

#[test]
fn own_posts_in_rooms_that_were_left_are_asked_about() {
    let mut world = in_room();
    let a = world.post("a");
    world.said();
    world.entry(1, 1).unwrap();
    world.ack(a, 1, 1);
    world.memory.leave(ROOM, &mut Vec::new());
    assert_eq!(world.said(), ["leave"]);
    world.reconnect(2);
    assert!(world.events.contains(&Event::Left { room: ROOM, asked: true }));
    assert_eq!(world.said(), ["post a"]);
    world.ack(a, 1, 1);
    world.reconnect(2);
    assert!(world.said().is_empty(), "it was confirmed in epoch 2");
}

#[test]
fn a_gap_and_a_repetition_are_passed_on_as_disorder() {
    let mut world = in_room();
    world.entry(1, 1).unwrap();
    assert!(world.entry(1, 3).is_err());
    assert!(matches!(world.events.last(), Some(Event::Disorder { expected: Some(Seq(2)), .. })));
    assert!(world.entry(1, 1).is_err());
    world.reconnect(1);
    assert_eq!(world.said(), ["join after 1/1"]);
}

#[test]
fn a_refusal_that_passes_is_tried_again_and_another_is_not() {
    let mut world = in_room();
    let (a, b) = (world.post("a"), world.post("b"));
    world.said();
    world.refuse(a, RefusalCode::Overloaded);
    world.refuse(b, RefusalCode::Forbidden);
    assert!(matches!(world.events.last(), Some(Event::GivenUp { code: RefusalCode::Forbidden, .. })));
    assert!(world.said().is_empty(), "it pauses first");
    world.now += PAUSE;
    assert_eq!(world.said(), ["post a"]);
    assert_eq!(world.memory.unacknowledged(), 1);
}

#[test]
fn a_server_that_sends_its_clients_away_is_offered_nothing_more() {
    let mut world = in_room();
    world.hear(ServerFrame::Move { servers: Vec::new(), after_ms: 9, reason: "x".into() }).unwrap();
    world.post("a");
    assert!(world.said().is_empty());
}

#[test]
fn a_room_is_left_and_joined_again_afresh() {
    let mut world = in_room();
    world.memory.leave(ROOM, &mut Vec::new());
    let frames = world.sent();
    let [ClientFrame::Leave { id, .. }] = frames[..] else { panic!("{frames:?}") };
    world.memory.join(ROOM, None);
    world.entry(1, 1).unwrap();
    world.hear(ServerFrame::Left { id, room: ROOM }).unwrap();
    assert_eq!(world.said(), ["join"]);
}

#[test]
fn a_room_that_is_left_before_the_answer_to_the_join_is_no_disorder() {
    let mut world = World::new();
    world.memory.join(ROOM, None);
    world.welcome(1);
    assert_eq!(world.said(), ["join"]);
    world.memory.leave(ROOM, &mut Vec::new());
    assert_eq!(world.said(), ["leave"]);
    world.joined((1, 3), None);
    world.entry(1, 1).unwrap();
    world.entry(1, 2).unwrap();
}

#[test]
fn an_own_post_that_came_late_is_offered_again_when_its_new_place_is_lost_and_not_before() {
    let mut world = in_room();
    let own = world.post("a");
    assert_eq!(world.said(), ["post a"]);
    world.ack(own, 1, 1);
    // Away while the first failover took it, and back when it has come late: its number is behind what is delivered.
    world.entry(1, 1).unwrap();
    world.entry(2, 2).unwrap();
    world.own_late(own, (2, 3), (1, 1));
    world.reconnect(2);
    assert_eq!(world.said(), ["join after 2/3"]);
    world.joined((2, 3), None);
    assert!(world.said().is_empty(), "it is there");
    // The second failover takes it again.
    world.reconnect(3);
    assert_eq!(world.said(), ["join after 2/3"]);
    world.joined((3, 2), Some(3));
    assert_eq!(world.said(), ["post a"]);
}

#[test]
fn what_a_lost_site_had_is_told() {
    let mut world = in_room();
    let returned = wire::chat::TailReturned { tail: "mgc-2-db".into(), entered: 3, ..Default::default() };
    world.hear(ServerFrame::TailReturned(returned.clone())).unwrap();
    assert!(world.events.contains(&Event::TailReturned(returned)));
}
