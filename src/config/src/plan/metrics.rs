//! What Prometheus needs to collect the metrics of every process.

use std::fmt::Write as _;

use serde_json::json;

use super::{Place, Plan, Process};

/// Where a process' metrics are, below its replication listener.
const PATH: &str = "/_synapse/metrics";

/// Targets in the form of Prometheus' `file_sd_configs`. A process on a unix socket is reached through nginx, if that
/// has a port for it.
pub fn targets(plan: &Plan) -> String {
    let target = |process: &Process| {
        let place = &process.replication;
        let (address, path) = match (place, plan.file.nginx.metrics_port) {
            (Place::Tcp(at), _) => (at.to_string(), PATH.to_owned()),
            (Place::Socket(_), Some(port)) => (format!("127.0.0.1:{port}"), format!("/{}", process.name)),
            (Place::Socket(_), None) => return None,
        };
        let role = process.role.map_or("main", |role| role.name());
        let labels =
            json!({"__scheme__": plan.scheme(place), "__metrics_path__": path, "instance": process.name, "role": role});
        Some(json!({"targets": [address], "labels": labels}))
    };
    let targets: Vec<_> = plan.processes.iter().filter_map(target).collect();
    format!("{:#}\n", serde_json::Value::from(targets))
}

/// A server of nginx, for this host only, that hands out the metrics of the processes on unix sockets.
pub fn nginx_server(plan: &Plan) -> String {
    let Some(port) = plan.file.nginx.metrics_port else { return String::new() };
    let mut text = format!("server {{\n    listen 127.0.0.1:{port};\n    access_log off;\n");
    for process in plan.here() {
        if let Place::Socket(path) = &process.replication {
            let _ = writeln!(
                text,
                "    location = /{} {{ proxy_pass http://unix:{}:{PATH}; }}",
                process.name,
                path.display()
            );
        }
    }
    text + "}\n"
}
