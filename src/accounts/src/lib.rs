//! Who somebody is: tokens, logins, registration, passwords, interactive authentication, profiles.

mod account_data;
mod authenticate;
mod auto_join;
mod blocking;
mod cas;
mod change;
mod login;
mod logout;
mod macaroon;
mod nonces;
mod outside;
mod parting;
mod password;
mod profile;
pub mod ratelimit;
mod refresh;
mod register;
mod session;
mod sightings;
mod sso;
mod tasks;
mod threepids;
mod ui_auth;
mod upgrade;

pub use authenticate::{Allow, Credentials};
pub use login::Login;
pub use macaroon::verify_delete_pusher;
pub use password::check_policy;
pub use profile::check_field_name;
pub use ratelimit::{Limits, RateLimiter};
pub use register::{Flows, Registration};
pub use session::{NewSession, Session, check_device_name};
pub use sso::{Page, Provider, SsoStep};
pub use threepids::{Purpose, TokenRequest, Validated, canonical_email, check_client_secret, validated_by_stage};
pub use ui_auth::{Proven, UiAuth};

use config::AppService;
use devices::Devices;
use fedclient::Fed;
use pages::{Mailer, Templates};
use replication::Cx;
use rooms::Rooms;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::Semaphore;
use types::{Error, Result};

/// One per process; cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    pub(crate) cx: Cx,
    /// Other servers.
    pub(crate) fed: Fed,
    pub(crate) rooms: Rooms,
    pub(crate) devices: Devices,
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    /// Hashing passwords keeps a core busy for a good part of a second.
    hashing: Semaphore,
    seen: sightings::LastSeen,
    nonces: nonces::Nonces,
    /// A task was left in `scheduled_tasks`.
    task_left: tokio::sync::Notify,
    /// Somebody is at work leaving rooms for deactivated users.
    parting: AtomicBool,
    templates: Arc<Templates>,
    mailer: Option<Mailer>,
    outside: outside::Outside,
    /// One at a time finds or makes the user behind an identity at a provider.
    mapping: tokio::sync::Mutex<()>,
}

impl Accounts {
    /// An error if a template is wrong.
    pub fn new(cx: Cx, fed: Fed, rooms: Rooms, devices: Devices) -> Result<Self> {
        let templates = Arc::new(Templates::load(&cx.config)?);
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let inner = Inner {
            limits: Limits::new(&cx.config.rate),
            hashing: Semaphore::new(cores),
            seen: sightings::LastSeen::new(&cx.store.registry),
            nonces: nonces::Nonces::new(),
            task_left: tokio::sync::Notify::new(),
            parting: AtomicBool::new(false),
            mailer: Mailer::new(&cx.config, templates.clone())?,
            templates,
            outside: outside::Outside::new(&cx.config),
            mapping: tokio::sync::Mutex::new(()),
        };
        Ok(Self { cx, fed, rooms, devices, inner: Arc::new(inner) })
    }

    /// The rate limiters of this process.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// What pages are made of.
    pub fn templates(&self) -> &Templates {
        &self.inner.templates
    }

    fn outside(&self) -> &outside::Outside {
        &self.inner.outside
    }

    fn mailer(&self) -> Option<&Mailer> {
        self.inner.mailer.as_ref()
    }

    /// The application service with an id.
    pub fn app_service(&self, id: &str) -> Option<&Arc<AppService>> {
        self.cx.config.app_services.iter().find(|s| s.id == id)
    }

    /// The application service that calls with a token.
    pub fn app_service_by_token(&self, token: &str) -> Option<&Arc<AppService>> {
        self.cx.config.app_services.iter().find(|s| s.as_token.expose() == token)
    }

    fn server_name(&self) -> &str {
        self.cx.config.server.name.as_str()
    }

    /// `@localpart:server` of a localpart or a full user id.
    pub fn qualify(&self, user: &str) -> String {
        if user.starts_with('@') { user.to_owned() } else { format!("@{user}:{}", self.server_name()) }
    }

    /// Whether a user id belongs to this server.
    pub fn is_local(&self, user_id: &str) -> bool {
        user_id.split_once(':').is_some_and(|(_, server)| server == self.server_name())
    }

    /// 403 unless the user is an administrator of this server.
    pub async fn require_admin(&self, user_id: &str) -> Result<()> {
        if self.cx.store.is_admin(user_id).await? {
            return Ok(());
        }
        Err(Error::forbidden("You are not a server admin"))
    }
}
