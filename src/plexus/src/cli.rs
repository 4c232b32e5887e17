//! The command line.

use std::path::PathBuf;

use structopt::StructOpt;
use structopt::clap::{AppSettings, Shell};

const EXIT_CODES: &str = "EXIT CODES:
    0   all well
    1   failed, or couldn't start
    2   wrong command line
    78  wrong configuration (starting again won't help)";

/// A Matrix homeserver, interchangeable with Synapse process by process.
#[derive(Debug, StructOpt)]
#[structopt(name = "plexus", after_help = EXIT_CODES, global_settings = &[AppSettings::VersionlessSubcommands, AppSettings::ColoredHelp])]
pub enum Cli {
    /// Runs the main process (as synapse_homeserver)
    #[structopt(after_help = EXIT_CODES)]
    Homeserver(Homeserver),
    /// Runs a worker (as synapse_worker)
    #[structopt(after_help = EXIT_CODES)]
    Worker(Worker),
    /// Writes a homeserver.yaml with new secrets, a log configuration and a signing key
    GenerateConfig(GenerateConfig),
    /// Writes a new signing key
    GenerateKeys(GenerateKeys),
    /// Registers a user with the shared secret (as register_new_matrix_user)
    RegisterUser(RegisterUser),
    /// Prints the hash of a password as the database holds it
    HashPassword(HashPassword),
    /// Checks configuration files and prints what each process does
    CheckConfig(CheckConfig),
    /// Makes the tables of an empty database, or checks those there are, then exits
    Schema(Schema),
    /// Prints the route table
    Routes(Routes),
    /// Prints completions of this command line for a shell
    Completions(Completions),
    /// Prints the manual page, in roff
    Manual,
    /// Renders, runs and shows a whole cluster described by one TOML file
    Cluster(crate::cluster::command::Command),
}

/// Files that every process reads.
#[derive(Debug, StructOpt)]
pub struct ConfigFiles {
    /// Configuration file, or folder with *.yaml; top-level keys of later ones replace those of earlier ones
    #[structopt(short = "c", long = "config-path", parse(from_os_str), number_of_values = 1)]
    pub config_path: Vec<PathBuf>,
    /// Reject secrets written in the configuration itself
    #[structopt(long)]
    pub no_secrets_in_config: bool,
}

/// Options that Synapse has and that change nothing here.
#[derive(Debug, StructOpt)]
pub struct Ignored {
    /// Ignored: processes stay in the foreground
    #[structopt(short = "D", long)]
    pub daemonize: bool,
    /// Print the path of the pid file
    #[structopt(long)]
    pub print_pidfile: bool,
    /// Ignored: there is no manhole
    #[structopt(long)]
    pub manhole: Option<u16>,
    /// Ignored: there is no SQLite
    #[structopt(short = "d", long)]
    pub database_path: Option<String>,
    /// Ignored: what is printed is never redirected
    #[structopt(short = "n", long)]
    #[allow(dead_code, reason = "accepted, since units written for Synapse have it")]
    pub no_redirect_stdio: bool,
    /// Ignored: use log_config
    #[structopt(short = "f", long)]
    pub log_file: Option<String>,
}

/// `plexus homeserver`
#[derive(Debug, StructOpt)]
pub struct Homeserver {
    #[structopt(flatten)]
    pub files: ConfigFiles,
    /// Make a configuration if there is none, and the files it names, then exit
    #[structopt(long, conflicts_with_all = &["generate-missing-configs", "generate-missing-and-run"])]
    pub generate_config: bool,
    /// Make the files that the configuration names and that are missing, then exit
    #[structopt(long, alias = "generate-keys")]
    pub generate_missing_configs: bool,
    /// The default: make missing files, then run
    #[structopt(long, conflicts_with = "generate-missing-configs")]
    #[allow(dead_code, reason = "names the default")]
    pub generate_missing_and_run: bool,
    /// Try all that can be tried beside a running process of the same duties, then exit
    #[structopt(long, conflicts_with_all = &["generate-config", "generate-missing-configs"])]
    pub dry_run: bool,
    #[structopt(flatten)]
    pub new: NewConfig,
    /// Let anybody register
    #[structopt(long)]
    pub enable_registration: bool,
    #[structopt(flatten)]
    pub ignored: Ignored,
}

/// Details of a new configuration.
#[derive(Debug, StructOpt)]
pub struct NewConfig {
    /// Name of the server: the part of user ids after the colon
    #[structopt(short = "H", long)]
    pub server_name: Option<String>,
    /// Written to the configuration; nothing is ever reported
    #[structopt(long, possible_values = &["yes", "no"])]
    pub report_stats: Option<String>,
    /// Folder of keys and log configuration [default: that of the last configuration file]
    #[structopt(long, alias = "keys-directory", parse(from_os_str))]
    pub config_directory: Option<PathBuf>,
    /// Folder of the data [default: the current one]
    #[structopt(long, parse(from_os_str))]
    pub data_directory: Option<PathBuf>,
    /// Listen on all addresses
    #[structopt(long)]
    pub open_private_ports: bool,
    /// Switch metrics on and add a listener for them
    #[structopt(long)]
    pub enable_metrics: bool,
}

/// `plexus worker`
#[derive(Debug, StructOpt)]
pub struct Worker {
    #[structopt(flatten)]
    pub files: ConfigFiles,
    /// Folder where keys are looked for [default: that of the last configuration file]
    #[structopt(long, parse(from_os_str))]
    pub keys_directory: Option<PathBuf>,
    /// Let anybody register
    #[structopt(long)]
    pub enable_registration: bool,
    #[structopt(flatten)]
    pub ignored: Ignored,
}

/// `plexus generate-config`
#[derive(Debug, StructOpt)]
pub struct GenerateConfig {
    /// Where to write the configuration
    #[structopt(short = "c", long = "config-path", parse(from_os_str), default_value = "homeserver.yaml")]
    pub config_path: PathBuf,
    #[structopt(flatten)]
    pub new: NewConfig,
}

/// `plexus generate-keys`
#[derive(Debug, StructOpt)]
pub struct GenerateKeys {
    /// Make the files that this configuration names and that are missing
    #[structopt(
        short = "c",
        long = "config-path",
        parse(from_os_str),
        number_of_values = 1,
        conflicts_with = "output"
    )]
    pub config_path: Vec<PathBuf>,
    /// Write a signing key to this file; "-" is standard output
    #[structopt(short, long, parse(from_os_str))]
    pub output: Option<PathBuf>,
}

