//! What other servers ask of this one. One file a chapter of the Server-Server API.

mod keys;

use app::App;
use http::Route;

/// Every route of other servers.
pub fn routes() -> Vec<Route<App>> {
    let chapters = [keys::routes()];
    chapters.into_iter().flatten().collect()
}
