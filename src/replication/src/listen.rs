//! Hearing the other processes: the subscriber connection.

use crate::bus::{Bus, Outgoing};
use crate::follow::{Follower, Heard, Lane};
use crate::{Command, Peers};
use futures::StreamExt;
use slog::{Logger, debug, info, warn};
use std::sync::Arc;
use std::time::Duration;
use store::{Stream, Streams};
use types::{Error, Result};

const PING_EVERY: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

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
        let follow = |stream| {
            let (streams, peers) = (self.streams.clone(), self.peers.clone());
            Lane::start(Follower::new(stream, streams, peers, self.sends_federation, self.log.clone()))
        };
        let lanes: Vec<Lane> = Stream::ALL.into_iter().map(follow).collect();
        let mut pause = SHORTEST_PAUSE;
        let mut complained = false;
        loop {
            let why = match self.subscribe().await {
                Ok(connection) => {
                    info!(self.log, "listening to the other processes"; "channels" => self.channels.join(" "));
                    (pause, complained) = (SHORTEST_PAUSE, false);
                    self.hear(connection, &lanes).await
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
            if let Err(e) = self.follow_tables(&lanes).await {
                debug!(self.log, "could not read positions from the database"; "reason" => %e);
            }
        }
    }

    /// Without a bus the tables say how far the others are: later than they would, but nothing stands still.
    async fn follow_tables(&self, lanes: &[Lane]) -> Result<()> {
        for (stream, instance, token) in self.streams.written_elsewhere().await? {
            if token > self.streams.position_of(stream, &instance) {
                let heard = Heard::Position { instance, previous: token, token };
                lanes[stream as usize].hear(heard).await;
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
    async fn hear(&self, connection: redis::aio::PubSub, lanes: &[Lane]) -> Error {
        for lane in lanes {
            lane.hear(Heard::Connected).await;
        }
        self.bus.connected();
        self.bus.send(Command::Replicate);
        self.bus.request(Outgoing::Positions);
        let (sink, messages) = connection.split();
        tokio::select! {
            why = self.read(messages, lanes) => why,
            why = ping(sink) => why,
        }
    }

    /// Until the connection is closed.
    async fn read(&self, mut messages: redis::aio::PubSubStream, lanes: &[Lane]) -> Error {
        while let Some(message) = messages.next().await {
            match std::str::from_utf8(message.get_payload_bytes()) {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => self.line(line, lanes).await,
                Err(_) => warn!(self.log, "a line that is not UTF-8 was left out"),
            }
        }
        Error::internal("connection closed")
    }

    async fn line(&self, line: &str, lanes: &[Lane]) {
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
            Command::Rdata { instance, .. }
            | Command::Position { instance, .. }
            | Command::LockReleased { instance, .. }
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
                lanes[stream as usize].hear(heard).await;
            }
            None => debug!(self.log, "a stream that is not known was left out"; "stream" => stream),
        }
    }
}

/// Until a ping is not answered.
async fn ping(mut sink: redis::aio::PubSubSink) -> Error {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        // The answer to a ping overtakes no message, so it may take a while after a flood of them.
        match tokio::time::timeout(PATIENCE, sink.ping::<redis::Value>()).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => return e.into(),
            Err(_) => return Error::internal("no answer to a ping"),
        }
    }
}
