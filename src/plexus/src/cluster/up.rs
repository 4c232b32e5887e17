//! `plexus cluster up` and `down`. One process, the supervisor, starts all others, restarts those that end and
//! stops them; with `--detach` it goes on in the background.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use config::generate::{random_text, signing_key, write_new};
use config::plan::{Plan, RedisPlace};

use super::command::Up;
use super::failed::{Failed, io};
use super::first::{self, First};
use super::plans::{plan_for, read_plan, write_rendered};
use super::postgres::Postgres;
use super::processes::{Managed, append, end_strays};
use super::services;
use super::state::{self, Pid, Running};
use crate::client::Client;

/// Line of the supervisor's log after which the one who waits for it may go.
const READY: &str = "The cluster is ready.";

/// Beginning of the line that says why there is no first message.
const FIRST_FAILED: &str = "The first message failed: ";

/// Set by SIGTERM and SIGINT.
static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_stop(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// `plexus cluster up`
pub fn run(args: &Up) -> Result<(), Failed> {
    ensure_file(args)?;
    let plan = read_plan(&args.file).map_err(Failed::Config)?;
    if !plan.file.hosts.is_empty() {
        return Err(Failed::Config(format!(
            "{}: a cluster of several hosts is rendered (`plexus cluster render --host NAME`) and run by systemd",
            args.file.display()
        )));
    }
    make_folders(&plan)?;
    if Running::read(&plan.data_dir).live_supervisor().is_some() {
        println!("The cluster is running already.");
        summary(&plan, first::known(&plan).as_ref());
        return Ok(());
    }
    if args.detach { detach(args, &plan) } else { supervise(args, plan) }
}

/// A description for a new cluster.
fn ensure_file(args: &Up) -> Result<(), Failed> {
    if let Some(folder) = args.file.parent() {
        std::fs::create_dir_all(folder).map_err(io(folder))?;
    }
    let text = format!(
        "# A Plexus cluster. `plexus cluster up` runs it, `plexus cluster render` writes what it consists of.\n\
         server_name = {:?}\n\
         # single, small, medium or large\n\
         preset = {:?}\n\
         # Processes of a role, over the preset; `plexus cluster roles` lists them.\n\
         # [workers]\n\
         # sync = 2\n\
         # Any key of homeserver.yaml.\n\
         # [settings]\n",
        args.server_name, args.preset
    );
    write_new(&args.file, &text, 0o644).map_err(io(&args.file))?;
    Ok(())
}

fn make_folders(plan: &Plan) -> Result<(), Failed> {
    for (folder, mode) in [
        (plan.data_dir.clone(), 0o755),
        (plan.run_dir(), 0o700),
        (plan.log_dir(), 0o750),
        (plan.secrets_dir(), 0o700),
        (plan.data_dir.join("media"), 0o750),
    ] {
        if !services::exists(&folder) {
            std::fs::create_dir_all(&folder).map_err(io(&folder))?;
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).map_err(io(&folder))?;
        }
    }
    Ok(())
}

