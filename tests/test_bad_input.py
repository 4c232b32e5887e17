"""What no well-behaved client sends: the specified error, no panic, no secret in a log."""

import json
import subprocess

import pytest
import yaml

from lib import layouts
from lib.client import MatrixError, quote
from lib.cluster import plexus_binary

SEND = "/_matrix/client/v3/rooms/{room}/send/m.room.message/{txn}"
STATE = "/_matrix/client/v3/rooms/{room}/state/m.room.topic/"
JSON = {"Content-Type": "application/json"}


def deep(levels: int) -> bytes:
    return b'{"msgtype":"m.text","body":"x","a":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


# name: (method, path, body, expected statuses, expected error codes)
CASES = {
    "not JSON": ("PUT", SEND, b"{not json", {400}, {"M_NOT_JSON"}),
    "cut short": ("PUT", SEND, b'{"msgtype": "m.text", "body": "', {400}, {"M_NOT_JSON"}),
    "no body": ("PUT", SEND, b"", {400}, {"M_NOT_JSON"}),
    "an array": ("PUT", SEND, b"[]", {400}, {"M_BAD_JSON", "M_NOT_JSON"}),
    "a string": ("PUT", SEND, b'"x"', {400}, {"M_BAD_JSON", "M_NOT_JSON"}),
    "invalid UTF-8": ("PUT", SEND, b'{"msgtype":"m.text","body":"\xff\xfe"}', {400}, {"M_NOT_JSON", "M_UNKNOWN"}),
    "NaN": ("PUT", SEND, b'{"msgtype":"m.text","body":"x","n":NaN}', {400}, {"M_NOT_JSON", "M_BAD_JSON"}),
    "a float": ("PUT", SEND, b'{"msgtype":"m.text","body":"x","n":1.5}', {400}, {"M_BAD_JSON"}),
    "a huge integer": ("PUT", SEND, b'{"msgtype":"m.text","body":"x","n":9007199254740993}', {400}, {"M_BAD_JSON"}),
    "a lone surrogate": ("PUT", SEND, b'{"msgtype":"m.text","body":"\\ud800"}', {200, 400}, None),
    "64 KiB of text": ("PUT", SEND, json.dumps({"msgtype": "m.text", "body": "x" * 65536}).encode(), {413}, {"M_TOO_LARGE"}),
    "64 KiB of state": ("PUT", STATE, json.dumps({"topic": "x" * 65536}).encode(), {413}, {"M_TOO_LARGE"}),
    "deep nesting": ("PUT", SEND, deep(10000), {400, 413}, None),
    "a room we do not have": ("PUT", SEND.replace("{room}", "!no%3Aelsewhere.test"), b"{}", {403, 404}, {"M_FORBIDDEN", "M_NOT_FOUND"}),
    "no room id at all": ("PUT", SEND.replace("{room}", "nonsense"), b"{}", {400, 403, 404}, None),
    "a room id without a server": ("GET", "/_matrix/client/v3/rooms/!x/state", None, {400, 403, 404}, None),
    "a NUL in the path": ("PUT", SEND.replace("{txn}", "a%00b"), b'{"msgtype":"m.text","body":"x"}', {200, 400}, None),
    "a NUL in the text": ("PUT", SEND, b'{"msgtype":"m.text","body":"a\\u0000b"}', {200, 400}, None),
    "a NUL in a state key": ("PUT", STATE + "a%00b", b"{}", {200, 400, 403}, None),
    "invalid UTF-8 in the path": ("GET", "/_matrix/client/v3/profile/%ff%fe", None, {400, 404}, None),
    "a type of 300 bytes": ("PUT", SEND.replace("m.room.message", "t" * 300), b"{}", {400, 413}, None),
    "a state key of 300 bytes": ("PUT", STATE + "k" * 300, b"{}", {400, 413}, None),
    "wrong type of power levels": ("PUT", "/_matrix/client/v3/rooms/{room}/state/m.room.power_levels", b'{"users": []}', {400, 403}, None),
    "a member without membership": ("PUT", "/_matrix/client/v3/rooms/{room}/state/m.room.member/%40x%3Aplexus.test", b"{}", {400, 403}, None),
    "a member who is nobody": ("PUT", "/_matrix/client/v3/rooms/{room}/state/m.room.member/nobody", b'{"membership":"invite"}', {400, 403}, None),
    "a second create event": ("PUT", "/_matrix/client/v3/rooms/{room}/state/m.room.create", b'{"room_version":"10"}', {400, 403}, None),
    "a since that is none": ("GET", "/_matrix/client/v3/sync?since=banana", None, {400}, {"M_UNKNOWN", "M_INVALID_PARAM", "M_BAD_JSON"}),
    "a since of too many parts": ("GET", "/_matrix/client/v3/sync?since=s1_2_3_4_5_6_7_8_9_10_11_12_13_14_15_16", None, {200, 400}, None),
    "a timeout that is none": ("GET", "/_matrix/client/v3/sync?timeout=soon", None, {400}, {"M_INVALID_PARAM"}),
    "a filter that is none": ("GET", "/_matrix/client/v3/sync?filter=%7B%22room%22%3A", None, {400}, None),
    "a filter we never gave": ("GET", "/_matrix/client/v3/sync?filter=424242", None, {400, 404}, None),
    "a filter of wrong types": ("POST", "/_matrix/client/v3/user/{me}/filter", b'{"room":{"timeline":{"limit":"ten"}}}', {400}, {"M_BAD_JSON", "M_UNKNOWN"}),
    "messages without direction": ("GET", "/_matrix/client/v3/rooms/{room}/messages?dir=up", None, {400}, None),
    "messages from nonsense": ("GET", "/_matrix/client/v3/rooms/{room}/messages?dir=b&from=banana", None, {400}, None),
    "a limit below zero": ("GET", "/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=-5", None, {400}, None),
    "a room version we lack": ("POST", "/_matrix/client/v3/createRoom", b'{"room_version":"999"}', {400}, {"M_UNSUPPORTED_ROOM_VERSION"}),
    "an invite of nobody": ("POST", "/_matrix/client/v3/createRoom", b'{"invite":["nobody"]}', {400}, {"M_INVALID_PARAM", "M_UNKNOWN", "M_BAD_JSON"}),
    "an alias of wrong type": ("POST", "/_matrix/client/v3/createRoom", b'{"room_alias_name": 7}', {400}, None),
    "initial state of wrong type": ("POST", "/_matrix/client/v3/createRoom", b'{"initial_state": "none"}', {400}, None),
    "login of an unknown kind": ("POST", "/_matrix/client/v3/login", b'{"type":"m.login.telepathy"}', {400, 403}, None),
    "login without anything": ("POST", "/_matrix/client/v3/login", b"{}", {400}, None),
    "login as a number": ("POST", "/_matrix/client/v3/login", b'{"type":"m.login.password","identifier":5,"password":"x"}', {400, 403}, None),
    "a user name nobody may have": ("POST", "/_matrix/client/v3/register", b'{"username":"UP PER!","password":"x","auth":{"type":"m.login.dummy"}}', {400}, {"M_INVALID_USERNAME"}),
    "a taken user name": ("POST", "/_matrix/client/v3/register", b'{"username":"mallory","password":"x","auth":{"type":"m.login.dummy"}}', {400}, {"M_USER_IN_USE"}),
    "a password of wrong type": ("POST", "/_matrix/client/v3/register", b'{"username":"n","password":7,"auth":{"type":"m.login.dummy"}}', {400}, {"M_BAD_JSON", "M_INVALID_PARAM", "M_UNKNOWN"}),
    "keys for somebody else": ("POST", "/_matrix/client/v3/keys/upload", b'{"device_keys": 5}', {400}, None),
    "keys of wrong type": ("POST", "/_matrix/client/v3/keys/query", b'{"device_keys": []}', {400}, None),
    "to-device to a number": ("PUT", "/_matrix/client/v3/sendToDevice/x/{txn}", b'{"messages": 5}', {400}, None),
    "an endpoint nobody has": ("GET", "/_matrix/client/v3/teapot", None, {404}, {"M_UNRECOGNIZED"}),
    "a method nobody has": ("DELETE", "/_matrix/client/v3/sync", None, {405, 404}, {"M_UNRECOGNIZED"}),
}


