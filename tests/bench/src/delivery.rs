//! From the moment a message is sent to the moment another client's long-polled /sync has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use httpcrate::Method;
use serde_json::Value;
use structopt::StructOpt;

use crate::client::Client;
use crate::report::{Meter, Report, Samples};
use crate::{Result, Run};

#[derive(StructOpt)]
pub struct Shape {
    /// Messages a second, into 5 rooms the reader is in
    #[structopt(long, default_value = "20")]
    rate: f64,
}

type Clock = Arc<Mutex<HashMap<String, Instant>>>;

pub async fn measure(run: Run, shape: Shape) -> Result<Report> {
    let run = Arc::new(run);
    // Rooms of which user 4 is a member but not the one who writes.
    let reader = run.reader(4);
    let rooms: Vec<_> =
        run.seed.rooms.iter().filter(|r| r.members[0] != 4 && r.members.contains(&4)).take(5).cloned().collect();
    if rooms.is_empty() {
        return Err("the seed has no room for the reader".into());
    }
    let first = reader.ok(Method::GET, "/_matrix/client/v3/sync?timeout=0", None).await?;
    let since = first["next_batch"].as_str().ok_or("no next_batch")?.to_owned();
    let clock: Clock = Clock::default();
    let meter = Meter::start(&run.groups)?;
    let end = Instant::now() + run.duration;
    let reading = tokio::spawn(read(reader, since, clock.clone(), end + Duration::from_secs(20), end));
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / shape.rate));
    let mut sends = Vec::new();
    let id: u64 = rand::random();
    let writers: Vec<_> = rooms.iter().map(|r| run.writer(r.members[0])).collect();
    let mut n = 0;
    while Instant::now() < end {
        ticks.tick().await;
        let text = format!("{id:x}-{n}");
        let (client, room) = (writers[n % rooms.len()].clone(), rooms[n % rooms.len()].id.clone());
        if let Ok(mut clock) = clock.lock() {
            clock.insert(text.clone(), Instant::now());
        }
        sends.push(tokio::spawn(async move { client.send(&room, &text, &text).await }));
        n += 1;
    }
    let mut failed = Vec::new();
    for send in sends {
        if let Err(error) = send.await? {
            failed.push(error.to_string());
        }
    }
    let mut samples = reading.await??;
    samples.errors.extend(failed);
    let missing = clock.lock().map(|c| c.len()).unwrap_or(0);
    samples.errors.extend((0..missing).map(|_| "a message never reached /sync".to_owned()));
    meter.finish(&format!("delivery, {} a second", shape.rate), samples)
}

/// Long-polls until all is seen after `quiet`, or `deadline`.
async fn read(client: Client, mut since: String, clock: Clock, deadline: Instant, quiet: Instant) -> Result<Samples> {
    let mut samples = Samples::default();
    while Instant::now() < deadline {
        let done = clock.lock().map(|c| c.is_empty()).unwrap_or(true);
        if Instant::now() > quiet && done {
            break;
        }
        let path = format!("/_matrix/client/v3/sync?timeout=1000&since={}", crate::client::segment(&since));
        let answer = client.ok(Method::GET, &path, None).await?;
        let now = Instant::now();
        for text in texts(&answer) {
            let sent = clock.lock().ok().and_then(|mut c| c.remove(&text));
            samples.times.extend(sent.map(|at| now.duration_since(at)));
        }
        since = answer["next_batch"].as_str().ok_or("no next_batch")?.to_owned();
    }
    Ok(samples)
}

/// Bodies of all messages in a /sync answer.
fn texts(answer: &Value) -> Vec<String> {
    let rooms = answer["rooms"]["join"].as_object();
    rooms
        .into_iter()
        .flat_map(|rooms| rooms.values())
        .filter_map(|room| room["timeline"]["events"].as_array())
        .flatten()
        .filter_map(|event| event["content"]["body"].as_str().map(str::to_owned))
        .collect()
}
