"""Renders a layout to the YAML an admin would write, and runs it.

Each process is played by `plexus` or by `synapse` (real Synapse, the oracle);
both read the same files, so a mixed cluster is a layout with two flavours.
"""

import base64
import os
import pathlib
import shutil
import signal
import subprocess
import time

import requests
import yaml

from .client import Client, registered
from .layouts import CLIENT, Layout
from .procs import Process, free_port, wait_until
from .services import Postgres, Redis

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVER_NAME = "plexus.test"
# A key for tests only; the same for both flavours, since they share a database.
SIGNING_KEY = "ed25519 a_test 7Q/hoePbdGOF0rQKX897P+gx9OFyJe5cNgvqlbkzXOc\n"

_NO_LIMIT = {"per_second": 100000, "burst_count": 100000}
_NO_LIMITS = {
    "rc_message": _NO_LIMIT, "rc_registration": _NO_LIMIT, "rc_admin_redaction": _NO_LIMIT,
    "rc_login": {"address": _NO_LIMIT, "account": _NO_LIMIT, "failed_attempts": _NO_LIMIT},
    "rc_joins": {"local": _NO_LIMIT, "remote": _NO_LIMIT}, "rc_joins_per_room": _NO_LIMIT,
    "rc_invites": {"per_room": _NO_LIMIT, "per_user": _NO_LIMIT, "per_issuer": _NO_LIMIT},
    "rc_room_creation": _NO_LIMIT, "rc_key_requests": _NO_LIMIT, "rc_3pid_validation": _NO_LIMIT,
    "rc_federation": {"sleep_limit": 100000, "reject_limit": 100000, "concurrent": 1000},
    "rc_presence": {"per_user": _NO_LIMIT}, "rc_reports": _NO_LIMIT, "rc_user_directory": _NO_LIMIT,
}

# Standard error only, warnings only: what a failing test shows should be readable.
_LOG = {
    "version": 1, "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}},
    "filters": {"context": {"()": "synapse.logging.context.LoggingContextFilter", "request": ""}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["context"]}},
    "root": {"level": "WARNING", "handlers": ["console"]}, "disable_existing_loggers": False,
}


def plexus_binary() -> pathlib.Path:
    """PLEXUS_BIN, or the newer of the release and the debug build."""
    given = os.environ.get("PLEXUS_BIN")
    if given:
        return pathlib.Path(given)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [p for p in (target / "release/plexus", target / "debug/plexus") if p.exists()]
    if not built:
        raise RuntimeError("no plexus binary: build one or set PLEXUS_BIN")
    return max(built, key=lambda p: p.stat().st_mtime)


def oracle_python() -> str:
    """The python that has matrix-synapse installed."""
    python = os.environ.get("ORACLE_PYTHON")
    if not python:
        raise RuntimeError("set ORACLE_PYTHON to a python with matrix-synapse 1.163.2")
    return python


