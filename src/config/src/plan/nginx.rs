//! nginx configuration of a plan. It only chooses the process that answers fastest: any process answers any
//! request, handing it on where it must.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Place, Plan, Process, Role};

/// What a route asks of the proxy; as `http::On`, without the program behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Any process.
    Any,
    /// The same process for a user.
    SyncByUser,
    /// Heavy, kept apart from other syncs.
    InitialSync,
    /// The same process for a room is best.
    RoomRead,
    /// A process that writes events.
    RoomShard,
    /// The writer of a stream (a key of `stream_writers`).
    Writer(String),
    /// The same process for a server.
    Federation,
    /// A process with the media repository.
    Media,
    /// The main process.
    Main,
}

/// A route as the proxy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRow {
    /// GET, PUT, …
    pub method: String,
    /// Pattern: `(a|b)` are alternatives, `{name}` is a part, `{*name}` the rest.
    pub path: String,
    /// Where it belongs.
    pub class: Class,
}

/// A pattern as the inside of a PCRE.
pub fn regex_of(pattern: &str) -> String {
    let mut regex = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '{' => {
                let name: String = chars.by_ref().take_while(|c| *c != '}').collect();
                regex.push_str(if name.starts_with('*') { ".+" } else { "[^/]+" });
            }
            '(' => regex.push_str("(?:"),
            ')' | '|' => regex.push(c),
            '.' | '+' | '*' | '?' | '^' | '$' | '[' | ']' | '\\' => {
                regex.push('\\');
                regex.push(c);
            }
            _ => regex.push(c),
        }
    }
    regex
}

/// Sorts patterns so that the first one that matches is the one the program would choose: at each place in the path
/// fixed text goes before a part, a part before the rest.
fn precedence(pattern: &str) -> Vec<u8> {
    let rank = |segment: &str| match segment {
        s if s.starts_with("{*") => 2,
        s if s.starts_with('{') => 1,
        _ => 0,
    };
    pattern.split('/').map(rank).collect()
}

/// A group of processes that share a kind of request.
struct Pool<'a> {
    name: String,
    /// Variable to spread by; `None`: to the process with the fewest requests.
    by: Option<&'static str>,
    members: Vec<&'a Process>,
}

fn members<'a>(plan: &'a Plan, roles: &[Role]) -> Vec<&'a Process> {
    let found = roles.iter().map(|role| plan.of_role(*role).collect::<Vec<_>>()).find(|found| !found.is_empty());
    found.unwrap_or_else(|| plan.processes.iter().take(1).collect())
}

/// The pool of a class: the first role that the plan has, or else main.
fn pool<'a>(plan: &'a Plan, class: &Class) -> Pool<'a> {
    let make = |name: &str, by, roles: &[Role]| Pool { name: name.to_owned(), by, members: members(plan, roles) };
    match class {
        Class::Any => make("client", None, &[Role::Client]),
        Class::SyncByUser => make("sync", Some("$plexus_user"), &[Role::Sync, Role::Client]),
        Class::InitialSync => make("initial_sync", None, &[Role::Sync, Role::Client]),
        Class::RoomRead => make("room_read", Some("$plexus_room"), &[Role::Client, Role::Events]),
        Class::RoomShard => make("room_write", Some("$plexus_room"), &[Role::Events]),
        Class::Federation => make("federation", Some("$remote_addr"), &[Role::Federation]),
        Class::Media => make("media", None, &[Role::Media]),
        Class::Main => make("main", None, &[]),
        Class::Writer(stream) if stream == "events" => pool(plan, &Class::RoomShard),
        Class::Writer(stream) => {
            let all = members(plan, &[Role::Streams]);
            let members = match super::homeserver::writer_index(stream, all.len()) {
                Some(index) => all.into_iter().skip(index).take(1).collect(),
                None => all,
            };
            Pool { name: format!("write_{stream}"), by: None, members }
        }
    }
}

fn server(process: &Process) -> String {
    match &process.http {
        Place::Tcp(at) => at.to_string(),
        Place::Socket(path) => format!("unix:{}", path.display()),
    }
}

fn upstream(plan: &Plan, pool: &Pool<'_>) -> String {
    let mut block = format!("upstream plexus_{} {{\n", pool.name);
    match pool.by {
        // nginx knows no spare server beside hash; with one member there is nothing to spread.
        Some(variable) if pool.members.len() > 1 => {
            let _ = writeln!(block, "    hash {variable} consistent;");
        }
        _ if pool.members.len() > 1 => block.push_str("    least_conn;\n"),
        _ => {}
    }
    // A process of this host is back in a second. A host that is gone would cost every request the wait for it.
    let fails = if plan.here.is_some() { "max_fails=1 fail_timeout=5s" } else { "max_fails=0" };
    for process in &pool.members {
        let _ = writeln!(block, "    server {} {fails}; # {}", server(process), process.name);
    }
    if let (Some(main), [only]) = (plan.processes.first(), &pool.members[..])
        && only.name != main.name
    {
        let _ = writeln!(block, "    server {} backup; # {}", server(main), main.name);
    }
    block + "    keepalive 64;\n}\n"
}

