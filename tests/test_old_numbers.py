"""Numbers beyond canonical JSON, which rooms of versions 1 to 5 may have: the same hashes as real Synapse's."""

import base64
import hashlib
import json

import pytest

from lib import layouts
from lib.client import MatrixError, has_event, quote

OLD = ["1", "3", "5"]
NUMBERS = {"a": 1.5, "b": 1e30, "c": 9007199254740993, "d": -0.0, "e": 1e-7, "f": 0.30000000000000004,
           # Synapse cannot evaluate push rules for longer integers in other places.
           "g": [2.0, 1e16, {"h": -1.25e-9, "i": 123456789012345678901234567890}]}
FRESH = {"caches": {"sync_response_cache_duration": 0}}


def canonical(value) -> bytes:
    """What Synapse's `canonicaljson` writes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def check_hashes(cluster, room):
    """Every stored event's content hash is that of Python's canonical JSON."""
    rows = cluster.postgres.run(cluster.database, "SELECT event_id, json FROM event_json WHERE room_id = %s", (room,))
    assert len(rows) > 8
    for event_id, text in rows:
        event = json.loads(text)
        hashed = {k: v for k, v in event.items() if k not in ("hashes", "signatures", "unsigned")}
        digest = base64.b64encode(hashlib.sha256(canonical(hashed)).digest()).decode().rstrip("=")
        assert digest == event["hashes"]["sha256"], event_id


def write(person, room, n):
    """A message, a state event, and a message that is removed again."""
    sent = person.send_event(room, "org.test.numbers", {**NUMBERS, "n": n})
    state = person.set_state(room, "org.test.numbers", {**NUMBERS, "n": n})
    gone = person.send_event(room, "org.test.numbers", {**NUMBERS, "n": n})
    person.put(f"/rooms/{quote(room)}/redact/{quote(gone)}/r{n}", {"reason": "test", "weight": 0.1})
    return sent, state, gone


def look(person, room, n, ids):
    sent, state, gone = ids
    expected = repr(sorted({**NUMBERS, "n": n}.items()))
    event = lambda id: person.get(f"/rooms/{quote(room)}/event/{quote(id)}")["content"]
    for content in (event(sent), event(state)):
        assert repr(sorted(content.items())) == expected
    assert event(gone) == {}
    in_history = {e["event_id"]: e["content"] for e in person.history(room)}
    assert repr(sorted(in_history[sent].items())) == expected


def test_old_rooms_keep_their_numbers(make_cluster, flavour):
    """Synapse writes, we serve and write, Synapse serves both."""
    cluster = make_cluster(layouts.MONOLITH, main="synapse", config=FRESH)
    alice = cluster.user("alice")
    rooms = {v: alice.create_room(preset="public_chat", room_version=v) for v in OLD}
    done = {(room, 0): write(alice, room, 0) for room in rooms.values()}
    for n, who in ((1, flavour), (2, "synapse"), (3, flavour)):
        cluster.switch(who)
        alice = alice.at(cluster.url())
        for (room, m), ids in done.items():
            look(alice, room, m, ids)
        done |= {(room, n): write(alice, room, n) for room in rooms.values()}
        for (room, m), ids in done.items():
            look(alice, room, m, ids)
            assert alice.state_event(room, "org.test.numbers") == {**NUMBERS, "n": n}
    for room in rooms.values():
        check_hashes(cluster, room)


def test_newer_rooms_refuse_them(make_cluster):
    cluster = make_cluster(layouts.MONOLITH)
    alice = cluster.user("alice")
    room = alice.create_room(room_version="6")
    for key in "abdeg":
        with pytest.raises(MatrixError) as refused:
            alice.send_event(room, "org.test.numbers", {key: NUMBERS[key]})
        assert (refused.value.status, refused.value.errcode) == (400, "M_BAD_JSON")
    with pytest.raises(MatrixError) as refused:
        alice.set_state(room, "org.test.numbers", {"a": 1.5})
    assert refused.value.errcode == "M_BAD_JSON"


@pytest.mark.parametrize("version", ["1", "5"])
def test_other_servers_take_our_signatures(make_cluster, version):
    """A real Synapse as the other server joins our room, and each takes the other's events."""
    ours, theirs = make_cluster(federates=True), make_cluster(main="synapse", federates=True)
    alice, bob = ours.user("alice"), theirs.user("bob")
    room = alice.create_room(preset="public_chat", room_version=version, room_alias_name="numbers")
    alice.set_state(room, "org.test.numbers", {"a": 1.5, "b": 1e30})
    bob.join(f"#numbers:{ours.server_name}")
    assert bob.state_event(room, "org.test.numbers") == {"a": 1.5, "b": 1e30}
    tokens = {id(c): c.sync()["next_batch"] for c in (alice, bob)}
    for sender, reader in ((alice, bob), (bob, alice)):
        content = {"a": 1.5, "b": 1e30, "c": 9007199254740993, "d": -0.0, "e": 1e-7}
        event_id = sender.send_event(room, "org.test.numbers", content)
        _, tokens[id(reader)] = reader.sync_until(has_event(room, event_id), tokens[id(reader)])
        # One whose hash did not fit would have lost its content.
        assert reader.get(f"/rooms/{quote(room)}/event/{quote(event_id)}")["content"] == content
