//! HTTP replication: what other processes of the cluster, Synapse's included, ask of this one.
//!
//! One file a noun; [`endpoint`] holds what all endpoints have in common.

mod account_data;
mod devices;
mod edus;
mod endpoint;
mod presence;
mod profiles;
mod proxy;
mod pushers;
mod rooms;
mod sessions;
mod streams;

use app::App;
use http::Route;

/// Every replication route.
pub fn routes() -> Vec<Route<App>> {
    let nouns = [
        account_data::routes(),
        devices::routes(),
        edus::routes(),
        presence::routes(),
        profiles::routes(),
        proxy::routes(),
        pushers::routes(),
        rooms::routes(),
        sessions::routes(),
        streams::routes(),
    ];
    nouns.into_iter().flatten().collect()
}
