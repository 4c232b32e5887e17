//! `listeners` and `worker_listeners`: what a process listens on and what it serves there.

use std::path::PathBuf;

use crate::read::Section;
use crate::yaml::{Node, Value};

/// One entry of `listeners` / `worker_listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Address to listen on.
    pub bind: Bind,
    /// What is spoken there.
    pub kind: ListenerKind,
    /// Take the client's address and scheme from `X-Forwarded-For` / `X-Forwarded-Proto`.
    pub x_forwarded: bool,
    /// Name for logs and metrics; the port (or `unix`) if unset.
    pub tag: Option<String>,
    /// Header whose value becomes the request id in logs.
    pub request_id_header: Option<String>,
    /// Groups of resources (empty for kinds other than `Http`).
    pub resources: Vec<ResourceGroup>,
}

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// TCP; one socket an address.
    Tcp {
        /// Port; 0 lets the system choose (tests).
        port: u16,
        /// Addresses; with `::` and `0.0.0.0` both listed, failing to bind the latter is no error.
        addresses: Vec<String>,
        /// Serve TLS with `tls_certificate_path`.
        tls: bool,
    },
    /// A unix socket.
    Unix {
        /// Path of the socket.
        path: PathBuf,
        /// Permissions (octal 666 by default).
        mode: u32,
    },
}

/// `type` of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// HTTP with resources.
    Http,
    /// Prometheus metrics on every path.
    Metrics,
}

/// A list of resources that share the `compress` setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceGroup {
    /// The resources.
    pub names: Vec<Resource>,
    /// Compress responses with gzip.
    pub compress: bool,
}

/// A resource of an HTTP listener. `client` and `federation` bring others with them: see [`Listener::serves`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Client-server API, admin API, `.well-known`.
    Client,
    /// Consent pages.
    Consent,
    /// Server-server API.
    Federation,
    /// `/health` (on every HTTP listener anyway).
    Health,
    /// `/_matrix/key`.
    Keys,
    /// Media repository.
    Media,
    /// `/_synapse/metrics`.
    Metrics,
    /// OpenID user info for other servers' widgets.
    Openid,
    /// Requests of other processes of this cluster.
    Replication,
    /// `/_matrix/static`.
    Static,
}

impl Resource {
    /// Every resource with its name in the file.
    pub const ALL: [(&'static str, Resource); 10] = [
        ("client", Resource::Client),
        ("consent", Resource::Consent),
        ("federation", Resource::Federation),
        ("health", Resource::Health),
        ("keys", Resource::Keys),
        ("media", Resource::Media),
        ("metrics", Resource::Metrics),
        ("openid", Resource::Openid),
        ("replication", Resource::Replication),
        ("static", Resource::Static),
    ];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, r)| *r == self).map_or("", |(name, _)| name)
    }
}

