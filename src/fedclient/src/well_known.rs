//! Delegation: `https://SERVER/.well-known/matrix/server`.

use config::Config;
use httpcrate::{HeaderMap, Method, Uri, header};
use outgoing::{Call, Outgoing, Trust};
use quick_cache::sync::Cache;
use std::time::{Duration, Instant};

/// Files larger than this are none of Matrix.
const MAX_FILE: usize = 50 * 1024;
const MAX_REDIRECTS: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_PERIOD: Duration = Duration::from_secs(24 * 3600);
const LONGEST_PERIOD: Duration = Duration::from_secs(48 * 3600);
const SHORTEST_PERIOD: Duration = Duration::from_secs(5 * 60);
/// A server without a (usable) file is asked again after this long.
const NONE_PERIOD: Duration = Duration::from_secs(3600);
/// Servers remembered.
const REMEMBERED: usize = 10_000;

/// Where servers say they are.
pub(crate) struct WellKnown {
    verifying: Outgoing,
    unverified: Outgoing,
    config: Config,
    known: Cache<String, (Instant, Option<String>)>,
}

impl WellKnown {
    pub fn new(config: &Config) -> Self {
        let ranges = &config.server.ip_ranges;
        let client = |trust| Outgoing::with(ranges.federation_deny.clone(), ranges.federation_allow.clone(), trust);
        Self {
            verifying: client(config.tls.custom_ca.clone().map_or(Trust::System, Trust::Files)),
            unverified: client(Trust::Anyone),
            config: config.clone(),
            known: Cache::new(REMEMBERED),
        }
    }

    /// The name a host delegates to, if it does.
    pub async fn delegation(&self, host: &str) -> Option<String> {
        if let Some((until, delegated)) = self.known.get(host)
            && Instant::now() < until
        {
            return delegated;
        }
        let fetched = self.fetch(host).await;
        let period = fetched.as_ref().map_or(NONE_PERIOD, |(_, period)| *period);
        let until = Instant::now() + period.mul_f64(rand::random_range(0.9..1.1));
        let delegated = fetched.map(|(name, _)| name);
        self.known.insert(host.to_owned(), (until, delegated.clone()));
        delegated
    }

    async fn fetch(&self, host: &str) -> Option<(String, Duration)> {
        let mut url = format!("https://{host}/.well-known/matrix/server");
        for _ in 0..=MAX_REDIRECTS {
            let uri: Uri = url.parse().ok()?;
            let verify = self.config.tls.must_verify(uri.host()?);
            let client = if verify { &self.verifying } else { &self.unverified };
            let mut call = Call::new(Method::GET, &url);
            (call.timeout, call.max_answer) = (TIMEOUT, MAX_FILE);
            // No file, no delegation, whatever the reason.
            let answer = client.request(call).await.ok()?;
            if answer.status.is_redirection() {
                url = redirected(&uri, answer.headers.get(header::LOCATION)?.to_str().ok()?)?;
                continue;
            }
            if !answer.status.is_success() {
                return None;
            }
            let name = answer.json().ok()?["m.server"].as_str()?.to_owned();
            ruma::ServerName::parse(&*name).ok()?;
            return Some((name, period(&answer.headers)));
        }
        None
    }
}

/// Where a redirect leads: another URL, or another path on the same host.
fn redirected(from: &Uri, location: &str) -> Option<String> {
    match location.starts_with('/') {
        true => Some(format!("{}://{}{location}", from.scheme_str()?, from.authority()?)),
        false => Some(location.to_owned()),
    }
}

/// How long an answer may be kept, by its `Cache-Control`.
fn period(headers: &HeaderMap) -> Duration {
    let text = headers.get(header::CACHE_CONTROL).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut parts = text.split(',').map(str::trim);
    if parts.clone().any(|p| p.eq_ignore_ascii_case("no-store") || p.eq_ignore_ascii_case("no-cache")) {
        return SHORTEST_PERIOD;
    }
    let seconds = parts.find_map(|p| p.to_ascii_lowercase().strip_prefix("max-age=")?.trim_matches('"').parse().ok());
    seconds.map_or(DEFAULT_PERIOD, Duration::from_secs).clamp(SHORTEST_PERIOD, LONGEST_PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_as_long_as_they_say_within_bounds() {
        for (text, seconds) in [
            ("max-age=3600", 3600),
            ("public, Max-Age=1", 300),
            ("no-store", 300),
            ("max-age=9999999", 172_800),
            ("", 86_400),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, text.parse().expect("header"));
            assert_eq!(period(&headers).as_secs(), seconds, "{text}");
        }
    }

    #[test]
    fn redirects_may_leave_out_the_host() {
        let from: Uri = "https://a.example/x".parse().expect("URI");
        assert_eq!(redirected(&from, "/y").as_deref(), Some("https://a.example/y"));
        assert_eq!(redirected(&from, "https://b.example/y").as_deref(), Some("https://b.example/y"));
    }
}
