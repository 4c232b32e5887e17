"""The shortest conversation, in each shape: two users, one room, one message; a message sent twice; state shown again."""

import time

from lib.client import has_event, quote


def test_a_message_arrives(cluster):
    last = cluster.layout.processes[-1]
    alice, bob = cluster.user("alice"), cluster.user("bob", on=last)
    room = alice.create_room(preset="public_chat", name="Smoke")
    bob.join(room)
    since = bob.sync()["next_batch"]
    event_id = alice.send(room, "hello")
    bob.sync_until(has_event(room, event_id), since)
    assert bob.texts(room) == ["hello"]
    assert set(alice.members(room)) == {alice.user_id, bob.user_id}


def test_a_repeated_transaction_makes_no_second_event(cluster):
    """At once, after many others, and after the room has come to rest (10 s)."""
    alice = cluster.user("alice", on=cluster.layout.processes[-1])
    room = alice.create_room()
    sent = [alice.send(room, f"message {n}", txn=f"txn{n}") for n in range(40)]
    for pause in (0, 12):
        time.sleep(pause)
        assert [alice.send(room, "again", txn=f"txn{n}") for n in range(40)] == sent
    assert alice.texts(room) == [f"message {n}" for n in range(40)]


def test_state_shown_before_changes(cluster):
    """An initial sync of a room that somebody was shown already: state replaced and state redacted since."""
    last = cluster.layout.processes[-1]
    alice, bob = cluster.user("alice"), cluster.user("bob", on=last)
    room = alice.create_room(preset="public_chat", name="Before")
    topic = alice.set_state(room, "m.room.topic", {"topic": "unwanted"})
    bob.join(room)
    for n in range(25):
        alice.send(room, f"message {n}")

    def shown(n):
        # The timeout, of no effect here, keeps Synapse from repeating an earlier answer.
        state = bob.sync(wait=n)["rooms"]["join"][room]["state"]["events"]
        return {(e["type"], e["state_key"]): e for e in state}

    first, again = shown(1), shown(2)
    assert first.keys() == again.keys() and len(first) == 8
    assert all(again[key]["unsigned"].pop("age") >= e["unsigned"].pop("age") for key, e in first.items())
    assert first == again and first["m.room.topic", ""]["content"]["topic"] == "unwanted"
    alice.set_state(room, "m.room.name", {"name": "After"})
    alice.put(f"/rooms/{quote(room)}/redact/{quote(topic)}/gone", {})
    for n in range(15):
        sent = alice.send(room, f"message {n} more")
    bob.sync_until(has_event(room, sent))
    now = shown(3)
    assert now["m.room.topic", ""]["content"] == {} and "redacted_because" in now["m.room.topic", ""]["unsigned"]
    assert now["m.room.name", ""]["content"] == {"name": "After"}
    assert now["m.room.name", ""]["unsigned"]["prev_content"] == {"name": "Before"}
    assert now.keys() == first.keys()
