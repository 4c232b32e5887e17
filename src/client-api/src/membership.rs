//! Joining, inviting, leaving, kicking, banning, knocking, forgetting.

use accounts::RateLimiter;
use app::App;
use http::reply::IntoReply;
use http::route::Rate;
use http::{On, Reply, Route, Rq, route};
use rooms::Sent;
use rooms::address::Address;
use rooms::exchange::{Exchange, Signed};
use rooms::membership::{Action, Change};
use ruma::{OwnedServerName, RoomId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;
use types::{Error, OwnedRoomId, OwnedUserId, Requester, Result};

/// Routes of this chapter. A room alias in place of `room_id` only makes the request come by another process.
pub fn routes() -> Vec<Route<App>> {
    let r = |method, name, path| route(method, name, path).on(On::RoomShard).limit(Rate::Message);
    let (join, change) = ("JoinRoomAliasServlet", "RoomMembershipRestServlet");
    let f = |method, path| route(method, "RoomForgetRestServlet", path);
    vec![
        r("POST", join, "/_matrix/client/(api/v1|r0|v3|unstable)/join/{room_id}").guest(join_room),
        r("PUT", join, "/_matrix/client/(api/v1|r0|v3|unstable)/join/{room_id}/{txn_id}").guest(join_room_once),
        r("POST", change, "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/(join|invite|leave|ban|unban|kick)")
            .guest(act),
        r(
            "PUT",
            change,
            "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/(join|invite|leave|ban|unban|kick)/{txn_id}",
        )
        .guest(act_once),
        r("POST", "KnockRoomAliasServlet", "/_matrix/client/(r0|v3|unstable)/knock/{room_id}").user(knock),
        f("POST", "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/forget").user(forget),
        f("PUT", "/_matrix/client/(api/v1|r0|v3|unstable)/rooms/{room_id}/forget/{txn_id}").user(forget),
    ]
}

/// Changes a membership within the rate limits. None: a shadow-banned user's invite, which goes nowhere.
pub async fn change(app: &App, who: &Requester, room_id: &RoomId, change: Change) -> Result<Option<Sent>> {
    let (action, target) = (change.action, change.target.clone());
    let counts_as_join = action == Action::Join && !app.rooms.is_joined(&who.user_id, room_id).await?;
    if counts_as_join {
        app.accounts.limit_user(&app.accounts.limits().joins_local, who).await?;
        limit_key(app, who, &app.accounts.limits().joins_per_room, room_id.as_str()).await?;
    }
    if action == Action::Invite {
        let limits = app.accounts.limits();
        limit_key(app, who, &limits.invites_per_room, room_id.as_str()).await?;
        limit_key(app, who, &limits.invites_per_user, target.as_str()).await?;
        app.accounts.limit_user(&limits.invites_per_issuer, who).await?;
        if who.shadow_banned {
            tokio::time::sleep(Duration::from_secs(rand::random_range(1..=10))).await;
            return Ok(None);
        }
    }
    app.rooms.change_membership(who, room_id, change).await.map(Some)
}

/// Counts an action against a limit that is not the requester's own.
async fn limit_key(app: &App, who: &Requester, limiter: &RateLimiter, key: &str) -> Result<()> {
    if app.accounts.is_unlimited(who).await? {
        return Ok(());
    }
    limiter.check(key, app.cx.now_ms())
}

fn body(rq: &Rq) -> Result<Map<String, Value>> {
    match rq.json_or_empty::<Value>()? {
        Value::Object(body) => Ok(body),
        _ => Err(Error::bad_json("Content must be a JSON object.")),
    }
}

/// The room of a path, and the servers it may be reached through.
async fn room_and_servers(app: &App, rq: &Rq) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
    let (room_id, of_alias) = app.rooms.resolve_room(rq.arg("room_id")?).await?;
    let named = ["via", "server_name"].iter().map(|name| rq.params(name)).find(|v| !v.is_empty()).unwrap_or_default();
    // An alias knows better.
    let servers = if of_alias.is_empty() { named } else { of_alias.iter().map(String::as_str).collect() };
    Ok((room_id, servers.into_iter().filter_map(|s| s.try_into().ok()).collect()))
}

/// An invite by address that whoever joins has the proof for.
#[derive(Deserialize)]
struct ThirdPartySigned {
    sender: OwnedUserId,
    #[serde(flatten)]
    signed: Signed,
}