/// `plexus register-user`
#[derive(Debug, StructOpt)]
pub struct RegisterUser {
    /// The part of the user id before the colon; asked for if missing
    #[structopt(short, long)]
    pub user: Option<String>,
    /// Password; asked for if missing
    #[structopt(short, long, conflicts_with = "password-file")]
    pub password: Option<String>,
    /// File with the password
    #[structopt(long, parse(from_os_str))]
    pub password_file: Option<PathBuf>,
    /// Make the user a server admin
    #[structopt(short, long, conflicts_with = "no-admin")]
    pub admin: bool,
    /// Don't, and don't ask
    #[structopt(long)]
    pub no_admin: bool,
    /// Type of the user, such as bot or support
    #[structopt(short = "t", long = "user_type", alias = "user-type")]
    pub user_type: Option<String>,
    /// A user that exists is no failure
    #[structopt(long)]
    pub exists_ok: bool,
    /// Configuration to take the shared secret and the server's address from
    #[structopt(
        short,
        long = "config",
        alias = "config-path",
        parse(from_os_str),
        number_of_values = 1,
        required_unless = "shared-secret"
    )]
    pub config: Vec<PathBuf>,
    /// The shared secret
    #[structopt(short = "k", long, conflicts_with = "config")]
    pub shared_secret: Option<String>,
    /// Where the server is [default: from the configuration, else http://localhost:8008]
    pub server_url: Option<String>,
}

