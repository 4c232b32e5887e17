//! `plexus check-config`: are the files right, and what does each process do?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use config::{Bind, Config, Duties, Loaded, Options, Role};

use crate::cli::CheckConfig;
use crate::exit::{self, report};

/// Runs the check.
pub fn run(args: &CheckConfig) -> ExitCode {
    let mut check = Check { args, warnings: 0, shown: BTreeMap::new(), places: BTreeMap::new(), bad: false };
    let role = match Config::role_of(&args.files.config_path) {
        Ok(role) => role,
        Err(errors) => return report(&errors),
    };
    let Some(config) = check.load(&args.files.config_path, role) else { return exit::code(exit::CONFIG) };
    check.show(config.duties(), &args.files.config_path);
    let workers = match config::files::find(&args.worker) {
        Ok(files) => files,
        Err(e) => {
            eprintln!("can't list the workers' files: {e}");
            return exit::code(exit::CONFIG);
        }
    };
    for file in &workers {
        let paths: Vec<PathBuf> = args.files.config_path.iter().chain([file]).cloned().collect();
        if let Some(config) = check.load(&paths, Role::Worker) {
            check.show(config.duties(), std::slice::from_ref(file));
        }
    }
    // Processes that the files name but whose own files weren't given.
    for name in config.workers.instance_map.keys() {
        if !check.shown.contains_key(name) {
            println!("{}", Duties::of(&config, name));
        }
    }
    check.finish()
}

struct Check<'a> {
    args: &'a CheckConfig,
    warnings: usize,
    /// Instance → file it was read from.
    shown: BTreeMap<String, PathBuf>,
    /// Port or socket → instance.
    places: BTreeMap<String, String>,
    bad: bool,
}

impl Check<'_> {
    fn load(&mut self, paths: &[PathBuf], role: Role) -> Option<Config> {
        let options = Options { keys_directory: None, no_secrets_in_config: self.args.files.no_secrets_in_config };
        match Config::load_with(paths, role, options) {
            Ok(Loaded { config, warnings }) => {
                self.warnings += warnings.len();
                for warning in warnings {
                    eprintln!("warning: {warning}");
                }
                Some(config)
            }
            Err(errors) => {
                report(&errors);
                self.bad = true;
                None
            }
        }
    }

    fn show(&mut self, duties: Duties, files: &[PathBuf]) {
        let file = files.last().map(PathBuf::as_path).unwrap_or_else(|| Path::new(""));
        if let Some(other) = self.shown.insert(duties.instance.clone(), file.to_owned()) {
            eprintln!(
                "{}: worker_name: {:?} is also the name in {}; allowed: a name of its own for each process",
                file.display(),
                duties.instance,
                other.display()
            );
            self.bad = true;
        }
        for listener in &duties.listeners {
            let place = match &listener.bind {
                Bind::Tcp { port: 0, .. } => continue,
                Bind::Tcp { port, .. } => format!("port {port}"),
                Bind::Unix { path, .. } => path.display().to_string(),
            };
            if let Some(other) =
                self.places.insert(place.clone(), duties.instance.clone()).filter(|o| *o != duties.instance)
            {
                eprintln!(
                    "warning: {} and {other} both listen on {place}, which only works on different hosts",
                    duties.instance
                );
                self.warnings += 1;
            }
        }
        println!("{duties}");
    }

    fn finish(&self) -> ExitCode {
        if self.bad || (self.args.strict && self.warnings > 0) {
            return exit::code(exit::CONFIG);
        }
        match self.warnings {
            0 => println!("The configuration is good."),
            n => println!("The configuration can be used; {n} warning(s)."),
        }
        ExitCode::SUCCESS
    }
}
