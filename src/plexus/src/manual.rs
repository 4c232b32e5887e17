//! The manual page and the shells' completions, from the command line's own description.

use std::process::ExitCode;

use structopt::StructOpt;
use structopt::clap::{App, Shell};

use crate::cli::Cli;

/// `plexus completions`
pub fn completions(shell: Shell) -> ExitCode {
    Cli::clap().gen_completions_to("plexus", shell, &mut std::io::stdout());
    ExitCode::SUCCESS
}

/// `plexus manual`
pub fn print() -> ExitCode {
    print!("{}", page());
    ExitCode::SUCCESS
}

/// man(7): the overview, then a section for each command with its help as it is printed.
fn page() -> String {
    let mut page = format!(".TH PLEXUS 1 \"\" \"plexus {}\"\n", env!("CARGO_PKG_VERSION"));
    page += ".SH NAME\nplexus \\- a Matrix homeserver, interchangeable with Synapse process by process\n";
    page += ".SH SYNOPSIS\n.B plexus\n.I COMMAND\n[options]\n.SH DESCRIPTION\n";
    page += &verbatim(&help(&["plexus"]));
    for path in commands(&Cli::clap(), &["plexus".to_owned()]) {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        page += &format!(".SH {}\n{}", words.join(" ").to_uppercase(), verbatim(&help(&words)));
    }
    page
}

/// Every command that does something, as the words that call it.
fn commands(app: &App<'_, '_>, before: &[String]) -> Vec<Vec<String>> {
    let below = app.p.subcommands.iter().filter(|sub| sub.get_name() != "help");
    below
        .flat_map(|sub| {
            let path = [before, &[sub.get_name().to_owned()]].concat();
            if sub.p.subcommands.is_empty() { vec![path] } else { commands(sub, &path) }
        })
        .collect()
}

fn help(words: &[&str]) -> String {
    let args = words.iter().copied().chain(["--help"]);
    Cli::clap().get_matches_from_safe(args).map_or_else(|help| help.message, |_| String::new())
}

/// Text that is neither filled nor read as roff; colours are left out.
fn verbatim(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain += before;
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain += rest;
    let lines = plain.lines().map(|line| format!("\\&{}\n", line.replace('\\', "\\e").replace('-', "\\-")));
    format!(".nf\n{}.fi\n", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_the_manual() {
        let page = page();
        for part in [".SH PLEXUS HOMESERVER\n", ".SH PLEXUS CLUSTER RENDER\n", "\\-\\-no\\-first\\-user", "EXIT CODES:"]
        {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert!(!page.contains('\u{1b}'), "colours in the manual");
    }
}
