//! Sending messages: as many as the server takes, or at a fixed pace.

use std::sync::Arc;
use std::time::{Duration, Instant};

use structopt::StructOpt;

use crate::report::{Meter, Report, Samples};
use crate::{Result, Run};

#[derive(StructOpt)]
pub struct Shape {
    /// Rooms to write to; 1 is the scenario of one busy room
    #[structopt(long, default_value = "200")]
    rooms: usize,
    /// Clients that send, each one message after the other
    #[structopt(long, default_value = "16")]
    senders: usize,
}

#[derive(StructOpt)]
pub struct Pace {
    /// Messages a second
    #[structopt(long, default_value = "40")]
    rate: f64,
}

/// A message the server acknowledged.
struct Sent {
    room: String,
    event: String,
    text: String,
    by: usize,
}

/// `txn` and text must differ between runs on one database.
fn stamp() -> u64 {
    rand::random()
}

/// Closed loop: every sender sends its next message when the last one is acknowledged.
pub async fn flood(run: Run, shape: Shape) -> Result<Report> {
    let run = Arc::new(run);
    let plans = plans(&run, &shape)?;
    let meter = Meter::start(&run.groups)?;
    let end = Instant::now() + run.duration;
    let tasks: Vec<_> =
        plans.into_iter().map(|(user, rooms)| tokio::spawn(sender(run.clone(), user, rooms, end))).collect();
    let (mut samples, mut sent) = (Samples::default(), Vec::new());
    for task in tasks {
        let (more, events) = task.await?;
        samples.merge(more);
        sent.extend(events);
    }
    let name = if shape.rooms == 1 { "one room".to_owned() } else { format!("messages, {} rooms", shape.rooms) };
    let report = meter.finish(&name, samples)?;
    verify(&run, &sent).await?;
    Ok(report)
}

/// Which user writes to which rooms.
fn plans(run: &Run, shape: &Shape) -> Result<Vec<(usize, Vec<String>)>> {
    if shape.rooms == 1 {
        let room = run.seed.sync_rooms.first().ok_or("the seed has no large room")?;
        return Ok((0..shape.senders).map(|n| (room.members[n % room.members.len()], vec![room.id.clone()])).collect());
    }
    let rooms = &run.seed.rooms[..shape.rooms.min(run.seed.rooms.len())];
    let mut plans: Vec<(usize, Vec<String>)> = Vec::new();
    for n in 0..shape.senders {
        let user = n * (run.seed.users.len() - 1) / shape.senders;
        let own: Vec<String> = rooms.iter().filter(|r| r.members.contains(&user)).map(|r| r.id.clone()).collect();
        if own.is_empty() {
            return Err(format!("user {user} is in none of the rooms").into());
        }
        plans.push((user, own));
    }
    Ok(plans)
}

async fn sender(run: Arc<Run>, user: usize, rooms: Vec<String>, end: Instant) -> (Samples, Vec<Sent>) {
    let (client, id) = (run.writer(user), stamp());
    let (mut samples, mut sent, mut n) = (Samples::default(), Vec::new(), 0);
    while Instant::now() < end {
        let room = &rooms[n % rooms.len()];
        let text = format!("message {n} of {id:x}");
        let start = Instant::now();
        if let Some(event) = samples.take(start, client.send(room, &format!("{id:x}-{n}"), &text).await) {
            sent.push(Sent { room: room.clone(), event, text, by: user });
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        n += 1;
    }
    (samples, sent)
}

/// Reads some of what was acknowledged back: the server must have it, and as it was sent.
async fn verify(run: &Run, sent: &[Sent]) -> Result<()> {
    for message in sent.iter().step_by((sent.len() / 40).max(1)) {
        let text = run.reader(message.by).text_of(&message.room, &message.event).await?;
        if text != message.text {
            return Err(format!("{} says {text:?}, sent was {:?}", message.event, message.text).into());
        }
    }
    Ok(())
}

/// Open loop: one message every 1/rate seconds, whether or not the last one is done.
pub async fn paced(run: Run, pace: Pace) -> Result<Report> {
    let run = Arc::new(run);
    let senders: Vec<_> = (0..16).map(|n| run.writer(run.seed.rooms[n].members[0])).collect();
    let (id, gap) = (stamp(), Duration::from_secs_f64(1.0 / pace.rate));
    let mut ticks = tokio::time::interval(gap);
    let meter = Meter::start(&run.groups)?;
    let end = Instant::now() + run.duration;
    let mut tasks = Vec::new();
    let mut n = 0;
    while Instant::now() < end {
        ticks.tick().await;
        let (client, room) = (senders[n % 16].clone(), run.seed.rooms[n % 16].id.clone());
        tasks.push(tokio::spawn(async move {
            let start = Instant::now();
            let result = client.send(&room, &format!("{id:x}-{n}"), "paced").await;
            (start.elapsed(), result)
        }));
        n += 1;
    }
    let mut samples = Samples::default();
    for task in tasks {
        match task.await? {
            (took, Ok(_)) => samples.times.push(took),
            (_, Err(error)) => samples.errors.push(error.to_string()),
        }
    }
    meter.finish(&format!("paced, {} a second", pace.rate), samples)
}
