//! How presence changes: devices combined, time-outs, what is worth telling. No IO.

use config::server::Presence as Settings;
use std::collections::{HashMap, HashSet};
use store::PresenceRow;

/// Remote users not heard of for this long are offline, ms.
const FEDERATION_TIMEOUT_MS: i64 = 30 * 60 * 1000;
/// Other servers are told again after this long, ms.
const FEDERATION_PING_MS: i64 = 25 * 60 * 1000;
const BUSY_TIMEOUT_MS: i64 = 60 * 60 * 1000;

/// What a user without a row is.
pub fn offline(user_id: &str) -> PresenceRow {
    PresenceRow {
        user_id: user_id.to_owned(),
        state: "offline".into(),
        last_active_ts: 0,
        last_federation_update_ts: 0,
        last_user_sync_ts: 0,
        status_msg: None,
        currently_active: false,
    }
}

/// One device of a local user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Device {
    pub state: String,
    /// ms
    pub last_active: i64,
    /// ms
    pub last_sync: i64,
}

/// Devices of one user.
pub type Devices = HashMap<Option<String>, Device>;
/// (user, device) that are syncing.
pub type Syncing = HashSet<(String, Option<String>)>;

fn priority(state: &str) -> u8 {
    match state {
        "busy" => 4,
        "online" => 3,
        "unavailable" => 2,
        "offline" => 1,
        _ => 0,
    }
}

/// The state of the most present device; among equals the one last active.
pub fn combine(devices: &Devices) -> String {
    let best = devices.values().max_by_key(|d| (priority(&d.state), d.last_active));
    best.filter(|d| priority(&d.state) > 1).map_or_else(|| "offline".to_owned(), |d| d.state.clone())
}

/// What of a change follows.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub state: PresenceRow,
    /// Store it and tell everybody.
    pub notify: bool,
}

/// Completes a new state and decides whether it is worth telling.
pub fn update(old: &PresenceRow, mut new: PresenceRow, is_mine: bool, now: i64, settings: &Settings) -> Verdict {
    let granularity = settings.last_active_granularity_ms as i64;
    if is_mine {
        if new.state == "online" {
            new.currently_active = now - new.last_active_ts < granularity;
        }
        if new.state != "offline" && now - new.last_federation_update_ts > FEDERATION_PING_MS {
            new.last_federation_update_ts = now;
        }
    }
    let notify = is_news(old, &new, granularity);
    if notify {
        new.last_federation_update_ts = now;
    }
    Verdict { state: new, notify }
}

fn is_news(old: &PresenceRow, new: &PresenceRow, granularity: i64) -> bool {
    if old == new {
        return false;
    }
    if old.status_msg != new.status_msg || old.state != new.state {
        return true;
    }
    let later = new.last_active_ts - old.last_active_ts > granularity;
    if old.state == "online" {
        return new.currently_active != old.currently_active || (later && !new.currently_active);
    }
    later
}

/// Applies time-outs to one user; Some: it has to go through [`update`].
pub fn time_out(
    state: &PresenceRow,
    is_mine: bool,
    syncing: &Syncing,
    devices: &mut Devices,
    now: i64,
    settings: &Settings,
) -> Option<PresenceRow> {
    if state.state == "offline" {
        return None;
    }
    let mut new = state.clone();
    if !is_mine {
        if now - state.last_federation_update_ts <= FEDERATION_TIMEOUT_MS {
            return None;
        }
        new.state = "offline".into();
        return Some(new);
    }
    let mut changed = false;
    for device in devices.values_mut() {
        if device.state == "online" && now - device.last_active > settings.idle_timeout_ms as i64 {
            device.state = "unavailable".into();
            changed = true;
        }
    }
    let before = devices.len();
    devices.retain(|id, d| {
        let limit = if d.state == "busy" { BUSY_TIMEOUT_MS } else { settings.sync_online_timeout_ms as i64 };
        syncing.contains(&(state.user_id.clone(), id.clone())) || now - d.last_sync.max(d.last_active) <= limit
    });
    changed |= devices.len() != before;
    // Nobody of ours knows a device of it: the process that did is gone.
    changed |= devices.is_empty();
    let mut out = false;
    if changed {
        let combined = combine(devices);
        out = combined != new.state;
        new.state = combined;
    }
    out |= state.currently_active && now - state.last_active_ts > settings.last_active_granularity_ms as i64;
    out |= now - state.last_federation_update_ts > FEDERATION_PING_MS;
    out.then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            enabled: true,
            track: true,
            include_offline_users_on_sync: false,
            last_active_granularity_ms: 60_000,
            sync_online_timeout_ms: 30_000,
            idle_timeout_ms: 300_000,
        }
    }

    fn device(state: &str, at: i64) -> Device {
        Device { state: state.into(), last_active: at, last_sync: at }
    }

    #[test]
    fn the_most_present_device_counts() {
        let mut d = Devices::new();
        assert_eq!(combine(&d), "offline");
        d.insert(Some("A".into()), device("unavailable", 9));
        d.insert(Some("B".into()), device("online", 1));
        assert_eq!(combine(&d), "online");
    }

    #[test]
    fn a_device_idles_then_goes() {
        let s = settings();
        let mut devices = Devices::from([(None, device("online", 0))]);
        let online = update(&offline("@a:b"), PresenceRow { state: "online".into(), ..offline("@a:b") }, true, 0, &s);
        assert!(online.notify && online.state.currently_active);
        let syncing = Syncing::from([("@a:b".to_owned(), None)]);
        assert_eq!(time_out(&online.state, true, &syncing, &mut devices, 50_000, &s), None);
        let inactive = time_out(&online.state, true, &syncing, &mut devices, 61_000, &s).unwrap();
        let inactive = update(&online.state, inactive, true, 61_000, &s);
        assert!(inactive.notify && !inactive.state.currently_active);
        let idle = time_out(&inactive.state, true, &syncing, &mut devices, 300_001, &s).unwrap();
        assert_eq!(idle.state, "unavailable");
        let gone = time_out(&idle, true, &Syncing::new(), &mut devices, 400_000, &s).unwrap();
        assert_eq!(gone.state, "offline");
    }

    #[test]
    fn the_same_again_is_no_news() {
        let s = settings();
        let on = PresenceRow { state: "online".into(), last_active_ts: 1_000, ..offline("@a:b") };
        let first = update(&offline("@a:b"), on, true, 1_000, &s).state;
        let again = PresenceRow { last_active_ts: 2_000, ..first.clone() };
        assert!(!update(&first, again, true, 2_000, &s).notify);
        let status = PresenceRow { status_msg: Some("here".into()), ..first.clone() };
        assert!(update(&first, status, true, 2_000, &s).notify);
    }
}
