//! An identity server tells that an address that was invited now belongs to a user (spec: "Third-party invites";
//! Synapse takes POST where the specification says PUT).

use app::App;
use http::{Resource, Route, Rq, route};
use rooms::address::Signed;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Error, Result};

/// Invites of one address that are taken at once: nobody vouches for the caller until a signature is looked at.
const MOST_INVITES: usize = 100;

pub fn routes() -> Vec<Route<App>> {
    // What is told carries the identity server's signature: nobody else need vouch for it.
    vec![route("POST", "On3pidBindServlet", "/_matrix/federation/v1/3pid/onbind").resource(Resource::Federation).open(bound)]
}

#[derive(Deserialize)]
struct Bound {
    #[serde(default)]
    invites: Vec<Invite>,
}

#[derive(Deserialize)]
struct Invite {
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    mxid: OwnedUserId,
    signed: Signed,
}

/// Tries every invite; the last failure is told.
async fn bound(app: App, rq: Rq) -> Result<Value> {
    let body: Bound = rq.json()?;
    if body.invites.len() > MOST_INVITES {
        return Err(Error::invalid_param(format!("invites: must be {MOST_INVITES} at most")));
    }
    let mut outcome = Ok(json!({}));
    for i in body.invites {
        if let Err(e) = app.rooms.exchange_invite(&i.sender, &i.mxid, &i.room_id, &i.signed).await {
            outcome = Err(e);
        }
    }
    outcome
}
