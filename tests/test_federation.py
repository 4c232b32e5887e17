"""Plexus and a real Synapse, two servers on one machine, over TLS: rooms, messages, keys, what is fleeting."""

import base64
import itertools
import json
import signal
import time

import pytest
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from lib import layouts
from lib.client import MatrixError, has_event, quote

SECONDS = 20


# Each test has users and aliases of its own.
_number = itertools.count(1)


@pytest.fixture(scope="module", params=["monolith", "workers"])
def ours(request, make_lasting_cluster):
    return make_lasting_cluster(layouts.ALL[request.param], federates=True)


@pytest.fixture(scope="module")
def theirs(make_lasting_cluster):
    return make_lasting_cluster(main="synapse", federates=True)


@pytest.fixture
def alice(ours):
    """One of ours, speaking to the process other servers do not come to."""
    return ours.user(f"alice{next(_number)}", on=ours.layout.processes[0])


@pytest.fixture
def bob(theirs):
    return theirs.user(f"bob{next(_number)}")


@pytest.fixture(params=["ours", "theirs"])
def host(request):
    """Whose room it is."""
    return request.param


@pytest.fixture
def pair(host, alice, bob, ours, theirs):
    """(who has the room, their server, who comes, their server)"""
    return (alice, ours, bob, theirs) if host == "ours" else (bob, theirs, alice, ours)


def invited(room: str):
    return lambda answer: room in answer["rooms"].get("invite", {}) if "rooms" in answer else False


def meet(pair) -> str:
    """A room both are in."""
    owner, server, guest, _ = pair
    alias = f"abroad{next(_number)}"
    room = owner.create_room(preset="public_chat", name="Abroad", room_alias_name=alias)
    guest.join(f"#{alias}:{server.server_name}")
    return room


def eventually(check, seconds=SECONDS):
    end = time.monotonic() + seconds
    while True:
        got = check()
        if got or time.monotonic() > end:
            assert got
            return got
        time.sleep(0.1)


def test_messages_go_both_ways(pair):
    owner, _, guest, _ = pair
    room = meet(pair)
    assert guest.state_event(room, "m.room.name") == {"name": "Abroad"}
    tokens = {id(c): c.sync()["next_batch"] for c in (owner, guest)}
    for n in range(5):
        for sender, reader in ((owner, guest), (guest, owner)):
            event_id = sender.send(room, f"{n} of {sender.user_id}")
            _, tokens[id(reader)] = reader.sync_until(has_event(room, event_id), tokens[id(reader)])
    assert set(owner.members(room)) == set(guest.members(room)) == {owner.user_id, guest.user_id}


def test_an_invite_is_accepted(pair):
    owner, _, guest, _ = pair
    room = owner.create_room(preset="private_chat", name="Private")
    since = guest.sync()["next_batch"]
    owner.invite(room, guest.user_id)
    answer, _ = guest.sync_until(lambda a: invited(room)(a) and a, since)
    told = {e["type"]: e for e in answer["rooms"]["invite"][room]["invite_state"]["events"]}
    assert told["m.room.name"]["content"]["name"] == "Private"
    guest.join(room)
    eventually(lambda: set(owner.members(room)) == {owner.user_id, guest.user_id})
    event_id = guest.send(room, "here I am")
    owner.sync_until(has_event(room, event_id))


def test_rooms_are_made_with_guests_from_abroad(pair):
    owner, _, guest, _ = pair
    since = guest.sync()["next_batch"]
    room = owner.create_room(preset="trusted_private_chat", invite=[guest.user_id], is_direct=True)
    answer, _ = guest.sync_until(lambda a: invited(room)(a) and a, since)
    own = [e for e in answer["rooms"]["invite"][room]["invite_state"]["events"] if e.get("state_key") == guest.user_id]
    assert own[0]["content"]["is_direct"] is True


def test_an_invite_is_declined(pair):
    owner, _, guest, _ = pair
    room = owner.create_room(preset="private_chat")
    since = guest.sync()["next_batch"]
    owner.invite(room, guest.user_id)
    _, since = guest.sync_until(invited(room), since)
    guest.leave(room)
    guest.sync_until(lambda a: room in a.get("rooms", {}).get("leave", {}), since)
    eventually(lambda: owner.state_event(room, "m.room.member", guest.user_id)["membership"] == "leave")


def test_who_leaves_hears_no_more_and_may_come_back(pair):
    owner, server, guest, _ = pair
    room = meet(pair)
    guest.leave(room)
    eventually(lambda: set(owner.members(room)) == {owner.user_id})
    owner.send(room, "unheard")
    guest.join(room, via=server.server_name)
    event_id = owner.send(room, "heard")
    guest.sync_until(has_event(room, event_id))
    assert set(guest.members(room)) == {owner.user_id, guest.user_id}