async fn join_room(app: App, who: Requester, rq: Rq) -> Result<Reply> {
    let mut content = body(&rq)?;
    let signed = content.remove("third_party_signed").map(serde_json::from_value::<ThirdPartySigned>).transpose();
    let signed = signed.map_err(|e| Error::bad_json(format!("third_party_signed: {e}")))?;
    let (room_id, via) = room_and_servers(&app, &rq).await?;
    if let Some(ThirdPartySigned { sender, mut signed }) = signed {
        // It was signed along.
        signed.more.insert("sender".into(), sender.as_str().into());
        let exchange = Exchange { room_id: room_id.clone(), sender, target: who.user_id.clone(), signed };
        app.rooms.exchange_invite(&exchange).await?;
    }
    let wanted = Change::new(who.user_id.clone(), Action::Join).content(content).via(via);
    change(&app, &who, &room_id, wanted).await?;
    json!({"room_id": room_id}).into_reply()
}

async fn join_room_once(app: App, who: Requester, rq: Rq) -> Result<Reply> {
    let run = join_room(app.clone(), who.clone(), rq.clone());
    app.txns.once(&who, &rq, run).await
}

async fn knock(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let reason = reason(&body(&rq)?);
    let (room_id, via) = room_and_servers(&app, &rq).await?;
    change(&app, &who, &room_id, Change::new(who.user_id.clone(), Action::Knock).content(reason).via(via)).await?;
    Ok(json!({"room_id": room_id}))
}

/// The part of a body that goes into the event.
fn reason(body: &Map<String, Value>) -> Map<String, Value> {
    body.iter().filter(|(k, _)| *k == "reason").map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The action a path ends in (before a transaction id).
fn action(path: &str) -> Option<Action> {
    let mut segments = path.split('/').skip_while(|s| *s != "rooms").skip(2);
    segments.next().and_then(Action::named)
}

async fn act(app: App, who: Requester, rq: Rq) -> Result<Reply> {
    let action = action(&rq.path).ok_or_else(|| Error::unrecognized("Unrecognized request"))?;
    if who.is_guest && !matches!(action, Action::Join | Action::Leave) {
        return Err(Error::forbidden("Guest access not allowed"));
    }
    let body = body(&rq)?;
    if action == Action::Invite && ["medium", "address"].iter().all(|k| body.contains_key(*k)) {
        invite_address(&app, &who, &rq.room_id()?, &body).await?;
        return Ok(Reply::empty());
    }
    let target = match action {
        Action::Invite | Action::Ban | Action::Unban | Action::Kick => target(&body)?,
        _ => who.user_id.clone(),
    };
    let room_id: OwnedRoomId = rq.room_id()?;
    let wanted = Change::new(target, action).content(reason(&body));
    change(&app, &who, &room_id, wanted).await?;
    match action {
        Action::Join => json!({"room_id": room_id}).into_reply(),
        _ => Ok(Reply::empty()),
    }
}

async fn act_once(app: App, who: Requester, rq: Rq) -> Result<Reply> {
    let run = act(app.clone(), who.clone(), rq.clone());
    app.txns.once(&who, &rq, run).await
}

/// Invites by address; the same limits hold as for other invites.
async fn invite_address(app: &App, who: &Requester, room_id: &RoomId, body: &Map<String, Value>) -> Result<()> {
    let address = Address::of(body)?;
    app.accounts.limit_user(&app.accounts.limits().third_party_invite, who).await?;
    if let Some(user) = app.rooms.user_of_address(&address).await? {
        return change(app, who, room_id, Change::new(user, Action::Invite)).await.map(|_| ());
    }
    if who.shadow_banned {
        return Ok(());
    }
    app.rooms.leave_invite(who, room_id, &address).await
}

fn target(body: &Map<String, Value>) -> Result<OwnedUserId> {
    let id = body.get("user_id").ok_or_else(|| Error::missing_param("Missing params: ['user_id']"))?;
    let id = id.as_str().ok_or_else(|| Error::bad_json("user_id: must be a string"))?;
    OwnedUserId::try_from(id).map_err(|_| Error::invalid_param(format!("user_id: not a user id: {id:?}")))
}

async fn forget(app: App, who: Requester, rq: Rq) -> Result<()> {
    app.rooms.forget(&who.user_id, &rq.room_id()?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_action_is_read_from_any_version_of_the_path() {
        assert_eq!(action("/_matrix/client/v3/rooms/!r:a/kick"), Some(Action::Kick));
        assert_eq!(action("/_matrix/client/api/v1/rooms/!r:a/join/txn"), Some(Action::Join));
        assert_eq!(action("/_matrix/client/v3/rooms/rooms/ban"), Some(Action::Ban));
        assert_eq!(action("/_matrix/client/v3/rooms/!r:a/state"), None);
    }
}
