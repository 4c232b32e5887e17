//! What every process answers about itself.

use crate::App;
use bytes::Bytes;
use http::{Reply, Route, Rq, metrics, route};
use httpcrate::StatusCode;
use replication::Phase;
use types::Result;

pub(crate) fn routes() -> Vec<Route<App>> {
    vec![
        route("GET", "HealthResource", "/health").open(health),
        route("GET", "MetricsResource", "/_synapse/metrics").open(exposition),
        route("GET", "PlexusHello", replication::peers::HELLO).replication(hello),
    ]
}

/// Up and listening; 503 once the process has been asked to stop, so that proxies go elsewhere in time.
async fn health(app: App, _: Rq) -> Result<Reply> {
    let (status, text) = match app.cx.life.phase() {
        Phase::Serving => (StatusCode::OK, "OK"),
        Phase::Draining | Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    Ok(Reply::bytes(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes())))
}

/// Tells a peer that this is Plexus, and which.
async fn hello(app: App, _: Rq) -> Result<serde_json::Value> {
    Ok(serde_json::json!({"instance": &*app.cx.instance, "version": env!("CARGO_PKG_VERSION")}))
}

/// Prometheus text format; stream positions and cache figures are read at this moment.
async fn exposition(app: App, _: Rq) -> Result<Reply> {
    let mut text = metrics::render();
    text.push_str(&figures(&app));
    Ok(Reply::bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.into()))
}

fn figures(app: &App) -> String {
    use std::fmt::Write;
    let mut out = String::from("# TYPE synapse_replication_tcp_resource_stream_position gauge\n");
    // Writing into a String cannot fail.
    for stream in store::Stream::ALL {
        let name = stream.name();
        let _ = writeln!(
            out,
            "synapse_replication_tcp_resource_stream_position{{stream=\"{name}\"}} {}",
            app.store.streams.current(stream)
        );
    }
    out.push_str("# TYPE synapse_util_caches_cache_size gauge\n");
    for (name, size, hits, misses) in app.store.registry.figures() {
        let _ = writeln!(out, "synapse_util_caches_cache_size{{name=\"{name}\"}} {size}");
        let _ = writeln!(out, "synapse_util_caches_cache_hits{{name=\"{name}\"}} {hits}");
        let _ = writeln!(out, "synapse_util_caches_cache{{name=\"{name}\"}} {}", hits + misses);
    }
    out
}
