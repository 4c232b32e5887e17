//! Making configuration files, signing keys and secrets that are missing.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::Rng as _;
use ruma::ServerName;

use crate::keys::{SigningKey, key_path};
use crate::read::{ConfigError, Log, Section};

/// What a generated homeserver.yaml says.
#[derive(Clone, Debug)]
pub struct NewConfig<'a> {
    /// `server_name`.
    pub server_name: &'a ServerName,
    /// Folder of the configuration, for keys and the log configuration.
    pub config_dir: &'a Path,
    /// Folder of the data.
    pub data_dir: &'a Path,
    /// `report_stats`.
    pub report_stats: bool,
    /// Bind to all addresses rather than to this host's own.
    pub open_private_ports: bool,
    /// `enable_metrics` and a listener for them.
    pub enable_metrics: bool,
}

/// A homeserver.yaml for a new server, with secrets in it.
pub fn homeserver_yaml(new: &NewConfig<'_>) -> String {
    let port = new.server_name.port().map_or(8008, |p| p.saturating_sub(400));
    let binds = if new.open_private_ports { "" } else { "\n    bind_addresses: ['::1', '127.0.0.1']" };
    let (config, data, name) = (new.config_dir.display(), new.data_dir.display(), new.server_name);
    let mut yaml = format!(
        "# Configuration of a Plexus homeserver, in the format of Synapse.\n\
         # Every key of Synapse's manual may be used here.\n\n\
         server_name: \"{name}\"\n\
         pid_file: {data}/homeserver.pid\n\
         listeners:\n\
         \x20 - type: http\n\
         \x20   port: {port}\n\
         \x20   tls: false\n\
         \x20   x_forwarded: true{binds}\n\
         \x20   resources:\n\
         \x20     - names: [client, federation]\n\
         \x20       compress: false\n"
    );
    if new.enable_metrics {
        let _ = write!(yaml, "\x20 - type: metrics\n    port: 19090{binds}\n");
    }
    let _ = write!(
        yaml,
        "# An empty database with the C locale: CREATE DATABASE synapse TEMPLATE template0 ENCODING UTF8 LOCALE 'C';\n\
         database:\n\
         \x20 name: psycopg2\n\
         \x20 args:\n\
         \x20   user: synapse\n\
         \x20   dbname: synapse\n\
         \x20   host: localhost\n\
         \x20   cp_min: 5\n\
         \x20   cp_max: 10\n\
         log_config: \"{config}/{name}.log.config\"\n\
         media_store_path: {data}/media_store\n\
         registration_shared_secret: \"{}\"\n\
         report_stats: {}\n\
         macaroon_secret_key: \"{}\"\n\
         form_secret: \"{}\"\n\
         signing_key_path: \"{config}/{name}.signing.key\"\n\
         trusted_key_servers:\n\
         \x20 - server_name: \"matrix.org\"\n",
        random_text(50),
        new.report_stats,
        random_text(50),
        random_text(50),
    );
    if new.enable_metrics {
        yaml.push_str("enable_metrics: true\n");
    }
    yaml
}

/// A log configuration that writes text to one file, or to standard error.
pub fn log_config(file: Option<&Path>) -> String {
    let handler = match file {
        Some(path) => format!(
            "    class: logging.handlers.TimedRotatingFileHandler\n    filename: {}\n    when: midnight\n    backupCount: 3\n    encoding: utf8\n",
            path.display()
        ),
        None => "    class: logging.StreamHandler\n".to_owned(),
    };
    format!(
        "# Logging, in the format of Python's logging.config.dictConfig.\n\
         version: 1\n\
         formatters:\n\
         \x20 precise:\n\
         \x20   format: '%(asctime)s - %(name)s - %(lineno)d - %(levelname)s - %(request)s - %(message)s'\n\
         handlers:\n\
         \x20 main:\n\
         {handler}\
         \x20   formatter: precise\n\
         loggers:\n\
         \x20 synapse.storage.SQL:\n\
         \x20   level: INFO\n\
         root:\n\
         \x20 level: INFO\n\
         \x20 handlers: [main]\n\
         disable_existing_loggers: false\n"
    )
}

/// A new signing key with a random version, as Synapse names them (`a_` and four letters).
pub fn signing_key() -> SigningKey {
    let mut rng = rand::rng();
    let letters: String = (0..4).map(|_| char::from(LETTERS[rng.random_range(0..52)])).collect();
    SigningKey::new(format!("a_{letters}"), rng.random())
}

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~";

/// Random text of letters, digits and a few signs that need no quoting, about 6 bits a character.
pub fn random_text(length: usize) -> String {
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

/// Writes a file that doesn't exist yet. `false`: it exists.
pub fn write_new(path: &Path, text: &str, mode: u32) -> std::io::Result<bool> {
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            file.sync_all().map(|()| true)
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

/// Makes what the configuration names and nobody has made yet: the signing key, the registration secret's file,
/// the log configuration. Returns the files made.
pub fn missing_files(paths: &[PathBuf], keys_directory: Option<&Path>) -> Result<Vec<PathBuf>, Vec<ConfigError>> {
    let mut log = Log::default();
    let map = crate::files::read(&mut log, paths);
    let root = Section::root(&log, &map);
    let mut made = Vec::new();
    let mut make = |key: &str, path: PathBuf, text: String, mode| match write_new(&path, &text, mode) {
        Ok(true) => made.push(path),
        Ok(false) => {}
        Err(e) => root.error(key, format!("can't write {}: {e}", path.display())),
    };
    if log.errors.borrow().is_empty() {
        let folder = keys_directory.map_or_else(|| crate::files::folder(&log.files), Path::to_owned);
        if let Some(name) = root.string("server_name").filter(|_| !root.has("signing_key")) {
            make("signing_key_path", key_path(&root, &folder, &name), signing_key().expose_line(), 0o640);
        }
        if let Some(path) = root.file("registration_shared_secret_path") {
            make("registration_shared_secret_path", path, random_text(50) + "\n", 0o600);
        }
        if let Some(path) = root.file("log_config") {
            let file = std::env::current_dir().unwrap_or_default().join("homeserver.log");
            make("log_config", path, log_config(Some(&file)), 0o644);
        }
    }
    let errors = log.errors.take();
    if errors.is_empty() { Ok(made) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Role};

    #[test]
    fn a_generated_configuration_loads_without_warnings() {
        let dir = std::env::temp_dir().join(format!("plexus-generate-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("folder");
        let server_name = ruma::server_name!("example.com:8448");
        let new = NewConfig {
            server_name,
            config_dir: &dir,
            data_dir: &dir,
            report_stats: false,
            open_private_ports: false,
            enable_metrics: true,
        };
        let path = dir.join("homeserver.yaml");
        assert!(write_new(&path, &homeserver_yaml(&new), 0o640).expect("write"));
        assert!(!write_new(&path, "", 0o640).expect("second write"));
        let made = missing_files(std::slice::from_ref(&path), None).expect("missing files");
        assert_eq!(made.len(), 2, "{made:?}");
        assert_eq!(missing_files(std::slice::from_ref(&path), None).expect("again"), Vec::<PathBuf>::new());
        let loaded = Config::load(&[path], Role::Homeserver).expect("loads");
        assert_eq!(loaded.warnings, Vec::<String>::new());
        assert_eq!(loaded.config.listeners.len(), 2);
        assert!(crate::logging::Logging::read(&dir.join("example.com:8448.log.config")).is_ok());
        std::fs::remove_dir_all(&dir).expect("clean up");
    }
}
