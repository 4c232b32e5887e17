//! createRoom and join, as many as the server takes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use structopt::StructOpt;

use crate::report::{Meter, Report, Samples};
use crate::{Result, Run, seed};

#[derive(StructOpt)]
pub struct Parallel {
    /// Clients at once
    #[structopt(long, default_value = "4")]
    clients: usize,
}

pub async fn create(run: Run, parallel: Parallel) -> Result<Report> {
    let run = Arc::new(run);
    let meter = Meter::start(&run.groups)?;
    let end = Instant::now() + run.duration;
    let tasks: Vec<_> = (0..parallel.clients)
        .map(|n| {
            let client = run.writer(n);
            tokio::spawn(async move {
                let (mut samples, mut ids) = (Samples::default(), Vec::new());
                while Instant::now() < end {
                    let start = Instant::now();
                    ids.extend(samples.take(start, seed::create(&client, "Made under load").await));
                }
                (samples, ids)
            })
        })
        .collect();
    let (mut samples, mut ids) = (Samples::default(), HashSet::new());
    for task in tasks {
        let (more, made) = task.await?;
        samples.merge(more);
        for id in made {
            if !ids.insert(id.clone()) {
                return Err(format!("two rooms are called {id}").into());
            }
        }
    }
    meter.finish("createRoom", samples)
}

pub async fn join(run: Run, parallel: Parallel) -> Result<Report> {
    let run = Arc::new(run);
    // Pairs that were never together, room changing fastest, so that no room is a bottleneck.
    let strangers = |n: &usize| {
        let (room, user) = (n % run.seed.rooms.len(), n / run.seed.rooms.len());
        !run.seed.rooms[room].members.contains(&user)
    };
    let last = run.seed.sync_user();
    let pairs: Arc<Vec<usize>> = Arc::new((0..run.seed.rooms.len() * last).filter(strangers).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let meter = Meter::start(&run.groups)?;
    let end = Instant::now() + run.duration;
    let tasks: Vec<_> =
        (0..parallel.clients).map(|_| tokio::spawn(joiner(run.clone(), pairs.clone(), next.clone(), end))).collect();
    let mut samples = Samples::default();
    for task in tasks {
        samples.merge(task.await?);
    }
    meter.finish("join", samples)
}

async fn joiner(run: Arc<Run>, pairs: Arc<Vec<usize>>, next: Arc<AtomicUsize>, end: Instant) -> Samples {
    let mut samples = Samples::default();
    let client = run.writer(0);
    while Instant::now() < end {
        let Some(pair) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
        let (room, user) = (pair % run.seed.rooms.len(), pair / run.seed.rooms.len());
        let client = client.with_token(&run.seed.users[user].token);
        let start = Instant::now();
        samples.take(start, seed::join(&client, &run.seed.rooms[room].id).await);
    }
    samples
}
