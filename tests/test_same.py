"""Whatever real Synapse answered about its own data, we answer the same.

Synapse makes a world and answers a list of questions; then we open the database
and are asked the same. Only what must differ between two moments is left out.
"""

import json
import time

import pytest

from lib import layouts
from lib.client import quote
from lib.cluster import Cluster, schema_template

# Ages, clocks, and tokens (whose numbers go on while a server starts).
VOLATILE = {"age", "last_active_ago", "last_seen_ts", "next_batch", "prev_batch", "start", "end", "last_seen_user_agent",
            # Synapse shows earlier contents where the event happens to be in its cache with them.
            "prev_content", "prev_sender",
            "txn_id", "pos", "device_one_time_keys_count", "expires_ts"}


def settled(value):
    """Without volatile parts; events and users in a fixed order where the order means nothing."""
    if isinstance(value, dict):
        # Who is online changes when a server starts.
        return {k: _unordered(k, settled(v)) for k, v in value.items()
                if k not in VOLATILE and not (k == "presence" and isinstance(v, dict))}
    if isinstance(value, list):
        return [settled(v) for v in value]
    return value


def settled_answer(value):
    """A bare list is a room's state: in no order."""
    value = settled(value)
    return sorted(value, key=_place) if isinstance(value, list) else value


def _place(value):
    event = value if isinstance(value, dict) else {}
    return str(event.get("type")), str(event.get("state_key")), json.dumps(value, sort_keys=True)


def _unordered(key, value):
    if isinstance(value, dict) and key in ("state", "state_after", "account_data", "ephemeral", "invite_state"):
        return {k: sorted(v, key=_place) if isinstance(v, list) else v for k, v in value.items()}
    if isinstance(value, list) and key == "chunk" and all(v.get("type") == "m.room.member" for v in value):
        return sorted(value, key=_place)
    if isinstance(value, list) and key in ("joined_rooms", "changed", "left", "devices", "required_state", "m.heroes", "state",
                                           "aliases", "presence"):
        return sorted(value, key=_place)
    return value


