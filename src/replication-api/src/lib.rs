//! HTTP replication: what other processes of the cluster ask of this one.

use app::App;
use http::Route;

/// Every replication route.
pub fn routes() -> Vec<Route<App>> {
    let nouns: Vec<Vec<Route<App>>> = vec![];
    nouns.into_iter().flatten().collect()
}
