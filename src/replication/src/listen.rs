//! Hearing the other processes: the subscriber connection.

use crate::bus::{Bus, Outgoing};
use crate::follow::{Follower, Heard};
use crate::{Command, Peers};
use futures::StreamExt;
use slog::{Logger, debug, info, warn};
use std::sync::Arc;
use std::time::Duration;
use store::{Stream, Streams};
use tokio::sync::mpsc;
use types::{Error, Result};

const PING_EVERY: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Commands of one stream that may wait while it catches up; then the connection waits.
const QUEUE: usize = 10_000;

pub(crate) struct Listener {
    pub client: redis::Client,
    pub streams: Arc<Streams>,
    pub peers: Arc<Peers>,
    pub bus: Bus,
    /// In the order of the SUBSCRIBE: special ones first.
    pub channels: Vec<String>,
    pub sends_federation: bool,
    pub log: Logger,
}

impl Listener {
    /// Never returns.
    pub async fn run(self) {
        let queues: Vec<mpsc::Sender<Heard>> = Stream::ALL
            .into_iter()
            .map(|stream| {
                let (sender, receiver) = mpsc::channel(QUEUE);
                let (streams, peers) = (self.streams.clone(), self.peers.clone());
                let follower = Follower::new(stream, streams, peers, self.sends_federation, self.log.clone());
                tokio::spawn(follower.run(receiver));
                sender
            })
            .collect();
        let mut pause = SHORTEST_PAUSE;
        let mut complained = false;
        loop {
            let why = match self.subscribe().await {
                Ok(connection) => {
                    info!(self.log, "listening to the other processes"; "channels" => self.channels.join(" "));
                    (pause, complained) = (SHORTEST_PAUSE, false);
                    self.hear(connection, &queues).await
                }
                Err(e) => e,
            };
            self.bus.disconnected();
            if !complained {
                warn!(self.log, "no connection to Redis; trying again"; "reason" => %why);
                complained = true;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            // The database may well be away, too; then there is nothing to follow.
            if let Err(e) = self.follow_tables(&queues).await {
                debug!(self.log, "could not read positions from the database"; "reason" => %e);
            }
        }
    }

    /// Without a bus the tables say how far the others are: later than they would, but nothing stands still.
    async fn follow_tables(&self, queues: &[mpsc::Sender<Heard>]) -> Result<()> {
        for (stream, instance, token) in self.streams.written_elsewhere().await? {
            if token > self.streams.position_of(stream, &instance) {
                let heard = Heard::Position { instance, previous: token, token };
                let _ = queues[stream as usize].send(heard).await;
            }
        }
        Ok(())
    }

    async fn subscribe(&self) -> Result<redis::aio::PubSub> {
        let connect = async {
            let mut connection = self.client.get_async_pubsub().await?;
            connection.subscribe(&self.channels).await?;
            Ok(connection)
        };
        tokio::time::timeout(PATIENCE, connect).await.map_err(|_| Error::internal("no answer in time"))?
    }

    /// Until the connection is lost; says why.
    async fn hear(&self, connection: redis::aio::PubSub, queues: &[mpsc::Sender<Heard>]) -> Error {
        for queue in queues {
            let _ = queue.send(Heard::Connected).await;
        }
        self.bus.connected();
        self.bus.send(Command::Replicate);
        self.bus.request(Outgoing::Positions);
        let (mut sink, mut messages) = connection.split();
        let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => match std::str::from_utf8(message.get_payload_bytes()) {
                        Ok(line) if line.trim().is_empty() => {}
                        Ok(line) => self.line(line, queues).await,
                        Err(_) => warn!(self.log, "a line that is not UTF-8 was left out"),
                    },
                    None => return Error::internal("connection closed"),
                },
                _ = ping.tick() => {
                    // The answer to a ping overtakes no message, so it may take a while after a flood of them.
                    match tokio::time::timeout(PATIENCE, sink.ping::<redis::Value>()).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(e)) => return e.into(),
                        Err(_) => return Error::internal("no answer to a ping"),
                    }
                }
            }
        }
    }

    async fn line(&self, line: &str, queues: &[mpsc::Sender<Heard>]) {
        let me = self.streams.instance();
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(why) => {
                let name = line.split(' ').next().unwrap_or_default().to_owned();
                return warn!(self.log, "a line was left out"; "command" => name, "reason" => why);
            }
        };
        let (stream, heard) = match command {
            // Redis returns what we said ourselves.
            Command::Rdata { instance, .. } | Command::Position { instance, .. } | Command::LockReleased { instance, .. }
                if instance == me =>
            {
                return;
            }
            Command::Rdata { stream, instance, token, row } => (stream, Heard::Row { instance, token, row }),
            Command::Position { stream, instance, previous, token } => {
                (stream, Heard::Position { instance, previous, token })
            }
            Command::Replicate => return self.bus.request(Outgoing::Positions),
            other => return self.bus.received(other),
        };
        match Stream::by_name(&stream) {
            Some(stream) => {
                let _ = queues[stream as usize].send(heard).await;
            }
            None => debug!(self.log, "a stream that is not known was left out"; "stream" => stream),
        }
    }
}
