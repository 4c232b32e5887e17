//! Sending e-mail over SMTP.

use crate::Templates;
use config::Config;
use config::email::{Email, MailTls};
use lettre::message::{Mailbox, MultiPart, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use minijinja::{Value, context};
use std::sync::Arc;
use types::{Error, Result};

/// Sends mails made from templates through the server that `email` names.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    host: String,
    port: u16,
    /// Neither TLS nor a login is needed.
    plain_is_fine: bool,
    from: Mailbox,
    app_name: String,
    server_name: String,
    templates: Arc<Templates>,
}

/// Tells mail programs not to answer by themselves (Exchange's own header).
#[derive(Clone)]
struct SuppressReplies;

impl header::Header for SuppressReplies {
    fn name() -> header::HeaderName {
        header::HeaderName::new_from_ascii_str("X-Auto-Response-Suppress")
    }

    fn parse(_: &str) -> std::result::Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> header::HeaderValue {
        header::HeaderValue::new(Self::name(), "All".to_owned())
    }
}

/// The mail was made by a machine (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl header::Header for AutoSubmitted {
    fn name() -> header::HeaderName {
        header::HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> std::result::Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> header::HeaderValue {
        header::HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

fn transport(email: &Email) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let parameters = || TlsParameters::new_rustls(email.tls_name.as_str().into());
    let tls = match email.tls {
        MailTls::None => Tls::None,
        MailTls::Offered => Tls::Opportunistic(parameters()?),
        MailTls::Required => Tls::Required(parameters()?),
        MailTls::Implicit => Tls::Wrapper(parameters()?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.host).port(email.port).tls(tls);
    if let Some((user, password)) = &email.credentials {
        builder = builder.credentials(Credentials::new(user.clone(), password.expose().to_owned()));
    }
    Ok(builder.build())
}

impl Mailer {
    /// None if the configuration has no `email`.
    pub fn new(config: &Config, templates: Arc<Templates>) -> Result<Option<Self>> {
        let Some(email) = &config.email else { return Ok(None) };
        let from = email.from.replace("%(app)s", &email.app_name);
        let from =
            from.parse().map_err(|e| Error::internal(format!("email.notif_from: {from:?} is no address: {e}")))?;
        Ok(Some(Self {
            transport: transport(email)?,
            host: email.host.clone(),
            port: email.port,
            plain_is_fine: matches!(email.tls, MailTls::None | MailTls::Offered) && email.credentials.is_none(),
            from,
            app_name: email.app_name.clone(),
            server_name: config.server.name.to_string(),
            templates,
        }))
    }

    /// Sends one mail, in plain text and HTML. `template`: the name without `.html` or `.txt`; `subject` may hold
    /// `%(app)s` and `%(server_name)s`. 500 M_UNKNOWN if the mail server doesn't take it (the cause is the source).
    pub async fn send(&self, to: &str, subject: &str, template: &str, variables: Value) -> Result<()> {
        let subject = subject.replace("%(app)s", &self.app_name).replace("%(server_name)s", &self.server_name);
        let variables = context! { app_name => &self.app_name, server_name => &self.server_name, ..variables };
        let html = self.templates.render(&format!("{template}.html"), variables.clone())?;
        let text = self.templates.render(&format!("{template}.txt"), variables)?;
        let to = to.parse().map_err(|_| Error::bad_request("Unable to parse email address"))?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .message_id(None)
            .header(AutoSubmitted)
            .header(SuppressReplies)
            .multipart(MultiPart::alternative_plain_html(text, html))?;
        self.deliver(message).await
    }

    async fn deliver(&self, message: Message) -> Result<()> {
        let Err(e) = self.transport.send(message.clone()).await else { return Ok(()) };
        // EHLO is the first command, and the only one that no server needs to know.
        let unknown_command = e.status().is_some_and(|code| matches!(u16::from(code), 500 | 502));
        if unknown_command && self.plain_is_fine {
            let hello = ClientId::default().to_string();
            return crate::helo::send(&self.host, self.port, &hello, &message).await;
        }
        Err(e.into())
    }
}
