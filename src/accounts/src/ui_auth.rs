//! Interactive authentication (spec: "User-Interactive Authentication API"). Sessions live in the database, so that
//! any process may take the next step.

use crate::Accounts;
use crate::ratelimit::Count;
use serde_json::{Map, Value, json};
use store::ui_auth::UiAuthSession;
use types::{Error, Requester, Result, credentials};

/// Sessions older than this are deleted. Milliseconds.
pub(crate) const SESSION_LIFETIME_MS: i64 = 48 * 3_600_000;

/// The request that needs proof.
#[derive(Clone, Debug)]
pub struct UiAuth<'a> {
    /// Path and query.
    pub uri: String,
    pub method: &'a str,
    pub ip: String,
    pub user_agent: &'a str,
    /// What is being done, for people.
    pub description: &'a str,
}

/// A request that was proven.
#[derive(Clone, Debug, Default)]
pub struct Proven {
    /// Stages and their results.
    pub stages: Map<String, Value>,
    /// The request's body without `auth`; that of the session's first request if this one had none.
    pub params: Map<String, Value>,
    /// None: no proof was needed.
    pub session: Option<String>,
}

/// Key under which the server remembers who must prove themselves.
pub(crate) const REQUEST_USER: &str = "request_user_id";
/// Stage of a captcha.
pub(crate) const RECAPTCHA: &str = "m.login.recaptcha";
/// Stage of single sign-on.
pub(crate) const SSO: &str = "m.login.sso";
/// Key of a registration token that is held.
pub(crate) const REGISTRATION_TOKEN: &str = "m.login.registration_token";

fn unknown_session(id: &str) -> Error {
    Error::bad_request(format!("Unknown session ID: {id}"))
}

