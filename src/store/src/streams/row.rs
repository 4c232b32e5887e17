//! Rows of the streams, as typed values and as the positional arrays of the wire.

use super::Stream;
use serde_json::{Value, json};

/// One row of a stream. Fields in wire order; see the table of streams in Synapse's replication protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    Event(EventRow),
    /// `event_id` None: the state was removed.
    State {
        room_id: String,
        kind: String,
        state_key: String,
        event_id: Option<String>,
    },
    StateAll {
        room_id: String,
    },
    Backfill {
        event_id: String,
        room_id: String,
        kind: String,
        state_key: Option<String>,
        redacts: Option<String>,
        relates_to: Option<String>,
    },
    Presence(PresenceRow),
    PresenceFederation {
        destination: String,
        user_id: String,
    },
    /// The full list of who is typing in the room.
    Typing {
        room_id: String,
        user_ids: Vec<String>,
    },
    Receipt {
        room_id: String,
        receipt_type: String,
        user_id: String,
        event_id: String,
        thread_id: Option<String>,
        data: Value,
    },
    PushRules {
        user_id: String,
    },
    Pusher {
        user_id: String,
        app_id: String,
        pushkey: String,
        deleted: bool,
    },
    /// `keys` None: the whole cache.
    Cache {
        name: String,
        keys: Option<Vec<String>>,
        at_ms: i64,
    },
    DeviceList {
        user_id: String,
        is_signature: bool,
        hosts_calculated: bool,
    },
    /// A user id or a destination server.
    ToDevice {
        entity: String,
    },
    /// `["pd"|"k"|"e", …]`, kept as it is.
    Federation(Value),
    AccountData {
        user_id: String,
        room_id: Option<String>,
        kind: String,
    },
    ProfileUpdate {
        user_id: String,
        action: String,
        fields: Option<Vec<String>>,
    },
    StickyEvent {
        room_id: String,
        event_id: String,
    },
    ThreadSubscription {
        user_id: String,
        room_id: String,
        event_id: String,
    },
    UnPartialStatedRoom {
        room_id: String,
    },
    UnPartialStatedEvent {
        event_id: String,
        rejection_changed: bool,
    },
    QuarantinedMedia {
        origin: Option<String>,
        media_id: String,
        quarantined: bool,
    },
}

/// An `ev` row of the events stream.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct EventRow {
    pub event_id: String,
    pub room_id: String,
    pub kind: String,
    pub state_key: Option<String>,
    pub redacts: Option<String>,
    pub relates_to: Option<String>,
    pub membership: Option<String>,
    pub rejected: bool,
    pub outlier: bool,
}

/// A user's presence (times in ms since the epoch).
#[derive(Clone, Debug, PartialEq)]
pub struct PresenceRow {
    pub user_id: String,
    pub state: String,
    pub last_active_ts: i64,
    pub last_federation_update_ts: i64,
    pub last_user_sync_ts: i64,
    pub status_msg: Option<String>,
    pub currently_active: bool,
}

