//! Redis, nginx and the homeserver's processes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use config::plan::{Place, Plan, Process, RedisPlace};

use super::failed::{Failed, io};
use super::processes::Managed;
use crate::client::{Client, Target};

/// Finds a program in PATH or where Debian keeps those of administrators.
fn program(name: &str, package: &str) -> Result<std::path::PathBuf, Failed> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| Failed::Run(format!("{name} is not installed (Debian: apt install {package})")))
}

/// Starts a Redis that keeps nothing, and waits until it answers.
pub fn start_redis(plan: &Plan, place: &RedisPlace) -> Result<Managed, Failed> {
    let program = program("redis-server", "redis-server")?;
    let mut args: Vec<String> =
        ["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"].map(str::to_owned).into();
    args.push(plan.run_dir().display().to_string());
    match place {
        RedisPlace::Socket(path) => {
            // A socket left by a killed server would be in the way of the question whether the new one answers.
            let _ = std::fs::remove_file(path);
            args.extend([
                "--port".into(),
                "0".into(),
                "--unixsocket".into(),
                path.display().to_string(),
                "--unixsocketperm".into(),
                "700".into(),
            ]);
        }
        RedisPlace::Tcp(host, port) => args.extend(["--bind".into(), host.clone(), "--port".into(), port.to_string()]),
    }
    let mut server = Managed::start("redis", &plan.log_dir().join("redis.log"), libc::SIGTERM, move || {
        let mut command = Command::new(&program);
        command.args(&args);
        command
    })?;
    let reachable = || match place {
        RedisPlace::Socket(path) => std::os::unix::net::UnixStream::connect(path).is_ok(),
        RedisPlace::Tcp(host, port) => std::net::TcpStream::connect((host.as_str(), *port)).is_ok(),
    };
    wait_for(&mut server, Duration::from_secs(20), reachable)?;
    Ok(server)
}

fn wait_for(server: &mut Managed, patience: Duration, mut ready: impl FnMut() -> bool) -> Result<(), Failed> {
    let until = Instant::now() + patience;
    while !ready() {
        if let Some(how) = server.ended() {
            return Err(Failed::Run(format!("{} ended ({how}):\n{}", server.name, server.log_tail())));
        }
        if Instant::now() > until {
            return Err(Failed::Run(format!(
                "{} isn't ready after {} s:\n{}",
                server.name,
                patience.as_secs(),
                server.log_tail()
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Starts an nginx of the cluster's own.
pub fn start_nginx(plan: &Plan) -> Result<Managed, Failed> {
    let program = program("nginx", "nginx")?;
    let prefix = plan.data_dir.join("nginx");
    std::fs::create_dir_all(&prefix).map_err(io(&prefix))?;
    let file = plan.config_dir.join("nginx/nginx.conf");
    // SAFETY: geteuid takes nothing and can't fail.
    let user = if unsafe { libc::geteuid() } == 0 { "user root; " } else { "" };
    let log = plan.log_dir().join("nginx.log");
    let base = move || {
        let mut command = Command::new(&program);
        command.arg("-p").arg(&prefix).arg("-c").arg(&file).arg("-e").arg(&log);
        command
    };
    let checked = base().args(["-t", "-q", "-g", user]).output().map_err(|e| Failed::Run(format!("nginx: {e}")))?;
    if !checked.status.success() {
        return Err(Failed::Run(format!(
            "nginx refuses its configuration:\n{}",
            String::from_utf8_lossy(&checked.stderr)
        )));
    }
    let directives = format!("{user}daemon off;");
    let mut server = Managed::start("nginx", &plan.log_dir().join("nginx.log"), libc::SIGTERM, move || {
        let mut command = base();
        command.args(["-g", &directives]);
        command
    })?;
    let place = (plan.file.bind_address.clone(), plan.file.base_port);
    wait_for(&mut server, Duration::from_secs(20), || {
        std::net::TcpStream::connect((place.0.as_str(), place.1)).is_ok()
    })?;
    Ok(server)
}

/// Starts a process of the homeserver; see [`wait_ready`].
pub fn start_process(plan: &Plan, process: &Process) -> Result<Managed, Failed> {
    let (program, files) = (plan.program.clone(), plan.config_files(process));
    let command = if process.role.is_some() { "worker" } else { "homeserver" };
    Managed::start(&process.name, &log_of(plan, &process.name), libc::SIGTERM, move || {
        let mut run = Command::new(&program);
        run.arg(command);
        files.iter().for_each(|file| {
            run.arg("-c").arg(file);
        });
        run
    })
}

/// The log of a process.
pub fn log_of(plan: &Plan, name: &str) -> std::path::PathBuf {
    plan.log_dir().join(format!("{name}.log"))
}

/// Where a process takes requests of clients.
pub fn target(plan: &Plan, place: &Place) -> Target {
    match place {
        Place::Tcp(at) => Target::Url(format!("{}://{at}", plan.scheme(place))),
        Place::Socket(path) => Target::Unix(path.clone()),
    }
}

/// Waits until the process answers on `/health`.
pub async fn wait_ready(plan: &Plan, client: &Client, server: &mut Managed, process: &Process) -> Result<(), Failed> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok((200, _)) = client.text(&target(plan, &process.http), "/health").await {
            return Ok(());
        }
        if let Some(how) = server.ended() {
            return Err(Failed::Run(format!("{} ended ({how}):\n{}", server.name, server.log_tail())));
        }
        if Instant::now() > until {
            return Err(Failed::Run(format!("{} doesn't answer after a minute:\n{}", server.name, server.log_tail())));
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Whether a file is there; for what only a first run makes.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
