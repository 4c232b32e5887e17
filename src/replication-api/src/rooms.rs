//! Events of rooms that this process writes.

use crate::endpoint::{Object, nothing, object, post, post_once, take as field};
use app::App;
use http::{Route, Rq};
use rooms::Sent;
use serde_json::json;
use types::{Error, OwnedEventId, Requester, Result};

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        post_once("ReplicationSendEventsRestServlet", "/_synapse/replication/send_events/{txn_id}", take),
        post_once(
            "ReplicationFederationSendEventsRestServlet",
            "/_synapse/replication/fed_send_events/{txn_id}",
            take_federated,
        ),
        post(
            "ReplicationUserJoinedLeftRoomRestServlet",
            "/_synapse/replication/membership_change/{room_id}/{user_id}/{change}",
            membership_change,
        ),
        post_once(
            "ReplicationRemoteJoinRestServlet",
            "/_synapse/replication/remote_join/{room_id}/{user_id}/{txn_id}",
            remote_join,
        ),
        post_once(
            "ReplicationRemoteKnockRestServlet",
            "/_synapse/replication/remote_knock/{room_id}/{user_id}/{txn_id}",
            remote_knock,
        ),
        post_once(
            "ReplicationRemoteRejectInviteRestServlet",
            "/_synapse/replication/remote_reject_invite/{event_id}/{txn_id}",
            end_membership,
        ),
        post_once(
            "ReplicationRemoteRescindKnockRestServlet",
            "/_synapse/replication/remote_rescind_knock/{event_id}/{txn_id}",
            end_membership,
        ),
        post_once("PlexusSendEvents", "/_synapse/replication/plexus_send_events/{room_id}/{txn_id}", send),
        post_once("PlexusCreateRoom", "/_synapse/replication/plexus_create_room/{txn_id}", create),
    ]
}

/// Events another process made.
async fn take(app: App, _: Rq, body: Object) -> Result<Object> {
    app.rooms.persist_prepared(body).await
}

/// Events another process received from other servers and judged.
async fn take_federated(app: App, _: Rq, body: Object) -> Result<Object> {
    app.rooms.persist_federated(body).await
}

/// A worker of Synapse says that a user left; the events stream says so too, so there is nothing to do.
async fn membership_change(_: App, _: Rq, _: Object) -> Result<Object> {
    nothing()
}

/// Between Plexus processes: the events are made here.
async fn send(app: App, rq: Rq, body: Object) -> Result<Object> {
    app.rooms.serve_send(&rq.room_id()?, body).await
}

async fn create(app: App, _: Rq, body: Object) -> Result<Object> {
    app.rooms.serve_create(body).await
}

fn sent(sent: &Sent) -> Result<Object> {
    object(&json!({"event_id": sent.event_id, "stream_id": sent.stream_ordering}))
}

/// Joins of rooms abroad, through the servers named.
async fn remote_join(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let who: Requester = field(&mut body, "requester")?;
    let (servers, content) = (field(&mut body, "remote_room_hosts")?, field(&mut body, "content")?);
    sent(&app.rooms.join_through(&who, &rq.room_id()?, &rq.user_id()?, servers, content).await?)
}

async fn remote_knock(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let who: Requester = field(&mut body, "requester")?;
    let (servers, content) = (field(&mut body, "remote_room_hosts")?, field(&mut body, "content")?);
    sent(&app.rooms.knock_through(&who, &rq.room_id()?, &rq.user_id()?, servers, content).await?)
}

/// Declining an invite, taking back a knock.
async fn end_membership(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let who: Requester = field(&mut body, "requester")?;
    let content = field(&mut body, "content")?;
    let event_id = OwnedEventId::try_from(rq.arg("event_id")?).map_err(|_| Error::invalid_param("event_id"))?;
    sent(&app.rooms.end_membership(&who, &event_id, content).await?)
}
