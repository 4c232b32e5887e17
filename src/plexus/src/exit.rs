//! How a run ends.

use config::ConfigError;
use std::process::ExitCode;

/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The configuration is wrong; starting again won't help (EX_CONFIG).
pub const CONFIG: u8 = 78;

/// As what `main` returns.
pub fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}

/// Prints mistakes, one a line. Returns the exit code for them.
pub fn report(errors: &[ConfigError]) -> ExitCode {
    eprintln!("The configuration can't be used:");
    for error in errors {
        eprintln!("  {error}");
    }
    code(CONFIG)
}