impl Row {
    /// The JSON array of an RDATA line.
    pub fn to_wire(&self) -> Value {
        match self {
            Row::Event(e) => json!([
                "ev",
                [
                    e.event_id,
                    e.room_id,
                    e.kind,
                    e.state_key,
                    e.redacts,
                    e.relates_to,
                    e.membership,
                    e.rejected,
                    e.outlier
                ]
            ]),
            Row::State { room_id, kind, state_key, event_id } => json!(["state", [room_id, kind, state_key, event_id]]),
            Row::StateAll { room_id } => json!(["state-all", [room_id]]),
            Row::Backfill { event_id, room_id, kind, state_key, redacts, relates_to } => {
                json!([event_id, room_id, kind, state_key, redacts, relates_to])
            }
            Row::Presence(p) => json!([
                p.user_id,
                p.state,
                p.last_active_ts,
                p.last_federation_update_ts,
                p.last_user_sync_ts,
                p.status_msg,
                p.currently_active
            ]),
            Row::PresenceFederation { destination, user_id } => json!([destination, user_id]),
            Row::Typing { room_id, user_ids } => json!([room_id, user_ids]),
            Row::Receipt { room_id, receipt_type, user_id, event_id, thread_id, data } => {
                json!([room_id, receipt_type, user_id, event_id, thread_id, data])
            }
            Row::PushRules { user_id } => json!([user_id]),
            Row::Pusher { user_id, app_id, pushkey, deleted } => json!([user_id, app_id, pushkey, deleted]),
            Row::Cache { name, keys, at_ms } => json!([name, keys, at_ms]),
            Row::DeviceList { user_id, is_signature, hosts_calculated } => {
                json!([user_id, is_signature, hosts_calculated])
            }
            Row::ToDevice { entity } => json!([entity]),
            Row::Federation(v) => v.clone(),
            Row::AccountData { user_id, room_id, kind } => json!([user_id, room_id, kind]),
            Row::ProfileUpdate { user_id, action, fields } => json!([user_id, action, fields]),
            Row::StickyEvent { room_id, event_id } => json!([room_id, event_id]),
            Row::ThreadSubscription { user_id, room_id, event_id } => json!([user_id, room_id, event_id]),
            Row::UnPartialStatedRoom { room_id } => json!([room_id]),
            Row::UnPartialStatedEvent { event_id, rejection_changed } => json!([event_id, rejection_changed]),
            Row::QuarantinedMedia { origin, media_id, quarantined } => json!([origin, media_id, quarantined]),
        }
    }

    /// Reads a row of `stream`; None if it has another shape than expected.
    pub fn from_wire(stream: Stream, value: Value) -> Option<Row> {
        if stream == Stream::Federation {
            return Some(Row::Federation(value));
        }
        let Value::Array(items) = value else { return None };
        let mut f = Fields(items.into_iter());
        Some(match stream {
            Stream::Events => {
                let tag = f.string()?;
                let Value::Array(items) = f.0.next()? else { return None };
                return Self::event_from_wire(&tag, Fields(items.into_iter()));
            }
            Stream::Backfill => Row::Backfill {
                event_id: f.string()?,
                room_id: f.string()?,
                kind: f.string()?,
                state_key: f.optional(),
                redacts: f.optional(),
                relates_to: f.optional(),
            },
            Stream::Presence => Row::Presence(PresenceRow {
                user_id: f.string()?,
                state: f.string()?,
                last_active_ts: f.int()?,
                last_federation_update_ts: f.int()?,
                last_user_sync_ts: f.int()?,
                status_msg: f.optional(),
                currently_active: f.truth(),
            }),
            Stream::PresenceFederation => Row::PresenceFederation { destination: f.string()?, user_id: f.string()? },
            Stream::Typing => Row::Typing { room_id: f.string()?, user_ids: f.strings()? },
            Stream::Receipts => Row::Receipt {
                room_id: f.string()?,
                receipt_type: f.string()?,
                user_id: f.string()?,
                event_id: f.string()?,
                thread_id: f.optional(),
                data: f.0.next()?,
            },
            Stream::PushRules => Row::PushRules { user_id: f.string()? },
            Stream::Pushers => {
                Row::Pusher { user_id: f.string()?, app_id: f.string()?, pushkey: f.string()?, deleted: f.truth() }
            }
            Stream::Caches => Row::Cache { name: f.string()?, keys: f.strings(), at_ms: f.int().unwrap_or_default() },
            Stream::DeviceLists => {
                Row::DeviceList { user_id: f.string()?, is_signature: f.truth(), hosts_calculated: f.truth() }
            }
            Stream::ToDevice => Row::ToDevice { entity: f.string()? },
            Stream::AccountData => Row::AccountData { user_id: f.string()?, room_id: f.optional(), kind: f.string()? },
            rarer => return Self::rarer_from_wire(rarer, f),
        })
    }

