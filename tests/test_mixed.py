"""One process of the other kind in a cluster: nobody talking to it can tell, either way round.

`host` is a worker of the kind everything else is, `guest` the stranger.
"""

import json
import time

import pytest
import redis

from lib import layouts
from lib.client import MatrixError, has_event, quote
from lib.procs import wait_until

SOON = 1.0
OTHER = {"plexus": "synapse", "synapse": "plexus"}


@pytest.fixture(params=["our worker at theirs", "their worker at ours"])
def mixed(request, make_cluster):
    host = "synapse" if request.param.startswith("our") else "plexus"
    return make_cluster(layouts.MIXED, main=host, flavours={"guest": OTHER[host]})


@pytest.fixture(params=["host to guest", "guest to host"])
def way(request, mixed):
    """(process that acts, process that must notice)"""
    return ("host", "guest") if request.param.startswith("host") else ("guest", "host")


@pytest.fixture
def room(mixed, way):
    """alice acts, bob watches, both in a room."""
    alice, bob = mixed.user("alice").at(mixed.url(way[0])), mixed.user("bob").at(mixed.url(way[1]))
    made = alice.create_room(preset="public_chat", name="Mixed")
    bob.join(made)
    return alice, bob, made


def soon(what, check):
    wait_until(what, check, SOON, every=0.02)


def refused(call, status=403):
    """True if the call is refused with that status."""
    try:
        call()
    except MatrixError as error:
        return error.status == status
    return False


def test_messages_arrive_within_a_second(mixed, room):
    alice, bob, where = room
    for sender, watcher in ((alice, bob), (bob, alice)):
        since = watcher.sync()["next_batch"]
        for n in range(10):
            start = time.monotonic()
            event_id = sender.send(where, f"message {n}")
            _, since = watcher.sync_until(has_event(where, event_id), since)
            assert time.monotonic() - start < SOON


def test_membership_is_not_stale(mixed, way, room):
    alice, bob, where = room
    carol = mixed.user("carol").at(mixed.url(way[0]))
    assert carol.user_id not in bob.members(where)
    carol.join(where)
    soon("the join", lambda: carol.user_id in bob.members(where))
    far = carol.at(mixed.url(way[1]))
    far.send(where, "from the other side")
    carol.leave(where)
    soon("the leave", lambda: carol.user_id not in bob.members(where))
    soon("refusal after the leave", lambda: refused(lambda: far.send(where, "too late")))
    alice.post(f"/rooms/{quote(where)}/ban", {"user_id": carol.user_id})
    soon("refusal after the ban", lambda: refused(lambda: far.join(where)))


def test_an_invite_arrives(mixed, way):
    alice, bob = mixed.user("alice").at(mixed.url(way[0])), mixed.user("bob").at(mixed.url(way[1]))
    since = bob.sync()["next_batch"]
    room = alice.create_room(preset="private_chat", invite=[bob.user_id])
    _, since = bob.sync_until(lambda a: room in a.get("rooms", {}).get("invite", {}), since)
    bob.join(room)
    soon("the join", lambda: bob.user_id in alice.members(room))


def test_state_is_not_stale(mixed, room):
    alice, bob, where = room
    for n in range(5):
        alice.set_state(where, "m.room.topic", {"topic": f"Topic {n}"})
        soon("the topic", lambda: bob.state_event(where, "m.room.topic")["topic"] == f"Topic {n}")
    levels = alice.state_event(where, "m.room.power_levels")
    assert refused(lambda: bob.set_state(where, "m.room.name", {"name": "Bob's"}))
    alice.set_state(where, "m.room.power_levels", levels | {"users": levels["users"] | {bob.user_id: 50}})
    soon("bob's power", lambda: not refused(lambda: bob.set_state(where, "m.room.name", {"name": "Bob's"})))
    assert alice.state_event(where, "m.room.name")["name"] == "Bob's"


def test_names_are_not_stale(mixed, way, room):
    alice, bob, where = room
    assert bob.get(f"/profile/{alice.user_id}").get("displayname") == "alice"
    alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice the Second"})
    soon("the profile", lambda: bob.get(f"/profile/{alice.user_id}")["displayname"] == "Alice the Second")
    wait_until("the name in the room", lambda: bob.members(where)[alice.user_id]["display_name"] == "Alice the Second", 10)


