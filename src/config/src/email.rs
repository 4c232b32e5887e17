//! E-mail: the server it goes through, who it is from, and what subjects it has.

use std::path::PathBuf;

use crate::read::Section;
use crate::secret::Secret;

/// `email`. Without it no address can be verified.
#[derive(Clone, Debug)]
pub struct Email {
    /// `smtp_host` and `smtp_port`.
    pub host: String,
    /// `smtp_port`; 465 with `force_tls`, else 25.
    pub port: u16,
    /// `smtp_user` and `smtp_pass`.
    pub credentials: Option<(String, Secret)>,
    /// `enable_tls`, `force_tls`, `require_transport_security`.
    pub tls: MailTls,
    /// `tlsname`: the name in the server's certificate; the host if not set.
    pub tls_name: String,
    /// `notif_from`: the sender, in which `%(app)s` stands for the application's name.
    pub from: String,
    /// `app_name`.
    pub app_name: String,
    /// `validation_token_lifetime`, milliseconds.
    pub validation_token_lifetime_ms: u64,
    /// `subjects`.
    pub subjects: Subjects,
    /// `template_dir` (outdated): where templates are looked for after `templates.custom_template_directory`.
    pub template_dir: Option<PathBuf>,
    /// File names that templates have, if not the usual ones: usual name → name.
    pub template_names: Vec<(&'static str, String)>,
}

/// How a connection to a mail server is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// Never.
    None,
    /// By STARTTLS if the server offers it.
    Offered,
    /// By STARTTLS, or not at all.
    Required,
    /// From the first byte.
    Implicit,
}

/// Subjects, in which `%(app)s` and `%(server_name)s` are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subjects {
    /// `password_reset`
    pub password_reset: String,
    /// `email_validation`
    pub email_validation: String,
    /// `email_already_in_use`
    pub email_already_in_use: String,
}

/// Settings that name a template, and the name each template has without them.
const TEMPLATES: &[(&str, &str)] = &[
    ("password_reset_template_html", "password_reset.html"),
    ("password_reset_template_text", "password_reset.txt"),
    ("password_reset_template_success_html", "password_reset_success.html"),
    ("password_reset_template_failure_html", "password_reset_failure.html"),
    ("registration_template_html", "registration.html"),
    ("registration_template_text", "registration.txt"),
    ("registration_template_success_html", "registration_success.html"),
    ("registration_template_failure_html", "registration_failure.html"),
    ("already_in_use_template_html", "already_in_use.html"),
    // Synapse reads the HTML setting for the text as well, so one name stands for both.
    ("already_in_use_template_html", "already_in_use.txt"),
    ("add_threepid_template_html", "add_threepid.html"),
    ("add_threepid_template_text", "add_threepid.txt"),
    ("add_threepid_template_success_html", "add_threepid_success.html"),
    ("add_threepid_template_failure_html", "add_threepid_failure.html"),
];

pub(crate) fn read(root: &Section<'_>) -> Option<Email> {
    if root.flag("trust_identity_server_for_password_resets", false) {
        root.error(
            "trust_identity_server_for_password_resets",
            "no longer supported; allowed: a mail server under the key email",
        );
    }
    let section = root.child("email");
    if section.map.is_empty() {
        return None;
    }
    let Some(from) = section.nonempty("notif_from") else {
        section
            .error("notif_from", "missing; allowed: the sender's address, such as \"%(app)s <noreply@example.com>\"");
        return None;
    };
    let tls = tls(&section);
    let host = section.string_or("smtp_host", "localhost");
    let subjects = section.child("subjects");
    let names = TEMPLATES.iter().filter_map(|(key, usual)| Some((*usual, section.nonempty(key)?)));
    Some(Email {
        port: port(&section, if tls == MailTls::Implicit { 465 } else { 25 }),
        credentials: section.nonempty("smtp_user").zip(section.nonempty("smtp_pass").map(Secret::new)),
        tls,
        tls_name: section.nonempty("tlsname").unwrap_or_else(|| host.clone()),
        host,
        from,
        app_name: section.string_or("app_name", "Matrix"),
        validation_token_lifetime_ms: section.duration_or("validation_token_lifetime", 3_600_000),
        subjects: Subjects {
            password_reset: subjects.string_or("password_reset", "[%(server_name)s] Password reset"),
            email_validation: subjects.string_or("email_validation", "[%(server_name)s] Validate your email"),
            email_already_in_use: subjects.string_or("email_already_in_use", "[%(server_name)s] Email already in use"),
        },
        template_dir: section.file("template_dir"),
        template_names: names.collect(),
    })
}

/// Synapse's own documentation writes the port as a number, its schema as a string.
fn port(section: &Section<'_>, default: u16) -> u16 {
    use crate::yaml::{Node, Value};
    match section.some("smtp_port") {
        Some(Node { value: Value::Str(text), .. }) => text.parse().unwrap_or_else(|_| {
            section.error("smtp_port", format!("found {text:?}; allowed: a port from 0 to 65535"));
            default
        }),
        _ => section.port("smtp_port").unwrap_or(default),
    }
}

fn tls(section: &Section<'_>) -> MailTls {
    let required = section.flag("require_transport_security", false);
    let force = section.flag("force_tls", false);
    if !section.flag("enable_tls", true) {
        for (key, set) in [("force_tls", force), ("require_transport_security", required)] {
            if set {
                section.error(key, "contradicts enable_tls: false; allowed: one of the two");
            }
        }
        return MailTls::None;
    }
    match (force, required) {
        (true, _) => MailTls::Implicit,
        (false, true) => MailTls::Required,
        (false, false) => MailTls::Offered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Log;
    use crate::yaml::{Value, parse};

    fn read_text(text: &str) -> (Option<Email>, usize) {
        let log = Log::default();
        let Value::Map(map) = parse(text, 0).expect("YAML").value else { panic!("a mapping") };
        let email = read(&Section::root(&log, &map));
        let errors = log.errors.borrow().len();
        (email, errors)
    }

    #[test]
    fn nothing_means_no_mail() {
        assert!(matches!(read_text("email:\nx: 1\n"), (None, 0)));
    }

    #[test]
    fn ports_and_tls_follow_each_other() {
        let from = "notif_from: a <a@b.c>";
        let cases = [
            ("", MailTls::Offered, 25),
            (", force_tls: true", MailTls::Implicit, 465),
            (", require_transport_security: yes, smtp_port: \"587\"", MailTls::Required, 587),
            (", enable_tls: false, smtp_port: 2525", MailTls::None, 2525),
        ];
        for (more, tls, port) in cases {
            let (email, errors) = read_text(&format!("email: {{{from}{more}}}"));
            let email = email.expect(more);
            assert_eq!((email.tls, email.port, errors), (tls, port, 0), "{more}");
        }
    }

    #[test]
    fn contradictions_are_told() {
        assert_eq!(read_text("email: {notif_from: a@b, enable_tls: false, force_tls: true}").1, 1);
        assert_eq!(read_text("email: {smtp_host: localhost}").1, 1);
        assert_eq!(read_text("email: {notif_from: a@b, smtp_port: mail}").1, 1);
    }
}
