"""The shortest conversation, in each shape: two users, one room, one message."""

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
