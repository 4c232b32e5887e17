//! A PostgreSQL of the cluster's own. It never runs as root: root hands over to the system's user `postgres`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use config::plan::Plan;

use super::failed::{Failed, io};
use super::processes::Managed;
use super::state::Pid;

/// How to run PostgreSQL's programs.
#[derive(Clone)]
pub struct Postgres {
    bin: PathBuf,
    data: PathBuf,
    socket_dir: PathBuf,
    /// Put before a command, such as `setpriv --reuid=postgres …`.
    prefix: Vec<String>,
    host: String,
    port: u16,
    user: String,
    database: String,
    passfile: Option<PathBuf>,
    max_connections: u16,
}

fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and can't fail.
    unsafe { libc::geteuid() == 0 }
}

/// The folder of `postgres`: in PATH, or the newest of Debian's.
fn find_bin() -> Result<PathBuf, Failed> {
    let in_path = std::env::var_os("PATH")
        .and_then(|p| std::env::split_paths(&p).find(|d| d.join("initdb").is_file() && d.join("postgres").is_file()));
    if let Some(folder) = in_path {
        return Ok(folder);
    }
    let entries = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .filter(|(_, bin)| bin.join("postgres").is_file())
        .collect();
    versions.sort();
    versions
        .pop()
        .map(|(_, bin)| bin)
        .ok_or_else(|| Failed::Run("PostgreSQL is not installed (Debian: apt install postgresql)".into()))
}

impl Postgres {
    /// Makes the data folder ready for use, with a new database if there is none.
    pub fn prepare(plan: &Plan) -> Result<Self, Failed> {
        let mut postgres = Self {
            bin: find_bin()?,
            data: plan.data_dir.join("postgres"),
            socket_dir: plan.run_dir(),
            prefix: Vec::new(),
            host: plan.database.host.clone(),
            port: plan.database.port,
            user: plan.database.user.clone(),
            database: plan.database.name.clone(),
            passfile: plan.database.passfile.clone(),
            max_connections: plan.max_connections(),
        };
        std::fs::create_dir_all(&postgres.data).map_err(io(&postgres.data))?;
        if is_root() {
            postgres.hand_over()?;
        }
        if !postgres.data.join("PG_VERSION").is_file() {
            postgres.init()?;
        }
        postgres.remove_stale_pid();
        Ok(postgres)
    }

