//! The frame of every endpoint: positions both ways, and one answer for repeated requests.

use app::App;
use http::{Reply, Route, Rq, route};
use replication::peers::{own_positions, wait_for_positions};
use serde_json::{Map, Value};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use types::{Error, Result};

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// Key of the positions in requests and answers.
const POSITIONS: &str = "_INT_STREAM_POS";
/// How long the answer to a transaction id is kept.
const KEEP: Duration = Duration::from_secs(30 * 60);
/// Answers kept at most.
const MOST: usize = 20_000;

type Answer = Pin<Box<dyn Future<Output = Result<Object>> + Send>>;

/// POST `path`; the handler gets the body without positions, its answer goes out with ours.
pub(crate) fn post<F, Fut>(name: &'static str, path: &'static str, handler: F) -> Route<App>
where
    F: Fn(App, Rq, Object) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Object>> + Send + 'static,
{
    let handler = boxed(handler);
    route("POST", name, path).replication(move |app: App, rq: Rq| {
        let handler = handler.clone();
        async move { Reply::json(&Value::Object(answer(app, rq, &*handler).await?)) }
    })
}

/// As [`post`], for paths that end in `{txn_id}`: a repeat gets the answer of the first, even while that is being
/// worked on.
pub(crate) fn post_once<F, Fut>(name: &'static str, path: &'static str, handler: F) -> Route<App>
where
    F: Fn(App, Rq, Object) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Object>> + Send + 'static,
{
    let handler = boxed(handler);
    let answers = Arc::new(Answers::default());
    route("POST", name, path).replication(move |app: App, rq: Rq| {
        let (handler, answers) = (handler.clone(), answers.clone());
        async move {
            let cell = answers.of(&rq.path);
            let reply = cell
                .get_or_try_init(|| async { Reply::json(&Value::Object(answer(app, rq, &*handler).await?)) })
                .await?;
            Ok::<Reply, Error>(reply.clone())
        }
    })
}

type Boxed = Arc<dyn Fn(App, Rq, Object) -> Answer + Send + Sync>;

fn boxed<F, Fut>(handler: F) -> Boxed
where
    F: Fn(App, Rq, Object) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Object>> + Send + 'static,
{
    Arc::new(move |app, rq, body| Box::pin(handler(app, rq, body)))
}

async fn answer(app: App, rq: Rq, handler: &(dyn Fn(App, Rq, Object) -> Answer + Send + Sync)) -> Result<Object> {
    let mut body: Object = rq.json_or_empty()?;
    if let Some(mut positions) = body.remove(POSITIONS)
        && let (Value::String(caller), streams) = (positions["instance_name"].take(), positions["streams"].take())
        && caller != *app.cx.instance
    {
        wait_for_positions(&app.store, &caller, &streams).await;
    }
    let mut answer = handler(app.clone(), rq, body).await?;
    answer.insert(POSITIONS.into(), Value::Object(own_positions(&app.store)));
    Ok(answer)
}

/// Answers by path; the transaction id is part of it.
#[derive(Default)]
struct Answers(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_path: HashMap<String, Arc<OnceCell<Reply>>>,
    order: VecDeque<(Instant, String)>,
}

impl Answers {
    fn of(&self, path: &str) -> Arc<OnceCell<Reply>> {
        let mut kept = self.0.lock().unwrap_or_else(|e| e.into_inner());
        while kept.order.len() >= MOST || kept.order.front().is_some_and(|(at, _)| at.elapsed() > KEEP) {
            if let Some((_, old)) = kept.order.pop_front() {
                kept.by_path.remove(&old);
            }
        }
        if let Some(cell) = kept.by_path.get(path) {
            return cell.clone();
        }
        let cell = Arc::new(OnceCell::new());
        kept.by_path.insert(path.to_owned(), cell.clone());
        kept.order.push_back((Instant::now(), path.to_owned()));
        cell
    }
}

/// A field of the body in its right type.
pub(crate) fn take<T: serde::de::DeserializeOwned>(body: &mut Object, field: &str) -> Result<T> {
    serde_json::from_value(body.remove(field).unwrap_or_default()).map_err(|e| Error::bad_json(format!("{field}: {e}")))
}

/// `{}`.
pub(crate) fn nothing() -> Result<Object> {
    Ok(Object::new())
}

/// An object of a serialisable value.
pub(crate) fn object<T: serde::Serialize>(value: &T) -> Result<Object> {
    match serde_json::to_value(value)? {
        Value::Object(o) => Ok(o),
        _ => Err(Error::internal("an answer is not an object")),
    }
}