class Cluster:
    """A running homeserver of one or more processes on one database."""

    def __init__(self, folder: pathlib.Path, postgres: Postgres, database: str, layout: Layout,
                 flavour: str = "plexus", flavours: dict[str, str] | None = None, config: dict | None = None,
                 federates: bool = False, postgres_port: int | None = None):
        self.folder, self.postgres, self.database, self.layout = folder, postgres, database, layout
        # Where the processes find PostgreSQL, if a proxy stands before it.
        self.postgres_port = postgres_port or postgres.port
        folder.mkdir(parents=True, exist_ok=True)
        self.redis = Redis(folder / "redis")
        self.ports = {name: free_port() for name in layout.processes}
        # Other servers come to one process, by TLS; the server is named after where that listens.
        self.federates = federates
        self.tls_port = free_port() if federates else None
        self.server_name = f"127.0.0.1:{self.tls_port}" if federates else SERVER_NAME
        self.flavours = {name: flavour for name in layout.processes} | (flavours or {})
        self.processes: dict[str, Process] = {}
        self._write_config(config or {})

    # -- configuration ------------------------------------------------------

    def _listener(self, name: str) -> dict:
        # Media is left out of workers: Synapse wants more configuration for it there.
        names = [*CLIENT, "media", "keys"] if name == "main" else list(CLIENT)
        return {"type": "http", "port": self.ports[name], "bind_addresses": ["127.0.0.1"],
                "x_forwarded": True, "resources": [{"names": names}]}

    def _listeners(self, name: str) -> list[dict]:
        listeners = [self._listener(name)]
        # Not to main, if there are others; a worker of Synapse has no TLS of its own.
        last = self.layout.processes[-1]
        if self.federates and name == (last if self.flavours[last] == "plexus" else "main"):
            listeners.append({"type": "http", "port": self.tls_port, "bind_addresses": ["127.0.0.1"], "tls": True,
                              "resources": [{"names": ["federation", "keys"]}]})
        return listeners

    def _federation(self) -> dict:
        """Settings of servers that are alone with others on this machine."""
        certificate, key = self.folder / "tls.crt", self.folder / "tls.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
                        "-keyout", key, "-out", certificate], check=True, capture_output=True)
        return {"tls_certificate_path": str(certificate), "tls_private_key_path": str(key),
                "federation_verify_certificates": False, "ip_range_blacklist": [],
                "allow_public_rooms_over_federation": True, "room_list_publication_rules": [{"action": "allow"}]}

    def homeserver_yaml(self) -> dict:
        folder, layout = self.folder, self.layout
        conf = {
            "server_name": self.server_name, "public_baseurl": f"http://127.0.0.1:{self.ports['main']}/",
            "report_stats": False, "pid_file": str(folder / "main.pid"),
            "signing_key_path": str(folder / "signing.key"), "media_store_path": str(folder / "media"),
            "registration_shared_secret": "registration secret", "macaroon_secret_key": "macaroon secret",
            "form_secret": "form secret", "bcrypt_rounds": 4, "log_config": str(folder / "log.yaml"),
            "enable_registration": True, "enable_registration_without_verification": True,
            "trusted_key_servers": [], "suppress_key_server_warning": True,
            "listeners": self._listeners("main"),
            "database": {"name": "psycopg2", "args": {
                "user": "synapse", "host": "127.0.0.1", "port": self.postgres_port, "dbname": self.database,
                "cp_min": 2, "cp_max": 8}},
            **_NO_LIMITS,
        }
        if layout.workers:
            conf["redis"] = {"enabled": True, "host": "127.0.0.1", "port": self.redis.port}
            conf["worker_replication_secret"] = "replication-secret"
            conf["instance_map"] = {
                name: {"host": "127.0.0.1", "port": port} for name, port in self.ports.items()}
            conf["stream_writers"] = layout.stream_writers()
            if layout.tasks != "main":
                conf["run_background_tasks_on"] = layout.tasks
                conf["update_user_directory_from_worker"] = layout.tasks
        if self.federates:
            conf |= self._federation()
        return conf | layout.extra

    def _write_config(self, config: dict) -> None:
        (self.folder / "signing.key").write_text(self._signing_key())
        (self.folder / "log.yaml").write_text(yaml.safe_dump(_LOG))
        conf = self.homeserver_yaml() | config
        (self.folder / "homeserver.yaml").write_text(yaml.safe_dump(conf, sort_keys=False))
        for worker in self.layout.workers:
            (self.folder / f"{worker.name}.yaml").write_text(yaml.safe_dump({
                "worker_app": "synapse.app.generic_worker", "worker_name": worker.name,
                "worker_log_config": str(self.folder / "log.yaml"),
                "worker_listeners": self._listeners(worker.name)}, sort_keys=False))

    def _signing_key(self) -> str:
        if not self.federates:
            return SIGNING_KEY
        # Servers that know each other have different keys.
        return f"ed25519 a_{self.tls_port} {base64.b64encode(os.urandom(32)).decode().rstrip('=')}\n"

    def argv(self, name: str) -> list:
        files = ["-c", self.folder / "homeserver.yaml"]
        if name != "main":
            files += ["-c", self.folder / f"{name}.yaml"]
        if self.flavours[name] == "plexus":
            return [plexus_binary(), "homeserver" if name == "main" else "worker", *files]
        app = "homeserver" if name == "main" else "generic_worker"
        return [oracle_python(), "-m", f"synapse.app.{app}", *files]

    # -- running ------------------------------------------------------------

    def start(self) -> "Cluster":
        """Main first (it may have a schema to write), then all workers together."""
        if self.layout.workers and not self.redis.process.running:
            self.redis.start()
        self.start_process("main")
        for name in self.layout.processes[1:]:
            self.start_process(name, wait=False)
        for name in self.layout.processes[1:]:
            self.wait_ready(name)
        return self

    def start_process(self, name: str, wait: bool = True) -> None:
        self.processes[name] = Process(name, self.argv(name), self.folder / f"{name}.log", cwd=str(self.folder))
        self.processes[name].start()
        if wait:
            self.wait_ready(name)

    def wait_ready(self, name: str, seconds: float = 90) -> None:
        def ready():
            if not self.processes[name].running:
                raise RuntimeError(f"{name} ({self.flavours[name]}) ended:\n{self.processes[name].tail()}")
            try:
                return requests.get(self.url(name) + "/health", timeout=5).status_code == 200
            except requests.RequestException:
                return False
        wait_until(f"{name} ({self.flavours[name]}) answers /health", ready, seconds)

    def kill(self, name: str) -> None:
        self.processes[name].kill()

    def restart_process(self, name: str, flavour: str | None = None) -> None:
        """Stops a process in good order and starts it again, possibly played by the other flavour."""
        self.processes[name].stop()
        if flavour:
            self.flavours[name] = flavour
        self.start_process(name)

    def switch(self, flavour: str) -> None:
        """The two-way door: everything stops, then the same files and database in other hands."""
        self.stop()
        self.flavours = {name: flavour for name in self.flavours}
        self.start()

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.stop()
        self.redis.stop()

    def remove(self) -> None:
        self.stop()
        self.postgres.drop(self.database)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- using --------------------------------------------------------------

    def url(self, name: str = "main") -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def client(self, name: str = "main") -> Client:
        """A client without an account, pinned to one process."""
        return Client(self.url(name))

    def user(self, localpart: str, on: str = "main", password: str = "pass") -> Client:
        """A new account, logged in, pinned to one process."""
        return registered(self.url(on), localpart, password)

    def logs(self, lines: int = 40) -> str:
        return "\n".join(f"--- {n} ({self.flavours[n]})\n{p.tail(lines)}" for n, p in self.processes.items())

    def whole_log(self) -> str:
        return "\n".join(p.log.read_text(errors="replace") for p in self.processes.values() if p.log.exists())


def schema_template(postgres: Postgres, folder: pathlib.Path, flavour: str) -> str:
    """A database with the schema in it, made once a run by starting the server on an empty one."""
    name = f"schema_{flavour}"
    if not postgres.exists(name):
        from .layouts import MONOLITH
        postgres.run("postgres", f'CREATE DATABASE "{name}" TEMPLATE template0')
        cluster = Cluster(folder / name, postgres, name, MONOLITH, flavour).start()
        # A moment for Synapse to record its first background updates.
        time.sleep(1)
        cluster.stop()
    return name