def test_history_from_before_is_fetched(pair):
    owner, server, guest, _ = pair
    room = owner.create_room(preset="public_chat")
    for n in range(30):
        owner.send(room, str(n))
    guest.join(room, via=server.server_name)
    eventually(lambda: guest.texts(room) == [str(n) for n in range(30)])


def test_a_knock_is_answered(pair):
    owner, server, guest, _ = pair
    room = owner.create_room(preset="private_chat", initial_state=[
        {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}])
    with pytest.raises(MatrixError) as refused:
        guest.join(room, via=server.server_name)
    assert refused.value.status == 403
    guest.post(f"/knock/{quote(room)}", {"reason": "please"}, via=server.server_name, server_name=server.server_name)
    eventually(lambda: owner.state_event(room, "m.room.member", guest.user_id)["membership"] == "knock")
    since = guest.sync()["next_batch"]
    owner.invite(room, guest.user_id)
    guest.sync_until(invited(room), since)
    guest.join(room)
    eventually(lambda: guest.user_id in owner.members(room))


def vouched(owner, room: str, user_id: str, by=None) -> dict:
    """Invites an address by state alone; what an identity server would sign once the address is the user's."""
    def text(raw: bytes) -> str:
        return base64.b64encode(raw).decode().rstrip("=")

    key, token = ECC.generate(curve="ed25519"), f"token{next(_number)}"
    public = text(key.public_key().export_key(format="raw"))
    owner.set_state(room, "m.room.third_party_invite", {
        "display_name": "g...@e...", "public_key": public, "public_keys": [{"public_key": public}]}, key=token)
    signed = {"mxid": user_id, "sender": owner.user_id, "token": token}
    signature = eddsa.new(by or key, "rfc8032").sign(json.dumps(signed, separators=(",", ":"), sort_keys=True).encode())
    return signed | {"signatures": {"id.test": {"ed25519:0": text(signature)}}}


def test_an_invite_by_address_is_taken_up(pair):
    owner, _, guest, home = pair
    room = owner.create_room(preset="private_chat")
    forged = vouched(owner, room, guest.user_id, by=ECC.generate(curve="ed25519"))
    with pytest.raises(MatrixError) as refused:
        guest.post(f"/join/{quote(room)}", {"third_party_signed": forged})
    assert refused.value.status in (403, 502)
    # The guest's server has the owner's make the invite.
    guest.post(f"/join/{quote(room)}", {"third_party_signed": vouched(owner, room, guest.user_id)})
    eventually(lambda: guest.user_id in owner.members(room))
    # Now that it is in the room it makes the next itself, in the owner's name.
    other = home.user(f"carol{next(_number)}")
    proof = vouched(owner, room, other.user_id)
    eventually(lambda: has_state(guest, room, "m.room.third_party_invite", proof["token"]))
    other.post(f"/join/{quote(room)}", {"third_party_signed": proof})
    eventually(lambda: other.user_id in owner.members(room))
    event_id = other.send(room, "let in by address")
    owner.sync_until(has_event(room, event_id))


def has_state(client, room: str, kind: str, key: str) -> bool:
    return any((e["type"], e.get("state_key")) == (kind, key) for e in client.state(room))


def test_what_cannot_be_joined(pair, ours, theirs):
    owner, server, guest, home = pair
    room = owner.create_room(preset="private_chat")
    with pytest.raises(MatrixError) as refused:
        guest.join(room, via=server.server_name)
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    with pytest.raises(MatrixError) as refused:
        guest.join(room)
    assert refused.value.status == 404
    with pytest.raises(MatrixError) as refused:
        guest.join(f"#nothing:{server.server_name}")
    assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")


def test_profiles_and_directories(pair):
    owner, server, guest, _ = pair
    owner.put(f"/profile/{quote(owner.user_id)}/displayname", {"displayname": "The Owner"})
    assert guest.get(f"/profile/{quote(owner.user_id)}")["displayname"] == "The Owner"
    assert guest.get(f"/profile/{quote(owner.user_id)}/displayname") == {"displayname": "The Owner"}
    name = f"listed{next(_number)}"
    room = owner.create_room(preset="public_chat", visibility="public", name=name, room_alias_name=name)
    alias = guest.get(f"/directory/room/{quote(f'#{name}:{server.server_name}')}")
    assert alias["room_id"] == room and server.server_name in alias["servers"]
    wanted = {"filter": {"generic_search_term": name}}
    # Statistics follow, and Synapse remembers another server's list for half a minute.
    eventually(lambda: room in [r["room_id"] for r in owner.get("/publicRooms")["chunk"]])
    assert room in [r["room_id"] for r in guest.get("/publicRooms", server=server.server_name)["chunk"]]
    assert [r["room_id"] for r in guest.post("/publicRooms", wanted, server=server.server_name)["chunk"]] == [room]


