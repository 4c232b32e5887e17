//! Telling the other processes what this one wrote: RDATA for rows, POSITION where a stream moved without,
//! and the commands of the rest of the process. One task, one connection, so that order holds.

use crate::Command;
use crate::bus::Outgoing;
use crate::memory::Memory;
use bb8_redis::RedisConnectionManager;
use slog::{Logger, info, warn};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Stream, Streams, Update};
use tokio::sync::{broadcast, mpsc};

/// Lines sent in one go.
const MAX_LINES: usize = 1_000;
/// How long a stream that others moved may wait until we say that we follow.
const FOLLOW_UP: Duration = Duration::from_millis(100);
/// With Redis away nothing is tried for this long.
const PAUSE: Duration = Duration::from_millis(500);
/// Redis that takes longer is away.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) type Pool = bb8::Pool<RedisConnectionManager>;

pub(crate) struct Publisher {
    pub streams: Arc<Streams>,
    pub memory: Arc<Memory>,
    pub pool: Pool,
    /// Every process listens here: the server's name.
    pub channel: String,
    pub log: Logger,
}

/// What goes out.
struct Out {
    p: Publisher,
    updates: broadcast::Receiver<Arc<Update>>,
    /// Last announced position of each stream.
    sent: Vec<i64>,
    /// Streams whose position may have moved without an update of ours.
    stirred: bool,
    lines: Vec<Line>,
    conn: Option<bb8::PooledConnection<'static, RedisConnectionManager>>,
    /// Lines were lost: readers must be made to look for the gap.
    lost: bool,
    retry_at: Instant,
}

struct Line {
    /// Goes to the channel of USER_IP.
    apart: bool,
    /// RDATA or POSITION.
    data: bool,
    text: String,
}

impl Publisher {
    /// Never returns. What moved between the subscription and now is announced as a position.
    pub async fn run(self, updates: broadcast::Receiver<Arc<Update>>, mut requests: mpsc::Receiver<Outgoing>) {
        let sent = Stream::ALL.into_iter().map(|s| self.streams.own(s)).collect();
        let retry_at = Instant::now();
        let mut out =
            Out { p: self, updates, sent, stirred: false, lines: Vec::new(), conn: None, lost: false, retry_at };
        let mut tick = tokio::time::interval(FOLLOW_UP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                update = out.updates.recv() => out.update(update),
                request = requests.recv() => match request {
                    Some(request) => out.request(request),
                    None => return,
                },
                _ = tick.tick(), if out.stirred || out.lost => out.follow_up(),
            }
            out.drain();
            while out.lines.len() < MAX_LINES {
                match requests.try_recv() {
                    Ok(request) => out.request(request),
                    Err(_) => break,
                }
            }
            out.flush().await;
        }
    }
}

impl Out {
    fn drain(&mut self) {
        while self.lines.len() < MAX_LINES {
            match self.updates.try_recv() {
                Ok(update) => self.update(Ok(update)),
                Err(broadcast::error::TryRecvError::Lagged(n)) => {
                    self.update(Err(broadcast::error::RecvError::Lagged(n)));
                }
                Err(_) => return,
            }
        }
    }

