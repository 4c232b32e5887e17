//! What other servers ask of this one. One file a chapter of the Server-Server API.

mod events;
mod keys;
mod membership;
mod queries;
mod send;
mod threepids;

use app::App;
use http::Route;

/// Every route of other servers.
pub fn routes() -> Vec<Route<App>> {
    let chapters = [
        events::routes(),
        keys::routes(),
        membership::routes(),
        queries::routes(),
        send::routes(),
        threepids::routes(),
    ];
    chapters.into_iter().flatten().collect()
}
