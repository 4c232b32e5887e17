//! An address that was invited now belongs to a user: an identity server tells the user's server, which tells one that
//! is in the room (spec: "Third-party invites"; of identity servers Synapse takes POST where the specification says PUT).

use app::App;
use http::{Resource, Route, Rq, route};
use rooms::exchange::{Exchange, Signed};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Error, OwnedServerName, Result};

/// Invites of one address that are taken at once: nobody vouches for the caller until a signature is looked at.
const MOST_INVITES: usize = 100;

pub fn routes() -> Vec<Route<App>> {
    let exchange = "/_matrix/federation/v1/exchange_third_party_invite/{room_id}";
    vec![
        // What is told carries the identity server's signature: nobody else need vouch for it. Synapse limits it no more.
        route("POST", "On3pidBindServlet", "/_matrix/federation/v1/3pid/onbind")
            .resource(Resource::Federation)
            .open(bound),
        route("PUT", "FederationThirdPartyInviteExchangeServlet", exchange).server(exchanged),
    ]
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
    for Invite { room_id, sender, mxid, signed } in body.invites {
        let exchange = Exchange { room_id, sender, target: mxid, signed };
        if let Err(e) = app.rooms.exchange_invite(&exchange).await {
            outcome = Err(e);
        }
    }
    outcome
}

/// The invite as its target's server would have it; what else belongs to an event is ours to add.
#[derive(Deserialize)]
struct Partial {
    #[serde(rename = "type")]
    kind: String,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    state_key: OwnedUserId,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: String,
    third_party_invite: ThirdPartyInvite,
}

#[derive(Deserialize)]
struct ThirdPartyInvite {
    signed: Signed,
}

async fn exchanged(app: App, origin: OwnedServerName, rq: Rq) -> Result<Value> {
    let Partial { kind, room_id, sender, state_key, content } = rq.json()?;
    if room_id != rq.room_id()? {
        return Err(Error::bad_json("room_id: not that of the path"));
    }
    if kind != "m.room.member" || content.membership != "invite" {
        return Err(Error::bad_json("content.membership: must be an invite, of an event of type m.room.member"));
    }
    let exchange = Exchange { room_id, sender, target: state_key, signed: content.third_party_invite.signed };
    app.rooms.exchange_for(&origin, &exchange).await?;
    Ok(json!({}))
}
