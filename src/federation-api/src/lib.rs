//! What other servers ask of this one. One file a chapter of the Server-Server API.

mod events;
mod keys;
mod membership;
mod queries;
mod send;
mod threepids;

use app::App;
use http::{Access, Rate, Route};

/// Every route of other servers.
pub fn routes() -> Vec<Route<App>> {
    let chapters = [events::routes(), keys::routes(), membership::routes(), queries::routes(), threepids::routes()];
    let limited = |route: Route<App>| match route.access {
        Access::Server => Route { rate: Rate::Server, ..route },
        _ => route,
    };
    // Not transactions, which servers bring one after the other.
    chapters.into_iter().flatten().map(limited).chain(send::routes()).collect()
}
