//! From `cluster.toml` to where everything is, and to the rendered files.

use std::path::Path;

use config::plan::{ClusterFile, Plan};

use super::failed::{Failed, io};
use super::state;

/// Reads `cluster.toml` and decides where everything is, on the ports a run has chosen if there was one.
pub fn read_plan(file: &Path) -> Result<Plan, String> {
    plan_for(file, None, None)
}

/// The same, on other ports or for another program.
pub fn plan_for(file: &Path, base_port: Option<u16>, program: Option<&Path>) -> Result<Plan, String> {
    let text = std::fs::read_to_string(file).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!(
            "There is no cluster: {} doesn't exist (`plexus cluster up`, or ./dev up, makes one)",
            file.display()
        ),
        _ => format!("{}: {e}", file.display()),
    })?;
    let mut cluster = ClusterFile::parse(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    let file = std::path::absolute(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let folder = file.parent().unwrap_or_else(|| Path::new("/"));
    if let Some(port) = base_port.or_else(|| state::chosen_port(&cluster.data_dir_in(folder))) {
        cluster.base_port = port;
    }
    let own = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
    let mut plan =
        Plan::new(cluster, folder, program.unwrap_or(&own)).map_err(|e| format!("{}: {e}", file.display()))?;
    plan.cluster_file = Some(file);
    Ok(plan)
}

/// A cluster with every role, for showing how routes are shared out.
pub fn example_plan() -> Result<Plan, String> {
    let file = ClusterFile::parse(
        "server_name = 'example.com'\npreset = 'large'\nunix_sockets = true\ndata_dir = '/var/lib/plexus'\n",
    )?;
    Plan::new(file, Path::new("/"), Path::new("/usr/bin/plexus"))
}

/// Writes the rendered files; those of processes that are gone go too.
pub fn write_rendered(plan: &Plan) -> Result<(), Failed> {
    for folder in ["workers", "systemd", "nginx"] {
        let folder = plan.config_dir.join(folder);
        if folder.is_dir() {
            std::fs::remove_dir_all(&folder).map_err(io(&folder))?;
        }
    }
    for file in plan.render(&crate::proxied::rows()) {
        let path = plan.config_dir.join(&file.path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io(folder))?;
        }
        std::fs::write(&path, &file.text).map_err(io(&path))?;
    }
    Ok(())
}