@pytest.fixture(scope="module")
def victim(request, folder, postgres, flavour):
    """One server for all cases: it must survive every one of them."""
    from lib.cluster import Cluster, schema_template
    database = postgres.new_database(schema_template(postgres, folder, flavour))
    cluster = Cluster(folder / "victim", postgres, database, layouts.MONOLITH, flavour).start()
    cluster.mallory = cluster.user("mallory", password="not for the log")
    cluster.room = cluster.mallory.create_room(preset="private_chat", room_version="10")
    yield cluster
    cluster.remove()


@pytest.mark.parametrize("name", CASES)
def test_bad_request(victim, flavour, name):
    method, path, body, statuses, codes = CASES[name]
    path = path.replace("{room}", quote(victim.room)).replace("{me}", quote(victim.mallory.user_id))
    path = path.replace("{txn}", quote(name))
    who = victim.client() if path.endswith(("/login", "/register")) else victim.mallory
    answer = who.raw(method, path, data=body, headers=dict(JSON))
    if flavour == "synapse" and answer.status_code == 500:
        pytest.skip("Synapse itself answers 500")
    assert answer.status_code in statuses, answer.text
    content = answer.json()
    if answer.status_code != 200:
        assert set(content) >= {"errcode", "error"} or "flows" in content, content
        if codes:
            assert content["errcode"] in codes, content
    # And the next well-formed request is served as if nothing had been.
    victim.mallory.get("/account/whoami")


