//! What this server can do: `/versions`, `/capabilities`.

use app::App;
use config::registration::Preset;
use http::{Reply, Route, Rq, route};
use httpcrate::HeaderValue;
use httpcrate::header::{CACHE_CONTROL, VARY};
use serde_json::{Map, Value, json};
use types::room_version::SUPPORTED;
use types::{Requester, Result};

/// Routes of this chapter.
pub fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "VersionsRestServlet", "/_matrix/client/versions").open(versions),
        route("GET", "CapabilitiesRestServlet", "/_matrix/client/(r0|v3|unstable)/capabilities").guest(capabilities),
    ]
}

/// Versions of the specification, oldest first.
const VERSIONS: [&str; 23] = [
    "r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4",
    "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12", "v1.13", "v1.14", "v1.15",
];

/// Features that are on whatever is configured.
const ON: [&str; 12] = [
    "org.matrix.e2e_cross_signing",
    "org.matrix.label_based_filtering",
    "org.matrix.msc2432",
    "org.matrix.msc2285.stable",
    "org.matrix.msc3827.stable",
    "org.matrix.msc3440.stable",
    "org.matrix.msc3771",
    "org.matrix.msc3981",
    "uk.half-shot.msc2666.query_mutual_rooms.stable",
    "uk.tcpip.msc4133.stable",
    "org.matrix.msc4380.stable",
    "org.matrix.msc4445.initial_sync_timeline_topological_ordering",
];

/// Features that Synapse has behind a switch (or builds in) and this server has not: told as absent.
const OFF: [&str; 25] = [
    "com.beeper.msc4169",
    "com.beeper.msc4446",
    "fi.mau.msc2659.stable",
    "fi.mau.msc2815",
    "io.element.msc4502",
    "org.matrix.msc3026.busy_presence",
    "org.matrix.msc3391",
    "org.matrix.msc3773",
    "org.matrix.msc3874",
    "org.matrix.msc3881",
    "org.matrix.msc3882",
    "org.matrix.msc3912",
    "org.matrix.msc4028",
    "org.matrix.msc4069",
    "org.matrix.msc4108",
    "org.matrix.msc4140",
    "org.matrix.msc4143",
    "org.matrix.msc4155",
    "org.matrix.msc4262",
    "org.matrix.msc4306",
    "org.matrix.msc4354",
    "org.matrix.msc4429",
    "org.matrix.simplified_msc3575",
    "uk.tcpip.msc4133",
    "uk.timedout.msc4491.create_room_invite_reasons",
];

async fn versions(app: App, rq: Rq) -> Result<Reply> {
    let on = ON.iter().map(|f| ((*f).to_owned(), Value::Bool(true)));
    let off = OFF.iter().map(|f| ((*f).to_owned(), Value::Bool(false)));
    let mut features: Map<String, Value> = on.chain(off).collect();
    let forced = &app.cx.config.rooms.encrypted_presets;
    for (name, preset) in [
        ("public", Preset::PublicChat),
        ("private", Preset::PrivateChat),
        ("trusted_private", Preset::TrustedPrivateChat),
    ] {
        features.insert(format!("io.element.e2ee_forced.{name}"), forced.contains(&preset).into());
    }
    let mut reply = Reply::json(&json!({"versions": VERSIONS, "unstable_features": features}))?;
    if rq.access_token().is_none() {
        // Depends on configuration alone.
        let cached = "public, max-age=600, s-maxage=3600, stale-while-revalidate=600";
        reply.headers.push((CACHE_CONTROL, HeaderValue::from_static(cached)));
    }
    reply.headers.push((VARY, HeaderValue::from_static("Authorization")));
    Ok(reply)
}

async fn capabilities(app: App, _who: Requester, _rq: Rq) -> Result<Value> {
    let config = &app.cx.config;
    let stable: Map<String, Value> = SUPPORTED.iter().map(|v| (v.to_string(), json!("stable"))).collect();
    let registration = &config.registration;
    let mut profile = json!({"enabled": true});
    let refused: Vec<&str> =
        [("displayname", registration.enable_set_displayname), ("avatar_url", registration.enable_set_avatar_url)]
            .into_iter()
            .filter(|(_, allowed)| !allowed)
            .map(|(field, _)| field)
            .collect();
    if !refused.is_empty() {
        profile["disallowed"] = json!(refused);
    }
    let can_change_password = config.auth.localdb_enabled && config.auth.password_login;
    Ok(json!({"capabilities": {
        "m.room_versions": {"default": config.rooms.default_version, "available": stable},
        "m.change_password": {"enabled": can_change_password},
        "m.set_displayname": {"enabled": registration.enable_set_displayname},
        "m.set_avatar_url": {"enabled": registration.enable_set_avatar_url},
        "m.3pid_changes": {"enabled": registration.enable_3pid_changes},
        "m.get_login_token": {"enabled": config.auth.login_via_existing_session.is_some()},
        "m.profile_fields": profile,
        "org.matrix.msc4140.delayed_events": {
            "max_delay_ms": 0,
            "max_scheduled": config.server.max_delayed_events_per_user,
        },
    }}))
}
