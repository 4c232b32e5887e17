//! Pushers, which only the main process writes.

use crate::endpoint::{Object, nothing, post, take};
use app::App;
use http::{Route, Rq};
use store::devices::PusherKey;
use types::Result;

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        post("ReplicationRemovePusherRestServlet", "/_synapse/replication/remove_pusher/{user_id}", remove),
        post(
            "ReplicationDeleteAllPushersForUserRestServlet",
            "/_synapse/replication/delete_all_pushers_for_user/{user_id}",
            remove_all,
        ),
    ]
}

async fn remove(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let pusher = PusherKey { app_id: take(&mut body, "app_id")?, pushkey: take(&mut body, "pushkey")? };
    app.accounts.drop_pushers(rq.arg("user_id")?, &[pusher]).await?;
    nothing()
}

async fn remove_all(app: App, rq: Rq, _: Object) -> Result<Object> {
    let user_id = rq.arg("user_id")?;
    let pushers = app.store.pushers_of(user_id).await?;
    let pushers: Vec<PusherKey> =
        pushers.into_iter().map(|p| PusherKey { app_id: p.app_id, pushkey: p.pushkey }).collect();
    app.accounts.drop_pushers(user_id, &pushers).await?;
    nothing()
}
