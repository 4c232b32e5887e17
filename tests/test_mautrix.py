"""A bot written with mautrix-python does what bridges do. Its typed parsers refuse answers of the wrong shape."""

import asyncio

import pytest
from mautrix.client import Client, MemorySyncStore
from mautrix.errors import MForbidden, MNotFound, MUnknown
from mautrix.types import (EventType, Membership, PaginationDirection, PresenceState, RoomDirectoryVisibility, RoomTagInfo,
                           TextMessageEventContent)

PASSWORD = "a bridge's password"


class Bot:
    """A client with its sync running, which keeps every event of the timelines."""

    def __init__(self, base: str, user_id: str):
        self.client = Client(mxid=user_id, base_url=base, sync_store=MemorySyncStore())
        self.heard: list = []
        for kind in (EventType.ROOM_MESSAGE, EventType.ROOM_MEMBER, EventType.REACTION, EventType.ROOM_REDACTION,
                     EventType.ROOM_TOPIC):
            self.client.add_event_handler(kind, self._hear)

    async def _hear(self, event) -> None:
        self.heard.append(event)

    async def start(self) -> None:
        await self.client.login(password=PASSWORD, device_name="bot")
        self.client.start(None)

    async def stop(self) -> None:
        self.client.stop()
        await self.client.api.session.close()

    async def hears(self, what: str, check):
        """The first event that `check` accepts."""
        async with asyncio.timeout(30):
            while not (found := [e for e in self.heard if check(e)]):
                await asyncio.sleep(0.02)
        assert len(found) == 1, f"{what}: came {len(found)} times"
        return found[0]


@pytest.fixture
def bases(cluster):
    """Where the two bots live: different processes where there are several."""
    names = cluster.layout.processes
    return cluster, cluster.url(names[-1]), cluster.url(names[0])


def test_bot(bases):
    cluster, *places = bases
    users = [cluster.user(name, password=PASSWORD).user_id for name in ("alice", "bob")]
    asyncio.run(_bot(places, users))


async def _bot(places: list[str], users: list[str]) -> None:
    alice, bob = (Bot(*one) for one in zip(places, users))
    try:
        await asyncio.gather(alice.start(), bob.start())
        room = await _meet(alice, bob)
        await _talk(alice, bob, room)
        await _state(alice, bob, room)
        await _account(alice, room)
        await _part(alice, bob, room)
    finally:
        await asyncio.gather(alice.stop(), bob.stop())


async def _meet(alice: Bot, bob: Bot) -> str:
    a, b = alice.client, bob.client
    await a.set_displayname("Alice")
    assert (await b.get_profile(a.mxid)).displayname == "Alice"
    room = await a.create_room(alias_localpart="bots", name="Bots", topic="greetings", invitees=[b.mxid])
    invite = await bob.hears("invite", lambda e: e.type == EventType.ROOM_MEMBER and e.state_key == b.mxid
                             and e.content.membership == Membership.INVITE)
    assert invite.room_id == room and invite.sender == a.mxid
    alias = f"#bots:{a.mxid.split(':', 1)[1]}"
    assert (await b.resolve_room_alias(alias)).room_id == room
    assert await b.join_room(alias) == room
    assert set(await a.get_joined_members(room)) == {a.mxid, b.mxid}
    assert room in await b.get_joined_rooms()
    return room


async def _talk(alice: Bot, bob: Bot, room: str) -> None:
    a, b = alice.client, bob.client
    sent = await a.send_text(room, "hello", html="<b>hello</b>")
    event = await bob.hears("message", lambda e: e.event_id == sent)
    assert event.content.body == "hello" and event.content.formatted_body == "<b>hello</b>"
    edit = TextMessageEventContent(msgtype="m.text", body="hello, you")
    edit.set_edit(sent)
    edited = await a.send_message(room, edit)
    event = await bob.hears("edit", lambda e: e.event_id == edited)
    assert event.content.get_edit() == sent
    reaction = await b.react(room, sent, "👍")
    event = await alice.hears("reaction", lambda e: e.event_id == reaction)
    assert (event.content.relates_to.event_id, event.content.relates_to.key) == (sent, "👍")
    redaction = await b.redact(room, reaction, reason="mistake")
    event = await alice.hears("redaction", lambda e: e.event_id == redaction)
    assert event.content.get("redacts", event.redacts) == reaction
    await b.send_receipt(room, sent)
    await b.set_fully_read_marker(room, sent, sent)
    await b.set_typing(room, timeout=5000)
    assert (await b.get_event(room, sent)).content.body in ("hello", "hello, you")
    page = await b.get_messages(room, PaginationDirection.BACKWARD, limit=50)
    assert [e.event_id for e in page.events if e.event_id in (sent, edited)] == [edited, sent]
    context = await b.get_event_context(room, sent)
    assert context.event.event_id == sent


async def _state(alice: Bot, bob: Bot, room: str) -> None:
    a, b = alice.client, bob.client
    changed = await a.send_state_event(room, EventType.ROOM_TOPIC, {"topic": "farewells"})
    await bob.hears("topic", lambda e: e.event_id == changed)
    assert (await b.get_state_event(room, EventType.ROOM_TOPIC)).topic == "farewells"
    state = await b.get_state(room)
    assert {EventType.ROOM_CREATE, EventType.ROOM_POWER_LEVELS, EventType.ROOM_NAME} <= {e.type for e in state}
    with pytest.raises(MForbidden):
        await b.send_state_event(room, EventType.ROOM_NAME, {"name": "mine"})
    with pytest.raises(MNotFound):
        await b.get_state_event(room, EventType.ROOM_AVATAR)
    # Nobody may publish rooms unless `room_list_publication_rules` lets them.
    with pytest.raises(MUnknown, match="publish"):
        await a.set_room_directory_visibility(room, RoomDirectoryVisibility.PUBLIC)
    assert (await b.get_room_directory(limit=10)).chunk == []


async def _account(alice: Bot, room: str) -> None:
    a = alice.client
    await a.set_account_data("org.example.bot", {"n": 1})
    assert await a.get_account_data("org.example.bot") == {"n": 1}
    await a.set_room_tag(room, "m.favourite", RoomTagInfo(order=0.5))
    assert (await a.get_room_tags(room)).tags["m.favourite"].order == 0.5
    await a.set_presence(PresenceState.ONLINE, "working")
    assert (await a.get_presence(a.mxid)).presence == PresenceState.ONLINE
    assert (await a.whoami()).user_id == a.mxid
    assert "v1.11" in {str(v) for v in (await a.versions()).versions}


async def _part(alice: Bot, bob: Bot, room: str) -> None:
    a, b = alice.client, bob.client
    await a.kick_user(room, b.mxid, reason="enough")
    kick = await bob.hears("kick", lambda e: e.type == EventType.ROOM_MEMBER and e.state_key == b.mxid
                           and e.content.membership == Membership.LEAVE)
    assert kick.content.reason == "enough"
    with pytest.raises(MForbidden):
        await b.send_text(room, "still here?")
    await a.leave_room(room)
    assert room not in await a.get_joined_rooms()