def test_a_revoked_token_is_dead_everywhere(mixed, way, room):
    alice, _, _ = room
    there = alice.at(mixed.url(way[1]))
    there.get("/account/whoami")
    # Synapse's workers do not serve /logout.
    acting = way[0] if mixed.flavours[way[0]] == "plexus" else "main"
    alice.at(mixed.url(acting)).post("/logout")
    soon("the refusal", lambda: refused(lambda: there.get("/account/whoami"), 401))


def test_ephemeral_things_arrive(mixed, way, room):
    alice, bob, where = room
    event_id = bob.send(where, "read me")
    since = bob.sync()["next_batch"]
    # The writer of these streams is main; Synapse's workers do not hand on.
    writer = alice if mixed.flavours[way[0]] == "plexus" else alice.at(mixed.url())
    writer.put(f"/rooms/{quote(where)}/typing/{alice.user_id}", {"typing": True, "timeout": 20000})
    writer.post(f"/rooms/{quote(where)}/receipt/m.read/{quote(event_id)}")
    writer.put("/sendToDevice/org.test.note/1", {"messages": {bob.user_id: {"*": {"note": 1}}}})
    seen = set()

    def look(answer):
        events = answer.get("rooms", {}).get("join", {}).get(where, {}).get("ephemeral", {}).get("events", [])
        seen.update(e["type"] for e in events + answer.get("to_device", {}).get("events", []))
        return {"m.typing", "m.receipt", "org.test.note"} <= seen

    bob.sync_until(look, since)


def test_a_persister_of_the_other_kind(make_cluster, flavour):
    """Our event persister in Synapse's cluster: its workers hand events to ours over HTTP replication."""
    cluster = make_cluster(layouts.MIXED, main="synapse", flavours={"persister1": flavour})
    alice, bob = cluster.user("alice").at(cluster.url("host")), cluster.user("bob").at(cluster.url("guest"))
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    since = bob.sync()["next_batch"]
    sent = [alice.send(room, f"message {n}") for n in range(20)]
    bob.sync_until(has_event(room, sent[-1]), since)
    assert bob.texts(room) == [f"message {n}" for n in range(20)]


def test_a_federation_sender_is_told_who_is_in_the_room(make_cluster):
    """What Synapse's sender looks up for each event, made by our worker for a persister of theirs."""
    cluster = make_cluster(layouts.MIXED, main="synapse", flavours={"guest": "plexus"})
    alice = cluster.user("alice").at(cluster.url("guest"))
    event_id = alice.send(alice.create_room(), "to whom it may concern")
    shared = redis.Redis(port=cluster.redis.port)
    group = json.loads(shared.get(f"cache_v1:event_to_prev_state_group:{event_id}"))
    assert json.loads(shared.get(f"cache_v1:get_joined_hosts:{group}")) == [alice.user_id.partition(":")[2]]


def test_a_room_is_shown_when_its_state_is_known(make_cluster, postgres):
    """What a main process of Synapse tells of a join that left out members at first."""
    cluster = make_cluster(layouts.PAIR)
    alice = cluster.user("alice", on="generic1")
    room = alice.create_room()
    run = lambda sql, *args: postgres.run(cluster.database, sql, args)
    shown = lambda **options: room in alice.sync(**options).get("rooms", {}).get("join", {})
    run("INSERT INTO partial_state_rooms (room_id) VALUES (%s)", room)
    assert not shown()
    assert shown(filter=json.dumps({"room": {"state": {"lazy_load_members": True}}}))
    run("DELETE FROM partial_state_rooms")
    run("INSERT INTO un_partial_stated_room_stream VALUES (nextval('un_partial_stated_room_stream_sequence'), 'master', %s)", room)
    [(token,)] = run("SELECT stream_id FROM un_partial_stated_room_stream")
    said = f"RDATA un_partial_stated_room master {token} {json.dumps([room])}"
    redis.Redis(port=cluster.redis.port).publish(cluster.server_name, said)
    wait_until("the room is shown", shown, 5)
