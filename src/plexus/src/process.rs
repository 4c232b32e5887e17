//! One process from configuration to exit.

use crate::logging;
use crate::notify::notify;
use app::App;
use config::listeners::Resource as Configured;
use config::{Bind, Config, Listener, ListenerKind};
use http::{BodyLimit, Resource, Route, Serving, Table, bind_tcp, bind_unix};
use replication::Cx;
use slog::{Logger, error, info, warn};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use types::{Error, Result};

/// Client requests carry at most 200 events' worth of JSON, as Synapse allows.
const BODY_LIMIT: usize = 200 * 65_536;

/// Runs until a signal says stop. Exit codes: 0 asked to stop, 1 could not start or failed.
pub fn run(config: Config, warnings: &[String]) -> ExitCode {
    let instance = config.workers.instance_name.clone();
    let settings = match config.log_config.as_deref().map(logging::Settings::read) {
        None => logging::Settings::default(),
        Some(Ok(s)) => s,
        Some(Err(errors)) => return crate::start::report(&errors),
    };
    let (log, output) = match logging::start(&settings, &instance) {
        Ok(started) => started,
        Err(e) => {
            eprintln!("log file: {e}");
            return ExitCode::FAILURE;
        }
    };
    for w in warnings {
        warn!(log, "configuration"; "warning" => w);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => {
            error!(log, "no runtime"; "error" => %e);
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(serve(config, &instance, &log, output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("plexus: {e}");
            error!(log, "stopped"; "error" => %e);
            ExitCode::FAILURE
        }
    };
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

async fn serve(config: Config, instance: &str, log: &Logger, output: logging::Output) -> Result<()> {
    // Synapse writes it as a daemon only: where it runs under systemd the path is often one that nobody can write to.
    if let Some(path) = &config.server.pid_file
        && let Err(e) = std::fs::write(path, std::process::id().to_string())
    {
        slog::warn!(log, "no pid file"; "path" => %path.display(), "error" => %e);
    }
    let cx = tokio::select! {
        opened = Cx::open(config, instance, log.clone()) => opened?,
        _ = asked_to_stop() => return Ok(()),
    };
    let app = App::start(cx.clone())?;
    cx.start()?;
    app.serve_forwarded(Arc::new(Table::new(
        routes().into_iter().filter(|r| r.resource == Resource::Client || r.resource == Resource::Media).collect(),
    )?));
    let (stop, stopping) = watch::channel(false);
    let mut serving = JoinSet::new();
    let mut tables = Tables::default();
    for listener in &cx.duties.listeners {
        listen(&app, listener, &mut tables, &stopping, &mut serving).await?;
    }
    background::start(&cx);
    delivery::start(&cx, &app.fed);
    notify("READY=1");
    info!(log, "ready"; "listeners" => serving.len());
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                notify("RELOADING=1");
                output.reopen();
                info!(log, "logs opened again");
                notify("READY=1");
            }
            _ = asked_to_stop() => break,
        }
    }
    notify("STOPPING=1");
    info!(log, "stopping");
    let _ = stop.send(true);
    while serving.join_next().await.is_some() {}
    app.accounts.flush_sightings().await;
    app.leave_bus().await;
    Ok(())
}

/// SIGTERM or SIGINT.
async fn asked_to_stop() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Every route of the program, whichever listener serves it.
pub fn routes() -> Vec<Route<App>> {
    let mut all = client_api::routes();
    all.extend(federation_api::routes());
    all.extend(replication_api::routes());
    all.extend(app::routes());
    all
}

/// Tables by the set of resources a listener serves.
#[derive(Default)]
struct Tables(HashMap<Vec<&'static str>, Arc<Table<App>>>);

impl Tables {
    fn of(&mut self, listener: &Listener) -> Result<Arc<Table<App>>> {
        let mut names: Vec<&'static str> = listener.resources().iter().map(|r| r.name()).collect();
        names.sort_unstable();
        if let Some(table) = self.0.get(&names) {
            return Ok(table.clone());
        }
        let table = Arc::new(Table::new(routes().into_iter().filter(|r| serves(listener, r.resource)).collect())?);
        self.0.insert(names, table.clone());
        Ok(table)
    }
}

/// Whether a listener's configuration includes a resource of the route table.
fn serves(listener: &Listener, resource: Resource) -> bool {
    if listener.kind == ListenerKind::Metrics {
        return matches!(resource, Resource::Metrics | Resource::Health);
    }
    listener.serves(match resource {
        Resource::Client => Configured::Client,
        Resource::Federation => Configured::Federation,
        Resource::Keys => Configured::Keys,
        Resource::Media => Configured::Media,
        Resource::Replication => Configured::Replication,
        Resource::Metrics => Configured::Metrics,
        Resource::Health => Configured::Health,
    })
}

async fn listen(
    app: &App,
    listener: &Listener,
    tables: &mut Tables,
    stopping: &watch::Receiver<bool>,
    serving: &mut JoinSet<()>,
) -> Result<()> {
    let table = tables.of(listener)?;
    let make = |tls| Serving {
        app: app.clone(),
        table: table.clone(),
        x_forwarded: listener.x_forwarded,
        body_limit: BodyLimit(BODY_LIMIT),
        tls,
    };
    match &listener.bind {
        Bind::Unix { path, mode } => {
            let (socket, file) = bind_unix(path, *mode)
                .map_err(|e| Error::internal(format!("listeners: cannot bind {}: {e}", path.display())))?;
            let served = make(None).unix(socket, stopping.clone());
            serving.spawn(async move {
                served.await;
                drop(file);
            });
        }
        Bind::Tcp { port, addresses, tls } => {
            let acceptor = if *tls { Some(crate::tls::acceptor(&app.cx.config.tls)?) } else { None };
            for (i, address) in addresses.iter().enumerate() {
                for at in tokio::net::lookup_host((address.as_str(), *port)).await? {
                    match bind_tcp(at) {
                        Ok(socket) => {
                            serving.spawn(make(acceptor.clone()).tcp(socket, stopping.clone()));
                        }
                        // `::` usually takes the IPv4 port as well.
                        Err(_) if i > 0 && at.ip().is_unspecified() => {}
                        Err(e) => return Err(unbindable(at, &e)),
                    }
                }
            }
        }
    }
    Ok(())
}

fn unbindable(at: SocketAddr, e: &Error) -> Error {
    Error::internal(format!("listeners: cannot bind {at}: {e}"))
}