impl Listener {
    /// All resources of this listener.
    pub fn resources(&self) -> Vec<Resource> {
        let mut all: Vec<Resource> = self.resources.iter().flat_map(|g| g.names.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether a request of this resource is answered here. As in Synapse, `client` brings the static pages with it,
    /// `federation` keys and OpenID user info, both of them media, and health is everywhere.
    pub fn serves(&self, resource: Resource) -> bool {
        let has = |r| self.resources.iter().any(|g| g.names.contains(&r));
        if self.kind == ListenerKind::Metrics {
            return resource == Resource::Metrics;
        }
        has(resource)
            || match resource {
                Resource::Health => true,
                Resource::Static => has(Resource::Client),
                Resource::Keys | Resource::Openid => has(Resource::Federation),
                Resource::Media => has(Resource::Client) || has(Resource::Federation),
                _ => false,
            }
    }

    /// Whether responses of this resource may be compressed.
    pub fn compresses(&self, resource: Resource) -> bool {
        self.resources.iter().any(|g| g.compress && g.names.contains(&resource))
    }

    /// The tag, the port or `unix`, as Synapse labels requests.
    pub fn site_tag(&self) -> String {
        match (&self.tag, &self.bind) {
            (Some(tag), _) => tag.clone(),
            (None, Bind::Tcp { port, .. }) => port.to_string(),
            (None, Bind::Unix { .. }) => "unix".into(),
        }
    }
}

const PRIVATE_KINDS: &[(&str, Option<ListenerKind>)] =
    &[("http", Some(ListenerKind::Http)), ("metrics", Some(ListenerKind::Metrics)), ("manhole", None)];

/// Reads the listeners of this process: `listeners` on main, `worker_listeners` on a worker.
pub(crate) fn read(root: &Section<'_>, is_worker: bool) -> Vec<Listener> {
    let key = if is_worker { "worker_listeners" } else { "listeners" };
    let mut listeners: Vec<Listener> = root.maps(key).iter().filter_map(read_one).collect();
    for old in ["manhole", "worker_manhole"] {
        if root.some(old).is_some() {
            root.warn(old, "there is no manhole; ignored");
        }
    }
    if is_worker {
        return listeners;
    }
    if root.flag("no_tls", false) {
        listeners.retain(|l| !matches!(l.bind, Bind::Tcp { tls: true, .. }));
    }
    if let Some(port) = root.port("bind_port").filter(|p| *p != 0) {
        listeners = bind_port(root, port);
    }
    if let Some(port) = root.port("metrics_port").filter(|p| *p != 0) {
        root.warn("metrics_port", "outdated; use a listener of type metrics");
        let address = root.string_or("metrics_bind_host", "127.0.0.1");
        listeners.push(http(
            port,
            address,
            false,
            vec![ResourceGroup { names: vec![Resource::Metrics], compress: false }],
        ));
    }
    listeners
}

/// The oldest form: one TLS port and, 400 below it, one without.
fn bind_port(root: &Section<'_>, port: u16) -> Vec<Listener> {
    if root.flag("no_tls", false) {
        root.error("bind_port", "bind_port and no_tls are both set; allowed: one of them, better a list of listeners");
    }
    let host = root.string_or("bind_host", "");
    let groups = vec![
        ResourceGroup { names: vec![Resource::Client], compress: root.flag("gzip_responses", true) },
        ResourceGroup { names: vec![Resource::Federation], compress: false },
    ];
    let mut listeners = vec![http(port, host.clone(), true, groups.clone())];
    let plain = root.port("unsecure_port").unwrap_or(port.saturating_sub(400));
    if plain != 0 {
        listeners.push(http(plain, host, false, groups));
    }
    listeners
}

fn http(port: u16, address: String, tls: bool, resources: Vec<ResourceGroup>) -> Listener {
    let addresses = if address.is_empty() { default_addresses() } else { vec![address] };
    Listener {
        bind: Bind::Tcp { port, addresses, tls },
        kind: ListenerKind::Http,
        x_forwarded: false,
        tag: None,
        request_id_header: None,
        resources,
    }
}

fn default_addresses() -> Vec<String> {
    vec!["::".into(), "0.0.0.0".into()]
}

fn read_one(section: &Section<'_>) -> Option<Listener> {
    if let Some(Node { value: Value::Str(s), .. }) = section.some("type")
        && s == "replication"
    {
        section.error(
            "type",
            "direct TCP replication is gone; use redis and a resource named replication on an http listener",
        );
        return None;
    }
    if !section.has("type") {
        section.error("type", "missing; allowed: http, metrics, manhole");
    }
    let kind = section.word("type", PRIVATE_KINDS)?;
    let bind = read_bind(section, kind)?;
    let Some(kind) = kind else {
        section.warn("type", "there is no manhole; this listener is ignored");
        return None;
    };
    let is_unix = matches!(bind, Bind::Unix { .. });
    if !section.child("additional_resources").map.is_empty() {
        section.warn("additional_resources", "Python modules can't be run; ignored");
    }
    Some(Listener {
        bind,
        kind,
        // A unix socket is always behind a proxy, which alone knows the client's address.
        x_forwarded: section.flag("x_forwarded", is_unix),
        tag: section.string("tag"),
        request_id_header: section.string("request_id_header"),
        resources: if kind == ListenerKind::Http {
            section.maps("resources").iter().map(read_group).collect()
        } else {
            Vec::new()
        },
    })
}

fn read_bind(section: &Section<'_>, kind: Option<ListenerKind>) -> Option<Bind> {
    let path = section.file("path");
    let port = section.port("port");
    match (port, path) {
        (Some(p), Some(_)) if p != 0 => {
            section.error("path", "port and path are both set; allowed: one of them");
            None
        }
        (_, Some(path)) => {
            if section.flag("tls", false) {
                section.error("tls", "a unix socket can't speak TLS; allowed: false");
            }
            Some(Bind::Unix { path, mode: read_mode(section) })
        }
        (Some(port), None) => {
            let mut addresses = section.strings("bind_addresses");
            addresses.extend(section.nonempty("bind_address"));
            if addresses.is_empty() {
                // The metrics listener of Synapse is IPv4 only.
                addresses =
                    if kind == Some(ListenerKind::Metrics) { vec!["0.0.0.0".into()] } else { default_addresses() };
            }
            Some(Bind::Tcp { port, addresses, tls: section.flag("tls", false) })
        }
        (None, None) => {
            if section.some("port").is_none() && section.some("path").is_none() {
                section.error("", "neither port nor path is set; allowed: one of them");
            }
            None
        }
    }
}

/// A number (`0660` is octal in YAML 1.1) or text such as `0o660`.
fn read_mode(section: &Section<'_>) -> u32 {
    if let Some(Node { value: Value::Str(text), .. }) = section.some("mode") {
        let digits = text.trim_start_matches("0o");
        if let Some(mode) = u32::from_str_radix(digits, 8).ok().filter(|m| *m <= 0o7777) {
            return mode;
        }
    }
    section.int("mode", 0, 0o7777).map_or(0o666, |m| m as u32)
}

fn read_group(section: &Section<'_>) -> ResourceGroup {
    let mut names = Vec::new();
    // `names: client` for one resource is a common slip that Synapse happens to refuse letter by letter.
    for name in section.strings("names") {
        match Resource::ALL.iter().find(|(n, _)| *n == name) {
            Some((_, resource)) => names.push(*resource),
            None if name == "webclient" => section.warn("names", "webclient is gone; ignored"),
            None => {
                let allowed: Vec<&str> = Resource::ALL.iter().map(|(n, _)| *n).collect();
                section.error("names", format!("found {name:?}; allowed: {}", allowed.join(", ")));
            }
        }
    }
    ResourceGroup { names, compress: section.flag("compress", false) }
}
