"""The shortest conversation, in each shape: two users, one room, one message; and a message sent twice."""

import time

from lib.client import has_event


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
