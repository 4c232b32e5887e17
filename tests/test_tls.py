"""TLS to PostgreSQL by `sslmode`, and TLS between the processes of a cluster."""

import os
import pathlib
import shutil
import subprocess

import pytest
import yaml

from lib import layouts
from lib.client import MatrixError, has_event
from lib.cluster import Cluster
from lib.procs import free_port, wait_until
from lib.services import Postgres


def openssl(*args) -> None:
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


def self_signed(folder: pathlib.Path, name: str, host: str) -> None:
    """As PostgreSQL's handbook says: a CA certificate with a common name only."""
    openssl("req", "-new", "-x509", "-days", 2, "-nodes", "-newkey", "rsa:2048", "-subj", f"/CN={host}",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")


def authority(folder: pathlib.Path) -> None:
    openssl("req", "-new", "-x509", "-days", 2, "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=Test CA",
            "-keyout", folder / "ca.key", "-out", folder / "ca.crt")


def signed(folder: pathlib.Path, name: str, subject: str, names: str = "") -> None:
    """A certificate of that authority, with alternative names if given."""
    openssl("req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", f"/CN={subject}",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")
    (folder / f"{name}.ext").write_text("basicConstraints=CA:FALSE\n" + (f"subjectAltName={names}\n" if names else ""))
    openssl("x509", "-req", "-days", 2, "-in", folder / f"{name}.csr", "-CA", folder / "ca.crt",
            "-CAkey", folder / "ca.key", "-CAcreateserial", "-extfile", folder / f"{name}.ext",
            "-out", folder / f"{name}.crt")


@pytest.fixture(scope="module")
def certificates(folder) -> pathlib.Path:
    made = folder / "certificates"
    made.mkdir()
    authority(made)
    self_signed(made, "own", "localhost")
    self_signed(made, "stranger", "localhost")
    signed(made, "process", "localhost", "DNS:localhost")
    signed(made, "client", "synapse")
    return made


@pytest.fixture(scope="module")
def database(folder, certificates):
    """PostgreSQL with a self-signed certificate for localhost; the database `sure` asks for a client certificate."""
    hba, key = certificates / "pg_hba.conf", certificates / "postgres.key"
    hba.write_text("hostssl sure all 127.0.0.1/32 cert\nhostnossl plain all 127.0.0.1/32 trust\n"
                   "hostssl plain all 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n")
    shutil.copy(certificates / "own.key", key)
    key.chmod(0o600)
    if os.geteuid() == 0:
        shutil.chown(key, "postgres", "postgres")
    server = Postgres(folder / "postgres-tls", also=(
        "ssl=on", f"ssl_cert_file={certificates / 'own.crt'}", f"ssl_key_file={key}",
        f"ssl_ca_file={certificates / 'ca.crt'}", f"hba_file={hba}"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def process(database, certificates, folder, flavour):
    """process(name of the database, args of database): one process, not yet started."""
    made = []

    def make(name: str, **args) -> Cluster:
        files = {k: str(certificates / v) for k, v in args.items() if k in ("sslrootcert", "sslcert", "sslkey")}
        if not database.exists(name):
            database.run("postgres", f'CREATE DATABASE "{name}" TEMPLATE template0')
        cluster = Cluster(folder / name, database, name, layouts.MONOLITH, flavour, config={"database": {
            "name": "psycopg2", "args": {"user": "synapse", "host": "localhost", "port": database.port,
                                         "dbname": name, "cp_min": 1, "cp_max": 4} | args | files}})
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.remove()


def spoken(database, name: str) -> set[bool]:
    """Whether the sessions of a database speak TLS."""
    return {row[0] for row in database.run(
        "postgres", "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE datname = %s", (name,))}


WORK = {
    "nothing said": ({}, True),
    "disable": ({"sslmode": "disable"}, False),
    "allow": ({"sslmode": "allow"}, False),
    "prefer": ({"sslmode": "prefer"}, True),
    "require": ({"sslmode": "require"}, True),
    "verify-ca": ({"sslmode": "verify-ca", "sslrootcert": "own.crt", "host": "127.0.0.1"}, True),
    "verify-full": ({"sslmode": "verify-full", "sslrootcert": "own.crt"}, True),
}


@pytest.mark.parametrize("mode", WORK)
def test_a_mode_works(mode, process, database):
    args, tls = WORK[mode]
    name = "works_" + mode.replace(" ", "_")
    cluster = process(name, **args).start()
    cluster.user("alice").create_room(name="TLS")
    assert spoken(database, name) == {tls}


def test_prefer_goes_without_where_tls_is_refused(process, database):
    process("plain", sslmode="prefer").start().user("alice")
    assert spoken(database, "plain") == {False}


def test_a_client_certificate_lets_in(process, database):
    process("sure", sslmode="verify-full", sslrootcert="own.crt", sslcert="client.crt", sslkey="client.key") \
        .start().user("alice")
    assert spoken(database, "sure") == {True}


REFUSED = {
    "unknown CA": ({"sslmode": "verify-ca", "sslrootcert": "stranger.crt"}, "certificate"),
    "other name": ({"sslmode": "verify-full", "sslrootcert": "own.crt", "host": "127.0.0.1"}, "certificate"),
    "require with a CA that does not fit": ({"sslmode": "require", "sslrootcert": "ca.crt"}, "certificate"),
    "no CA": ({"sslmode": "verify-full", "sslrootcert": "missing.crt"}, "sslrootcert"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_certificate_that_does_not_fit_is_refused(why, process, database):
    args, said = REFUSED[why]
    cluster = process("refused", **args)
    with pytest.raises(RuntimeError, match=said):
        cluster.start()
    assert spoken(database, "refused") == set()


@pytest.mark.parametrize("stranger", [None, "generic2"], ids=["all plexus", "one worker is synapse"])
def test_processes_talk_tls(stranger, make_cluster, certificates, monkeypatch):
    """Replication listeners of their own, with TLS; what needs another process still works."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.crt"))
    cluster = make_cluster(layouts.WORKERS, flavours={stranger: "synapse"} if stranger else None, start=False,
                           config={"outbound_federation_restricted_to": ["generic2"]})
    ports = {name: free_port() for name in cluster.layout.processes}
    for name in cluster.layout.processes:
        file = cluster.folder / ("homeserver.yaml" if name == "main" else f"{name}.yaml")
        conf = yaml.safe_load(file.read_text())
        key = "listeners" if name == "main" else "worker_listeners"
        conf[key][0]["resources"] = [{"names": ["client", "health"]}]
        conf[key].append({"type": "http", "port": ports[name], "bind_addresses": ["127.0.0.1"], "tls": True,
                          "resources": [{"names": ["replication"]}]})
        if name == "main":
            conf["instance_map"] = {n: {"host": "localhost", "port": p, "tls": True} for n, p in ports.items()}
            conf["tls_certificate_path"] = str(certificates / "process.crt")
            conf["tls_private_key_path"] = str(certificates / "process.key")
        file.write_text(yaml.safe_dump(conf, sort_keys=False))
    cluster.start()
    alice, bob = cluster.user("alice", on="generic1"), cluster.user("bob", on="generic2")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    since = alice.sync()["next_batch"]
    event = bob.send(room, "over TLS")
    alice.sync_until(has_event(room, event), since)
    wait_until("both speak", lambda: bob.texts(room) == ["over TLS"])
    # No such server, but it is generic2 that says so.
    with pytest.raises(MatrixError) as lost:
        alice.get("/profile/%40nobody%3A127.0.0.1%3A1")
    assert lost.value.status == 502 and "process that speaks" not in str(lost.value)