@pytest.mark.parametrize("token", ["", "nonsense", "syt_bm9ib2R5_AAAAAAAAAAAAAAAAAAAA_0zzzzz", "\u00e4\u00f6", "x" * 5000])
def test_bad_tokens(victim, flavour, token):
    answer = victim.client().raw("GET", "/_matrix/client/v3/account/whoami", params={"access_token": token})
    if flavour == "synapse" and answer.status_code == 500:
        pytest.skip("Synapse itself answers 500")
    assert answer.status_code == 401
    assert answer.json()["errcode"] in ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN")


def test_no_token(victim):
    with pytest.raises(MatrixError) as caught:
        victim.client().get("/sync")
    assert (caught.value.status, caught.value.errcode) == (401, "M_MISSING_TOKEN")


def test_nothing_panicked_and_no_secret_was_logged(victim):
    """Last in this file: it reads what all the others left in the log."""
    log = victim.whole_log()
    assert "panicked" not in log
    for secret in (victim.mallory.token, "not for the log", "registration secret", "macaroon secret"):
        assert secret not in log


# -- configuration ------------------------------------------------------------

# What is wrong: the change to a good homeserver.yaml, and words the message must contain.
WRONG = {
    "port of wrong type": (lambda c: c["listeners"][0].update(port="eight thousand"), ["port", "eight thousand", "homeserver.yaml"]),
    "no server name": (lambda c: c.pop("server_name"), ["server_name: missing"]),
    "SQLite": (lambda c: c.update(database={"name": "sqlite3", "args": {"database": ":memory:"}}), ["SQLite", "homeserver.yaml"]),
    "unknown writer": (lambda c: c.update(stream_writers={"events": ["ghost"]}), ["ghost", "instance_map", "homeserver.yaml"]),
    "two writers of typing": (lambda c: c.update(
        stream_writers={"typing": ["a", "b"]},
        instance_map={n: {"host": "127.0.0.1", "port": p} for n, p in (("main", 1), ("a", 2), ("b", 3))}), ["typing"]),
    "listeners are text": (lambda c: c.update(listeners="all"), ["listeners"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_configuration(victim, flavour, tmp_path, name):
    if flavour != "plexus":
        pytest.skip("our own messages")
    change, words = WRONG[name]
    conf = yaml.safe_load((victim.folder / "homeserver.yaml").read_text())
    change(conf)
    path = tmp_path / "homeserver.yaml"
    path.write_text(yaml.safe_dump(conf))
    done = subprocess.run([plexus_binary(), "homeserver", "-c", path], capture_output=True, text=True, timeout=20)
    said = done.stdout + done.stderr
    assert done.returncode not in (0, 101, -6), said
    for word in words:
        assert word in said
    assert "panicked" not in said and "macaroon secret" not in said


def test_broken_yaml(flavour, tmp_path):
    if flavour != "plexus":
        pytest.skip("our own messages")
    path = tmp_path / "homeserver.yaml"
    path.write_text("server_name: x\n  listeners: [")
    done = subprocess.run([plexus_binary(), "homeserver", "-c", path], capture_output=True, text=True, timeout=20)
    assert done.returncode not in (0, 101, -6)
    assert "homeserver.yaml" in done.stdout + done.stderr