/// What belongs inside `http { }`: upstreams, maps and the server.
pub fn http_block(plan: &Plan, routes: &[RouteRow]) -> String {
    let mut text =
        String::from("# Rendered from cluster.toml by `plexus cluster render`. Include it inside http { }.\n\n");
    let mut classes: BTreeSet<&Class> = routes.iter().map(|r| &r.class).collect();
    classes.extend([&Class::Main, &Class::InitialSync]);
    let mut seen = BTreeSet::new();
    for class in &classes {
        let pool = pool(plan, class);
        if seen.insert(pool.name.clone()) {
            text += &upstream(plan, &pool);
        }
    }
    text += MAPS;
    text += "# The first line that matches decides; what none matches is main's.\nmap \"$request_method $plexus_path\" $plexus_pool {\n    default plexus_main;\n";
    let mut routes: Vec<&RouteRow> = routes.iter().collect();
    routes.sort_by_key(|route| precedence(&route.path));
    for route in routes {
        let name = pool(plan, &route.class).name;
        let _ = writeln!(text, "    \"~^{} {}$\" plexus_{name};", route.method, regex_of(&route.path));
    }
    text += "}\n";
    text += "# A first /sync has no since and takes long.\nmap \"$plexus_pool $arg_since\" $plexus_upstream {\n    default $plexus_pool;\n    \"plexus_sync \" plexus_initial_sync;\n}\n";
    text + &server_block(plan) + &super::metrics::nginx_server(plan)
}

/// `$plexus_path`: the path as sent. `$plexus_user`: the user a token names, or the token. `$plexus_room`: the room.
const MAPS: &str = r#"
map $request_uri $plexus_path {
    "~^(?<plexus_p>[^?]*)" $plexus_p;
}
map "$http_authorization $arg_access_token" $plexus_user {
    default $http_authorization$arg_access_token;
    "~syt_(?<plexus_u>[^_ ]+)_" $plexus_u;
}
map $plexus_path $plexus_room {
    default $plexus_path;
    "~/(?:rooms|join|knock|room_summary|directory/list/room)/(?<plexus_r>[^/]+)" $plexus_r;
}
"#;

fn server_block(plan: &Plan) -> String {
    let (tls, certificate) = match (&plan.file.nginx.tls_certificate, &plan.file.nginx.tls_key) {
        (Some(certificate), Some(key)) => (
            " ssl",
            format!("    ssl_certificate {};\n    ssl_certificate_key {};\n", certificate.display(), key.display()),
        ),
        _ => ("", String::new()),
    };
    format!(
        "server {{
    listen {address}:{port}{tls};
{certificate}    server_name _;
    location / {{
{location}    }}
}}
",
        address = plan.file.bind_address,
        port = plan.file.base_port,
        location = location(plan).lines().map(|line| format!("        {line}\n")).collect::<String>(),
    )
}

/// What belongs inside a location: to whom requests go, and how. For servers that aren't rendered, too.
pub fn location(plan: &Plan) -> String {
    let (scheme, tls) = match plan.tls() {
        Some(tls) => (
            "https",
            format!(
                "proxy_ssl_trusted_certificate {};\nproxy_ssl_name {};\nproxy_ssl_verify on;\nproxy_ssl_verify_depth 3;\n",
                tls.ca.display(),
                tls.name
            ),
        ),
        None => ("http", String::new()),
    };
    format!(
        "client_max_body_size {upload};
proxy_pass {scheme}://$plexus_upstream;
{tls}proxy_http_version 1.1;
proxy_set_header Connection \"\";
proxy_set_header Host $http_host;
proxy_set_header X-Forwarded-For $remote_addr;
proxy_set_header X-Forwarded-Proto $scheme;
# Syncs wait as long as their client says.
proxy_read_timeout 3600s;
proxy_connect_timeout 2s;
proxy_buffering on;
proxy_next_upstream error timeout;
",
        upload = match plan.file.settings.get("max_upload_size") {
            Some(toml::Value::String(size)) => size.clone(),
            Some(toml::Value::Integer(bytes)) => bytes.to_string(),
            _ => "50M".into(),
        },
    )
}

/// A configuration for an nginx of the cluster's own, which writes below the data folder only.
pub fn standalone(plan: &Plan) -> String {
    let dir = plan.data_dir.join("nginx");
    let dir = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("    {kind}_temp_path {dir}/{kind};\n"))
        .collect();
    format!(
        "# Rendered from cluster.toml by `plexus cluster render`: an nginx of the cluster's own.
worker_processes auto;
pcre_jit on;
pid {run}/nginx.pid;
error_log {logs}/nginx.log warn;
events {{
    worker_connections 8192;
}}
http {{
    access_log off;
    server_tokens off;
    default_type application/octet-stream;
{temporary}    include {config}/nginx/plexus.conf;
}}
",
        run = plan.run_dir().display(),
        logs = plan.log_dir().display(),
        config = plan.config_dir.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::regex_of;

    #[test]
    fn patterns_become_expressions() {
        assert_eq!(
            regex_of("/_matrix/client/(r0|v3)/rooms/{room_id}/state(|/)"),
            "/_matrix/client/(?:r0|v3)/rooms/[^/]+/state(?:|/)"
        );
        assert_eq!(regex_of("/.well-known/{*rest}"), r"/\.well-known/.+");
    }
}
