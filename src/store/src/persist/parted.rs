//! Users of other servers whom nobody here shares a room with any more: their server stops telling us of their
//! devices, so what we know of them is not to be believed when they come back.

use super::{RoomWrite, state};
use crate::Store;
use crate::db::Conn;
use types::Result;

/// Of those whose membership changed with these stream ids; reads what [`state::run_after`] wrote.
const FORGET: &str = "WITH parted AS (
        SELECT DISTINCT d.state_key AS user_id FROM current_state_delta_stream d
        WHERE d.stream_id = ANY($1) AND d.type = 'm.room.member' AND NOT EXISTS (
            SELECT 1 FROM current_state_events s
            WHERE s.type = 'm.room.member' AND s.state_key = d.state_key AND s.membership = 'join')
    ), stale AS (
        DELETE FROM device_lists_remote_resync WHERE user_id IN (SELECT user_id FROM parted)
    )
    DELETE FROM device_lists_remote_extremeties WHERE user_id IN (SELECT user_id FROM parted) RETURNING user_id";

pub(super) const STATEMENTS: &[&str] = &[FORGET];

/// Somebody of another server may have left, or we left them.
fn parts(w: &RoomWrite, suffix: &str) -> bool {
    let left = |id| w.event(id).is_none_or(|e| e.pdu.membership().as_deref() != Some("join"));
    w.abandoned
        || w.delta.iter().any(|c| {
            c.kind == "m.room.member" && !c.state_key.ends_with(suffix) && c.event_id.as_ref().is_none_or(left)
        })
}

/// Notes that the devices of such users are not known; returns whose were.
pub(super) async fn run(store: &Store, conn: &Conn, writes: &[RoomWrite]) -> Result<Vec<String>> {
    let suffix = format!(":{}", store.server_name);
    let ids: Vec<i64> = writes.iter().filter(|w| parts(w, &suffix)).map(state::first_id).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(conn.query(FORGET, &[&ids]).await?.iter().map(|r| r.get(0)).collect())
}