/// `plexus hash-password`
#[derive(Debug, StructOpt)]
pub struct HashPassword {
    /// The password; read from standard input if missing
    #[structopt(short, long)]
    pub password: Option<String>,
    /// Configuration to take bcrypt_rounds and the pepper from
    #[structopt(short, long = "config", alias = "config-path", parse(from_os_str), number_of_values = 1)]
    pub config: Vec<PathBuf>,
}

/// `plexus check-config`
#[derive(Debug, StructOpt)]
pub struct CheckConfig {
    #[structopt(flatten)]
    pub files: ConfigFiles,
    /// A worker's own file, or a folder of them, checked each with the files of -c
    #[structopt(short, long = "worker", parse(from_os_str), number_of_values = 1)]
    pub worker: Vec<PathBuf>,
    /// Warnings are errors
    #[structopt(long)]
    pub strict: bool,
}

/// `plexus schema`
#[derive(Debug, StructOpt)]
pub struct Schema {
    #[structopt(flatten)]
    pub files: ConfigFiles,
}

/// `plexus routes`
#[derive(Debug, StructOpt)]
pub struct Routes {
    /// markdown, json or nginx
    #[structopt(short, long, default_value = "markdown", possible_values = &["markdown", "json", "nginx"])]
    pub format: String,
    /// For nginx: the cluster whose processes the routes lead to
    #[structopt(long, parse(from_os_str))]
    pub cluster: Option<PathBuf>,
}

/// `plexus completions`
#[derive(Debug, StructOpt)]
pub struct Completions {
    /// bash, fish, zsh or elvish
    #[structopt(possible_values = &["bash", "fish", "zsh", "elvish"])]
    pub shell: Shell,
}

/// Reads the command line. Under Synapse's names the program is that command.
pub fn read() -> Result<Cli, structopt::clap::Error> {
    from(std::env::args_os().collect())
}

fn from(mut args: Vec<std::ffi::OsString>) -> Result<Cli, structopt::clap::Error> {
    let name =
        args.first().and_then(|a| std::path::Path::new(a).file_name()).and_then(|n| n.to_str()).unwrap_or_default();
    let command = match name {
        "synapse_homeserver" => Some("homeserver"),
        "synapse_worker" => Some("worker"),
        "register_new_matrix_user" => Some("register-user"),
        "hash_password" => Some("hash-password"),
        "generate_signing_key" => Some("generate-keys"),
        _ => None,
    };
    if let Some(command) = command {
        args.insert(1, command.into());
    }
    Cli::from_iter_safe(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Cli {
        from(line.split(' ').map(Into::into).collect()).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    #[test]
    fn synapses_command_lines_are_understood() {
        let Cli::Homeserver(args) =
            parse("/usr/bin/synapse_homeserver -D --config-path a --config-path=b -c c --keys-directory k")
        else {
            panic!("not the homeserver");
        };
        assert_eq!(args.files.config_path, ["a", "b", "c"].map(PathBuf::from));
        assert_eq!(args.new.config_directory, Some("k".into()));
        let Cli::Homeserver(args) =
            parse("plexus homeserver --generate-config --report-stats=no --server-name localhost:8800 -c x")
        else {
            panic!("not the homeserver");
        };
        assert!(args.generate_config && args.new.server_name.as_deref() == Some("localhost:8800"));
        let Cli::Homeserver(args) = parse("plexus homeserver -H name --generate-keys -c x") else {
            panic!("not the homeserver")
        };
        assert!(args.generate_missing_configs && !args.generate_config);
        assert!(
            matches!(parse("synapse_worker -c a -c b --no-redirect-stdio"), Cli::Worker(w) if w.files.config_path.len() == 2)
        );
        let Cli::RegisterUser(args) = parse("register_new_matrix_user -u a -p b -a -c x -c y http://h:1") else {
            panic!("not register-user")
        };
        assert!(args.admin && args.config.len() == 2 && args.server_url.as_deref() == Some("http://h:1"));
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "plexus",
            "plexus nothing",
            "plexus homeserver --report-stats=maybe",
            "plexus register-user -u a",
            "plexus register-user -a --no-admin -k x",
        ] {
            assert!(from(line.split(' ').map(Into::into).collect()).is_err(), "{line}");
        }
    }
}