    /// Gives the data folder to the user `postgres`, and lets it into the folder of sockets.
    fn hand_over(&mut self) -> Result<(), Failed> {
        let (uid, gid) = system_user("postgres")?;
        let own = |path: &Path, uid, gid| std::os::unix::fs::chown(path, uid, gid).map_err(io(path));
        own(&self.data, Some(uid), Some(gid))?;
        own(&self.socket_dir, None, Some(gid))?;
        std::fs::set_permissions(&self.socket_dir, std::fs::Permissions::from_mode(0o770))
            .map_err(io(&self.socket_dir))?;
        self.prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"].map(str::to_owned).into();
        let reaches = |prefix: &[String]| {
            let mut command = Command::new(&prefix[0]);
            // A file is really made, since access(2) leaves lent capabilities aside.
            command
                .args(&prefix[1..])
                .args(["sh", "-c", ": > \"$0/.reach\" && rm \"$0/.reach\""])
                .arg(&self.data)
                .current_dir("/");
            command.output().is_ok_and(|o| o.status.success())
        };
        if !reaches(&self.prefix) {
            // A folder above, such as /root, is closed to others: the one capability to walk through it is lent.
            self.prefix.extend(
                ["--inh-caps=+dac_read_search,+dac_override", "--ambient-caps=+dac_read_search,+dac_override"]
                    .map(str::to_owned),
            );
            if !reaches(&self.prefix) {
                return Err(Failed::Run(format!(
                    "the user postgres can't write to {}; choose a data_dir that it can reach",
                    self.data.display()
                )));
            }
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        // The working folder may be closed to the user it runs as.
        command.current_dir(if self.prefix.is_empty() { self.data.as_path() } else { Path::new("/") });
        command.env("LC_ALL", "C").env_remove("PGDATA").env_remove("PGHOST").env_remove("PGPORT");
        command
    }

    /// A new data folder: C locale and UTF-8, as Synapse wants them.
    fn init(&self) -> Result<(), Failed> {
        println!("Making a PostgreSQL database in {}", self.data.display());
        let mut command = self.command("initdb");
        command
            .args(["--locale=C", "--encoding=UTF8", "--auth-local=trust", "--auth-host=scram-sha-256", "--username"])
            .arg(&self.user);
        if let Some(passfile) = &self.passfile {
            let password = config::generate::random_text(40).replace(['~', '.'], "x");
            let line = format!("{}:{}:*:{}:{password}\n", self.host, self.port, self.user);
            std::fs::write(passfile, line).map_err(io(passfile))?;
            std::fs::set_permissions(passfile, std::fs::Permissions::from_mode(0o600)).map_err(io(passfile))?;
            let given = self.data.with_extension("password");
            std::fs::write(&given, &password).map_err(io(&given))?;
            std::fs::set_permissions(&given, std::fs::Permissions::from_mode(0o644)).map_err(io(&given))?;
            command.arg("--pwfile").arg(&given);
        }
        let output =
            command.arg("--pgdata").arg(&self.data).output().map_err(|e| Failed::Run(format!("initdb: {e}")))?;
        if self.passfile.is_some() {
            let given = self.data.with_extension("password");
            std::fs::remove_file(&given).map_err(io(&given))?;
        }
        if !output.status.success() {
            return Err(Failed::Run(format!(
                "initdb failed:\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )));
        }
        Ok(())
    }

    /// After a kill or a crash of the host the pid file names a process that has ended or is none of PostgreSQL's,
    /// and PostgreSQL won't start. The file also guards against backends that outlive their server, so it only goes
    /// once there are none.
    fn remove_stale_pid(&self) {
        let path = self.data.join("postmaster.pid");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let pid = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok()).unwrap_or_default();
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim() == "postgres" && Pid::of(pid).is_some() {
            return;
        }
        let until = Instant::now() + Duration::from_secs(20);
        while self.backends_left() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        if !self.backends_left() {
            // The socket's lock names the same process.
            let socket = self.socket_dir.join(format!(".s.PGSQL.{}", self.port));
            for file in [path, socket.with_extension(format!("{}.lock", self.port)), socket] {
                let _ = std::fs::remove_file(file);
            }
        }
    }

    /// Whether a process works in the data folder, as all of PostgreSQL's do.
    fn backends_left(&self) -> bool {
        let Ok(data) = self.data.canonicalize() else { return false };
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .map(|entry| entry.path().join("cwd"))
            .any(|cwd| std::fs::read_link(cwd).is_ok_and(|folder| folder == data))
    }

    /// A server of an earlier run that still runs on this data.
    pub fn stray(plan: &Plan) -> Option<u32> {
        let text = std::fs::read_to_string(plan.data_dir.join("postgres/postmaster.pid")).ok()?;
        let pid: u32 = text.lines().next()?.trim().parse().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "postgres").then_some(pid)
    }

    /// Starts the server; see [`Postgres::ensure_database`].
    pub fn start(&self, log: &Path) -> Result<Managed, Failed> {
        let this = self.clone();
        let listen = if self.host.starts_with('/') { "" } else { self.host.as_str() }.to_owned();
        Managed::start("postgres", log, libc::SIGINT, move || {
            let mut command = this.command("postgres");
            command.arg("-D").arg(&this.data);
            let settings = [
                format!("port={}", this.port),
                format!("listen_addresses={listen}"),
                format!(
                    "unix_socket_directories={}",
                    if listen.is_empty() { this.socket_dir.display().to_string() } else { String::new() }
                ),
                format!("max_connections={}", this.max_connections),
                "shared_buffers=256MB".into(),
                "max_wal_size=2GB".into(),
                "logging_collector=off".into(),
            ];
            settings.iter().for_each(|s| {
                command.args(["-c", s]);
            });
            command
        })
    }

    /// Connects to a database of the server.
    pub async fn connect(plan: &Plan, database: &str) -> Result<tokio_postgres::Client, String> {
        let db = &plan.database;
        let mut pg = tokio_postgres::Config::new();
        if db.host.starts_with('/') {
            pg.host_path(&db.host);
        } else {
            pg.host(&db.host);
        }
        pg.port(db.port)
            .user(&db.user)
            .dbname(database)
            .application_name("plexus cluster")
            .connect_timeout(Duration::from_secs(5));
        if let Some(file) = &db.passfile {
            let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
            if let Some(password) = text.lines().next().and_then(|l| l.splitn(5, ':').nth(4)) {
                pg.password(password);
            }
        }
        let (client, connection) = pg.connect(tokio_postgres::NoTls).await.map_err(|e| format!("PostgreSQL: {e}"))?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Waits until the server takes connections, and makes the database if there is none.
    pub async fn ensure_database(&self, plan: &Plan, server: &mut Managed) -> Result<(), Failed> {
        let until = Instant::now() + Duration::from_secs(60);
        let client = loop {
            let failure = match Self::connect(plan, "postgres").await {
                Ok(client) => break client,
                Err(e) => e,
            };
            if let Some(how) = server.ended() {
                return Err(Failed::Run(format!("PostgreSQL ended ({how}):\n{}", server.log_tail())));
            }
            if Instant::now() > until {
                return Err(Failed::Run(format!("{failure}; not ready after a minute:\n{}", server.log_tail())));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let text = |e: tokio_postgres::Error| Failed::Run(format!("PostgreSQL: {e}"));
        let found =
            client.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&self.database]).await.map_err(text)?;
        if found.is_none() {
            let name = self.database.replace('"', "\"\"");
            let sql =
                format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'");
            client.batch_execute(&sql).await.map_err(text)?;
        }
        Ok(())
    }
}

/// User and group id of a system user.
fn system_user(name: &str) -> Result<(u32, u32), Failed> {
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(io(Path::new("/etc/passwd")))?;
    let ids = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [user, _, uid, gid, ..] if user == name => Some((uid.parse().ok()?, gid.parse().ok()?)),
            _ => None,
        }
    });
    ids.ok_or_else(|| {
        Failed::Run(format!(
            "PostgreSQL won't run as root, and there is no user {name} (Debian: apt install postgresql)"
        ))
    })
}
