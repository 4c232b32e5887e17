//! The route table as proxies see it.

use app::App;
use config::plan::{Class, RouteRow};
use http::{On, Route};

use crate::process;

/// All but what no proxy of clients and servers passes on.
pub fn rows() -> Vec<RouteRow> {
    let public = |r: &&Route<App>| {
        !matches!(r.resource, http::Resource::Replication | http::Resource::Metrics | http::Resource::Health)
    };
    process::routes()
        .iter()
        .filter(public)
        .map(|r| RouteRow { method: r.method.to_string(), path: r.path.to_owned(), class: class(r.on) })
        .collect()
}

fn class(on: On) -> Class {
    match on {
        On::Any => Class::Any,
        On::SyncByUser => Class::SyncByUser,
        On::InitialSync => Class::InitialSync,
        On::RoomRead => Class::RoomRead,
        On::RoomShard => Class::RoomShard,
        On::Writer(stream) => Class::Writer(stream.to_owned()),
        On::FederationIn => Class::Federation,
        On::Media => Class::Media,
        On::Main => Class::Main,
    }
}
