//! systemd units: a service and its sockets for each process, what they wait for, and what rolls them on to a new
//! configuration one by one.
//!
//! Keys that begin with `X-` are for NixOS' switch-to-configuration; systemd ignores them.

use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{Place, Plan, Process, homeserver};

/// Name in a unit's environment of what its process runs with; see [`generation`].
pub const GENERATION: &str = "PLEXUS_GENERATION";

/// The unit that runs `plexus cluster roll`.
const ROLLING: &str = "plexus-rolling.service";

/// File names and contents.
pub fn units(plan: &Plan) -> Vec<(String, String)> {
    let mut units = vec![("plexus.target".to_owned(), target(plan)), ("plexus.slice".to_owned(), slice())];
    for process in plan.here() {
        units.push((format!("{}.socket", process.unit()), socket(plan, process)));
        units.push((format!("{}.service", process.unit()), with_generation(plan, process)));
    }
    if let Some(canary) = plan.canary() {
        units.push((format!("{}.service", canary.unit()), service(plan, &canary)));
    } else if let (None, Some(main)) = (&plan.redis, plan.here().next()) {
        units.push((format!("{}.service", Plan::CANARY_UNIT), dry_run(plan, main)));
    }
    units.push(("plexus-schema.service".to_owned(), schema(plan)));
    if let Some(file) = &plan.cluster_file {
        let all: String = units.iter().map(|(_, text)| text.as_str()).collect();
        let live = homeserver::live(plan) + &homeserver::log_config(plan);
        units.push((ROLLING.to_owned(), rolling(plan, file, &digest(&[&all, &live]))));
    }
    units
}

fn target(plan: &Plan) -> String {
    let mut units: Vec<String> = plan.here().map(|p| format!("{0}.socket {0}.service", p.unit())).collect();
    units.extend(plan.cluster_file.as_ref().map(|_| ROLLING.to_owned()));
    format!(
        "[Unit]\nDescription=Plexus homeserver of {}\nWants={}\n\n[Install]\nWantedBy=multi-user.target\n",
        plan.file.server_name,
        units.join(" ")
    )
}

fn slice() -> String {
    "[Unit]\nDescription=Processes of Plexus\n\n[Slice]\nCPUAccounting=yes\nMemoryAccounting=yes\n".into()
}

/// Held by systemd, they are there while the process restarts: who connects meanwhile waits.
fn socket(plan: &Plan, process: &Process) -> String {
    let streams: String = [&process.http, &process.replication]
        .iter()
        .map(|place| match place {
            Place::Tcp(at) => format!("ListenStream={at}\n"),
            Place::Socket(path) => format!("ListenStream={}\n", path.display()),
        })
        .collect();
    format!(
        "[Unit]
Description=Sockets of Plexus {name}
PartOf=plexus.target
X-StopOnRemoval=false

[Socket]
{streams}SocketUser=plexus
SocketGroup=plexus
SocketMode=0660
RemoveOnStop=yes
FreeBind={free}

[Install]
WantedBy=plexus.target
",
        name = process.name,
        // An address of the network may not be there yet when sockets are made.
        free = if plan.here.is_some() { "yes" } else { "no" },
    )
}

/// What a process runs with: the part that all processes must agree on, and the part that is its own. A process is
/// restarted when its own part changes, and all at once when what they must agree on does.
fn generation(plan: &Plan, process: &Process, unit: &str) -> String {
    let folder = plan.config_dir.display().to_string();
    let own = |text: String| text.replace(&folder, "");
    let files = own(homeserver::shared_for(plan, process)) + &own(homeserver::worker(plan, process));
    format!("{}-{}", digest(&[&homeserver::agreed(plan)]), digest(&[&own(unit.to_owned()), &files]))
}

fn with_generation(plan: &Plan, process: &Process) -> String {
    let unit = service(plan, process);
    let line = format!("[Service]\nEnvironment={GENERATION}={}\n", generation(plan, process, &unit));
    unit.replacen("[Service]\n", &line, 1)
}

fn digest(texts: &[&str]) -> String {
    let hash = texts.iter().fold(Sha256::new(), |hash, text| hash.chain_update(text));
    hex::encode(&hash.finalize()[..8])
}

/// Where there is only main nothing can run beside it; but what a start needs can be looked at.
fn dry_run(plan: &Plan, main: &Process) -> String {
    let files: Vec<String> = plan.config_files(main).iter().map(|f| format!("-c {}", f.display())).collect();
    let extra: String = plan.file.systemd.extra_files.iter().map(|name| format!(" -c %d/{name}")).collect();
    format!(
        "[Unit]
Description=Looks whether Plexus would start
After=network.target postgresql.service plexus-schema.service

[Service]
X-RestartIfChanged=false
Type=oneshot
ExecStart={program} homeserver --dry-run {files}{extra}
TimeoutStartSec=90
{common}",
        program = plan.program.display(),
        files = files.join(" "),
        common = common(plan, "canary"),
    )
}

/// The processes do not require it: restarting it, as every roll does, would stop them with it.
fn schema(plan: &Plan) -> String {
    format!(
        "[Unit]
Description=Tables of Plexus' database
After=network.target postgresql.service
StartLimitIntervalSec=0

[Service]
X-RestartIfChanged=false
Type=oneshot
RemainAfterExit=yes
ExecStart={program} schema -c {shared}
TimeoutStartSec=infinity
# Of two hosts that start at once, one finds the tables half made.
Restart=on-failure
RestartSec=1
{common}",
        program = plan.program.display(),
        shared = plan.config_dir.join("homeserver.yaml").display(),
        common = common(plan, "schema"),
    )
}

