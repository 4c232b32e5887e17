//! Profiles, which the first of the events writers changes.

use crate::endpoint::{Object, nothing, post, take};
use app::App;
use http::{Route, Rq};
use ruma::OwnedUserId;
use serde_json::Value;
use types::{Requester, Result};

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        post("ReplicationProfileSetFieldValue", "/_synapse/replication/profile_set_field/{user_id}", set),
        post("ReplicationProfileDeleteField", "/_synapse/replication/profile_delete_field/{user_id}", delete),
    ]
}

/// The caller has checked who may do this; of its requester only the name comes along.
async fn set(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let who: OwnedUserId = take(&mut body, "requester")?;
    let field: String = take(&mut body, "field_name")?;
    let value: Value = take(&mut body, "new_value")?;
    let value = Some(value).filter(|v| !v.is_null());
    app.accounts.set_profile_field(&Requester::for_user(&who), &rq.user_id()?, &field, value).await?;
    nothing()
}

async fn delete(app: App, rq: Rq, mut body: Object) -> Result<Object> {
    let who: OwnedUserId = take(&mut body, "requester")?;
    let field: String = take(&mut body, "field_name")?;
    app.accounts.set_profile_field(&Requester::for_user(&who), &rq.user_id()?, &field, None).await?;
    nothing()
}
