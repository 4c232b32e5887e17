//! systemd units: one service a process, one target for all.

use super::{Plan, Process};

/// File names and contents.
pub fn units(plan: &Plan) -> Vec<(String, String)> {
    let mut units = vec![("plexus.target".to_owned(), target(plan))];
    units.extend(plan.here().map(|p| (format!("{}.service", unit(p)), service(plan, p))));
    units
}

fn unit(process: &Process) -> String {
    format!("plexus-{}", process.name)
}

fn target(plan: &Plan) -> String {
    let wants: Vec<String> = plan.here().map(|p| format!("{}.service", unit(p))).collect();
    format!(
        "[Unit]\nDescription=Plexus homeserver of {}\nWants={}\n\n[Install]\nWantedBy=multi-user.target\n",
        plan.file.server_name,
        wants.join(" ")
    )
}

fn service(plan: &Plan, process: &Process) -> String {
    let command = if process.role.is_some() { "worker" } else { "homeserver" };
    let files: Vec<String> = plan.config_files(process).iter().map(|f| format!("-c {}", f.display())).collect();
    // Workers wait for the database's schema themselves; starting after main spares them the wait.
    let after = if process.role.is_some() { " plexus-main.service" } else { "" };
    let about = process.role.map_or("main process", |r| r.purpose());
    format!(
        "[Unit]
Description=Plexus {name}: {about}
After=network.target postgresql.service redis-server.service{after}
PartOf=plexus.target
StartLimitIntervalSec=0

[Service]
Type=notify
User=plexus
ExecStart={program} {command} {files}
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
TimeoutStopSec=30
Restart=always
RestartSec=1
# The configuration is wrong: trying again won't help.
RestartPreventExitStatus=78
LimitNOFILE=65536
SyslogIdentifier=plexus-{name}
ReadWritePaths={data}
UMask=0027
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
CapabilityBoundingSet=

[Install]
WantedBy=plexus.target
",
        name = process.name,
        program = plan.program.display(),
        files = files.join(" "),
        data = plan.data_dir.display(),
    )
}
