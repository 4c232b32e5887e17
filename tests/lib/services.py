"""A private PostgreSQL and a private Redis, gone when the test run ends."""

import os
import pathlib
import shutil
import signal
import subprocess

import psycopg2

from .procs import Process, free_port, port_open, wait_until


def _as_postgres(argv: list) -> list:
    """PostgreSQL refuses to run as root, so root becomes `postgres` first."""
    if os.geteuid() != 0:
        return [str(a) for a in argv]
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL",
            *[str(a) for a in argv]]


def _pg_bin() -> pathlib.Path:
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if found:
        return found[-1]
    postgres = shutil.which("postgres")
    if postgres is None:
        raise RuntimeError("PostgreSQL is not installed")
    return pathlib.Path(postgres).parent


class Postgres:
    """One server for the whole run; each test takes a database of its own. `also`: further settings, `name=value`."""

    def __init__(self, folder: pathlib.Path, durable: bool = False, also: tuple[str, ...] = ()):
        self.bin, self.port, self.folder = _pg_bin(), free_port(), folder
        self._number = 0
        folder.mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        subprocess.run(_as_postgres([
            self.bin / "initdb", "-D", folder / "data", "-U", "synapse", "-E", "UTF8", "--locale=C",
            "-A", "trust", "--no-sync"]), check=True, stdout=subprocess.DEVNULL, cwd="/")
        settings = [
            "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "max_connections=500",
            "shared_buffers=512MB", "max_wal_size=2GB", "logging_collector=off",
            "log_min_error_statement=panic",
        ]
        if not durable:
            # Commits stay synchronous: without fsync that costs a write, and tests crash the server and count.
            settings += ["fsync=off", "full_page_writes=off"]
        settings += also
        argv = [self.bin / "postgres", "-D", folder / "data", "-p", self.port]
        for setting in settings:
            argv += ["-c", setting]
        self.process = Process("postgres", _as_postgres(argv), folder.with_suffix(".log"))

    def start(self) -> None:
        self.process.start()
        wait_until("PostgreSQL accepts connections", self._accepts, 60)

    def _accepts(self) -> bool:
        if not self.process.running:
            raise RuntimeError("PostgreSQL ended:\n" + self.process.tail())
        try:
            self.connect("postgres").close()
            return True
        except psycopg2.OperationalError:
            return False

    def stop(self, crash: bool = False) -> None:
        """SIGINT ends sessions in good order; a crash (SIGQUIT) does not, and recovers at the next start."""
        self.process.stop(signal.SIGQUIT if crash else signal.SIGINT, 40)

    def connect(self, database: str):
        conn = psycopg2.connect(host="127.0.0.1", port=self.port, user="synapse", dbname=database)
        conn.autocommit = True
        return conn

    def run(self, database: str, statement: str, args: tuple = ()) -> list:
        conn = self.connect(database)
        try:
            with conn.cursor() as cursor:
                cursor.execute(statement, args)
                return cursor.fetchall() if cursor.description else []
        finally:
            conn.close()

    def new_database(self, template: str | None = None) -> str:
        """A fresh database, empty or a copy of another one (which must have no sessions)."""
        self._number += 1
        name = f"t{self._number}"
        self.run("postgres", f'CREATE DATABASE "{name}" TEMPLATE "{template or "template0"}" ')
        return name

    def drop(self, name: str) -> None:
        self.run("postgres", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def exists(self, name: str) -> bool:
        return bool(self.run("postgres", "SELECT 1 FROM pg_database WHERE datname = %s", (name,)))


class Redis:
    """One Redis server, nothing saved; a cluster has its own since channels are not per database."""

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process = Process("redis", [
            "redis-server", "--bind", "127.0.0.1", "--port", self.port, "--save", "", "--appendonly", "no",
            "--dir", folder, "--daemonize", "no"], folder / "redis.log")

    def start(self) -> None:
        self.process.start()
        wait_until("Redis listens", lambda: port_open(self.port), 20)

    def stop(self) -> None:
        self.process.stop()