/// Starts the supervisor in a session of its own and shows what it says until the cluster is ready.
fn detach(args: &Up, plan: &Plan) -> Result<(), Failed> {
    let log = plan.log_dir().join("cluster.log");
    std::fs::write(&log, "").map_err(io(&log))?;
    let output = append(&log)?;
    let errors = output.try_clone().map_err(io(&log))?;
    let program = std::env::current_exe().map_err(|e| Failed::Run(e.to_string()))?;
    let mut command = Command::new(program);
    command.args(["cluster", "up", "--file"]).arg(&args.file).stdin(Stdio::null()).stdout(output).stderr(errors);
    if args.no_first_user {
        command.arg("--no-first-user");
    }
    // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(|e| Failed::Run(format!("can't start the supervisor: {e}")))?;
    let mut shown = File::open(&log).map_err(io(&log))?;
    let mut text = String::new();
    loop {
        let ended = child.try_wait().map_err(|e| Failed::Run(e.to_string()))?;
        let mut new = Vec::new();
        shown.read_to_end(&mut new).map_err(io(&log))?;
        let new = String::from_utf8_lossy(&new);
        print!("{new}");
        let _ = std::io::stdout().flush();
        text.push_str(&new);
        if let Some(status) = ended {
            return Err(Failed::Run(format!(
                "The cluster didn't start ({status}); its logs are in {}",
                plan.log_dir().display()
            )));
        }
        if text.contains(READY) {
            return match text.contains(FIRST_FAILED) {
                true => Err(Failed::Run("The cluster runs, but its first message failed; see above.".into())),
                false => Ok(()),
            };
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts everything and looks after it until asked to stop.
fn supervise(args: &Up, plan: Plan) -> Result<(), Failed> {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { libc::signal(signal, on_stop as *const () as libc::sighandler_t) };
    }
    clear_strays(&plan)?;
    let plan = choose_ports(&args.file, plan)?;
    let mut running = Running { supervisor: Pid::of(std::process::id()), ..Running::default() };
    running.write(&plan.data_dir)?;
    let mut all = Vec::new();
    let result =
        start_all(args, &plan, &mut all, &mut running).and_then(|()| look_after(&plan, &mut all, &mut running));
    println!("Stopping");
    stop_all(&mut all);
    running = Running::default();
    running.write(&plan.data_dir)?;
    result
}

/// Ends what an earlier run left behind when it was killed.
fn clear_strays(plan: &Plan) -> Result<(), Failed> {
    let left = Running::read(&plan.data_dir);
    let mut strays: Vec<_> = left
        .processes
        .into_iter()
        .filter(|(_, pid)| pid.alive())
        .map(|(name, pid)| (signal_of(&name), name, pid))
        .map(|(s, n, p)| (n, p, s))
        .collect();
    if let Some(pid) = Postgres::stray(plan).filter(|_| plan.database.private).and_then(Pid::of) {
        strays.push(("postgres".into(), pid, libc::SIGINT));
    }
    if !strays.is_empty() {
        println!("Ending {} processes of a run that was cut off", strays.len());
        end_strays(&strays);
    }
    for process in &plan.processes {
        for place in [&process.http, &process.replication] {
            if let config::plan::Place::Socket(path) = place {
                let _ = std::fs::remove_file(path);
            }
        }
    }
    Ok(())
}

fn signal_of(name: &str) -> libc::c_int {
    // SIGTERM would have PostgreSQL wait for its clients.
    if name == "postgres" { libc::SIGINT } else { libc::SIGTERM }
}

/// Keeps the ports if they are free, else looks for others.
fn choose_ports(file: &Path, plan: Plan) -> Result<Plan, Failed> {
    let wanted = plan.file.base_port;
    if state::ports_free(&plan) {
        state::choose_port(&plan.data_dir, wanted)?;
        return Ok(plan);
    }
    for port in state::other_ports(wanted) {
        let other = plan_for(file, Some(port), None).map_err(Failed::Config)?;
        if state::ports_free(&other) {
            println!("Ports from {wanted} are taken; using those from {port}");
            state::choose_port(&other.data_dir, port)?;
            return Ok(other);
        }
    }
    Err(Failed::Run(format!("no free ports from {wanted} upwards; set base_port in {}", file.display())))
}

fn started(all: &mut Vec<Managed>, running: &mut Running, plan: &Plan, server: Managed) -> Result<(), Failed> {
    if let Some(pid) = server.pid() {
        running.processes.insert(server.name.clone(), pid);
    }
    all.push(server);
    running.write(&plan.data_dir)
}

fn step(text: &str) -> Instant {
    println!("Starting {text}");
    Instant::now()
}

fn start_all(args: &Up, plan: &Plan, all: &mut Vec<Managed>, running: &mut Running) -> Result<(), Failed> {
    let begin = Instant::now();
    write_secrets(plan)?;
    write_rendered(plan)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failed::Run(e.to_string()))?;
    let client = Client::new(None)?;
    if plan.database.private {
        step("PostgreSQL");
        let postgres = Postgres::prepare(plan)?;
        started(all, running, plan, postgres.start(&plan.log_dir().join("postgres.log"))?)?;
        if let Some(server) = all.last_mut() {
            runtime.block_on(postgres.ensure_database(plan, server))?;
        }
    }
    if let Some(redis) = plan.redis.as_ref().filter(|r| r.private) {
        step("Redis");
        let place: &RedisPlace = &redis.place;
        started(all, running, plan, services::start_redis(plan, place)?)?;
    }
    // Main makes the schema; the others would only wait for it.
    let (main, workers) = plan.processes.split_first().ok_or_else(|| Failed::Config("no processes".into()))?;
    for group in [std::slice::from_ref(main), workers] {
        let first = all.len();
        for process in group {
            step(&process.name);
            started(all, running, plan, services::start_process(plan, process)?)?;
        }
        for (server, process) in all[first..].iter_mut().zip(group) {
            runtime.block_on(services::wait_ready(plan, &client, server, process))?;
        }
        stop_asked()?;
    }
    step("nginx");
    started(all, running, plan, services::start_nginx(plan)?)?;
    println!("All processes are ready after {:.1} s", begin.elapsed().as_secs_f32());
    let mut first = first::known(plan);
    if first.as_ref().is_none_or(|f| f.event_id.is_none()) && !args.no_first_user {
        println!("Registering a first user and sending a first message");
        match runtime.block_on(first::make(plan, &client)) {
            Ok(made) => first = Some(made),
            // The processes run and can be looked at; the next `up` tries again.
            Err(e) => println!("{FIRST_FAILED}{e}"),
        }
    }
    summary(plan, first.as_ref());
    println!("\n{READY}");
    Ok(())
}

fn stop_asked() -> Result<(), Failed> {
    if STOP.load(Ordering::Relaxed) { Err(Failed::Run("asked to stop".into())) } else { Ok(()) }
}

/// Secrets a cluster needs and that exist once.
fn write_secrets(plan: &Plan) -> Result<(), Failed> {
    for path in plan.secret_files() {
        write_new(&path, &format!("{}\n", random_text(50)), 0o600).map_err(io(&path))?;
    }
    let key = plan.signing_key();
    write_new(&key, &signing_key().expose_line(), 0o600).map_err(io(&key))?;
    Ok(())
}

fn look_after(plan: &Plan, all: &mut [Managed], running: &mut Running) -> Result<(), Failed> {
    while !STOP.load(Ordering::Relaxed) {
        for server in all.iter_mut() {
            if server.keep_alive()? {
                println!("{} runs again", server.name);
                if let Some(pid) = server.pid() {
                    running.processes.insert(server.name.clone(), pid);
                }
                running.write(&plan.data_dir)?;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Stops in the reverse order, the homeserver's processes side by side.
fn stop_all(all: &mut [Managed]) {
    let is_service = |name: &str| matches!(name, "postgres" | "redis");
    for service in [false, true] {
        let group = || all.iter().rev().filter(move |s| is_service(&s.name) == service);
        group().for_each(Managed::ask_to_stop);
        for server in all.iter_mut().rev().filter(|s| is_service(&s.name) == service) {
            server.wait_end(Duration::from_secs(20));
        }
    }
}

fn summary(plan: &Plan, first: Option<&First>) {
    println!("\nHomeserver:  {}", plan.public_baseurl());
    if let Some(first) = first {
        println!("User:        {}\nPassword:    {}", first.user_id, first.password);
        if let Some(room_id) = &first.room_id {
            println!("First room:  {room_id}");
        }
    }
    println!("Data, logs:  {}", plan.data_dir.display());
    println!(
        "\nNext: log in with any Matrix client at the URL above. `status` shows the processes, `down` stops them."
    );
}

/// `plexus cluster down`
pub fn down(file: &Path) -> Result<(), Failed> {
    let plan = read_plan(file).map_err(Failed::Config)?;
    let running = Running::read(&plan.data_dir);
    if let Some(supervisor) = running.live_supervisor() {
        println!("Stopping {} processes", running.processes.len());
        supervisor.signal(libc::SIGTERM);
        let until = Instant::now() + Duration::from_secs(60);
        while supervisor.alive() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        if supervisor.alive() {
            supervisor.signal(libc::SIGKILL);
        }
    }
    // What is left if the supervisor was killed, now or before.
    if make_folders(&plan).is_ok() {
        clear_strays(&plan)?;
        Running::default().write(&plan.data_dir)?;
    }
    println!("Stopped. The data stays in {}", PathBuf::from(&plan.data_dir).display());
    Ok(())
}
