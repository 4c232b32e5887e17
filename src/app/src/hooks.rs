//! What `http` asks the application while it dispatches.

use crate::App;
use accounts::{Allow, Credentials};
use fedclient::Turn;
use http::{Access, Caller, On, Rate, Reply, Rq};
use httpcrate::header;
use replication::Phase;
use slog::Logger;
use types::{Error, OwnedServerName, Requester, Result};

impl App {
    /// Whether this is `worker_replication_secret`. No: if there is none.
    pub fn is_replication_secret(&self, given: &str) -> bool {
        let Some(secret) = &self.cx.config.workers.replication_secret else { return false };
        let (given, expected) = (given.as_bytes(), secret.expose().as_bytes());
        // All of it is looked at, whatever is wrong: how long it takes says nothing.
        given.len() == expected.len() && given.iter().zip(expected).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl http::App for App {
    type Turn = Turn;

    fn log(&self) -> &Logger {
        &self.cx.log
    }

    fn is_draining(&self) -> bool {
        self.cx.life.phase() > Phase::Serving
    }

    async fn elsewhere(&self, on: On, rq: &Rq) -> Result<Option<String>> {
        let Some(owner) = self.owner_of(on, rq) else { return Ok(None) };
        // A Synapse process does not take handed-on requests: the handler deals with it over HTTP replication.
        Ok(self.cx.peers.is_plexus(owner).await.then(|| owner.to_owned()))
    }

    async fn forward(&self, instance: &str, rq: &Rq) -> Result<Reply> {
        self.forward_to(instance, rq).await
    }

    fn check_replication(&self, rq: &Rq) -> Result<()> {
        if self.cx.config.workers.replication_secret.is_none() {
            return Ok(());
        }
        // Synapse answers a plain 500 here, and its peers expect nothing better.
        match self.is_replication_secret(rq.access_token().unwrap_or_default()) {
            true => Ok(()),
            false => Err(Error::client(500, "M_UNKNOWN", "Internal server error")),
        }
    }

    async fn authenticate(&self, rq: &Rq, access: Access) -> Result<Requester> {
        let token = rq.access_token().ok_or_else(|| Error::missing_token("Missing access token"))?;
        let credentials = Credentials {
            token,
            user_id: rq.param("user_id"),
            device_id: rq.param("device_id").or_else(|| rq.param("org.matrix.msc3202.device_id")),
            ip: rq.ip,
            user_agent: rq.user_agent(),
        };
        let allow = match access {
            Access::Guest => Allow::Guests,
            Access::Locked => Allow::Locked,
            _ => Allow::Users,
        };
        let who = self.accounts.authenticate(credentials, allow).await?;
        if access == Access::Admin {
            self.accounts.require_admin(who.user_id.as_str()).await?;
        }
        Ok(who)
    }

    async fn authenticate_server(&self, rq: &Rq) -> Result<OwnedServerName> {
        let body = match rq.body.is_empty() {
            true => None,
            false => Some(rq.json::<serde_json::Value>()?),
        };
        let query = if rq.raw_query.is_empty() { String::new() } else { format!("?{}", rq.raw_query) };
        let given = rq.headers.get_all(header::AUTHORIZATION);
        let headers: Vec<&str> = given.iter().filter_map(|v| v.to_str().ok()).collect();
        self.fed.authenticate(rq.method.as_str(), &format!("{}{query}", rq.path), &headers, body.as_ref()).await
    }

    async fn limit(&self, rate: Rate, caller: &Caller, rq: &Rq) -> Result<Option<Turn>> {
        let address = || rq.ip.map(|ip| ip.to_string()).unwrap_or_default();
        let limits = self.accounts.limits();
        match (rate, caller) {
            (Rate::Server, Caller::Server(origin)) => return self.fed.admit(origin.as_str()).await.map(Some),
            (Rate::Message, Caller::User(who)) => self.accounts.limit_message(who).await?,
            (Rate::Registration, _) => limits.registration.check(&address(), self.cx.now_ms())?,
            (Rate::Login, _) => limits.login_address.check(&address(), self.cx.now_ms())?,
            (Rate::Message | Rate::Server | Rate::None, _) => {}
        }
        Ok(None)
    }
}
