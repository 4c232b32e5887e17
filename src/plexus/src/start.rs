//! The commands that run a process or make its files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use config::generate;
use config::{Config, Loaded, Role};

use crate::cli;
use crate::exit::{self, report};
use crate::source::Source;

/// `plexus homeserver`
pub fn homeserver(args: &cli::Homeserver) -> ExitCode {
    if args.generate_config {
        return generate_config(&args.files.config_path, &args.new);
    }
    let keys = args.new.config_directory.as_deref();
    if args.dry_run {
        return match Source::new(&args.files, Role::Homeserver, keys).load() {
            Ok(Loaded { config, .. }) => crate::process::dry_run(&config),
            Err(errors) => report(&errors),
        };
    }
    match generate::missing_files(&args.files.config_path, keys) {
        Ok(made) => made.iter().for_each(|path| println!("Made {}", path.display())),
        Err(errors) => return report(&errors),
    }
    if args.generate_missing_configs {
        return ExitCode::SUCCESS;
    }
    run(Source::new(&args.files, Role::Homeserver, keys), args.enable_registration, &args.ignored)
}

/// `plexus worker`
pub fn worker(args: &cli::Worker) -> ExitCode {
    run(Source::new(&args.files, Role::Worker, args.keys_directory.as_deref()), args.enable_registration, &args.ignored)
}

/// `plexus schema`
pub fn schema(args: &cli::Schema) -> ExitCode {
    let role = match Config::role_of(&args.files.config_path) {
        Ok(role) => role,
        Err(errors) => return report(&errors),
    };
    match Source::new(&args.files, role, None).load() {
        Ok(Loaded { config, .. }) => crate::process::schema(&config),
        Err(errors) => report(&errors),
    }
}

fn run(source: Source, enable_registration: bool, ignored: &cli::Ignored) -> ExitCode {
    let Loaded { mut config, mut warnings } = match source.load() {
        Ok(loaded) => loaded,
        Err(errors) => return report(&errors),
    };
    config.registration.enabled |= enable_registration;
    let given = [
        ("daemonize", ignored.daemonize),
        ("manhole", ignored.manhole.is_some()),
        ("database-path", ignored.database_path.is_some()),
        ("log-file", ignored.log_file.is_some()),
    ];
    warnings.extend(given.into_iter().filter(|(_, given)| *given).map(|(name, _)| format!("--{name} has no effect")));
    if let Some(path) = config.server.pid_file.as_ref().filter(|_| ignored.print_pidfile) {
        println!("{}", path.display());
    }
    crate::process::run(config, &warnings, &source)
}

/// `plexus generate-config`, and `homeserver --generate-config`, which also fills up what an existing configuration
/// names.
pub fn generate_config(paths: &[PathBuf], new: &cli::NewConfig) -> ExitCode {
    let [path] = paths else {
        eprintln!("--generate-config needs exactly one -c FILE");
        return exit::code(exit::USAGE);
    };
    if path.exists() {
        println!("{} exists; making only what it names and lacks.", path.display());
    } else if let Err(message) = write_config(path, new) {
        eprintln!("{message}");
        return ExitCode::FAILURE;
    }
    match generate::missing_files(paths, new.config_directory.as_deref()) {
        Ok(made) => {
            made.iter().for_each(|path| println!("Made {}", path.display()));
            ExitCode::SUCCESS
        }
        Err(errors) => report(&errors),
    }
}

fn write_config(path: &Path, new: &cli::NewConfig) -> Result<(), String> {
    let name = new.server_name.as_deref().ok_or("A new configuration needs the server's name: -H NAME")?;
    let server_name = <&ruma::ServerName>::try_from(name)
        .map_err(|_| format!("{name:?} is no server name; allowed: a host name or address, with or without a port"))?;
    let report_stats = new
        .report_stats
        .as_deref()
        .ok_or("Please say --report-stats=yes or --report-stats=no (nothing is ever reported)")?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()));
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let config_dir = absolute(new.config_directory.as_deref().unwrap_or(folder))?;
    let data_dir = absolute(new.data_directory.as_deref().unwrap_or_else(|| Path::new(".")))?;
    std::fs::create_dir_all(&config_dir).map_err(|e| format!("can't make {}: {e}", config_dir.display()))?;
    let text = generate::homeserver_yaml(&generate::NewConfig {
        server_name,
        config_dir: &config_dir,
        data_dir: &data_dir,
        report_stats: report_stats == "yes",
        open_private_ports: new.open_private_ports,
        enable_metrics: new.enable_metrics,
    });
    generate::write_new(path, &text, 0o640).map_err(|e| format!("can't write {}: {e}", path.display()))?;
    println!("Made {} for {name}. Look through it, the database above all.", path.display());
    Ok(())
}

/// `plexus generate-keys`
pub fn generate_keys(args: &cli::GenerateKeys) -> ExitCode {
    if !args.config_path.is_empty() {
        return match generate::missing_files(&args.config_path, None) {
            Ok(made) => {
                made.iter().for_each(|path| println!("Made {}", path.display()));
                ExitCode::SUCCESS
            }
            Err(errors) => report(&errors),
        };
    }
    let line = generate::signing_key().expose_line();
    let Some(path) = args.output.as_ref().filter(|p| p.as_os_str() != "-") else {
        print!("{line}");
        return ExitCode::SUCCESS;
    };
    match generate::write_new(path, &line, 0o640) {
        Ok(true) => {
            println!("Made {}", path.display());
            ExitCode::SUCCESS
        }
        Ok(false) => {
            eprintln!("{} exists; it is left as it is", path.display());
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("can't write {}: {e}", path.display());
            ExitCode::FAILURE
        }
    }
}