def test_typing_and_receipts(pair):
    owner, _, guest, _ = pair
    room = meet(pair)
    event_id = owner.send(room, "read me")
    _, _ = guest.sync_until(has_event(room, event_id))
    since = owner.sync()["next_batch"]
    guest.put(f"/rooms/{quote(room)}/typing/{quote(guest.user_id)}", {"typing": True, "timeout": 20000})
    guest.post(f"/rooms/{quote(room)}/receipt/m.read/{quote(event_id)}")
    seen = set()

    def both(answer):
        for event in answer.get("rooms", {}).get("join", {}).get(room, {}).get("ephemeral", {}).get("events", []):
            if event["type"] == "m.typing" and guest.user_id in event["content"]["user_ids"]:
                seen.add("typing")
            if event["type"] == "m.receipt" and guest.user_id in event["content"].get(event_id, {}).get("m.read", {}):
                seen.add("receipt")
        return seen == {"typing", "receipt"}

    owner.sync_until(both, since)


def test_a_sender_of_synapse_carries_messages_and_presence(make_cluster, theirs, bob):
    mixed = make_cluster(layouts.PAIR, flavours={"generic1": "synapse"}, federates=True,
                         config={"send_federation": False, "federation_sender_instances": ["generic1"]})
    alice = mixed.user("alice")
    room = bob.create_room(preset="public_chat")
    alice.join(room, via=theirs.server_name)
    _, since = bob.sync_until(has_event(room, alice.send(room, "carried")))
    alice.put(f"/presence/{quote(alice.user_id)}/status", {"presence": "unavailable", "status_msg": "for lunch"})
    bob.sync_until(lambda a: any(
        e["sender"] == alice.user_id and e["content"].get("status_msg") == "for lunch"
        for e in a.get("presence", {}).get("events", [])), since)


def test_who_was_there_is_told_however_late_the_sender_looks(make_cluster, theirs, bob):
    ours = make_cluster(layouts.PAIR, federates=True,
                        config={"send_federation": False, "federation_sender_instances": ["generic1"]})
    alice = ours.user("alice")
    room = alice.create_room(preset="public_chat")
    bob.join(room, via=ours.server_name)
    _, since = bob.sync_until(has_event(room, alice.send(room, "before")))
    ours.processes["generic1"].send_signal(signal.SIGSTOP)
    try:
        alice.send(room, "still there")
        alice.post(f"/rooms/{quote(room)}/kick", {"user_id": bob.user_id})
    finally:
        ours.processes["generic1"].send_signal(signal.SIGCONT)
    bob.sync_until(lambda a: room in a.get("rooms", {}).get("leave", {}), since)
    assert bob.texts(room) == ["before", "still there"]


def test_a_server_that_asks_much_is_slowed_down(make_cluster, bob):
    limit = {"window_size": 600000, "sleep_limit": 2, "sleep_delay": 3000, "reject_limit": 50, "concurrent": 3}
    alice = make_cluster(federates=True, config={"rc_federation": limit}).user("alice")

    def seconds() -> float:
        start = time.monotonic()
        assert bob.get(f"/profile/{quote(alice.user_id)}")["displayname"] == "alice"
        return time.monotonic() - start

    seconds(), seconds()
    assert seconds() >= 3


def keys_of(client) -> dict:
    return {"device_keys": {
        "user_id": client.user_id, "device_id": client.device_id, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"curve25519:{client.device_id}": "c" * 43, f"ed25519:{client.device_id}": "e" * 43},
        "signatures": {client.user_id: {f"ed25519:{client.device_id}": "s" * 86}}},
        "one_time_keys": {"signed_curve25519:AAAA": {
            "key": "k" * 43, "signatures": {client.user_id: {f"ed25519:{client.device_id}": "s" * 86}}}}}


