//! `plexus routes`: the route table for people, programs and proxies.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use app::App;
use http::{On, Route};

use crate::cluster::plans;
use crate::proxied::rows;
use crate::{cli, exit, process};

/// Prints the table.
pub fn run(args: &cli::Routes) -> ExitCode {
    let mut routes = process::routes();
    routes.sort_by(|a, b| {
        (a.resource as u8, a.path, a.method.as_str()).cmp(&(b.resource as u8, b.path, b.method.as_str()))
    });
    let text = match args.format.as_str() {
        "json" => json(&routes),
        "nginx" => match nginx(args.cluster.as_deref()) {
            Ok(text) => text,
            Err(message) => {
                eprintln!("{message}");
                return exit::code(exit::CONFIG);
            }
        },
        _ => markdown(&routes),
    };
    print!("{text}");
    ExitCode::SUCCESS
}

/// Where a route is answered, in words.
fn place(on: On) -> String {
    match on {
        On::Any => "any process".into(),
        On::SyncByUser => "any process, one for a user".into(),
        On::InitialSync => "any process, apart from other syncs".into(),
        On::RoomRead => "any process, one for a room".into(),
        On::RoomShard => "events writer of the room".into(),
        On::Writer(stream) => format!("writer of {stream}"),
        On::FederationIn => "any process, one for a server".into(),
        On::Media => "media".into(),
        On::Main => "main".into(),
    }
}

fn markdown(routes: &[Route<App>]) -> String {
    let mut text = String::from(
        "| Method | Path | Name | Resource | Access | Answered by | Rate limit |\n|---|---|---|---|---|---|---|\n",
    );
    for r in routes {
        let path = r.path.replace('|', "\\|");
        let _ = writeln!(
            text,
            "| {} | `{path}` | {} | {:?} | {:?} | {} | {:?} |",
            r.method,
            r.name,
            r.resource,
            r.access,
            place(r.on),
            r.rate
        );
    }
    text
}

fn json(routes: &[Route<App>]) -> String {
    let rows: Vec<serde_json::Value> = routes
        .iter()
        .map(|r| {
            serde_json::json!({
                "method": r.method.as_str(),
                "path": r.path,
                "paths": http::table::expand(r.path),
                "name": r.name,
                "resource": format!("{:?}", r.resource).to_lowercase(),
                "access": format!("{:?}", r.access).to_lowercase(),
                "on": place(r.on),
                "rate": format!("{:?}", r.rate).to_lowercase(),
            })
        })
        .collect();
    serde_json::to_string_pretty(&rows).unwrap_or_default() + "\n"
}

/// Upstreams, maps and the server for the processes of a cluster; of one with a process for each role by default.
fn nginx(file: Option<&Path>) -> Result<String, String> {
    let plan = match file {
        Some(file) => plans::read_plan(file)?,
        None => plans::example_plan()?,
    };
    let rendered = plan.render(&rows());
    let block = rendered.into_iter().find(|f| f.path == Path::new("nginx/plexus.conf"));
    block.map(|f| f.text).ok_or_else(|| "nothing was rendered".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::table::expand;
    use regex::Regex;

    /// Every (method, path regex) of Synapse 1.163.2, dumped from its own route tables.
    const SYNAPSE: &str = include_str!("../../../tests/data/endpoints.tsv");

    fn synapse() -> Vec<(&'static str, Regex)> {
        let rows = SYNAPSE.lines().skip(1).map(|line| {
            let mut columns = line.split('\t');
            let method = columns.next().unwrap();
            let regex = columns.next().unwrap();
            let anchored = if regex.starts_with('^') { regex.to_owned() } else { format!("^{regex}") };
            (method, Regex::new(&anchored).unwrap())
        });
        rows.collect()
    }

    /// Ours alone: talk between Plexus processes.
    fn is_ours(path: &str) -> bool {
        path.starts_with("/_synapse/replication/plexus_")
    }

    /// A path of the route with something plausible for every parameter.
    fn example(path: &str) -> String {
        path.split('/')
            .map(|part| match part {
                "{scope}" => "global",
                "{kind}" => "room",
                "{attr}" => "enabled",
                p if p.starts_with('{') => "x",
                p => p,
            })
            .collect::<Vec<_>>()
            .join("/")
    }

    #[test]
    fn every_route_is_one_of_synapses() {
        let synapse = synapse();
        let mut strange = Vec::new();
        for route in process::routes().iter().filter(|r| !is_ours(r.path)) {
            for path in expand(route.path) {
                let example = example(&path);
                let method = route.method.as_str();
                if !synapse.iter().any(|(m, regex)| *m == method && regex.is_match(&example)) {
                    strange.push(format!("{method} {path}"));
                }
            }
        }
        assert!(strange.is_empty(), "Synapse has no such routes:\n{}", strange.join("\n"));
    }

    #[test]
    fn the_table_is_unambiguous_and_every_route_is_shown() {
        let routes = process::routes();
        let count = routes.len();
        assert!(markdown(&routes).lines().count() == count + 2);
        let shown: serde_json::Value = serde_json::from_str(&json(&routes)).expect("JSON");
        assert_eq!(shown.as_array().map(Vec::len), Some(count));
        if let Err(e) = http::Table::new(routes) {
            panic!("{e}");
        }
    }

    #[test]
    fn nginx_sends_every_route_where_the_table_says() {
        let block = nginx(None).expect("nginx");
        let lines = block.lines().filter_map(|line| {
            let (pattern, pool) = line.trim().strip_prefix("\"~^")?.split_once("\" plexus_")?;
            Some((Regex::new(&format!("^{pattern}")).expect(pattern), pool.trim_end_matches(';').to_owned()))
        });
        let lines: Vec<_> = lines.filter(|(regex, _)| regex.as_str().contains(" /")).collect();
        let mut checked = 0;
        for row in rows() {
            let wanted = lines
                .iter()
                .find(|(regex, _)| regex.as_str() == format!("^{} {}$", row.method, config::plan::regex_of(&row.path)));
            let (_, wanted) = wanted.unwrap_or_else(|| panic!("{} {} has no line", row.method, row.path));
            for path in expand(&row.path) {
                let request = format!("{} {}", row.method, example(&path));
                let found = lines.iter().find(|(regex, _)| regex.is_match(&request));
                assert_eq!(found.map(|(_, pool)| pool), Some(wanted), "{request}");
                checked += 1;
            }
        }
        assert!(checked > 50, "{checked}");
    }
}
