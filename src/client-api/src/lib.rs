//! The Client-Server API: one file a chapter of the spec, each with its handlers and its route lines.

mod paging;
mod rooms_events;
mod rooms_state;

use app::App;
use http::Route;

/// Every client route.
pub fn routes() -> Vec<Route<App>> {
    let chapters: Vec<Vec<Route<App>>> = vec![
        rooms_events::routes(),
        rooms_state::routes(),
    ];
    chapters.into_iter().flatten().collect()
}
