//! Listing notifications (spec: "Push Notifications", `GET /notifications`).

use app::App;
use http::{Route, Rq, route};
use rooms::{Bundles, Render, Shape, Visible};
use serde_json::{Value, json};
use types::{Error, Requester, Result};

pub fn routes() -> Vec<Route<App>> {
    vec![route("GET", "NotificationsServlet", "/_matrix/client/(r0|v3|unstable)/notifications").user(get)]
}

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 500;

async fn get(app: App, who: Requester, rq: Rq) -> Result<Value> {
    let from = match rq.param("from") {
        None => None,
        Some(text) => {
            let token = text.parse::<i64>();
            Some(token.map_err(|_| Error::bad_request("Query parameter \"from\" contains unrecognised token"))?)
        }
    };
    let limit = rq.int_param("limit")?.unwrap_or(DEFAULT_LIMIT).clamp(0, MAX_LIMIT);
    let only_highlight = rq.param("only") == Some("highlight");
    let user = who.user_id.as_str();
    let actions = app.store.push_actions(user, from, limit, only_highlight).await?;
    let read = app.store.receipt_places(user).await?;
    let ids: Vec<_> = actions.iter().map(|a| &a.event_id).collect();
    let events = app.store.events(&ids).await?;
    let known: Vec<_> = actions.iter().filter_map(|a| Some((a, events.get(&a.event_id)?.clone()))).collect();
    let visible: Vec<Visible> = known.iter().map(|(_, e)| Visible::unchecked(e.clone())).collect();
    let how = Render::for_user(&who).shape(Shape::V2WithoutRoomId);
    let rendered = app.rooms.render(&visible, &Bundles::new(), how).await?;
    let entry = |((a, _), event): (&(&store::unread::PushAction, _), Box<serde_json::value::RawValue>)| {
        let is_read = read.get(&a.room_id).is_some_and(|at| *at >= (a.depth, a.stream));
        let event: Value = serde_json::from_str(event.get())?;
        Ok(json!({"room_id": a.room_id, "profile_tag": a.profile_tag, "actions": a.action_list(),
                  "ts": a.received_ts, "event": event, "read": is_read}))
    };
    let list: Vec<Value> = known.iter().zip(rendered).map(entry).collect::<Result<_>>()?;
    let next = actions.last().map(|a| a.stream.to_string());
    Ok(json!({"notifications": list, "next_token": next}))
}