class World:
    """Everything two users can do to two rooms in two seconds."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.alice, self.bob = cluster.user("alice"), cluster.user("bob")
        a, b = self.alice, self.bob
        self.room = room = a.create_room(preset="public_chat", name="First", topic="Topic", room_alias_name="first",
                                         visibility="public", room_version="10")
        self.before = a.sync()["next_batch"]
        b.join(room)
        self.first = a.send(room, "one")
        self.second = b.send(room, "two, alice")
        self.middle, self.bob_middle = a.sync()["next_batch"], b.sync()["next_batch"]
        relate = {"rel_type": "m.annotation", "event_id": self.first, "key": "+"}
        b.send_event(room, "m.reaction", {"m.relates_to": relate})
        a.send_event(room, "m.room.message", {
            "msgtype": "m.text", "body": "* one, edited", "m.new_content": {"msgtype": "m.text", "body": "one, edited"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": self.first}})
        b.send_event(room, "m.room.message", {"msgtype": "m.text", "body": "in thread",
                                              "m.relates_to": {"rel_type": "m.thread", "event_id": self.second}})
        gone = b.send(room, "gone")
        b.put(f"/rooms/{quote(room)}/redact/{quote(gone)}/r1", {"reason": "why not"})
        self.gone = gone
        b.post(f"/rooms/{quote(room)}/receipt/m.read/{quote(self.first)}")
        a.post(f"/rooms/{quote(room)}/read_markers", {"m.fully_read": self.first, "m.read": self.first})
        self._others()

    def _others(self):
        a, b = self.alice, self.bob
        self.private = a.create_room(preset="private_chat", name="Second")
        for n in range(30):
            a.send(self.private, f"line {n}")
        self.invited = b.create_room(preset="private_chat", name="Come in", invite=[a.user_id], is_direct=True)
        self.left = b.create_room(preset="public_chat", name="Left")
        a.join(self.left)
        a.leave(self.left)
        self.banned = b.create_room(preset="public_chat", name="Banned")
        a.join(self.banned)
        b.post(f"/rooms/{quote(self.banned)}/ban", {"user_id": a.user_id, "reason": "test"})
        self.knocked = b.create_room(preset="private_chat", room_version="10", initial_state=[
            {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}])
        a.post(f"/knock/{quote(self.knocked)}", {"reason": "please"})
        self.space = a.create_room(creation_content={"type": "m.space"}, name="Space", preset="public_chat")
        a.set_state(self.space, "m.space.child", {"via": ["plexus.test"]}, self.room)
        a.put(f"/user/{a.user_id}/account_data/org.test.colour", {"colour": "green"})
        a.put(f"/user/{a.user_id}/account_data/m.direct", {b.user_id: [self.invited]})
        a.put(f"/user/{a.user_id}/rooms/{quote(self.room)}/account_data/org.test.note", {"note": 1})
        a.put(f"/user/{a.user_id}/rooms/{quote(self.room)}/tags/m.favourite", {"order": 0.5})
        a.put(f"/pushrules/global/room/{quote(self.private)}", {"actions": ["dont_notify"]})
        a.put("/pushrules/global/content/bob", {"pattern": "bob", "actions": ["notify"]})
        a.put("/pushrules/global/override/.m.rule.suppress_notices/enabled", {"enabled": False})
        a.put(f"/profile/{a.user_id}/avatar_url", {"avatar_url": "mxc://plexus.test/abc"})
        self.filter = a.post(f"/user/{a.user_id}/filter", {"room": {"timeline": {"limit": 3}}})["filter_id"]
        device = {"user_id": a.user_id, "device_id": a.device_id, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
                  "keys": {f"ed25519:{a.device_id}": "k1", f"curve25519:{a.device_id}": "k2"}, "signatures": {}}
        a.post("/keys/upload", {"device_keys": device,
                                "one_time_keys": {"signed_curve25519:A": {"key": "otk", "signatures": {}}},
                                "fallback_keys": {"signed_curve25519:F": {"key": "fb", "fallback": True, "signatures": {}}}})
        # New names and unread counts settle a moment later.
        time.sleep(3)
        # Where a filter leaves a change of state out of a timeline, Synapse tells the old or the new one, by chance:
        # short timelines must begin after alice's new avatar.
        for n in range(2):
            a.send(self.room, f"almost late {n}")
            a.send(self.space, f"almost late {n}")
        for n in range(2):
            a.send(self.private, f"almost late {n}")
        self.late = a.sync()["next_batch"]
        # After the last token, or the first sync from it would delete it.
        b.put("/sendToDevice/org.test.note/1", {"messages": {a.user_id: {a.device_id: {"note": 1}}}})
        b.send(self.room, "after the last token, alice")
        b.set_state(self.left, "m.room.topic", {"topic": "alice does not see this"})
        time.sleep(1)


def questions(w):
    """name: (who, method, path, body, parameters)"""
    room, private, a, b = quote(w.room), quote(w.private), w.alice, w.bob
    wide = json.dumps({"room": {"timeline": {"limit": 50}}})
    lazy = json.dumps({"room": {"state": {"lazy_load_members": True}}})
    leave = json.dumps({"room": {"include_leave": True}})
    narrow = json.dumps({"room": {"timeline": {"limit": 2, "types": ["m.room.message"]}}, "presence": {"types": []}})
    fields = json.dumps({"event_fields": ["type", "content.body"], "event_format": "federation"})
    ask = {}

    def get(name, path, who=a, **params):
        ask[name] = (who, "GET", "/_matrix/client/v3" + path, None, params)

    def post(name, path, body, who=a, **params):
        ask[name] = (who, "POST", "/_matrix/client/v3" + path, body, params)

    get("sync", "/sync")
    get("sync of bob", "/sync", b)
    get("sync, wide", "/sync", filter=wide)
    get("sync, lazy members", "/sync", filter=lazy)
    get("sync, left rooms", "/sync", filter=leave)
    get("sync, narrow", "/sync", filter=narrow)
    get("sync, fields", "/sync", filter=fields)
    get("sync, stored filter", "/sync", filter=w.filter)
    get("sync, state after", "/sync", use_state_after="true")
    get("sync since the first token", "/sync", since=w.before)
    get("sync since the middle", "/sync", since=w.middle, filter=wide)
    get("sync since the middle, gapped", "/sync", since=w.middle, filter=narrow)
    get("sync since the middle, lazy", "/sync", since=w.middle, filter=lazy)
    get("sync since the middle, full state", "/sync", since=w.middle, full_state="true")
    get("sync since the end", "/sync", since=w.late)
    get("sync of bob since the middle", "/sync", b, since=w.bob_middle)
    get("messages backwards", f"/rooms/{room}/messages", dir="b", limit=100)
    get("messages forwards", f"/rooms/{room}/messages", dir="f", limit=100)
    get("messages, page", f"/rooms/{private}/messages", dir="b", limit=7)
    get("messages from a token", f"/rooms/{room}/messages", dir="b", limit=100, **{"from": w.middle})
    get("messages filtered", f"/rooms/{room}/messages", dir="b", filter='{"types":["m.room.message"],"lazy_load_members":true}')
    get("messages of a left room", f"/rooms/{quote(w.left)}/messages", dir="b", limit=50)
    get("messages of a room one is not in", f"/rooms/{private}/messages", b, dir="b")
    get("state", f"/rooms/{room}/state")
    get("state of a left room", f"/rooms/{quote(w.left)}/state")
    get("one state event", f"/rooms/{room}/state/m.room.name")
    get("one state event that is not", f"/rooms/{room}/state/m.room.nothing")
    get("members", f"/rooms/{room}/members")
    get("members at", f"/rooms/{room}/members", at=w.before)
    get("members who left", f"/rooms/{quote(w.banned)}/members", b, membership="ban")
    get("members who did not leave", f"/rooms/{quote(w.left)}/members", b, not_membership="leave")
    get("joined members", f"/rooms/{room}/joined_members")
    get("joined rooms", "/joined_rooms")
    get("event", f"/rooms/{room}/event/{quote(w.first)}")
    get("redacted event", f"/rooms/{room}/event/{quote(w.gone)}")
    get("event that is not", f"/rooms/{room}/event/%24nothing")
    get("context", f"/rooms/{room}/context/{quote(w.second)}", limit=4)
    get("aliases", f"/rooms/{room}/aliases")
    get("directory", "/directory/room/%23first%3Aplexus.test")
    get("directory, unknown", "/directory/room/%23none%3Aplexus.test")
    get("visibility", f"/directory/list/room/{room}")
    get("public rooms", "/publicRooms")
    post("public rooms, search", "/publicRooms", {"filter": {"generic_search_term": "first"}})
    get("profile", f"/profile/{a.user_id}", b)
    get("profile, name", f"/profile/{a.user_id}/displayname", b)
    get("profile, avatar", f"/profile/{a.user_id}/avatar_url", b)
    get("profile of nobody", "/profile/@nobody:plexus.test", b)
    get("account data", f"/user/{a.user_id}/account_data/org.test.colour")
    get("account data that is not", f"/user/{a.user_id}/account_data/org.test.none")
    get("account data of another", f"/user/{a.user_id}/account_data/org.test.colour", b)
    get("room account data", f"/user/{a.user_id}/rooms/{room}/account_data/org.test.note")
    get("tags", f"/user/{a.user_id}/rooms/{room}/tags")
    get("filter", f"/user/{a.user_id}/filter/{w.filter}")
    get("push rules", "/pushrules/")
    get("push rules, global", "/pushrules/global/")
    get("one push rule", "/pushrules/global/content/bob")
    get("push rule, enabled", "/pushrules/global/override/.m.rule.master/enabled")
    get("pushers", "/pushers")
    get("notifications", "/notifications")
    get("devices", "/devices")
    get("device", f"/devices/{a.device_id}")
    get("device that is not", "/devices/NOTHING")
    post("keys", "/keys/query", {"device_keys": {a.user_id: [], b.user_id: []}}, b)
    get("key changes", "/keys/changes", b, **{"from": w.bob_middle, "to": w.late})
    get("whoami", "/account/whoami")
    get("capabilities", "/capabilities")
    get("login flows", "/login")
    get("user name available", "/register/available", username="somebody")
    get("user name taken", "/register/available", username="bob")
    get("three-pids", "/account/3pid")
    get("presence", f"/presence/{b.user_id}/status")
    get("initial sync of old", "/initialSync", limit=5)
    get("room initial sync of old", f"/rooms/{room}/initialSync", limit=5)
    post("search", "/search", {"search_categories": {"room_events": {"search_term": "two", "order_by": "recent"}}})
    v1 = "/_matrix/client/v1/rooms/"
    ask["relations"] = (a, "GET", f"{v1}{room}/relations/{quote(w.first)}", None, {})
    ask["relations, reactions"] = (a, "GET", f"{v1}{room}/relations/{quote(w.first)}/m.annotation/m.reaction", None, {})
    ask["threads"] = (a, "GET", f"{v1}{room}/threads", None, {})
    ask["hierarchy"] = (a, "GET", f"{v1}{quote(w.space)}/hierarchy", None, {})
    ask["event by time"] = (a, "GET", f"{v1}{room}/timestamp_to_event", None, {"ts": 0, "dir": "f"})
    ask["versions"] = (a, "GET", "/_matrix/client/versions", None, {})
    ask["well-known"] = (a, "GET", "/.well-known/matrix/client", None, {})
    ask["room summary"] = (a, "GET", f"/_matrix/client/v1/room_summary/{room}", None, {})
    ask["sliding sync"] = (a, "POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", {
        "lists": {"all": {"ranges": [[0, 20]], "required_state": [["*", "*"]], "timeline_limit": 10}},
        "extensions": {"e2ee": {"enabled": True}, "account_data": {"enabled": True}, "receipts": {"enabled": True},
                       "to_device": {"enabled": True}}}, {})
    return ask


# Names only, so that each question is a test of its own; the world is made when the first one runs.
class _Names:
    room = private = invited = left = banned = knocked = space = before = middle = bob_middle = late = ""
    first = second = gone = filter = ""

    class alice:
        user_id = device_id = ""
    bob = alice


NAMES = list(questions(_Names))


def put_question(cluster, question):
    who, method, path, body, params = question
    answer = who.at(cluster.url()).raw(method, path, body, params=params)
    try:
        return answer.status_code, settled_answer(answer.json())
    except ValueError:
        return answer.status_code, answer.text


@pytest.fixture(scope="module")
def twice(folder, postgres, flavour):
    """Both sets of answers, by name."""
    database = postgres.new_database(schema_template(postgres, folder, "synapse"))
    config = {"caches": {"sync_response_cache_duration": 0}}
    cluster = Cluster(folder / "same", postgres, database, layouts.MONOLITH, "synapse", config=config).start()
    world = World(cluster)
    asked = questions(world)
    theirs = {name: put_question(cluster, q) for name, q in asked.items()}
    cluster.switch(flavour)
    ours = {name: put_question(cluster, q) for name, q in asked.items()}
    yield theirs, ours
    cluster.remove()


def stable_room_versions(answer):
    """Synapse lists rooms of three unstable versions, which are not built."""
    versions = answer["capabilities"]["m.room_versions"]
    versions["available"] = {k: v for k, v in versions["available"].items() if v == "stable"}


def what_is_built(answer):
    """Sliding sync and pings of application services are not."""
    for feature in ("org.matrix.simplified_msc3575", "fi.mau.msc2659.stable"):
        del answer["unstable_features"][feature]


# Parts of answers that are others than Synapse's on purpose, and are left out.
LEFT_OUT = {"capabilities": stable_room_versions, "versions": what_is_built}

# Whole answers that are: what ours is instead.
INSTEAD = {
    # Synapse says M_UNKNOWN; the specification, M_NOT_FOUND.
    "profile of nobody": (404, "M_NOT_FOUND"),
    # Not built.
    "sliding sync": (404, "M_UNRECOGNIZED"),
}


@pytest.mark.parametrize("name", NAMES)
def test_same_answer(twice, name, flavour):
    theirs, ours = twice
    if flavour == "plexus" and name in INSTEAD:
        told = [(status, answer.get("errcode")) for status, answer in (ours[name], theirs[name])]
        assert told[0] == INSTEAD[name]
        assert told[1] != told[0], "the same as Synapse's: nothing needs to be said of it here"
        return
    for _, answer in (ours[name], theirs[name]):
        LEFT_OUT.get(name, lambda _: None)(answer)
    assert ours[name][0] == theirs[name][0], ours[name][1]
    if theirs[name][0] == 200:
        found = list(differences("", theirs[name][1], ours[name][1]))
        assert not found, f"{len(found)} differences (Synapse, then ours):\n" + "\n".join(found[:25])
    else:
        # Words may differ, codes may not.
        assert ours[name][1].get("errcode") == theirs[name][1].get("errcode"), (theirs[name], ours[name])


def differences(where, theirs, ours):
    """One line for each place where two JSON values differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            if key not in ours:
                yield f"{where}.{key}: missing, {short(theirs[key])}"
            elif key not in theirs:
                yield f"{where}.{key}: not in Synapse's, {short(ours[key])}"
            else:
                yield from differences(f"{where}.{key}", theirs[key], ours[key])
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for n, (t, o) in enumerate(zip(theirs, ours)):
            yield from differences(f"{where}[{n}]", t, o)
    elif theirs != ours or isinstance(theirs, bool) != isinstance(ours, bool):
        yield f"{where}: {short(theirs)} != {short(ours)}"


def short(value):
    if isinstance(value, list):
        return f"{len(value)} of them: " + json.dumps([v.get("type", v) if isinstance(v, dict) else v for v in value])[:150]
    return json.dumps(value)[:160]
