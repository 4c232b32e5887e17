//! Accounts and rooms that every scenario starts from.

use std::sync::Arc;

use httpcrate::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use structopt::StructOpt;
use tokio::sync::Semaphore;

use crate::Result;
use crate::client::{Client, segment};

/// How much there shall be.
#[derive(StructOpt, Clone)]
pub struct Shape {
    #[structopt(long, default_value = "64")]
    pub users: usize,
    /// Rooms for messages and joins
    #[structopt(long, default_value = "200")]
    pub rooms: usize,
    /// Members of each of them
    #[structopt(long, default_value = "5")]
    pub members: usize,
    /// Rooms the initial sync shows
    #[structopt(long, default_value = "100")]
    pub sync_rooms: usize,
    /// Members of each of those
    #[structopt(long, default_value = "20")]
    pub sync_members: usize,
    /// Requests under way at once
    #[structopt(long, default_value = "8")]
    pub parallel: usize,
}

#[derive(Serialize, Deserialize)]
pub struct Account {
    pub user_id: String,
    pub token: String,
}

/// A room and the numbers of its members among the users; the first one made it.
#[derive(Serialize, Deserialize, Clone)]
pub struct Room {
    pub id: String,
    pub members: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
pub struct Seed {
    pub users: Vec<Account>,
    pub rooms: Vec<Room>,
    /// Rooms of the initial sync; the last user is in all of them and in no other.
    pub sync_rooms: Vec<Room>,
}

impl Seed {
    /// The user whose initial sync is measured.
    pub fn sync_user(&self) -> usize {
        self.users.len() - 1
    }
}

/// Registers, creates and joins through the client API of `bases`.
pub async fn make(bases: &[String], shape: &Shape) -> Result<Seed> {
    let places = Arc::new(Semaphore::new(shape.parallel.max(1)));
    let client = |n: usize| Client::new(&bases[n % bases.len()], None);
    let users = each(&places, (0..shape.users).map(|n| register(client(n), n))).await?;
    let clients: Vec<Client> = users.iter().enumerate().map(|(n, u)| client(n).with_token(&u.token)).collect();
    let last = shape.users - 1;
    // The last user is kept out of the ordinary rooms.
    let ordinary = |n: usize| (0..shape.members).map(|m| (n + m) % last).collect::<Vec<_>>();
    let synced = |n: usize| {
        let others = (0..shape.sync_members - 1).map(|m| (n + m) % last);
        others.chain([last]).collect::<Vec<_>>()
    };
    let rooms = each(&places, (0..shape.rooms).map(|n| room(clients.clone(), ordinary(n), n, 0))).await?;
    let sync_rooms = each(&places, (0..shape.sync_rooms).map(|n| room(clients.clone(), synced(n), n, 5))).await?;
    Ok(Seed { users, rooms, sync_rooms })
}

/// Runs all, some at a time, results in order.
async fn each<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl Iterator<Item = impl Future<Output = Result<T>> + Send + 'static>,
) -> Result<Vec<T>> {
    let tasks: Vec<_> = work
        .map(|one| {
            let places = places.clone();
            tokio::spawn(async move {
                let _place = places.acquire().await?;
                one.await
            })
        })
        .collect();
    let mut out = Vec::with_capacity(tasks.len());
    for task in tasks {
        out.push(task.await??);
    }
    Ok(out)
}

async fn register(client: Client, n: usize) -> Result<Account> {
    let body = json!({ "username": format!("bench{n}"), "password": "bench", "auth": { "type": "m.login.dummy" } });
    let answer = client.ok(Method::POST, "/_matrix/client/v3/register", Some(&body)).await?;
    match (answer["user_id"].as_str(), answer["access_token"].as_str()) {
        (Some(user), Some(token)) => Ok(Account { user_id: user.to_owned(), token: token.to_owned() }),
        _ => Err(format!("register answered {answer}").into()),
    }
}

async fn room(clients: Vec<Client>, members: Vec<usize>, n: usize, messages: usize) -> Result<Room> {
    let id = create(&clients[members[0]], &format!("Bench room {n}")).await?;
    for member in &members[1..] {
        join(&clients[*member], &id).await?;
    }
    for m in 0..messages {
        clients[members[0]].send(&id, &format!("seed{n}-{m}"), "A message of the past").await?;
    }
    Ok(Room { id, members })
}

/// Creates a public room.
pub async fn create(client: &Client, name: &str) -> Result<String> {
    let body = json!({ "preset": "public_chat", "name": name });
    let answer = client.ok(Method::POST, "/_matrix/client/v3/createRoom", Some(&body)).await?;
    match answer["room_id"].as_str() {
        Some(id) if id.starts_with('!') => Ok(id.to_owned()),
        _ => Err(format!("createRoom answered {answer}").into()),
    }
}

/// Joins; the answer must name the room.
pub async fn join(client: &Client, room: &str) -> Result<()> {
    let path = format!("/_matrix/client/v3/join/{}", segment(room));
    let answer = client.ok(Method::POST, &path, Some(&json!({}))).await?;
    if answer["room_id"].as_str() != Some(room) {
        return Err(format!("join answered {answer}").into());
    }
    Ok(())
}
