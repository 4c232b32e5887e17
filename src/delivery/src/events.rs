//! From the events of the cluster to the servers that must hear of them.

use crate::Sender;
use crate::queue::QueuedEvent;
use slog::warn;
use std::collections::BTreeSet;
use std::time::Duration;
use store::Stream;
use store::hosts::Hosts;
use store::outbound::OutboundEvent;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use types::{InternalMetadata, Result};

/// Events looked at in one go.
const BATCH: i64 = 100;
/// The position is written this often where there was nothing to send.
const NOTE_EVERY: Duration = Duration::from_secs(10);
/// Events are gathered for this long before they are looked at together.
const GATHER: Duration = Duration::from_millis(10);
/// After an error nothing is tried for this long.
const PAUSE: Duration = Duration::from_secs(1);

impl Sender {
    /// Never returns.
    pub(crate) async fn follow_events(self) {
        let mut at = loop {
            match self.cx.store.federation_position("events").await {
                Ok(at) => break at,
                Err(e) => self.pause("unknown what other servers were told", &e).await,
            }
        };
        let mut noted = (at, Instant::now());
        loop {
            // What came before this is looked through now: nobody has to keep it for us.
            let mut updates = self.cx.store.streams.subscribe();
            if let Err(e) = self.distribute(&mut at, &mut noted).await {
                self.pause("events wait for being sent to other servers", &e).await;
                continue;
            }
            // Until an event moves the stream beyond where we are.
            loop {
                match updates.recv().await {
                    Ok(update) if update.stream == Stream::Events => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                }
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn pause(&self, what: &'static str, e: &types::Error) {
        warn!(self.cx.log, "{}", what; "error" => %e);
        tokio::time::sleep(PAUSE).await;
    }

    /// Goes through all events there are by now.
    async fn distribute(&self, at: &mut i64, noted: &mut (i64, Instant)) -> Result<()> {
        let store = &self.cx.store;
        loop {
            let to = store.streams.current(Stream::Events);
            if *at >= to {
                break;
            }
            let events = store.outbound_events(*at, to, BATCH).await?;
            let full = events.len() as i64 == BATCH;
            let reached = if full { events.last().map_or(to, |e| e.stream_ordering) } else { to };
            let sent = self.queue_events(events).await?;
            *at = reached;
            if sent || noted.1.elapsed() > NOTE_EVERY {
                store.set_federation_position("events", reached).await?;
                *noted = (reached, Instant::now());
            }
        }
        Ok(())
    }

    /// Whether there was anything for anybody.
    async fn queue_events(&self, events: Vec<OutboundEvent>) -> Result<bool> {
        let Some(first) = events.first() else { return Ok(false) };
        let store = &self.cx.store;
        let rooms: BTreeSet<String> = events.iter().map(|e| e.room_id.clone()).collect();
        let hosts = store.hosts_since(&rooms.into_iter().collect::<Vec<_>>(), first.stream_ordering).await?;
        for event in &events {
            let Some(user) = event.member.as_deref().filter(|user| event.joins && self.is_local(user)) else {
                continue;
            };
            // Where another server let our user in there was nobody before, as far as we knew.
            let there = hosts.get(&event.room_id).map(|h| h.before(event.stream_ordering + 1, user));
            self.introduce(&[user], &there.unwrap_or_default()).await?;
        }
        let found: Vec<(OutboundEvent, BTreeSet<String>)> = events
            .into_iter()
            .filter_map(|event| {
                let servers = self.destinations(&event, hosts.get(&event.room_id))?;
                Some((event, servers))
            })
            .collect();
        let entries: Vec<(String, String, i64)> = found
            .iter()
            .flat_map(|(e, servers)| servers.iter().map(|s| (s.clone(), e.room_id.clone(), e.stream_ordering)))
            .collect();
        store.note_destination_rooms(&entries).await?;
        for (event, servers) in found {
            for server in servers {
                if self.fed.backing_off_until(&server).await?.is_some() {
                    continue;
                }
                let event = QueuedEvent { stream_ordering: event.stream_ordering, event_id: event.event_id.clone() };
                self.wake(&server, |queue| queue.push(event));
            }
        }
        Ok(!entries.is_empty())
    }

    /// Servers that were in the room, and that of a user whose invite is gone; None if the event is for nobody.
    fn destinations(&self, event: &OutboundEvent, hosts: Option<&Hosts>) -> Option<BTreeSet<String>> {
        let meta: InternalMetadata = serde_json::from_str(&event.metadata).unwrap_or_default();
        let behalf = meta.send_on_behalf_of;
        if meta.out_of_band_membership
            || meta.soft_failed
            || meta.proactively_send == Some(false)
            || (behalf.is_none() && !self.is_local(&event.sender))
        {
            return None;
        }
        let mut servers = hosts.map(|h| h.before(event.stream_ordering, &event.sender)).unwrap_or_default();
        if let Some((_, server)) = event.member.as_deref().filter(|_| event.was_member).and_then(|m| m.split_once(':'))
        {
            servers.insert(server.to_owned());
        }
        servers.retain(|s| self.is_mine(s) && behalf.as_ref() != Some(s));
        (!servers.is_empty()).then_some(servers)
    }
}
