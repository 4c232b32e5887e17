//! The Client-Server API: one file a chapter of the spec, each with its handlers and its route lines.

mod dehydrated;
mod devices;
mod keys;
mod paging;
pub mod proof;
mod room_keys;
mod rooms_events;
mod rooms_state;
mod send_to_device;
mod notifications;
mod presence;
mod receipts;
mod sync;
mod typing;

use app::App;
use http::Route;

/// Every client route.
pub fn routes() -> Vec<Route<App>> {
    let chapters: Vec<Vec<Route<App>>> = vec![
        notifications::routes(),
        presence::routes(),
        receipts::routes(),
        sync::routes(),
        typing::routes(),
        dehydrated::routes(),
        devices::routes(),
        keys::routes(),
        room_keys::routes(),
        rooms_events::routes(),
        send_to_device::routes(),
        rooms_state::routes(),
    ];
    chapters.into_iter().flatten().collect()
}
