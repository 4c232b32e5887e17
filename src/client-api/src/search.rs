//! Searching messages (spec: "Server Side Search").

use app::App;
use http::{Route, Rq, route};
use rooms::search::{Around, Batch, Group, Order, Wanted};
use serde::Deserialize;
use serde_json::{Value, json};
use types::filter::EventFilter;
use types::{Error, Requester, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    vec![route("POST", "SearchRestServlet", "/_matrix/client/(api/v1|r0|v3|unstable)/search").user(search)]
}

#[derive(Deserialize)]
struct Body {
    search_categories: Categories,
}

#[derive(Deserialize)]
struct Categories {
    room_events: RoomEvents,
}

#[derive(Deserialize)]
struct RoomEvents {
    search_term: String,
    keys: Option<Vec<String>>,
    #[serde(default)]
    filter: EventFilter,
    #[serde(default)]
    order_by: Order,
    #[serde(default)]
    include_state: bool,
    event_context: Option<Around>,
    #[serde(default)]
    groupings: Groupings,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Groupings {
    group_by: Vec<GroupBy>,
}

#[derive(Deserialize)]
struct GroupBy {
    key: Group,
}

async fn search(app: App, who: Requester, rq: Rq) -> Result<Value> {
    if !app.cx.config.server.enable_search {
        return Err(Error::bad_request("Search is disabled on this homeserver"));
    }
    let batch = rq.param("next_batch").map(Batch::parse).transpose()?;
    let Body { search_categories: Categories { room_events: asked } } = rq.json()?;
    let keys = || ["content.body", "content.name", "content.topic"].map(str::to_owned).to_vec();
    let wanted = Wanted {
        term: types::json::strip_nul(&asked.search_term).into_owned(),
        keys: asked.keys.unwrap_or_else(keys),
        filter: asked.filter,
        order: asked.order_by,
        include_state: asked.include_state,
        groups: asked.groupings.group_by.into_iter().map(|g| g.key).collect(),
        around: asked.event_context,
        batch,
    };
    Ok(json!({"search_categories": {"room_events": app.rooms.search(&who, &wanted).await?}}))
}
