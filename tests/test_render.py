"""What `plexus cluster render` writes: against files kept here, nginx, and the route table.

`tests/run test_render.py --update-golden` takes what is rendered now for right; look at the difference before
committing it.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lib.cluster import plexus_binary

GOLDEN = Path(__file__).parent / "golden"
PRESETS = ["single", "small", "medium", "large"]
# Which pool of nginx a route belongs to, by the place that `plexus routes` names.
POOLS = {
    "any process": "client",
    "any process, one for a user": "sync",
    "any process, apart from other syncs": "initial_sync",
    "any process, one for a room": "room_read",
    "events writer of the room": "room_write",
    "writer of events": "room_write",
    "any process, one for a server": "federation",
    "media": "media",
    "main": "main",
}
INTERNAL = {"replication", "metrics", "health"}


def plexus(*args):
    done = subprocess.run([plexus_binary(), *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(file, out, host=None):
    plexus("cluster", "render", "--file", file, "--out", out, "--program", "/usr/bin/plexus", *(["--host", host] if host else []))
    return out


def as_text(folder):
    """The rendered files in one text. Units and nginx' routes change with the program, so of those the names only."""
    parts = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        text = "" if name.startswith(("nginx/", "systemd/")) or name == "log.config" else path.read_text()
        parts.append(f"==> {name}\n{text.replace(str(folder), '/etc/plexus')}")
    return "".join(parts)


@pytest.mark.parametrize("name, host", [(p, None) for p in PRESETS] + [("hosts", "one"), ("hosts", "two"), ("hosts-tls", "one"), ("hosts-tls", "two")])
def test_rendered_files_are_the_known_ones(name, host, tmp_path, request):
    text = as_text(render(GOLDEN / f"{name}.toml", tmp_path / "out", host))
    known = GOLDEN / f"{name}{'-' + host if host else ''}.txt"
    if request.config.getoption("--update-golden"):
        known.write_text(text)
    assert text == known.read_text()


def nginx_files(tmp_path):
    """(name, rendered folder) of each preset with a proxy that can be tried here, and of a host of a larger cluster."""
    for name in PRESETS:
        data = tmp_path / name
        for folder in ["run", "logs", "nginx"]:
            (data / folder).mkdir(parents=True)
        text = (GOLDEN / f"{name}.toml").read_text().replace("/var/lib/plexus", str(data))
        (data / "cluster.toml").write_text(text)
        yield name, render(data / "cluster.toml", data / "config")
    yield "hosts", render(GOLDEN / "hosts.toml", tmp_path / "hosts", "two")


def test_nginx_accepts_what_is_rendered(tmp_path):
    for name, out in nginx_files(tmp_path):
        conf = out / "nginx/nginx.conf"
        if name == "hosts":  # Its folders are not here.
            conf = tmp_path / "nginx.conf"
            conf.write_text(f"pid {tmp_path}/pid;\nevents {{ }}\nhttp {{ include {out}/nginx/plexus.conf; }}\n")
        done = subprocess.run([shutil.which("nginx", path="/usr/sbin:/usr/bin:/bin"), "-t", "-e", "stderr", "-c", conf], capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"


def test_each_route_goes_to_one_pool_and_it_is_the_right_one(tmp_path):
    routes = [r for r in json.loads(plexus("routes", "--format", "json")) if r["resource"] not in INTERNAL]
    assert len(routes) > 100
    for name, out in nginx_files(tmp_path):
        text = (out / "nginx/plexus.conf").read_text()
        upstreams = re.findall(r"^upstream (\w+) \{\n(.*?)^\}", text, re.S | re.M)
        assert len(upstreams) == len(dict(upstreams)), f"{name}: a pool is there twice"
        assert all("server " in body for _, body in upstreams), f"{name}: a pool without a process"
        table = re.search(r"\$plexus_pool \{\n(.*?)^\}", text, re.S | re.M).group(1)
        lines = [(re.compile(r), pool) for r, pool in re.findall(r'^    "~(.*)" (\w+);$', table, re.M)]
        assert len(lines) == table.count("\n") - 1, "a line that this test cannot read"
        for route in routes:
            expected = POOLS.get(route["on"]) or route["on"].replace("writer of ", "write_")
            for path in route["paths"]:
                sample = re.sub(r"\{[^}]*\}", "x", path)
                chosen = next((pool for regex, pool in lines if regex.search(f"{route['method']} {sample}")), None)
                assert chosen == f"plexus_{expected}", f"{name}: {route['method']} {path} goes to {chosen}"
                assert chosen in dict(upstreams), f"{name}: {chosen} is no pool"
