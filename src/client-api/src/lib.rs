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
mod account;
mod admin_register;
mod login;
mod paging;
pub mod proof;
mod register;
mod rooms_events;
mod rooms_state;
mod well_known;

use app::App;
use http::Route;

/// Every client route.
pub fn routes() -> Vec<Route<App>> {
    let chapters: Vec<Vec<Route<App>>> = vec![
        dehydrated::routes(),
        devices::routes(),
        keys::routes(),
        room_keys::routes(),
        account::routes(),
        admin_register::routes(),
        login::routes(),
        register::routes(),
        well_known::routes(),
        rooms_events::routes(),
        send_to_device::routes(),
        rooms_state::routes(),
    ];
    chapters.into_iter().flatten().collect()
}
