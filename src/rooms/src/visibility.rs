//! Which events a user may see (spec: "Room history visibility").

use crate::Rooms;
use quick_cache::sync::Cache;
use ruma::{EventId, OwnedEventId, UserId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use store::seen::Seen;
use types::{Pdu, Result};

/// An event a user may see.
#[derive(Clone, Debug)]
pub struct Visible {
    pub event: Arc<Pdu>,
    /// The user's membership just after the event (`unsigned.membership`); None: not known, left out.
    pub membership: Option<String>,
}

impl Visible {
    /// An event whose visibility was settled otherwise (state, admins).
    pub fn unchecked(event: Arc<Pdu>) -> Self {
        Self { event, membership: None }
    }
}

/// How somebody looks at events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look<'a> {
    /// Not in the room now, nor since these events: `shared` history stays closed.
    pub peeking: bool,
    /// Events shown whatever the history visibility (current state in a sync).
    pub always: Option<&'a HashSet<OwnedEventId>>,
    /// The room's retention limit, ms: older messages are not shown.
    pub max_lifetime_ms: Option<i64>,
}

/// What was seen, by (state group, user). Groups never change, so this is always true.
pub(crate) type SeenCache = Cache<(i64, Box<str>), Arc<Seen>>;

/// From least to most restrictive.
const VISIBILITIES: [&str; 4] = ["world_readable", "shared", "invited", "joined"];
/// From most to least inside.
const MEMBERSHIPS: [&str; 5] = ["join", "invite", "knock", "leave", "ban"];

fn rank(list: &[&str], value: &str) -> usize {
    list.iter().position(|v| *v == value).unwrap_or(list.len())
}

/// `history_visibility` of a content; `shared` where missing or unknown.
pub fn history_visibility(event: Option<&Pdu>) -> String {
    let value = event.and_then(|e| e.content_str("history_visibility"));
    value.filter(|v| VISIBILITIES.contains(&v.as_str())).unwrap_or_else(|| "shared".into())
}

/// State around one event as far as it matters.
struct Around<'a> {
    visibility: Option<&'a Pdu>,
    membership: Option<&'a Pdu>,
    join_rules: Option<&'a Pdu>,
    /// What the event replaced, for own memberships and history visibility.
    previous: Option<&'a Pdu>,
}

impl Around<'_> {
    /// The laxer of the old and the new visibility on the boundary itself.
    fn effective_visibility(&self, event: &Pdu) -> String {
        let now = history_visibility(self.visibility);
        if event.kind == "m.room.history_visibility" {
            let before = history_visibility(self.previous);
            if rank(&VISIBILITIES, &before) < rank(&VISIBILITIES, &now) {
                return before;
            }
        }
        now
    }

    /// Whether membership lets the user see the event, and whether it was joined.
    fn by_membership(&self, event: &Pdu, user_id: &UserId, visibility: &str, peeking: bool) -> (bool, bool) {
        let known =
            |m: Option<String>| m.filter(|m| MEMBERSHIPS.contains(&m.as_str())).unwrap_or_else(|| "leave".into());
        let membership = if event.is_state_of("m.room.member", user_id.as_str()) {
            let now = known(event.membership());
            let before = known(self.previous.and_then(Pdu::membership));
            // One's own leaving is always seen, or the room would never disappear.
            if now == "leave" && (before == "join" || before == "invite") {
                return (true, false);
            }
            if rank(&MEMBERSHIPS, &before) < rank(&MEMBERSHIPS, &now) { before } else { now }
        } else {
            self.membership.and_then(Pdu::membership).unwrap_or_default()
        };
        if membership == "join" {
            return (true, true);
        }
        let allowed = match visibility {
            "joined" => false,
            "invited" => membership == "invite",
            "shared" => !peeking,
            _ => true,
        };
        (allowed, false)
    }
}

impl Rooms {
    /// Those of `events` (of any rooms) that `user_id` may see, in order; soft-failed and rejected ones never.
    /// At most four statements, whatever the number of events.
    pub async fn filter_visible(
        &self,
        user_id: &UserId,
        events: Vec<Arc<Pdu>>,
        look: Look<'_>,
    ) -> Result<Vec<Visible>> {
        let mut events = events;
        events.retain(|e| !e.meta.soft_failed && e.rejected.is_none());
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let store = &self.cx.store;
        let senders: HashSet<&str> = events.iter().map(|e| e.sender.as_str()).collect();
        let senders: Vec<&str> = senders.into_iter().collect();
        let (seen, ignored, erased) = futures::try_join!(
            self.seen_at(user_id, &events),
            store.ignored_by(user_id.as_str()),
            store.erased_among(&senders)
        )?;
        let context = self.context_events(user_id, &events, &seen).await?;
        let now = self.cx.now_ms();
        let mut shown = Vec::with_capacity(events.len());
        for event in events {
            let gone = look.max_lifetime_ms.is_some_and(|ms| !event.is_state() && event.origin_server_ts < now - ms);
            if gone || is_never_sent(&event, &ignored) || is_idle_redaction(&event, &context) {
                continue;
            }
            let around = around(&event, seen.get(&event.event_id).map(|s| &**s), &context);
            shown.extend(judge(event, user_id, &around, look, &erased)?);
        }
        Ok(shown)
    }

