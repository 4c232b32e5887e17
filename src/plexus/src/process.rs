//! One process from configuration to exit.

use crate::exit;
use crate::inherited::Inherited;
use crate::logging;
use crate::notify::{self, notify};
use crate::source::Source;
use app::App;
use config::listeners::Resource as Configured;
use config::{Bind, Config, Listener, ListenerKind};
use http::{BodyLimit, Resource, Route, Serving, Table, bind_tcp, bind_unix};
use replication::{Cx, Phase};
use slog::{Logger, error, info, warn};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use types::{Error, Result};

/// Client requests carry at most 200 events' worth of JSON, as Synapse allows.
const BODY_LIMIT: usize = 200 * 65_536;

/// From the request to stop until the listeners stop taking connections: time for proxies to notice.
const NOTICE: Duration = Duration::from_millis(300);

/// Runs until a signal says stop. Exit codes: 0 asked to stop, 1 could not start or failed.
pub fn run(config: Config, warnings: &[String], source: &Source) -> ExitCode {
    let inherited = Inherited::take();
    let instance = config.workers.instance_name.clone();
    let settings = match logging_of(&config) {
        Ok(settings) => settings,
        Err(errors) => return exit::report(&errors),
    };
    let (log, controls) = match logging::start(&settings, &instance) {
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
    let code = match runtime.block_on(serve(config, &instance, &log, inherited, Reload { controls, source })) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("plexus: {e}");
            error!(log, "stopped"; "error" => %e);
            ExitCode::FAILURE
        }
    };
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// Makes or checks the database's tables. Exit codes: 0 they can be used, 1 they can't.
pub fn schema(config: &Config) -> ExitCode {
    let work = async {
        let (log, _) = logging::start(&logging::Settings::default(), "schema")?;
        let settings = store::Settings::of(config)?;
        notify::starting("Making or checking the tables", store::schema::prepare(&settings, true, &log)).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Error::from).and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("plexus: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Everything of a start that takes nothing away from a process that runs with the same duties: the configuration with
/// its secrets and certificates, the logging configuration, the tables of the database, the table of routes. Streams
/// are left alone, since opening them notes who writes them. Exit codes: 0 a start would get as far as that, 1 it
/// wouldn't, 78 the logging configuration is wrong.
pub fn dry_run(config: &Config) -> ExitCode {
    if let Err(errors) = logging_of(config) {
        return exit::report(&errors);
    }
    let work = async {
        let (log, _) = logging::start(&logging::Settings::default(), "dry-run")?;
        let mut tables = Tables::default();
        for listener in &config.listeners {
            tables.of(listener)?;
            if let Bind::Tcp { tls: true, .. } = &listener.bind {
                crate::tls::acceptor(&config.tls)?;
            }
        }
        store::schema::prepare(&store::Settings::of(config)?, false, &log).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Error::from).and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => {
            println!("It would start.");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("plexus: {e}");
            ExitCode::FAILURE
        }
    }
}

fn logging_of(config: &Config) -> Result<logging::Settings, Vec<config::ConfigError>> {
    config.log_config.as_deref().map_or_else(|| Ok(logging::Settings::default()), logging::Settings::read)
}

/// What SIGHUP does: rate limits and log level are read again, logs opened anew. The rest needs a restart.
struct Reload<'a> {
    controls: logging::Controls,
    source: &'a Source,
}

impl Reload<'_> {
    fn run(&self, app: &App, log: &Logger) {
        notify::reloading();
        match self.source.load().and_then(|loaded| logging_of(&loaded.config).map(|logging| (loaded.config, logging))) {
            Ok((config, logging)) => {
                app.accounts.limits().set(&config.rate);
                self.controls.reload(&logging);
                info!(log, "limits and log level read again");
            }
            Err(errors) => {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                error!(log, "the configuration can't be used; all stays as it was"; "errors" => errors.join("; "));
            }
        }
        notify("READY=1\nSTATUS=Serving");
    }
}

async fn serve(
    config: Config,
    instance: &str,
    log: &Logger,
    mut inherited: Inherited,
    reload: Reload<'_>,
) -> Result<()> {
    notify::watchdog();
    // Synapse writes it as a daemon only: where it runs under systemd the path is often one that nobody can write to.
    if let Some(path) = &config.server.pid_file
        && let Err(e) = std::fs::write(path, std::process::id().to_string())
    {
        warn!(log, "no pid file"; "path" => %path.display(), "error" => %e);
    }
    let cx = tokio::select! {
        opened = notify::starting("Waiting for the database", Cx::open(config, instance, log.clone())) => opened?,
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
        listen(&app, listener, &mut tables, &mut inherited, &stopping, &mut serving).await?;
    }
    for address in inherited.unused() {
        warn!(log, "a socket was passed on that no listener of the configuration has; closing it"; "address" => address);
    }
    drop(inherited);
    background::start(&cx);
    delivery::start(&cx, &app.fed);
    notify("READY=1\nSTATUS=Serving");
    info!(log, "ready"; "listeners" => serving.len());
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => reload.run(&app, log),
            _ = asked_to_stop() => break,
        }
    }
    notify("STOPPING=1\nSTATUS=Finishing requests");
    info!(log, "stopping");
    cx.life.enter(Phase::Draining);
    tokio::time::sleep(NOTICE).await;
    let _ = stop.send(true);
    cx.life.enter(Phase::Stopping);
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
    inherited: &mut Inherited,
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
            let (socket, file) = match inherited.unix(path) {
                // Whoever holds it for us keeps the file.
                Some(socket) => (tokio::net::UnixListener::from_std(socket)?, None),
                None => {
                    let (socket, file) = bind_unix(path, *mode)
                        .map_err(|e| Error::internal(format!("listeners: cannot bind {}: {e}", path.display())))?;
                    (socket, Some(file))
                }
            };
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
                    let bound = match inherited.tcp(at) {
                        Some(socket) => tokio::net::TcpListener::from_std(socket).map_err(Error::from),
                        None => bind_tcp(at),
                    };
                    match bound {
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
