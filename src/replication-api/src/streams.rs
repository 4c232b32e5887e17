//! `get_repl_stream_updates`: rows of streams that live in the writer's memory, for readers that missed some.

use app::App;
use http::{Route, Rq, route};
use serde_json::{Value, json};
use store::Stream;
use types::{Error, Result};

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        route(
            "GET",
            "ReplicationGetStreamUpdates",
            "/_synapse/replication/get_repl_stream_updates/{stream_name}/{txn_id}",
        )
        .replication(updates),
    ]
}

async fn updates(app: App, rq: Rq) -> Result<Value> {
    let name = rq.arg("stream_name")?;
    let stream =
        Stream::by_name(name).ok_or_else(|| Error::bad_request(format!("stream_name: {name:?} is no stream")))?;
    let needed = |field: &'static str| {
        rq.int_param(field)?.ok_or_else(|| Error::missing_param(format!("Query parameter {field} is missing")))
    };
    let (from, upto) = (needed("from_token")?, needed("upto_token")?);
    let streams = &app.store.streams;
    if stream.is_memory() {
        // A reader that is ahead of us knew us before we started anew.
        let from = if from > streams.own(stream) { 0 } else { from };
        let rows = app.cx.memory.between(stream, from, upto);
        let updates: Vec<Value> = rows.iter().map(|(token, row)| json!([token, row.to_wire()])).collect();
        return Ok(json!({"updates": updates, "upto_token": upto, "limited": false}));
    }
    let (rows, reached) = streams.rows_between(stream, streams.instance(), from, upto).await?;
    let updates: Vec<Value> =
        rows.iter().flat_map(|(token, rows)| rows.iter().map(move |r| json!([token, r.to_wire()]))).collect();
    Ok(json!({"updates": updates, "upto_token": reached, "limited": reached < upto}))
}