    fn rarer_from_wire(stream: Stream, mut f: Fields) -> Option<Row> {
        Some(match stream {
            Stream::ProfileUpdates => {
                Row::ProfileUpdate { user_id: f.string()?, action: f.string()?, fields: f.strings() }
            }
            Stream::StickyEvents => Row::StickyEvent { room_id: f.string()?, event_id: f.string()? },
            Stream::ThreadSubscriptions => {
                Row::ThreadSubscription { user_id: f.string()?, room_id: f.string()?, event_id: f.string()? }
            }
            Stream::UnPartialStatedRoom => Row::UnPartialStatedRoom { room_id: f.string()? },
            Stream::UnPartialStatedEvent => {
                Row::UnPartialStatedEvent { event_id: f.string()?, rejection_changed: f.truth() }
            }
            Stream::QuarantinedMedia => {
                Row::QuarantinedMedia { origin: f.optional(), media_id: f.string()?, quarantined: f.truth() }
            }
            _ => return None,
        })
    }

    fn event_from_wire(tag: &str, mut f: Fields) -> Option<Row> {
        Some(match tag {
            "ev" => Row::Event(EventRow {
                event_id: f.string()?,
                room_id: f.string()?,
                kind: f.string()?,
                state_key: f.optional(),
                redacts: f.optional(),
                relates_to: f.optional(),
                membership: f.optional(),
                rejected: f.truth(),
                outlier: f.truth(),
            }),
            "state" => {
                Row::State { room_id: f.string()?, kind: f.string()?, state_key: f.string()?, event_id: f.optional() }
            }
            "state-all" => Row::StateAll { room_id: f.string()? },
            _ => return None,
        })
    }
}

struct Fields(std::vec::IntoIter<Value>);

impl Fields {
    fn string(&mut self) -> Option<String> {
        match self.0.next()? {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    fn optional(&mut self) -> Option<String> {
        self.string()
    }

    fn int(&mut self) -> Option<i64> {
        let v = self.0.next()?;
        v.as_i64().or_else(|| v.as_f64().map(|f| f as i64))
    }

    fn truth(&mut self) -> bool {
        self.0.next().is_some_and(|v| v.as_bool().unwrap_or_else(|| v.as_i64().is_some_and(|n| n != 0)))
    }

    fn strings(&mut self) -> Option<Vec<String>> {
        match self.0.next()? {
            Value::Array(a) => a.into_iter().map(|v| v.as_str().map(str::to_owned)).collect(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_captured_from_synapse_survive() {
        for (stream, row) in [
            ("events", r#"["ev",["$3","!3","m.room.member","@alice:hs1.test",null,null,"join",false,false]]"#),
            ("events", r#"["state",["!A","m.room.member","@dave:hs1.test",null]]"#),
            ("caches", r#"["get_user_by_id",["@alice:hs1.test"],1795427048462]"#),
            ("caches", r#"["user_last_seen_monthly_active",null,1795426234770]"#),
            ("typing", r#"["!3",[]]"#),
            ("receipts", r#"["!3","m.read","@alice:hs1.test","$r","main",{"ts":1795427079779}]"#),
            ("presence", r#"["@alice:hs1.test","online",1795427084255,1795427084256,1795427065193,"here",true]"#),
            ("device_lists", r#"["@carol:hs1.test",true,false]"#),
            ("account_data", r#"["@alice:hs1.test",null,"m.direct"]"#),
            ("pushers", r#"["@alice:hs1.test","app","pk1",false]"#),
        ] {
            let value: Value = serde_json::from_str(row).unwrap();
            let parsed = Row::from_wire(Stream::by_name(stream).unwrap(), value.clone()).unwrap();
            assert_eq!(parsed.to_wire(), value);
        }
    }

    #[test]
    fn misshapen_rows_are_refused() {
        assert_eq!(Row::from_wire(Stream::Typing, json!({})), None);
        assert_eq!(Row::from_wire(Stream::Typing, json!(["!a"])), None);
        assert_eq!(Row::from_wire(Stream::Events, json!(["what", []])), None);
    }
}
