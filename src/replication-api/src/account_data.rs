//! Account data, tags and push rules, each of which one process writes.

use crate::endpoint::{Object, post, take};
use app::App;
use http::{Route, Rq};
use serde_json::{Value, json};
use store::Stream;
use types::Result;

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        post("ReplicationAddUserAccountData", "/_synapse/replication/add_user_account_data/{user_id}/{type}", set),
        post(
            "ReplicationRemoveUserAccountData",
            "/_synapse/replication/remove_user_account_data/{user_id}/{type}",
            remove,
        ),
        post(
            "ReplicationAddRoomAccountData",
            "/_synapse/replication/add_room_account_data/{user_id}/{room_id}/{type}",
            set,
        ),
        post(
            "ReplicationRemoveRoomAccountData",
            "/_synapse/replication/remove_room_account_data/{user_id}/{room_id}/{type}",
            remove,
        ),
        post("ReplicationAddTag", "/_synapse/replication/add_tag/{user_id}/{room_id}/{tag}", add_tag),
        post("ReplicationRemoveTag", "/_synapse/replication/remove_tag/{user_id}/{room_id}/{tag}", remove_tag),
        post(
            "ReplicationCopyPusherRestServlet",
            "/_synapse/replication/copy_push_rules/{user_id}/{old_room_id}/{new_room_id}",
            copy_push_rules,
        ),
    ]
}

/// What the caller has to wait for.
fn written(app: &App) -> Result<Object> {
    Ok(Object::from_iter([("max_stream_id".to_owned(), json!(app.store.streams.current(Stream::AccountData)))]))
}

async fn set(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let content: Value = take(&mut body, "content")?;
    app.accounts.set_account_data(rq.arg("user_id")?, rq.arg_opt("room_id"), rq.arg("type")?, &content).await?;
    written(&app)
}

async fn remove(app: App, rq: Rq, _: Object) -> Result<Object> {
    app.accounts.remove_account_data(rq.arg("user_id")?, rq.arg_opt("room_id"), rq.arg("type")?).await?;
    written(&app)
}

async fn add_tag(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let content: Value = take(&mut body, "content")?;
    app.accounts.add_tag(rq.arg("user_id")?, rq.arg("room_id")?, rq.arg("tag")?, &content).await?;
    written(&app)
}

async fn remove_tag(app: App, rq: Rq, _: Object) -> Result<Object> {
    app.accounts.remove_tag(rq.arg("user_id")?, rq.arg("room_id")?, rq.arg("tag")?).await?;
    written(&app)
}

async fn copy_push_rules(app: App, rq: Rq, _: Object) -> Result<Object> {
    app.accounts.copy_push_rules(rq.arg("user_id")?, rq.arg("old_room_id")?, rq.arg("new_room_id")?).await?;
    Ok(Object::new())
}
