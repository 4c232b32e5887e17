"""The cluster that `plexus cluster up` makes of a cluster.toml: rendered files, private services, nginx in front."""

import json
import pathlib
import re
import shutil

from .client import Client, registered
from .cluster import plexus_binary
from .procs import Process, free_port, wait_until

# What a test needs beyond what is rendered: nobody is slowed down.
_SETTINGS = """
enable_registration_without_verification = true
bcrypt_rounds = 4
rc_message = {0}
rc_registration = {0}
rc_joins = {{ local = {0}, remote = {0} }}
rc_invites = {{ per_room = {0}, per_user = {0}, per_issuer = {0} }}
""".format("{ per_second = 100000, burst_count = 100000 }")


class RenderedCluster:
    """A cluster by preset, reached through its nginx only."""

    def __init__(self, folder: pathlib.Path, preset: str, settings: dict | None = None):
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        self.folder, self.port = folder, free_port()
        more = "".join(f"{key} = {json.dumps(value)}\n" for key, value in (settings or {}).items())
        self.file = folder / "cluster.toml"
        self.file.write_text(f'server_name = "plexus.test"\npreset = "{preset}"\nbase_port = {self.port}\n'
                             f"enable_registration = true\n[settings]{_SETTINGS}{more}")
        argv = [plexus_binary(), "cluster", "up", "--file", self.file, "--no-first-user"]
        self.supervisor = Process("cluster", argv, folder / "up.log")

    def start(self) -> "RenderedCluster":
        self.supervisor.start()
        wait_until("the cluster is ready", self._ready, 120)
        # Where one of the ports was taken the cluster has moved to others.
        moved = re.search(r"using those from (\d+)", self._said())
        self.url = f"http://127.0.0.1:{moved[1] if moved else self.port}"
        return self

    def _said(self) -> str:
        return self.supervisor.log.read_text(errors="replace")

    def _ready(self) -> bool:
        if not self.supervisor.running:
            raise RuntimeError("plexus cluster up ended:\n" + self.supervisor.tail())
        return "The cluster is ready." in self._said()

    def user(self, localpart: str) -> Client:
        """A new account, logged in, behind nginx."""
        return registered(self.url, localpart)

    def logs(self, lines: int = 40) -> str:
        found = sorted(self.folder.glob("logs/*.log"))
        return "\n".join(f"--- {p.name}\n" + "\n".join(p.read_text(errors="replace").splitlines()[-lines:]) for p in found)

    def remove(self) -> None:
        self.supervisor.stop(seconds=60)
        shutil.rmtree(self.folder, ignore_errors=True)
