//! Events of rooms that this process writes.

use crate::endpoint::{Object, nothing, post, post_once};
use app::App;
use http::{Route, Rq};
use types::Result;

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
