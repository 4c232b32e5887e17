"""Devices, their keys, messages between them and key backups, request by request."""

import base64
import concurrent.futures
import json

import pytest
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from lib import layouts
from lib.client import MatrixError, quote
from lib.procs import wait_until


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def canonical(value) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Key:
    """An ed25519 key pair; named by its public key unless a name is given."""

    def __init__(self, name=None):
        self.pair = ECC.generate(curve="Ed25519")
        self.public = b64(self.pair.public_key().export_key(format="raw"))
        self.name = name or self.public
        self.id = f"ed25519:{self.name}"

    def sign(self, user_id: str, value: dict) -> dict:
        """The object with a signature by this key added."""
        bare = {k: v for k, v in value.items() if k not in ("signatures", "unsigned")}
        signature = b64(eddsa.new(self.pair, "rfc8032").sign(canonical(bare)))
        signatures = {u: dict(s) for u, s in value.get("signatures", {}).items()}
        signatures.setdefault(user_id, {})[self.id] = signature
        return value | {"signatures": signatures}


def device_keys(client, key: Key) -> dict:
    return key.sign(client.user_id, {
        "user_id": client.user_id, "device_id": client.device_id, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"curve25519:{client.device_id}": "c" * 43, key.id: key.public}})


def cross_key(user_id: str, key: Key, usage: str, master: Key | None = None) -> dict:
    value = {"user_id": user_id, "usage": [usage], "keys": {key.id: key.public}}
    return master.sign(user_id, value) if master else value


def refused(status: int, errcode: str | None, call, *args, **kw) -> dict:
    with pytest.raises(MatrixError) as caught:
        call(*args, **kw)
    assert (caught.value.status, caught.value.errcode) == (status, errcode), caught.value
    return caught.value.body


def is_refused(call, *args) -> bool:
    try:
        call(*args)
    except MatrixError:
        return True
    return False


def proof(client, session: str) -> dict:
    return {"type": "m.login.password", "session": session, "password": "pass",
            "identifier": {"type": "m.id.user", "user": client.user_id}}


@pytest.fixture(params=["one process", "cluster", "worker of theirs", "main of theirs"])
def cluster(make_cluster, request):
    layout = {"one process": layouts.MONOLITH, "cluster": layouts.WORKERS}.get(request.param, layouts.PAIR)
    flavours = {"worker of theirs": {"generic1": "synapse"}, "main of theirs": {"main": "synapse"}}.get(request.param)
    return make_cluster(layout, flavours)


def places(cluster) -> tuple[str, str]:
    """Two processes that serve clients, different ones where there are several."""
    names = [n for n in cluster.layout.processes]
    return names[0], names[-1]


def test_devices(cluster):
    here, there = places(cluster)
    alice = cluster.user("alice", on=there)
    second = alice.login("alice")
    assert {d["device_id"] for d in alice.get("/devices")["devices"]} == {alice.device_id, second.device_id}
    one = alice.get(f"/devices/{second.device_id}")
    assert set(one) == {"device_id", "display_name", "last_seen_ip", "last_seen_ts", "user_id"}
    alice.put(f"/devices/{second.device_id}", {"display_name": "new name"})
    assert alice.at(cluster.url(here)).get(f"/devices/{second.device_id}")["display_name"] == "new name"
    refused(404, "M_NOT_FOUND", alice.get, "/devices/NOSUCH")
    refused(404, "M_NOT_FOUND", alice.put, "/devices/NOSUCH", {"display_name": "x"})
    refused(400, "M_TOO_LARGE", alice.put, f"/devices/{second.device_id}", {"display_name": "x" * 101})
    if "synapse" not in cluster.flavours.values():
        # What PostgreSQL cannot store is the sender's fault; Synapse says 500.
        refused(400, "M_INVALID_PARAM", alice.put, f"/devices/{second.device_id}", {"display_name": "a\0b"})
        refused(400, "M_INVALID_PARAM", alice.post, "/keys/query", {"device_keys": {alice.user_id: ["a\0b"]}})

    path = f"/_matrix/client/v3/devices/{second.device_id}"
    asked = refused(401, None, alice.request, "DELETE", path, {})
    assert ["m.login.password"] in [f["stages"] for f in asked["flows"]]
    wrong = proof(alice, asked["session"]) | {"password": "wrong"}
    refused(401, "M_FORBIDDEN", alice.request, "DELETE", path, {"auth": wrong})
    alice.request("DELETE", path, {"auth": proof(alice, asked["session"])})
    refused(404, "M_NOT_FOUND", alice.get, f"/devices/{second.device_id}")
    refused(401, "M_UNKNOWN_TOKEN", second.get, "/account/whoami")
    refused(401, "M_UNKNOWN_TOKEN", second.at(cluster.url(here)).get, "/account/whoami")

    third = alice.login("alice")
    asked = refused(401, None, alice.post, "/delete_devices", {"devices": [third.device_id]})
    alice.post("/delete_devices", {"devices": [third.device_id], "auth": proof(alice, asked["session"])})
    refused(401, "M_UNKNOWN_TOKEN", third.get, "/account/whoami")
    main = alice.at(cluster.url("main"))
    main.post("/logout")
    # The other processes hear of it after the answer.
    wait_until("nobody takes the token", lambda: is_refused(alice.get, "/account/whoami"), 1)
    refused(401, "M_UNKNOWN_TOKEN", alice.get, "/account/whoami")


