//! How a command on a cluster fails.

use std::path::Path;

/// Why a command failed.
#[derive(Debug)]
pub enum Failed {
    /// The description is wrong.
    Config(String),
    /// Something didn't work.
    Run(String),
}

impl From<String> for Failed {
    fn from(message: String) -> Self {
        Self::Run(message)
    }
}

/// Names what failed in an I/O error.
pub fn io(what: &Path) -> impl FnOnce(std::io::Error) -> Failed + '_ {
    move |e| Failed::Run(format!("{}: {e}", what.display()))
}
