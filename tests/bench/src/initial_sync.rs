//! /sync without a token.

use std::time::Instant;

use httpcrate::Method;
use serde_json::Value;
use structopt::StructOpt;

use crate::report::{Meter, Report, Samples};
use crate::{Result, Run};

#[derive(StructOpt)]
pub struct Shape {
    /// How often, after a first one that is not counted
    #[structopt(long, default_value = "10")]
    times: usize,
}

pub async fn measure(run: Run, shape: Shape) -> Result<Report> {
    let client = run.reader(run.seed.sync_user());
    // A differing timeout (of no effect here) keeps Synapse from answering out of its response cache.
    let path = |n: usize| format!("/_matrix/client/v3/sync?timeout={n}");
    check(&run, &client.ok(Method::GET, &path(0), None).await?)?;
    let meter = Meter::start(&run.groups)?;
    let mut samples = Samples::default();
    for n in 1..=shape.times {
        let start = Instant::now();
        let result = client.ok(Method::GET, &path(n), None).await;
        if let Some(answer) = samples.take(start, result) {
            check(&run, &answer)?;
        }
    }
    meter.finish("initial sync", samples)
}

/// Every room must be there with its members' events and its newest messages.
fn check(run: &Run, answer: &Value) -> Result<()> {
    for room in &run.seed.sync_rooms {
        let got = &answer["rooms"]["join"][&room.id];
        let events = |part: &str| got[part]["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        let members = events("state")
            .iter()
            .chain(events("timeline"))
            .filter(|e| e["type"] == "m.room.member" && e["content"]["membership"] == "join")
            .count();
        if members < room.members.len() {
            return Err(format!("{}: {members} members shown of {}", room.id, room.members.len()).into());
        }
        if !events("timeline").iter().any(|e| e["type"] == "m.room.message") {
            return Err(format!("{}: no message in the timeline", room.id).into());
        }
    }
    Ok(())
}