def test_device_and_one_time_keys(cluster):
    here, there = places(cluster)
    alice, bob = cluster.user("alice", on=here), cluster.user("bob", on=there)
    key = Key(alice.device_id)
    uploaded = device_keys(alice, key)
    assert alice.post("/keys/upload", {"device_keys": uploaded}) == {"one_time_key_counts": {"signed_curve25519": 0}}
    alice.put(f"/devices/{alice.device_id}", {"display_name": "phone"})
    got = bob.post("/keys/query", {"device_keys": {alice.user_id: [], "@nobody:plexus.test": [], "nonsense": []}})
    assert got["device_keys"][alice.user_id] == {
        alice.device_id: uploaded | {"unsigned": {"device_display_name": "phone"}}}
    assert got["device_keys"]["@nobody:plexus.test"] == {} and "nonsense" not in got["device_keys"]
    assert bob.post("/keys/query", {"device_keys": {alice.user_id: ["OTHER"]}})["device_keys"] == {alice.user_id: {}}

    keys = {f"signed_curve25519:K{n}": key.sign(alice.user_id, {"key": f"k{n}"}) for n in range(3)}
    fallback = {"signed_curve25519:F": key.sign(alice.user_id, {"key": "f", "fallback": True})}
    counts = alice.post("/keys/upload", {"one_time_keys": keys, "fallback_keys": fallback})["one_time_key_counts"]
    assert counts == {"signed_curve25519": 3}
    # The same again is nothing new; another key of the same name is refused.
    assert alice.post("/keys/upload", {"one_time_keys": keys})["one_time_key_counts"] == counts
    refused(400, "M_UNKNOWN", alice.post, "/keys/upload",
            {"one_time_keys": {"signed_curve25519:K0": key.sign(alice.user_id, {"key": "other"})}})
    answer = alice.sync()
    assert answer["device_one_time_keys_count"] == counts
    assert answer["device_unused_fallback_key_types"] == ["signed_curve25519"]

    claim = {"one_time_keys": {alice.user_id: {alice.device_id: "signed_curve25519"}}}
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        places_ = [cluster.url(n) for n in (here, there)] * 3
        answers = list(pool.map(lambda url: bob.at(url).post("/keys/claim", claim), places_))
    claimed = [name for a in answers for name in a["one_time_keys"][alice.user_id][alice.device_id]]
    assert sorted(claimed) == sorted([*keys, *["signed_curve25519:F"] * 3])
    answer = alice.sync(answer["next_batch"])
    assert answer["device_one_time_keys_count"] == {"signed_curve25519": 0}
    assert answer["device_unused_fallback_key_types"] == []
    for bad in ({"one_time_keys": {"nocolon": "x"}}, {"one_time_keys": {"a:b": 1}}, {"device_keys": 1},
                {"device_keys": uploaded | {"user_id": bob.user_id}}):
        refused(400, "M_BAD_JSON", alice.post, "/keys/upload", bad)
    refused(400, "M_INVALID_PARAM", alice.post, "/keys/upload", {"device_keys": None})
    refused(400, "M_BAD_JSON", alice.post, "/keys/query", {"device_keys": []})


