//! Templates by Synapse's names and with its variables (documentation: "Templates"), so that those an admin has
//! replaced go on working.

use config::Config;
use minijinja::{AutoEscape, Environment, ErrorKind};
use std::path::{Path, PathBuf};
use types::{Error, Result};

/// Names and texts of our own templates.
const BUILT_IN: &[(&str, &str)] = &[
    ("_base.html", include_str!("../templates/_base.html")),
    ("style.css", include_str!("../templates/style.css")),
    ("add_threepid.html", include_str!("../templates/add_threepid.html")),
    ("add_threepid.txt", include_str!("../templates/add_threepid.txt")),
    ("add_threepid_failure.html", include_str!("../templates/add_threepid_failure.html")),
    ("add_threepid_success.html", include_str!("../templates/add_threepid_success.html")),
    ("already_in_use.html", include_str!("../templates/already_in_use.html")),
    ("already_in_use.txt", include_str!("../templates/already_in_use.txt")),
    ("auth_success.html", include_str!("../templates/auth_success.html")),
    ("password_reset.html", include_str!("../templates/password_reset.html")),
    ("password_reset.txt", include_str!("../templates/password_reset.txt")),
    ("password_reset_confirmation.html", include_str!("../templates/password_reset_confirmation.html")),
    ("password_reset_failure.html", include_str!("../templates/password_reset_failure.html")),
    ("password_reset_success.html", include_str!("../templates/password_reset_success.html")),
    ("recaptcha.html", include_str!("../templates/recaptcha.html")),
    ("registration.html", include_str!("../templates/registration.html")),
    ("registration.txt", include_str!("../templates/registration.txt")),
    ("registration_failure.html", include_str!("../templates/registration_failure.html")),
    ("registration_success.html", include_str!("../templates/registration_success.html")),
    ("registration_token.html", include_str!("../templates/registration_token.html")),
    ("sso_account_deactivated.html", include_str!("../templates/sso_account_deactivated.html")),
    ("sso_auth_bad_user.html", include_str!("../templates/sso_auth_bad_user.html")),
    ("sso_auth_confirm.html", include_str!("../templates/sso_auth_confirm.html")),
    ("sso_auth_success.html", include_str!("../templates/sso_auth_success.html")),
    ("sso_error.html", include_str!("../templates/sso_error.html")),
    ("sso_redirect_confirm.html", include_str!("../templates/sso_redirect_confirm.html")),
    ("terms.html", include_str!("../templates/terms.html")),
];

/// All templates of a process.
#[derive(Debug)]
pub struct Templates(Environment<'static>);

/// The template of a name in a folder; None if there is none.
fn in_folder(folder: &Path, name: &str) -> Result<Option<String>, minijinja::Error> {
    match std::fs::read_to_string(folder.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => {
            let message = format!("{}: {e}", folder.join(name).display());
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        }
    }
}

impl Templates {
    /// Reads all templates: from `templates.custom_template_directory`, then the folders of `email` and `sso`, then
    /// our own. An error names the template that is wrong.
    pub fn load(config: &Config) -> Result<Self> {
        let folders: Vec<PathBuf> = [
            config.server.custom_template_directory.clone(),
            config.email.as_ref().and_then(|e| e.template_dir.clone()),
            config.sso.template_dir.clone(),
        ]
        .into_iter()
        .flatten()
        .collect();
        let renamed: Vec<(&'static str, String)> =
            config.email.as_ref().map(|e| e.template_names.clone()).unwrap_or_default();
        let mut env = Environment::new();
        env.add_global("server_name", config.server.name.as_str());
        env.set_auto_escape_callback(|name| if name.ends_with("html") { AutoEscape::Html } else { AutoEscape::None });
        env.set_loader(move |name| {
            // Names come from us and from templates, which may include each other but nothing elsewhere.
            if name.contains("..") || name.starts_with('/') {
                return Ok(None);
            }
            let file = renamed.iter().find(|(usual, _)| *usual == name).map_or(name, |(_, file)| file.as_str());
            for folder in &folders {
                if let Some(text) = in_folder(folder, file)? {
                    return Ok(Some(text));
                }
            }
            Ok(BUILT_IN.iter().find(|(n, _)| *n == name).map(|(_, text)| (*text).to_owned()))
        });
        for (name, _) in BUILT_IN {
            env.get_template(name).map_err(|e| Error::internal(format!("template {name}: {e:#}")))?;
        }
        // Most are never shown: they take memory once they are.
        env.clear_templates();
        Ok(Self(env))
    }

    /// A template with its variables filled in; in `.html` they are escaped.
    pub fn render(&self, name: &str, variables: minijinja::Value) -> Result<String> {
        Ok(self.0.get_template(name)?.render(variables)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    fn config(more: &str) -> Config {
        let folder = std::env::temp_dir().join(format!("plexus-pages-{}-{}", std::process::id(), more.len()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("homeserver.yaml");
        let key = "ed25519 a_test CJwCnHsEBAE7OesOlHDusg4i9N9mTyWhZIpiNC76HSs\n";
        std::fs::write(folder.join("signing.key"), key).expect("the key");
        let yaml = format!(
            "server_name: a.test\nreport_stats: false\nmacaroon_secret_key: x\nform_secret: y\nsigning_key_path: {0}/signing.key\n\
             database: {{name: psycopg2, args: {{dbname: x}}}}\n{more}\n",
            folder.display()
        );
        std::fs::write(&file, yaml).expect("the configuration");
        config::Config::load(&[file], config::Role::Homeserver).expect("a configuration").config
    }

    #[test]
    fn what_comes_from_outside_is_escaped_in_pages_only() {
        let templates = Templates::load(&config("")).expect("templates");
        let page =
            templates.render("password_reset_failure.html", context! { failure_reason => "<b>&" }).expect("a page");
        assert!(page.contains("&lt;b&gt;&amp;") && !page.contains("<b>&"), "{page}");
        let text = templates.render("registration.txt", context! { link => "https://a/?b=1&c=2" }).expect("a text");
        assert!(text.contains("https://a/?b=1&c=2"), "{text}");
    }

    #[test]
    fn own_templates_come_first_and_may_build_on_ours() {
        let folder = std::env::temp_dir().join(format!("plexus-pages-own-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let own = "{% extends \"_base.html\" %}{% block body %}Mine on {{ server_name }}{% endblock %}";
        std::fs::write(folder.join("auth_success.html"), own).expect("a template");
        let templates =
            Templates::load(&config(&format!("templates: {{custom_template_directory: {}}}", folder.display())));
        let page = templates.expect("templates").render("auth_success.html", context! {}).expect("a page");
        assert!(page.contains("Mine on a.test") && page.contains("<html"), "{page}");
    }
}