impl Accounts {
    /// Passes if all stages of one of the `flows` are done; otherwise 401 with what is left to do.
    /// `remember`: kept with a new session.
    pub async fn check_ui_auth(
        &self,
        flows: &[Vec<String>],
        rq: &UiAuth<'_>,
        mut body: Map<String, Value>,
        remember: Map<String, Value>,
    ) -> Result<Proven> {
        let auth = match body.remove("auth") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(auth)) => auth,
            Some(_) => return Err(Error::bad_json("auth: must be an object")),
        };
        let store = &self.cx.store;
        let id = match auth.get("session") {
            None | Some(Value::Null) => self.begin_ui_auth(rq, &body, remember).await?,
            Some(Value::String(id)) if id.is_empty() => self.begin_ui_auth(rq, &body, remember).await?,
            Some(Value::String(id)) => {
                body = self.resume_ui_auth(id, rq, body).await?;
                id.clone()
            }
            Some(_) => return Err(Error::bad_json("auth.session: must be a string")),
        };
        store.add_ui_auth_address(&id, &rq.ip, rq.user_agent).await?;
        if auth.is_empty() {
            return Err(incomplete(self.flows_body(flows, &id)));
        }
        let mut failure = None;
        if let Some(stage) = auth.get("type") {
            let stage = stage.as_str().ok_or_else(|| Error::bad_json("auth.type: must be a string"))?;
            match self.check_stage(stage, &auth, &id, &rq.ip).await {
                Ok(Value::Null) => {}
                Ok(result) => store.complete_ui_auth_stage(&id, stage, &result).await?,
                Err(e @ Error::Internal(_)) => return Err(e),
                Err(e) if is_about_the_request(&e) => return Err(e),
                Err(e) => failure = Some(e),
            }
        }
        let stages = store.ui_auth_stages(&id).await?;
        if flows.iter().any(|f| f.iter().all(|s| stages.contains_key(s))) {
            return Ok(Proven { stages, params: body, session: Some(id) });
        }
        let mut answer = self.flows_body(flows, &id);
        answer.insert("completed".into(), json!(stages.keys().collect::<Vec<_>>()));
        if let Some(Error::Client(e)) = failure {
            answer.insert("errcode".into(), json!(e.errcode));
            answer.insert("error".into(), json!(e.message));
        }
        Err(incomplete(answer))
    }

    async fn begin_ui_auth(
        &self,
        rq: &UiAuth<'_>,
        body: &Map<String, Value>,
        remember: Map<String, Value>,
    ) -> Result<String> {
        let id = credentials::letters(24);
        let session = UiAuthSession {
            client: body.clone(),
            server: remember,
            uri: rq.uri.clone(),
            method: rq.method.to_owned(),
            description: rq.description.to_owned(),
        };
        self.cx.store.create_ui_auth_session(&id, &session, self.cx.now_ms()).await?;
        Ok(id)
    }

    /// The body to go on with.
    async fn resume_ui_auth(&self, id: &str, rq: &UiAuth<'_>, body: Map<String, Value>) -> Result<Map<String, Value>> {
        let session = self.cx.store.ui_auth_session(id).await?.ok_or_else(|| unknown_session(id))?;
        let body = if body.is_empty() { session.client.clone() } else { body };
        if session.uri != rq.uri || session.method != rq.method {
            return Err(Error::client(
                403,
                "M_UNKNOWN",
                "Requested operation has changed during the UI authentication session.",
            ));
        }
        if session.client != body {
            self.cx.store.set_ui_auth_client(id, &body).await?;
        }
        Ok(body)
    }

    /// The result of a stage: null if it came to nothing.
    async fn check_stage(&self, stage: &str, auth: &Map<String, Value>, session: &str, client: &str) -> Result<Value> {
        let registration = &self.cx.config.registration;
        match stage {
            "m.login.dummy" | "m.login.terms" => Ok(Value::Bool(true)),
            REGISTRATION_TOKEN if registration.requires_token || registration.token_3pid_bypass => {
                self.check_registration_token(auth, session).await
            }
            RECAPTCHA if registration.captcha.is_some() => self.check_captcha_stage(auth, client).await,
            "m.login.msisdn" => self.check_msisdn_stage(auth).await,
            "m.login.email.identity" => self.check_email_stage(auth).await,
            _ => Ok(Value::String(self.password_login(auth, true).await?)),
        }
    }

    async fn check_registration_token(&self, auth: &Map<String, Value>, session: &str) -> Result<Value> {
        let token = match auth.get("token") {
            None => return Err(Error::missing_param("Missing registration token")),
            Some(Value::String(token)) => token,
            Some(_) => return Err(Error::invalid_param("Registration token must be a string")),
        };
        if !auth.contains_key("session") {
            return Err(Error::missing_param("Missing UIA session"));
        }
        if let Some(held) = self.ui_auth_data(session, REGISTRATION_TOKEN).await? {
            return if held == *token { Ok(held) } else { Err(Error::invalid_param("Registration token has changed")) };
        }
        match self.cx.store.registration_token(token).await? {
            Some(found) if found.is_valid(self.cx.now_ms()) => {
                self.cx.store.hold_registration_token(token).await?;
                self.set_ui_auth_data(session, REGISTRATION_TOKEN, json!(token)).await?;
                Ok(json!(token))
            }
            _ => Err(Error::client(401, "M_UNAUTHORIZED", "Invalid registration token")),
        }
    }

    /// Completes a stage from outside the request (the fallback page), by the fields a request would have under
    /// `auth`. `client`: address of the client.
    pub async fn complete_stage(
        &self,
        stage: &str,
        session: &str,
        field: Option<(&str, &str)>,
        client: &str,
    ) -> Result<()> {
        let mut auth = Map::from_iter([("session".to_owned(), json!(session))]);
        auth.extend(field.map(|(name, value)| (name.to_owned(), json!(value))));
        let result = self.check_stage(stage, &auth, session, client).await?;
        self.cx.store.complete_ui_auth_stage(session, stage, &result).await
    }

    /// What the server remembers with a session. 400 if there is no such session.
    pub async fn ui_auth_data(&self, session: &str, key: &str) -> Result<Option<Value>> {
        let found = self.cx.store.ui_auth_session(session).await?.ok_or_else(|| unknown_session(session))?;
        Ok(found.server.get(key).cloned())
    }

    /// Remembers something with a session. 400 if there is no such session.
    pub async fn set_ui_auth_data(&self, session: &str, key: &str, value: Value) -> Result<()> {
        if self.cx.store.set_ui_auth_data(session, key, &value).await? { Ok(()) } else { Err(unknown_session(session)) }
    }

    fn flows_body(&self, flows: &[Vec<String>], session: &str) -> Map<String, Value> {
        let mut params = Map::new();
        let config = &self.cx.config;
        for stage in flows.iter().flatten() {
            match (stage.as_str(), &config.registration.captcha, &config.consent) {
                (RECAPTCHA, Some(captcha), _) => {
                    params.insert(stage.clone(), json!({"public_key": captcha.public_key}));
                }
                ("m.login.terms", _, Some(consent)) => {
                    let url = format!("{}_matrix/consent?v={}", config.server.public_baseurl, consent.version);
                    let policy = json!({"version": consent.version, "en": {"name": consent.policy_name, "url": url}});
                    params.insert(stage.clone(), json!({"policies": {"privacy_policy": policy}}));
                }
                _ => {}
            }
        }
        let flows: Vec<Value> = flows.iter().map(|f| json!({"stages": f})).collect();
        Map::from_iter([
            ("session".to_owned(), json!(session)),
            ("flows".to_owned(), json!(flows)),
            ("params".to_owned(), Value::Object(params)),
        ])
    }

    /// Lets an account's owner prove that it is them. Returns the request's body without `auth`.
    /// `can_skip`: not needed if they did so within `ui_auth.session_timeout`.
    pub async fn prove_owner(
        &self,
        who: &Requester,
        rq: &UiAuth<'_>,
        mut body: Map<String, Value>,
        can_skip: bool,
    ) -> Result<Proven> {
        let user = who.user_id.as_str();
        let token_id = who
            .access_token_id
            .ok_or_else(|| Error::forbidden("This needs an access token that belongs to a device"))?;
        let timeout = self.cx.config.auth.ui_auth_session_timeout_ms as i64;
        if can_skip && timeout > 0 {
            let last = self.cx.store.token_last_validated(token_id).await?;
            if self.cx.now_ms() - last < timeout {
                body.remove("auth");
                return Ok(Proven { params: body, ..Proven::default() });
            }
        }
        self.limit_failed_proof(user, Count::No)?;
        let mut flows = Vec::new();
        let auth = &self.cx.config.auth;
        if auth.localdb_enabled && auth.password_reauth && self.cx.store.has_password(&who.user_id).await? {
            flows.push(vec!["m.login.password".to_owned()]);
        }
        if !self.providers_of(user).await?.is_empty() {
            flows.push(vec![SSO.to_owned()]);
        }
        let remember = Map::from_iter([(REQUEST_USER.to_owned(), json!(user))]);
        let proven = match self.check_ui_auth(&flows, rq, body, remember).await {
            Err(e) => {
                if e.errcode() == Some("") && is_failed(&e) {
                    let _counted = self.limit_failed_proof(user, Count::Yes);
                }
                return Err(e);
            }
            Ok(proven) => proven,
        };
        let by = |stage: &str| proven.stages.get(stage).and_then(Value::as_str) == Some(user);
        if !by("m.login.password") && !by(SSO) {
            return Err(Error::forbidden("Invalid auth"));
        }
        self.cx.store.set_token_last_validated(token_id, self.cx.now_ms()).await?;
        Ok(proven)
    }
}

/// Whether an incomplete answer also tells of a stage that failed.
fn is_failed(e: &Error) -> bool {
    matches!(e, Error::Client(c) if c.extra.contains_key("errcode"))
}

/// Errors that end the request rather than being shown along with the flows: only failed proofs are shown.
fn is_about_the_request(e: &Error) -> bool {
    match e {
        Error::Client(c) => {
            let token = c.message.contains("egistration token") || c.message.contains("UIA session");
            !(matches!(c.status, 401 | 403) || token)
        }
        Error::Internal(_) => true,
    }
}

/// 401 whose body is not an error but what to do.
fn incomplete(answer: Map<String, Value>) -> Error {
    let mut e = Error::client(401, "", "");
    for (key, value) in answer {
        e = e.with(&key, value);
    }
    e
}
