//! From the command line of a process to its configuration.

use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Loaded, Options, Role};

use crate::cli;

/// Where the configuration of a process comes from, to read it and, on SIGHUP, read it again.
#[derive(Clone, Debug)]
pub struct Source {
    paths: Vec<PathBuf>,
    role: Role,
    keys_directory: Option<PathBuf>,
    no_secrets_in_config: bool,
}

impl Source {
    pub fn new(files: &cli::ConfigFiles, role: Role, keys_directory: Option<&Path>) -> Self {
        let keys_directory = keys_directory.map(Path::to_owned);
        Self {
            paths: files.config_path.clone(),
            role,
            keys_directory,
            no_secrets_in_config: files.no_secrets_in_config,
        }
    }

    /// Reads the files.
    pub fn load(&self) -> Result<Loaded, Vec<ConfigError>> {
        let options =
            Options { keys_directory: self.keys_directory.as_deref(), no_secrets_in_config: self.no_secrets_in_config };
        Config::load_with(&self.paths, self.role, options)
    }
}