/// Runs at every start, when there is nothing to do, and when NixOS finds its text changed.
fn rolling(plan: &Plan, cluster: &Path, digest: &str) -> String {
    let units: Vec<String> = plan.here().map(|p| format!("{}.service", p.unit())).collect();
    let host = plan.here.as_ref().map_or_else(String::new, |host| format!(" --host {host}"));
    format!(
        "[Unit]
Description=Brings the processes of Plexus to their present configuration, one after the other
After={units} plexus-schema.service plexus-secrets.service

[Service]
X-StopIfChanged=false
Environment={GENERATION}={digest}
Type=oneshot
RemainAfterExit=yes
ExecStart={program} cluster roll --file {cluster}{host}
TimeoutStartSec=infinity
SyslogIdentifier=plexus-rolling
SupplementaryGroups=plexus
# It looks into processes of another user, at credentials, and asks the service manager.
CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH
{PRIVATE}RestrictAddressFamilies=AF_UNIX{tcp}
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectProc=default
IPAddressDeny=any
IPAddressAllow=localhost
{allow}",
        units = units.join(" "),
        program = plan.program.display(),
        cluster = cluster.display(),
        tcp = if plan.file.unix_sockets { "" } else { " AF_INET AF_INET6" },
        allow = plan.file.hosts.values().map(|h| format!("IPAddressAllow={}\n", h.address)).collect::<String>(),
    )
}

/// Confinement that holds for everything Plexus runs.
const PRIVATE: &str = "NoNewPrivileges=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
UMask=0027
";

/// What the processes and the making of tables have in common.
fn common(plan: &Plan, name: &str) -> String {
    let mut text = format!(
        "User=plexus
Slice=plexus.slice
SyslogIdentifier=plexus-{name}
CapabilityBoundingSet=
{PRIVATE}RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProcSubset=pid
PrivateTmp=yes
PrivateUsers=yes
"
    );
    let systemd = &plan.file.systemd;
    for (kind, files) in
        [("LoadCredential", &systemd.credentials), ("LoadCredentialEncrypted", &systemd.encrypted_credentials)]
    {
        for (name, file) in files {
            let _ = writeln!(text, "{kind}={name}:{}", file.display());
        }
    }
    text
}

/// Who need not reach the internet reaches nothing but this host, the other hosts and the services it uses. Names
/// can't be told from each other by the kernel, so with one of those nothing is closed.
fn network(plan: &Plan, process: &Process) -> String {
    if plan.asks_outside(process) {
        return String::new();
    }
    let Some(services) = plan.service_addresses() else { return String::new() };
    let mut text = String::from("IPAddressDeny=any\nIPAddressAllow=localhost\n");
    for address in plan.file.hosts.values().map(|h| h.address).chain(services) {
        let _ = writeln!(text, "IPAddressAllow={address}");
    }
    text
}

fn resources(plan: &Plan, process: &Process) -> String {
    let Some(file) = plan.file.resources.get(process.role.map_or("main", super::Role::name)) else {
        return String::new();
    };
    let mut text = String::new();
    for (key, value) in [("MemoryHigh", &file.memory_high), ("MemoryMax", &file.memory_max)] {
        if let Some(value) = value {
            let _ = writeln!(text, "{key}={value}");
        }
    }
    if let Some(weight) = file.cpu_weight {
        let _ = writeln!(text, "CPUWeight={weight}");
    }
    text
}

/// Folders a process writes to.
fn writable(plan: &Plan, process: &Process) -> String {
    let path = |folder: &Path| format!("-{}", folder.display());
    let mut folders = vec![path(&plan.run_dir()), path(&plan.log_dir())];
    if plan.keeps_media(process) {
        folders.push(path(&plan.data_dir.join("media")));
    }
    folders.join(" ")
}

fn service(plan: &Plan, process: &Process) -> String {
    let command = if process.role.is_some() { "worker" } else { "homeserver" };
    let files: Vec<String> = plan.config_files(process).iter().map(|f| format!("-c {}", f.display())).collect();
    let extra: String = plan.file.systemd.extra_files.iter().map(|name| format!(" -c %d/{name}")).collect();
    let unit = process.unit();
    // Starting after main spares workers that need it the wait.
    let after = if process.role.is_some() { " plexus-main.service" } else { "" };
    let about = process.role.map_or("main process", |r| r.purpose());
    let (sockets, restart, install) = match process.is_canary() {
        true => (String::new(), "no", ""),
        false => (
            format!("Requires={unit}.socket\nAfter={unit}.socket\nPartOf=plexus.target\n"),
            "always",
            "\n[Install]\nWantedBy=plexus.target\n",
        ),
    };
    format!(
        "[Unit]
Description=Plexus {name}: {about}
Wants=plexus-schema.service
After=network.target postgresql.service redis-server.service plexus-schema.service{after}
{sockets}StartLimitIntervalSec=0
X-StopOnRemoval=false

[Service]
X-RestartIfChanged=false
Type=notify-reload
NotifyAccess=main
WatchdogSec=30
ExecStart={program} {command} {files}{extra}
KillMode=mixed
TimeoutStopSec=30
Restart={restart}
RestartSec=1
# The configuration is wrong: trying again won't help.
RestartPreventExitStatus=78
LimitNOFILE=65536
{common}ReadWritePaths={writable}
{network}{resources}{install}",
        name = process.name,
        program = plan.program.display(),
        files = files.join(" "),
        common = common(plan, &process.name),
        writable = writable(plan, process),
        network = network(plan, process),
        resources = resources(plan, process),
    )
}