def test_cross_signing(cluster):
    here, there = places(cluster)
    alice, bob = cluster.user("alice", on=here), cluster.user("bob", on=there)
    owned = {}
    for client in (alice, bob):
        device, master, own, other = Key(client.device_id), Key(), Key(), Key()
        owned[client.user_id] = device, master, own, other
        client.post("/keys/upload", {"device_keys": device_keys(client, device)})
        # The first upload needs no proof, a change does.
        body = {"master_key": cross_key(client.user_id, master, "master"),
                "self_signing_key": cross_key(client.user_id, own, "self_signing", master),
                "user_signing_key": cross_key(client.user_id, other, "user_signing", master)}
        client.post("/keys/device_signing/upload", body)
        client.post("/keys/device_signing/upload", body)
    refused(400, "M_INVALID_SIGNATURE", cluster.user("carol").post, "/keys/device_signing/upload", {
        "master_key": cross_key("@carol:plexus.test", Key(), "master"),
        "self_signing_key": cross_key("@carol:plexus.test", Key(), "self_signing", Key())})
    device, master, own, other = owned[alice.user_id]
    new = {"self_signing_key": cross_key(alice.user_id, Key(), "self_signing", master)}
    asked = refused(401, None, alice.post, "/keys/device_signing/upload", new)

    signed = own.sign(alice.user_id, device_keys(alice, device))
    by_device = device.sign(alice.user_id, cross_key(alice.user_id, master, "master"))
    bad = Key(own.name).sign(alice.user_id, device_keys(alice, device))
    answer = alice.post("/keys/signatures/upload", {alice.user_id: {alice.device_id: bad}})
    assert answer["failures"][alice.user_id][alice.device_id]["errcode"] == "M_INVALID_SIGNATURE"
    answer = alice.post("/keys/signatures/upload", {
        alice.user_id: {alice.device_id: signed, master.public: by_device, "NOSUCH": signed}})
    assert list(answer["failures"][alice.user_id]) == ["NOSUCH"]

    bobs = owned[bob.user_id][1]
    theirs = other.sign(alice.user_id, cross_key(bob.user_id, bobs, "master"))
    assert alice.post("/keys/signatures/upload", {bob.user_id: {bobs.public: theirs}}) == {"failures": {}}
    query = {"device_keys": {alice.user_id: [], bob.user_id: []}}
    mine, seen = alice.post("/keys/query", query), bob.post("/keys/query", query)
    assert own.id in seen["device_keys"][alice.user_id][alice.device_id]["signatures"][alice.user_id]
    assert mine["master_keys"][bob.user_id]["signatures"][alice.user_id].keys() == {other.id}
    # Only the signer sees that.
    assert alice.user_id not in seen["master_keys"][bob.user_id].get("signatures", {})
    assert list(mine["user_signing_keys"]) == [alice.user_id] and list(seen["user_signing_keys"]) == [bob.user_id]
    assert mine["self_signing_keys"].keys() == {alice.user_id, bob.user_id}
    # Cross-signing keys are no devices.
    assert [d["device_id"] for d in alice.get("/devices")["devices"]] == [alice.device_id]
    alice.post("/keys/device_signing/upload", new | {"auth": proof(alice, asked["session"])})


def test_who_hears_of_changes(cluster):
    here, there = places(cluster)
    alice, bob, carol = (cluster.user(n, on=p) for n, p in (("alice", here), ("bob", there), ("carol", here)))
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    start, lonely = bob.sync()["next_batch"], carol.sync()["next_batch"]
    alice.post("/keys/upload", {"device_keys": device_keys(alice, Key(alice.device_id))})
    changed = lambda who: lambda answer: who in answer.get("device_lists", {}).get("changed", [])
    _, after = bob.sync_until(changed(alice.user_id), start)
    assert alice.user_id in bob.get("/keys/changes", **{"from": start, "to": after})["changed"]
    assert alice.user_id not in carol.sync(lonely).get("device_lists", {}).get("changed", [])
    carol.join(room)
    _, after = bob.sync_until(changed(carol.user_id), after)
    carol.leave(room)
    left = lambda answer: carol.user_id in answer.get("device_lists", {}).get("left", [])
    bob.sync_until(left, after)
    assert carol.user_id in bob.get("/keys/changes", **{"from": after, "to": after})["left"]