    /// What the user saw at each event; outliers have no entry.
    async fn seen_at(&self, user_id: &UserId, events: &[Arc<Pdu>]) -> Result<HashMap<OwnedEventId, Arc<Seen>>> {
        let ids: Vec<&EventId> = events.iter().filter(|e| !e.outlier).map(|e| &*e.event_id).collect();
        let groups = self.cx.store.groups_of_events(&ids).await?;
        let mut known: HashMap<i64, Arc<Seen>> = HashMap::new();
        let mut missing: Vec<i64> = Vec::new();
        for group in groups.values().copied().collect::<HashSet<_>>() {
            match self.reading.seen.get(&(group, user_id.as_str().into())) {
                Some(s) => {
                    known.insert(group, s);
                }
                None => missing.push(group),
            }
        }
        if !missing.is_empty() {
            for (group, seen) in self.cx.store.seen_in_groups(&missing, user_id.as_str()).await? {
                let seen = Arc::new(seen);
                self.reading.seen.insert((group, user_id.as_str().into()), seen.clone());
                known.insert(group, seen);
            }
        }
        Ok(groups.into_iter().filter_map(|(id, g)| Some((id, known.get(&g)?.clone()))).collect())
    }

    /// The state events that matter, by id.
    async fn context_events(
        &self,
        user_id: &UserId,
        events: &[Arc<Pdu>],
        seen: &HashMap<OwnedEventId, Arc<Seen>>,
    ) -> Result<store::events::Events> {
        let mut ids: HashSet<OwnedEventId> = HashSet::new();
        for id in seen.values().flat_map(|s| [&s.visibility, &s.membership]).flatten() {
            // The same few over and over.
            if !ids.contains(id) {
                ids.insert(id.clone());
            }
        }
        for e in events {
            if e.kind == "m.call.invite" {
                ids.extend(seen.get(&e.event_id).and_then(|s| s.join_rules.clone()));
            }
            if e.kind == "m.room.history_visibility" || e.is_state_of("m.room.member", user_id.as_str()) {
                ids.extend(replaced(e));
            }
            if e.kind == "m.room.redaction" {
                ids.extend(e.redacts.clone());
            }
        }
        self.cx.store.events(&ids.into_iter().collect::<Vec<_>>()).await
    }

    /// As [`Rooms::filter_visible`] for one event.
    pub async fn is_visible(&self, user_id: &UserId, event: Arc<Pdu>, look: Look<'_>) -> Result<Option<Visible>> {
        Ok(self.filter_visible(user_id, vec![event], look).await?.pop())
    }
}

/// The state event an event replaced.
pub fn replaced(event: &Pdu) -> Option<OwnedEventId> {
    event.replaces_state()
}

/// Kinds of events no client gets.
fn is_never_sent(event: &Pdu, ignored: &HashSet<String>) -> bool {
    matches!(event.kind.as_str(), "org.matrix.dummy_event" | "m.room.aliases")
        || (!event.is_state() && ignored.contains(event.sender.as_str()))
}

/// A redaction of what is not here, or may not be redacted by it, is kept back: it may yet prove valid.
fn is_idle_redaction(event: &Pdu, context: &store::events::Events) -> bool {
    if event.kind != "m.room.redaction" || event.is_state() || event.redacted_because.is_some() {
        return false;
    }
    let Some(target) = event.redacts.as_ref().and_then(|id| context.get(id)) else { return true };
    let foreign = event.meta.recheck_redaction && target.sender.server_name() != event.sender.server_name();
    target.rejected.is_some() || target.kind == "m.room.create" || target.room_id != event.room_id || foreign
}

fn around<'a>(event: &Pdu, seen: Option<&Seen>, context: &'a store::events::Events) -> Around<'a> {
    let find = |id: Option<&OwnedEventId>| id.and_then(|id| context.get(id)).map(|e| &**e);
    Around {
        visibility: find(seen.and_then(|s| s.visibility.as_ref())),
        membership: find(seen.and_then(|s| s.membership.as_ref())),
        join_rules: find(seen.and_then(|s| s.join_rules.as_ref())),
        previous: find(replaced(event).as_ref()),
    }
}

