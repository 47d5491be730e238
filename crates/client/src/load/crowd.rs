//! The rooms and the people of a benchmark.

use crate::error::ClientError;
use crate::http::Http;
use rules::access::{Privacy, RoomKind};
use rules::id::RoomId;
use wire::chat::RefusalCode;
use wire::http::{NewCategory, NewRoom};

/// The category of all benchmarks.
const CATEGORY: &str = "Benchmarks";

/// Somebody in a room.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Which room.
    pub room: RoomId,
    /// Who.
    pub user: String,
    /// A token of theirs.
    pub token: String,
    /// The server that they connect to.
    pub url: String,
}

/// Rooms and the people in them.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// Everybody, room by room.
    pub seats: Vec<Seat>,
    /// People in each room.
    pub members: usize,
}

impl Crowd {
    /// Make rooms, each with so many people of its own, spread over the active servers.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub async fn make(http: &Http, rooms: usize, members: usize) -> Result<Self, ClientError> {
        make_category(http).await?;
        let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S").to_string();
        let names: Vec<String> = (1..=rooms * members).map(|n| format!("bench-{n}")).collect();
        let people = http.create_users(&names).await?;
        let urls: Vec<String> = http.servers().await?.servers.into_iter().filter(|s| s.active).map(|s| s.url).collect();
        let mut seats = Vec::with_capacity(people.len());
        for (n, people) in people.chunks(members).enumerate() {
            let room = make_room(http, &format!("bench {stamp} {n}")).await?;
            for person in people {
                let url = urls[seats.len() % urls.len()].clone();
                seats.push(Seat { room, user: person.user.clone(), token: person.token.clone(), url });
            }
        }
        Ok(Self { seats, members })
    }

    /// Servers that are connected to.
    pub fn servers(&self) -> usize {
        self.seats.iter().map(|s| &s.url).collect::<std::collections::BTreeSet<_>>().len()
    }
}

async fn make_category(http: &Http) -> Result<(), ClientError> {
    let category = NewCategory {
        name: CATEGORY.to_owned(),
        description: "Rooms of standfast bench".to_owned(),
        allowed_members: vec!["Everyone".to_owned()],
        ..NewCategory::default()
    };
    match http.create_category(&category).await {
        Err(error) if !error.is(RefusalCode::Conflict) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn make_room(http: &Http, name: &str) -> Result<RoomId, ClientError> {
    let room = NewRoom {
        name: name.to_owned(),
        category: CATEGORY.to_owned(),
        description: String::new(),
        privacy: Privacy::Open,
        kind: RoomKind::Normal,
        members: Vec::new(),
    };
    Ok(http.create_room(&room).await?.id)
}
