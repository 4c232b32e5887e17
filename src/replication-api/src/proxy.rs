//! Requests to other servers for processes that may not speak to them (`outbound_federation_restricted_to`).
//! The listener makes `/_synapse/replication/plexus_federation_proxy/SERVER/PATH` of their `matrix-federation://SERVER/PATH`.

use app::App;
use http::{FEDERATION_PROXY, Reply, Route, Rq, route};
use httpcrate::header::{self, HeaderMap, HeaderName};
use types::{Error, Result};

pub(crate) fn routes() -> Vec<Route<App>> {
    // Open: the secret comes in a header of its own, Authorization is for the other server.
    ["GET", "PUT", "POST", "DELETE"]
        .into_iter()
        .map(|m| {
            route(m, "FederationProxy", "/_synapse/replication/plexus_federation_proxy/{server}/{*path}").open(proxy)
        })
        .collect()
}

/// 401 without the secret, 502 if the server does not answer, else what it answers.
async fn proxy(app: App, rq: Rq) -> Result<Reply> {
    check(&app, &rq.headers)?;
    let server = rq.arg("server")?;
    ruma::ServerName::parse(server).map_err(|_| Error::invalid_param(format!("{server:?} is not a server name")))?;
    let path = rq.path.strip_prefix(FEDERATION_PROXY).and_then(|p| p.get(1..)).unwrap_or_default();
    let path = path.find('/').map_or("/", |slash| &path[slash..]);
    let query = if rq.raw_query.is_empty() { String::new() } else { format!("?{}", rq.raw_query) };
    let mut headers = HeaderMap::new();
    for name in [header::USER_AGENT, header::AUTHORIZATION, header::CONTENT_TYPE] {
        if let Some(value) = rq.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let answer = app.fed.relay(rq.method.clone(), server, &format!("{path}{query}"), headers, rq.body.clone()).await?;
    let (head, body) = answer.into_parts();
    Ok(Reply { status: head.status, headers: end_to_end(&head.headers), body })
}

fn check(app: &App, headers: &HeaderMap) -> Result<()> {
    let mut given = headers.get_all(header::PROXY_AUTHORIZATION).iter();
    let (first, second) = (given.next(), given.next());
    let Some(first) = first else {
        return Err(Error::client(401, "M_MISSING_TOKEN", "Missing Proxy-Authorization header"));
    };
    let secret = first.to_str().ok().and_then(|v| v.strip_prefix("Bearer "));
    if second.is_none() && secret.is_some_and(|s| app.is_replication_secret(s)) {
        return Ok(());
    }
    Err(Error::client(401, "M_UNAUTHORIZED", "Invalid Proxy-Authorization header"))
}

/// Headers but those that are about the connection they came by (RFC 9110, section 7.6.1), and the length, which our
/// own answer gets from its body.
fn end_to_end(headers: &HeaderMap) -> Vec<(HeaderName, httpcrate::HeaderValue)> {
    const HOP_BY_HOP: [&str; 11] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    ];
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let named: Vec<String> = named.map(|name| name.trim().to_ascii_lowercase()).collect();
    let kept =
        headers.iter().filter(|(n, _)| !HOP_BY_HOP.contains(&n.as_str()) && !named.iter().any(|x| x == n.as_str()));
    kept.map(|(n, v)| (n.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_a_connection_stay_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "2"),
            ("content-type", "application/json"),
            ("retry-after", "5"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().expect("header"));
        }
        let mut kept: Vec<String> = end_to_end(&headers).into_iter().map(|(n, _)| n.to_string()).collect();
        kept.sort();
        assert_eq!(kept, ["content-type", "retry-after"]);
    }
}