fn judge(
    event: Arc<Pdu>,
    user_id: &UserId,
    around: &Around<'_>,
    look: Look<'_>,
    erased: &[String],
) -> Result<Option<Visible>> {
    let own = event.is_state_of("m.room.member", user_id.as_str());
    let membership = if own { event.membership() } else { around.membership.and_then(Pdu::membership) };
    let membership = Some(membership.unwrap_or_else(|| "leave".into()));
    let is_always = look.always.is_some_and(|ids| ids.contains(&event.event_id));
    if is_always {
        return Ok(Some(Visible { event, membership }));
    }
    if event.outlier {
        // Invites from elsewhere and refusals of them.
        return Ok(own.then_some(Visible { event, membership }));
    }
    if event.kind == "m.call.invite" && !event.is_state() {
        let rule = around.join_rules.and_then(|e| e.content_str("join_rule"));
        if rule.as_deref() == Some("public") {
            return Ok(None);
        }
    }
    let visibility = around.effective_visibility(&event);
    let is_erased = erased.iter().any(|u| u == event.sender.as_str());
    let is_open = visibility == "world_readable" || (visibility == "shared" && !look.peeking);
    if is_open && !is_erased {
        return Ok(Some(Visible { event, membership }));
    }
    let (allowed, joined) = around.by_membership(&event, user_id, &visibility, look.peeking);
    if !allowed {
        return Ok(None);
    }
    let event = if is_erased && !joined { Arc::new(store::events::pruned(&event)?) } else { event };
    Ok(Some(Visible { event, membership }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, key: Option<&str>, content: &str) -> Arc<Pdu> {
        let key = key.map(|k| format!(r#""state_key":"{k}","#)).unwrap_or_default();
        let json = format!(
            r#"{{"type":"{kind}",{key}"sender":"@s:a","room_id":"!r:a","content":{content},"origin_server_ts":1}}"#
        );
        Arc::new(Pdu::parse(&json, ruma::event_id!("$e"), &ruma::RoomVersionId::V10).unwrap())
    }

    fn member(membership: &str) -> Arc<Pdu> {
        event("m.room.member", Some("@u:a"), &format!(r#"{{"membership":"{membership}"}}"#))
    }

    fn sees(visibility: &str, membership: Option<&str>, peeking: bool) -> bool {
        let v = event("m.room.history_visibility", Some(""), &format!(r#"{{"history_visibility":"{visibility}"}}"#));
        let m = membership.map(member);
        let around = Around { visibility: Some(&v), membership: m.as_deref(), join_rules: None, previous: None };
        let look = Look { peeking, ..Look::default() };
        judge(event("m.room.message", None, "{}"), ruma::user_id!("@u:a"), &around, look, &[]).unwrap().is_some()
    }

    #[test]
    fn visibility_follows_the_table_of_the_spec() {
        for (visibility, membership, peeking, expected) in [
            ("world_readable", None, true, true),
            ("shared", None, false, true),
            ("shared", None, true, false),
            ("shared", Some("join"), true, true),
            ("invited", Some("invite"), false, true),
            ("invited", Some("leave"), false, false),
            ("invited", Some("join"), false, true),
            ("joined", Some("invite"), false, false),
            ("joined", Some("join"), false, true),
            ("nonsense", None, false, true),
        ] {
            assert_eq!(sees(visibility, membership, peeking), expected, "{visibility} {membership:?} {peeking}");
        }
    }

    #[test]
    fn own_leaving_is_seen_in_a_closed_room() {
        let v = event("m.room.history_visibility", Some(""), r#"{"history_visibility":"joined"}"#);
        let (before, leave) = (member("join"), member("leave"));
        let around =
            Around { visibility: Some(&v), membership: Some(&leave), join_rules: None, previous: Some(&before) };
        let shown = judge(leave.clone(), ruma::user_id!("@u:a"), &around, Look::default(), &[]).unwrap();
        assert_eq!(shown.unwrap().membership.as_deref(), Some("leave"));
    }

    #[test]
    fn opening_a_room_shows_the_boundary() {
        let now = event("m.room.history_visibility", Some(""), r#"{"history_visibility":"joined"}"#);
        let before = event("m.room.history_visibility", Some(""), r#"{"history_visibility":"world_readable"}"#);
        let around = Around { visibility: Some(&now), membership: None, join_rules: None, previous: Some(&before) };
        let look = Look { peeking: true, ..Look::default() };
        assert!(judge(now.clone(), ruma::user_id!("@u:a"), &around, look, &[]).unwrap().is_some());
    }
}