    fn update(&mut self, update: Result<Arc<Update>, broadcast::error::RecvError>) {
        match update {
            Ok(update) if update.local => self.announce(&update),
            // A stream of several writers moves our position, too.
            Ok(_) => self.stirred = true,
            Err(broadcast::error::RecvError::Lagged(n)) => {
                warn!(self.p.log, "fell behind in announcing what was written; readers will fetch it"; "updates" => n);
                self.lost = true;
            }
            // The streams live as long as the process.
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    fn announce(&mut self, update: &Update) {
        let stream = update.stream;
        self.p.memory.record(update);
        let sent = self.sent[stream as usize];
        if update.token <= sent || !self.p.streams.is_writer(stream) {
            return;
        }
        let (name, instance) = (stream.name().to_owned(), self.p.streams.instance().to_owned());
        if update.rows.is_empty() {
            let (stream, instance) = (name.clone(), instance.clone());
            self.line(Command::Position { stream, instance, previous: sent, token: update.token });
        }
        for (i, row) in update.rows.iter().enumerate() {
            let token = (i + 1 == update.rows.len()).then_some(update.token);
            let (stream, instance) = (name.clone(), instance.clone());
            self.line(Command::Rdata { stream, instance, token, row: row.to_wire() });
        }
        self.sent[stream as usize] = update.token;
    }

    fn request(&mut self, request: Outgoing) {
        match request {
            Outgoing::Command(command) => self.line(command),
            Outgoing::Positions => {
                self.drain();
                self.positions();
            }
        }
    }

    /// POSITION(last, last) for all: whoever has less knows that it missed rows.
    fn positions(&mut self) {
        let announced: Vec<Stream> = Stream::ALL.into_iter().filter(|s| self.p.streams.is_writer(*s)).collect();
        for stream in announced {
            let at = self.sent[stream as usize];
            let (stream, instance) = (stream.name().to_owned(), self.p.streams.instance().to_owned());
            self.line(Command::Position { stream, instance, previous: at, token: at });
        }
    }

    /// Says where streams are that moved without rows of ours.
    fn follow_up(&mut self) {
        self.stirred = false;
        for stream in Stream::ALL {
            if stream == Stream::Caches || !self.p.streams.is_writer(stream) {
                continue;
            }
            let at = self.p.streams.own(stream);
            // Rows below that position may still be on their way to us: they go first.
            if !self.updates.is_empty() {
                self.stirred = true;
                return;
            }
            let sent = self.sent[stream as usize];
            if at > sent {
                let (name, instance) = (stream.name().to_owned(), self.p.streams.instance().to_owned());
                self.line(Command::Position { stream: name, instance, previous: sent, token: at });
                self.sent[stream as usize] = at;
            }
        }
    }

    fn line(&mut self, command: Command) {
        let apart = matches!(command, Command::UserIp(_));
        let data = matches!(command, Command::Rdata { .. } | Command::Position { .. });
        let text = command.to_string();
        // A line break would be an error to every reader.
        if !text.contains('\n') {
            self.lines.push(Line { apart, data, text });
        }
    }

    async fn flush(&mut self) {
        if self.lines.is_empty() && !self.lost {
            return;
        }
        if self.conn.is_none() && Instant::now() < self.retry_at {
            self.lines.clear();
            self.lost = true;
            return;
        }
        if self.lost {
            // Positions as of now replace what could not be said.
            self.lines.retain(|l| !l.data);
            for stream in Stream::ALL.into_iter().filter(|s| self.p.streams.is_writer(*s)) {
                self.sent[stream as usize] = self.sent[stream as usize].max(self.p.streams.own(stream));
            }
            self.positions();
            // Our own question for positions may be among what was lost.
            self.line(Command::Replicate);
        }
        let had_connection = self.conn.is_some();
        let mut sent = tokio::time::timeout(PATIENCE, self.send()).await;
        if had_connection && matches!(sent, Ok(Err(_))) {
            // A connection that was not used for a while may have been closed long ago.
            sent = tokio::time::timeout(PATIENCE, self.send()).await;
        }
        match sent {
            Ok(Ok(())) => {
                if self.lost {
                    info!(self.p.log, "announcing to the other processes again");
                }
                self.lost = false;
            }
            Ok(Err(e)) => self.failed(&e.to_string()),
            Err(_) => self.failed("no answer in time"),
        }
        self.lines.clear();
    }

    fn failed(&mut self, why: &str) {
        if !self.lost {
            warn!(self.p.log, "Redis cannot be reached; other processes will catch up from the database"; "reason" => why);
        }
        self.lost = true;
        self.conn = None;
        self.retry_at = Instant::now() + PAUSE;
    }

    async fn send(&mut self) -> types::Result<()> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.p.pool.get_owned().await.map_err(|e| types::Error::internal(e.to_string()))?,
        };
        let mut pipe = redis::pipe();
        for line in &self.lines {
            let command = pipe.cmd("PUBLISH");
            match line.apart {
                true => command.arg(format!("{}/USER_IP", self.p.channel)),
                false => command.arg(&self.p.channel),
            };
            command.arg(&line.text).ignore();
        }
        pipe.query_async::<()>(&mut *conn).await?;
        self.conn = Some(conn);
        Ok(())
    }
}
