//! Whether the rules let an event of another server in.

use super::Known;
use rules::AuthEvent;
use rules::build::create_of_room;
use ruma::room_version_rules::AuthorizationRules;
use std::collections::HashMap;
use types::{OwnedEventId, Pdu, Result};

/// What authorises an event by its own account, the create event of a v12 room included.
pub(crate) fn auth_of(pdu: &Pdu, rules: &AuthorizationRules) -> Result<Vec<OwnedEventId>> {
    let mut ids = pdu.auth_events.clone();
    if rules.room_create_event_id_as_room_id && pdu.kind != "m.room.create" {
        ids.push(create_of_room(&pdu.room_id)?);
    }
    Ok(ids)
}

/// Judges an event by the events it names itself; all of them must be in `known`.
pub(crate) fn by_own_account(event: &AuthEvent, rules: &AuthorizationRules, known: &Known) -> Result<()> {
    rules::auth::check_auth_events(event, rules, |id| known.get(id).cloned())?;
    let mut state: HashMap<(&str, &str), &AuthEvent> = HashMap::new();
    for auth in auth_of(event.pdu(), rules)?.iter().filter_map(|id| known.get(id)) {
        if let Some(key) = &auth.pdu().state_key {
            state.insert((&auth.pdu().kind, key), auth);
        }
    }
    rules::auth::check(event, rules, |kind, key| state.get(&(kind, key)).map(|e| (*e).clone()))
}

/// Orders events so that each comes after those of them it names as its authority.
pub(crate) fn by_authority<T>(events: Vec<T>, pdu: impl Fn(&T) -> &Pdu, rules: &AuthorizationRules) -> Result<Vec<T>> {
    let mut places: HashMap<OwnedEventId, usize> = HashMap::new();
    let mut auth: Vec<Vec<OwnedEventId>> = Vec::with_capacity(events.len());
    for (i, event) in events.iter().enumerate() {
        places.insert(pdu(event).event_id.clone(), i);
        auth.push(auth_of(pdu(event), rules)?);
    }
    let mut order: Vec<usize> = Vec::with_capacity(events.len());
    let mut seen = vec![false; events.len()];
    for start in 0..events.len() {
        // (event, whether what authorises it has been visited)
        let mut stack = vec![(start, false)];
        while let Some((i, visited)) = stack.pop() {
            if visited {
                order.push(i);
            } else if !std::mem::replace(&mut seen[i], true) {
                stack.push((i, true));
                stack
                    .extend(auth[i].iter().filter_map(|id| places.get(id)).filter(|j| !seen[**j]).map(|j| (*j, false)));
            }
        }
    }
    let mut events: Vec<Option<T>> = events.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|i| events[i].take()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::RoomVersionId;

    fn event(id: &str, auth: &[&str]) -> Pdu {
        let json = serde_json::json!({
            "type": "m.x", "sender": "@u:s.test", "room_id": "!r:s.test", "content": {}, "origin_server_ts": 1,
            "auth_events": auth,
        });
        Pdu::parse(&json.to_string(), &OwnedEventId::try_from(id).unwrap(), &RoomVersionId::V10).unwrap()
    }

    #[test]
    fn authority_comes_first_and_circles_end() {
        let rules = rules::build::rules_of(&RoomVersionId::V10).unwrap().authorization;
        let events =
            vec![event("$d", &["$b", "$c"]), event("$c", &["$a"]), event("$b", &["$a", "$x"]), event("$a", &["$d"])];
        let order = by_authority(events, |p| p, &rules).unwrap();
        assert_eq!(order.len(), 4);
        let events = vec![event("$c", &["$b"]), event("$b", &["$a"]), event("$a", &[])];
        let order: Vec<String> =
            by_authority(events, |p| p, &rules).unwrap().iter().map(|p| p.event_id.to_string()).collect();
        assert_eq!(order, ["$a", "$b", "$c"]);
    }
}