def test_messages_to_devices(cluster):
    here, there = places(cluster)
    alice, bob = cluster.user("alice", on=here), cluster.user("bob", on=there)
    phone = bob.login("bob")
    start, phone_start = bob.sync()["next_batch"], phone.sync()["next_batch"]

    def send(txn, messages, on=here):
        return alice.at(cluster.url(on)).put(f"/sendToDevice/m.test/{txn}", {"messages": messages})

    send("t1", {bob.user_id: {bob.device_id: {"n": 1}}})
    send("t1", {bob.user_id: {bob.device_id: {"n": 1}}})
    if len(set(cluster.flavours.values())) == 1:
        # Synapse knows of repetitions to the same process only.
        send("t1", {bob.user_id: {bob.device_id: {"n": 1}}}, on=there)
    send("t2", {bob.user_id: {"*": {"n": 2}}})
    send("t3", {bob.user_id: {"NOSUCH": {"n": 3}}, "@nobody:plexus.test": {"*": {}}})
    got = []

    def events(answer):
        got.extend(answer.get("to_device", {}).get("events", []))
        return len(got) >= 2

    _, after = bob.sync_until(events, start)
    assert got == [{"type": "m.test", "sender": alice.user_id, "content": {"n": n}} for n in (1, 2)]
    # Not acknowledged: here it is again. Acknowledged: gone.
    assert bob.sync(start)["to_device"]["events"] == got
    assert "to_device" not in bob.sync(after)
    assert [e["content"] for e in phone.sync(phone_start)["to_device"]["events"]] == [{"n": 2}]
    for n in range(120):
        send(f"m{n}", {bob.user_id: {bob.device_id: {"n": n}}})
    first = bob.sync(after)
    assert [e["content"]["n"] for e in first["to_device"]["events"]] == list(range(100))
    rest = bob.sync(first["next_batch"])
    assert [e["content"]["n"] for e in rest["to_device"]["events"]] == list(range(100, 120))
    refused(413, "M_TOO_LARGE", send, "big", {bob.user_id: {"*": {"x": "y" * 70000}}})


def test_key_backup(cluster):
    here, there = places(cluster)
    alice = cluster.user("alice", on=here)
    other = alice.at(cluster.url(there))
    refused(404, "M_NOT_FOUND", alice.get, "/room_keys/version")
    info = {"algorithm": "m.megolm_backup.v1", "auth_data": {"public_key": "abc"}}
    assert alice.post("/room_keys/version", info) == {"version": "1"}
    assert other.get("/room_keys/version") == info | {"version": "1", "etag": "0", "count": 0}

    def data(first, forwarded, verified, secret="s"):
        return {"first_message_index": first, "forwarded_count": forwarded, "is_verified": verified,
                "session_data": {"secret": secret}}

    room, session = "!room:plexus.test", "session/1"
    path = f"/room_keys/keys/{quote(room)}/{quote(session)}"
    assert alice.put(path, data(5, 5, False), version="1") == {"etag": "1", "count": 1}
    # Worse: kept as it is.
    assert alice.put(path, data(6, 5, False), version="1") == {"etag": "1", "count": 1}
    assert alice.put(path, data(3, 5, True, "better"), version="1") == {"etag": "2", "count": 1}
    assert other.get(path, version="1") == data(3, 5, True, "better")
    many = {"rooms": {"!a:x": {"sessions": {"1": data(1, 1, True), "2": data(1, 1, True)}}, room: {"sessions": {}}}}
    assert alice.put("/room_keys/keys", many, version="1") == {"etag": "3", "count": 3}
    assert alice.get("/room_keys/keys/!a:x", version="1") == many["rooms"]["!a:x"]
    assert other.get("/room_keys/keys", version="1")["rooms"].keys() == {"!a:x", room}
    assert alice.get("/room_keys/keys/!none:x", version="1") == {"sessions": {}}
    refused(404, "M_NOT_FOUND", alice.get, "/room_keys/keys/!a:x/3", version="1")

    assert alice.post("/room_keys/version", info) == {"version": "2"}
    body = refused(403, "M_WRONG_ROOM_KEYS_VERSION", alice.put, "/room_keys/keys", many, version="1")
    assert "current_version" in body
    refused(404, "M_NOT_FOUND", alice.put, "/room_keys/keys", many, version="9")
    refused(404, "M_NOT_FOUND", alice.put, "/room_keys/keys", many, version="x")
    refused(400, "M_MISSING_PARAM", alice.put, "/room_keys/keys", many)
    refused(400, "M_INVALID_PARAM", alice.put, "/room_keys/version/2", info | {"algorithm": "other"})
    alice.put("/room_keys/version/2", info | {"auth_data": {"public_key": "new"}, "version": "2"})
    assert other.get("/room_keys/version/2")["auth_data"] == {"public_key": "new"}
    deleted = alice.request("DELETE", "/_matrix/client/v3/room_keys/keys/!a:x/1", version="1")
    assert deleted == {"etag": "4", "count": 2}
    alice.request("DELETE", "/_matrix/client/v3/room_keys/version/2")
    assert alice.get("/room_keys/version")["version"] == "1"
    refused(404, "M_NOT_FOUND", alice.get, "/room_keys/version/2")
