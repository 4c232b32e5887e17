//! The Client-Server API: one file a chapter of the spec, each with its handlers and its route lines.

mod account;
mod account_data;
mod admin_register;
mod admin_registration_tokens;
mod admin_users;
mod aliases;
mod auth;
mod capabilities;
mod dehydrated;
mod devices;
mod directory;
mod events;
mod filter;
mod keys;
mod login;
mod membership;
mod notifications;
mod openid;
mod pages;
mod paging;
mod presence;
mod profile;
pub mod proof;
mod push_rules;
mod pushers;
mod receipts;
mod register;
mod reports;
mod room_keys;
mod rooms_create;
mod rooms_events;
mod rooms_send;
mod rooms_state;
mod search;
mod send_to_device;
mod spaces;
mod sso;
mod sync;
mod tags;
mod threepids;
mod typing;
mod upgrade;
mod user_directory;
mod voip;
mod well_known;

use app::App;
use http::Route;

/// Every client route.
pub fn routes() -> Vec<Route<App>> {
    let chapters: Vec<Vec<Route<App>>> = vec![
        account::routes(),
        account_data::routes(),
        admin_register::routes(),
        admin_registration_tokens::routes(),
        admin_users::routes(),
        aliases::routes(),
        auth::routes(),
        capabilities::routes(),
        dehydrated::routes(),
        devices::routes(),
        directory::routes(),
        events::routes(),
        filter::routes(),
        keys::routes(),
        login::routes(),
        membership::routes(),
        notifications::routes(),
        openid::routes(),
        presence::routes(),
        profile::routes(),
        push_rules::routes(),
        pushers::routes(),
        receipts::routes(),
        register::routes(),
        reports::routes(),
        room_keys::routes(),
        rooms_create::routes(),
        rooms_events::routes(),
        rooms_send::routes(),
        rooms_state::routes(),
        search::routes(),
        send_to_device::routes(),
        spaces::routes(),
        sso::routes(),
        sync::routes(),
        tags::routes(),
        threepids::routes(),
        typing::routes(),
        upgrade::routes(),
        user_directory::routes(),
        voip::routes(),
        well_known::routes(),
    ];
    chapters.into_iter().flatten().collect()
}
