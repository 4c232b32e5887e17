"""The two-way door: real Synapse's database in our hands, and back in Synapse's.

Every check is one function run after each switch, by whoever serves then.
"""

import json

import pytest

from lib import layouts
from lib.client import has_event, quote, timeline
from lib.procs import wait_until

VERSIONS = ["1", "6", "9", "10", "11", "12"]
# Synapse answers the same initial sync from a cache for two minutes, whatever happened since.
FRESH = {"caches": {"sync_response_cache_duration": 0}}
ALL_EVENTS = json.dumps({"room": {"timeline": {"limit": 100}}})


class World:
    """Two users and what they have done; every act is remembered, to be looked for again later."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.alice, self.bob = cluster.user("alice"), cluster.user("bob")
        self.rooms: dict[str, str] = {}
        self.texts: dict[str, list[str]] = {}
        self.syncs: list[tuple[str, int]] = []  # token, messages a room had then
        self.left = self.invited = ""
        self.act = 0

    def people(self, place="main"):
        return self.alice.at(self.cluster.url(place)), self.bob.at(self.cluster.url(place))

    def found(self):
        """What the first server makes."""
        alice, bob = self.people()
        for version in VERSIONS:
            room = alice.create_room(preset="public_chat", room_version=version, name=f"Version {version}",
                                     topic="A topic", room_alias_name=f"v{version}")
            bob.join(room)
            self.rooms[version], self.texts[version] = room, []
        self.left = alice.create_room(preset="public_chat")
        bob.join(self.left)
        bob.leave(self.left)
        self.invited = alice.create_room(preset="private_chat", invite=[bob.user_id])
        alice.put(f"/user/{alice.user_id}/account_data/org.test.colour", {"colour": "green"})
        alice.put(f"/user/{alice.user_id}/rooms/{quote(self.rooms['10'])}/tags/m.favourite", {"order": 0.5})
        alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice of Before"})
        alice.post("/keys/upload", {"device_keys": {
            "user_id": alice.user_id, "device_id": alice.device_id, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {f"ed25519:{alice.device_id}": "k1", f"curve25519:{alice.device_id}": "k2"}, "signatures": {}},
            "one_time_keys": {f"signed_curve25519:{n}": {"key": f"otk {n}", "signatures": {}} for n in "AB"}})

    def writer(self):
        """The process that takes receipts and to-device messages: a worker of Synapse hands those to nobody."""
        if "streams" in self.cluster.layout.processes and "synapse" in self.cluster.flavours.values():
            return "streams"
        return self.cluster.layout.processes[-1]

    def talk(self):
        """One more round of everything that goes on: messages, state, redaction, receipts, to-device."""
        alice, bob = self.people(self.cluster.layout.processes[-1])
        writer = self.people(self.writer())[1]
        self.act += 1
        for version, room in self.rooms.items():
            for who in (alice, bob):
                text = f"act {self.act} of {who.user_id}"
                last = who.send(room, text)
                self.texts[version].append(text)
            alice.set_state(room, "org.test.act", {"act": self.act})
            alice.set_state(room, "m.room.topic", {"topic": f"Topic of act {self.act}"})
            gone = bob.send(room, "to be removed")
            alice.put(f"/rooms/{quote(room)}/redact/{quote(gone)}/r{self.act}", {"reason": "test"})
            self.texts[version].append("")
            writer.post(f"/rooms/{quote(room)}/receipt/m.read/{quote(last)}")
        self.people(self.writer())[0].put(f"/sendToDevice/org.test.note/act{self.act}",
                  {"messages": {bob.user_id: {"*": {"act": self.act}}}})
        bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": f"Bob of act {self.act}"})
        for room in self.rooms.values():
            # A new name reaches the rooms a little later.
            wait_until("the name in all rooms", lambda: alice.state_event(room, "m.room.member", bob.user_id)
                       ["displayname"] == f"Bob of act {self.act}")
        self.syncs.append((alice.sync()["next_batch"], len(self.texts["10"])))

    def look(self):
        """Everything done so far is there, in every view, on every process."""
        for place in self.cluster.layout.processes:
            alice, bob = self.people(place)
            answer = alice.sync(filter=ALL_EVENTS)
            for version, room in self.rooms.items():
                self._look_at_room(alice, bob, answer, version, room)
            self._look_at_tokens(alice)
            self._look_at_the_rest(alice, bob)

    def _look_at_room(self, alice, bob, answer, version, room):
        messages = [e for e in bob.history(room) if e["type"] == "m.room.message"]
        assert [e["content"].get("body", "") for e in messages] == self.texts[version]
        in_sync = [e["event_id"] for e in timeline(answer, room) if e["type"] == "m.room.message"]
        assert in_sync == [e["event_id"] for e in messages]
        state = {(e["type"], e["state_key"]): e["content"] for e in bob.state(room)}
        assert state["m.room.create", ""]["room_version"] == version
        assert state["org.test.act", ""] == {"act": self.act}
        assert state["m.room.topic", ""]["topic"] == f"Topic of act {self.act}"
        assert set(alice.members(room)) == {alice.user_id, bob.user_id}
        assert alice.get(f"/directory/room/%23v{version}:plexus.test")["room_id"] == room
        assert state["m.room.member", bob.user_id]["displayname"] == f"Bob of act {self.act}"

    def _look_at_tokens(self, alice):
        """A token of any earlier act goes on where it was, whoever gave it out."""
        for token, had in self.syncs:
            events = timeline(alice.sync(token, filter=ALL_EVENTS), self.rooms["10"])
            texts = [e["content"].get("body", "") for e in events if e["type"] == "m.room.message"]
            assert texts == self.texts["10"][had:]

    def _look_at_the_rest(self, alice, bob):
        me = f"/user/{alice.user_id}"
        assert alice.get(f"{me}/account_data/org.test.colour") == {"colour": "green"}
        assert alice.get(f"{me}/rooms/{quote(self.rooms['10'])}/tags") == {"tags": {"m.favourite": {"order": 0.5}}}
        assert alice.get(f"/profile/{alice.user_id}/displayname")["displayname"] == "Alice of Before"
        keys = bob.post("/keys/query", {"device_keys": {alice.user_id: []}})["device_keys"][alice.user_id]
        assert keys[alice.device_id]["keys"] == {f"ed25519:{alice.device_id}": "k1", f"curve25519:{alice.device_id}": "k2"}
        rooms = bob.sync()["rooms"]
        assert self.invited in rooms["invite"]
        assert self.left not in rooms["join"]
        assert bob.get("/account/whoami")["user_id"] == bob.user_id

    def notes(self, person):
        """To-device messages waiting, read without deleting them."""
        return [e["content"]["act"] for e in person.sync()["to_device"]["events"] if e["type"] == "org.test.note"]


@pytest.mark.parametrize("shape", ["monolith", "workers"])
def test_synapse_then_us_then_synapse(make_cluster, flavour, shape):
    # Synapse's processes refuse some writes that ours hand on; all talk goes through one that may.
    cluster = make_cluster(layouts.ALL["monolith" if flavour == "synapse" else shape], main="synapse",
                           config=FRESH, start=False)
    if shape == "workers":
        cluster.flavours = {name: "synapse" for name in cluster.flavours}
    cluster.start()
    world = World(cluster)
    world.found()
    world.talk()
    world.look()
    cluster.switch(flavour)
    world.look()
    world.talk()
    world.look()
    _one_time_keys_last(world)
    cluster.switch("synapse")
    world.look()
    world.talk()
    world.look()
    assert world.notes(world.bob.at(cluster.url())) == [1, 2, 3]


def _one_time_keys_last(world):
    """Synapse's one-time keys are given out by us, each once, the oldest first."""
    alice, bob = world.people()
    wish = {"one_time_keys": {alice.user_id: {alice.device_id: "signed_curve25519"}}}
    given = [bob.post("/keys/claim", wish)["one_time_keys"][alice.user_id][alice.device_id] for _ in range(2)]
    assert [list(g) for g in given] == [["signed_curve25519:A"], ["signed_curve25519:B"]]


def test_a_room_made_by_us_is_synapses(make_cluster, flavour):
    """The other direction: our empty database, our rooms, then Synapse."""
    cluster = make_cluster(layouts.MONOLITH, empty=True, config=FRESH)
    world = World(cluster)
    world.found()
    world.talk()
    world.look()
    cluster.switch("synapse")
    world.look()
    world.talk()
    world.look()
    cluster.switch(flavour)
    world.look()


def test_passwords_and_new_logins_work_across(make_cluster, flavour):
    cluster = make_cluster(layouts.MONOLITH, main="synapse")
    alice = cluster.user("alice", password="correct horse")
    cluster.switch(flavour)
    mine = cluster.client().login("alice", "correct horse")
    bob = cluster.user("bob", password="battery staple")
    cluster.switch("synapse")
    for login in (alice.at(cluster.url()), mine.at(cluster.url()), cluster.client().login("bob", "battery staple")):
        login.get("/account/whoami")
    assert bob.at(cluster.url()).get("/account/whoami")["device_id"] == bob.device_id
    room = mine.at(cluster.url()).create_room(preset="public_chat")
    event_id = mine.at(cluster.url()).send(room, "hello")
    alice.at(cluster.url()).sync_until(has_event(room, event_id))
