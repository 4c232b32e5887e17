//! Transactions of other servers: events and ephemeral messages.

use app::App;
use http::{On, Reply, Route, Rq, route};
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Error, OwnedServerName, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    let path = "/_matrix/federation/v1/send/{transaction_id}";
    vec![route("PUT", "FederationSendServlet", path).on(On::FederationIn).server(send)]
}

/// Events, and ephemeral messages, of one transaction at most (spec: "Transactions").
const MAX_PDUS: usize = 50;
const MAX_EDUS: usize = 100;

#[derive(Deserialize)]
struct Transaction {
    #[serde(default)]
    pdus: Vec<Value>,
    #[serde(default)]
    edus: Vec<Edu>,
}

#[derive(Deserialize)]
struct Edu {
    edu_type: String,
    #[serde(default)]
    content: Value,
}

/// A transaction that comes again gets the answer it got.
async fn send(app: App, origin: OwnedServerName, rq: Rq) -> Result<Reply> {
    let txn_id = rq.arg("transaction_id")?;
    let answers = app.inbound.of(&origin, txn_id);
    let answer = answers.get_or_try_init(|| take(&app, &origin, txn_id, &rq)).await?;
    Reply::json(answer)
}

async fn take(app: &App, origin: &OwnedServerName, txn_id: &str, rq: &Rq) -> Result<Value> {
    if let Some((_, answer)) = app.store.received_transaction(origin.as_str(), txn_id).await? {
        return Ok(answer);
    }
    let body: Transaction = rq.json()?;
    if body.pdus.len() > MAX_PDUS || body.edus.len() > MAX_EDUS {
        return Err(Error::bad_json("Too many PDUs or EDUs in the transaction"));
    }
    let pdus = app.rooms.take_pdus(origin, body.pdus).await?;
    for edu in body.edus {
        let kind = edu.edu_type;
        if let Err(e) = app.take_edu(origin, &kind, edu.content).await {
            slog::info!(app.cx.log, "an ephemeral message was not taken"; "origin" => %origin, "type" => kind, "error" => %e);
        }
    }
    let answer = json!({"pdus": pdus});
    app.store.set_received_transaction(origin.as_str(), txn_id, 200, &answer, app.cx.now_ms()).await?;
    Ok(answer)
}