def test_keys_and_messages_to_devices(pair):
    owner, server, guest, _ = pair
    room = meet(pair)
    since = guest.sync()["next_batch"]
    owner.post("/keys/upload", keys_of(owner))
    _, since = guest.sync_until(lambda a: owner.user_id in a.get("device_lists", {}).get("changed", []), since)
    found = guest.post("/keys/query", {"device_keys": {owner.user_id: []}})
    assert found["failures"] == {}
    assert found["device_keys"][owner.user_id][owner.device_id]["keys"] == keys_of(owner)["device_keys"]["keys"]
    wanted = {"one_time_keys": {owner.user_id: {owner.device_id: "signed_curve25519"}}}
    claimed = guest.post("/keys/claim", wanted)["one_time_keys"][owner.user_id][owner.device_id]
    assert claimed["signed_curve25519:AAAA"]["key"] == "k" * 43
    assert guest.post("/keys/claim", wanted)["one_time_keys"].get(owner.user_id, {}).get(owner.device_id, {}) == {}
    since = owner.sync()["next_batch"]
    guest.put("/sendToDevice/m.test/1", {"messages": {owner.user_id: {owner.device_id: {"hello": "there"}}}})
    got, _ = owner.sync_until(lambda a: a.get("to_device", {}).get("events"), since)
    assert [(e["sender"], e["type"], e["content"]) for e in got] == [(guest.user_id, "m.test", {"hello": "there"})]
    assert room in guest.get("/joined_rooms")["joined_rooms"]


def test_devices_of_who_was_away_are_asked_for_again(pair, alice, bob):
    """Whoever left: who shares no room with us does not tell us what changes meanwhile."""
    owner, server, guest, _ = pair
    room = meet(pair)
    bob.post("/keys/upload", keys_of(bob))
    devices = lambda: set(alice.post("/keys/query", {"device_keys": {bob.user_id: []}})["device_keys"].get(bob.user_id, {}))
    eventually(lambda: devices() == {bob.device_id})
    guest.leave(room)
    eventually(lambda: set(owner.members(room)) == {owner.user_id})
    second = bob.login(bob.user_id)
    second.post("/keys/upload", keys_of(second))
    # Time for it to be told to whoever is in a room with bob: nobody.
    time.sleep(1)
    guest.join(room, via=server.server_name)
    eventually(lambda: set(owner.members(room)) == {owner.user_id, guest.user_id})
    assert devices() == {bob.device_id, second.device_id}


# Nothing that follows an upgrade can be done for a while.
NO_ALIASES_MOVE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON room_aliases FOR EACH ROW EXECUTE FUNCTION refuse();
"""


def test_a_successor_made_by_another_server(ours, theirs, alice, bob, postgres):
    """It is joined whatever becomes of what follows, which is tried again."""
    old = bob.create_room(preset="public_chat")
    alice.join(old, via=theirs.server_name)
    alias = f"/directory/room/{quote(f'#ours:{ours.server_name}')}"
    alice.put(alias, {"room_id": old})
    alice.put(f"/user/{alice.user_id}/rooms/{quote(old)}/tags/u.mine", {"order": 0.5})
    new = bob.post(f"/rooms/{quote(old)}/upgrade", {"new_version": "11"})["replacement_room"]
    postgres.run(ours.database, NO_ALIASES_MOVE)
    alice.join(new, via=theirs.server_name)
    assert alice.get(alias)["room_id"] == old
    postgres.run(ours.database, "DROP FUNCTION refuse CASCADE")
    eventually(lambda: alice.get(alias)["room_id"] == new)
    eventually(lambda: "u.mine" in alice.get(f"/user/{alice.user_id}/rooms/{quote(new)}/tags")["tags"])


def test_a_server_that_is_gone(ours, alice):
    found = alice.post("/keys/query", {"device_keys": {"@nobody:127.0.0.1:1": []}})
    assert found["device_keys"] == {} and found["failures"]["127.0.0.1:1"]["status"] == 503
    for call in (lambda: alice.get("/profile/%40nobody%3A127.0.0.1%3A1"),
                 lambda: alice.get("/publicRooms", server="127.0.0.1:1"),
                 lambda: alice.join("!room:127.0.0.1:1", via="127.0.0.1:1"),
                 lambda: alice.invite(alice.create_room(), "@nobody:127.0.0.1:1")):
        with pytest.raises(MatrixError) as failed:
            call()
        assert failed.value.status == 502


@pytest.mark.parametrize("version", ["1", "6", "10", "12"])
def test_room_versions(pair, version):
    owner, server, guest, _ = pair
    room = owner.create_room(preset="public_chat", room_version=version)
    owner.send(room, "first")
    guest.join(room, via=server.server_name)
    event_id = guest.send(room, "second")
    owner.sync_until(has_event(room, event_id))
    event_id = owner.send(room, "third")
    guest.sync_until(has_event(room, event_id))
    assert guest.texts(room)[-2:] == ["second", "third"]
