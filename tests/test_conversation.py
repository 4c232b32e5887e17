"""Two matrix-nio clients and one matrix-js-sdk client talk to each other: each on a process of its own, then all of
them through the nginx that `plexus cluster render` describes."""

import asyncio

import pytest

from lib import layouts
from lib.people import JsPerson, NioPerson
from lib.rendered import RenderedCluster

MESSAGES = 200
NAMES = ("alice", "bob", "carol")
both = pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])


@both
def test_conversation(make_cluster, flavour, encrypted):
    # A process of Synapse refuses what another one must write (typing); ours hands it on.
    spread = flavour == "plexus"
    cluster = make_cluster(layouts.WORKERS if spread else layouts.MONOLITH, config={"filter_timeline_limit": 5000})
    places = ["generic1", "generic2", "persister1"] if spread else ["main"] * 3
    converse([cluster.user(name, on=place) for name, place in zip(NAMES, places)], encrypted)


@pytest.fixture(scope="module")
def behind_nginx(folder, flavour):
    if flavour != "plexus":
        pytest.skip("only Plexus renders an nginx.conf")
    # Client, sync, events and streams processes of their own.
    cluster = RenderedCluster(folder / "nginx", "medium", {"filter_timeline_limit": 5000}).start()
    yield cluster
    cluster.remove()


@both
def test_conversation_through_nginx(behind_nginx, encrypted):
    suffix = "-sealed" if encrypted else ""
    converse([behind_nginx.user(name + suffix) for name in NAMES], encrypted)


def converse(logins, encrypted):
    """Everybody sends and everybody must see everything once, each sender's messages in order."""
    alice, bob, carol = logins
    state = [{"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]
    room = alice.create_room(preset="private_chat", invite=[bob.user_id, carol.user_id],
                             initial_state=state if encrypted else [])
    bob.join(room)
    carol.join(room)
    asyncio.run(_converse([NioPerson(alice), NioPerson(bob), JsPerson(carol)], room, encrypted))


async def _converse(people, room, encrypted):
    users = [p.user_id for p in people]
    try:
        async with asyncio.timeout(240):
            await asyncio.gather(*[p.start() for p in people])
            if encrypted:
                await asyncio.gather(*[p.knows_devices_of(users) for p in people])
            for person in people:
                await _first_words(person, people, room)
            sent = await asyncio.gather(*[_speak(p, room) for p in people])
            for person in people:
                await _heard_all(person, room, users, encrypted)
            await _typing_and_receipts(people, room, sent)
    finally:
        await asyncio.gather(*[p.stop() for p in people], return_exceptions=True)


async def _first_words(person, people, room):
    """One after the other: clients that open sessions with each other at the same moment share their room keys
    once more, from a later message on, and matrix-nio then loses what lies between (beside Synapse, too)."""
    text = f"{person.user_id} 0"
    await person.send(room, text)
    for other in people:
        await other.until(f"{text!r}", lambda: text in other.texts(room, person.user_id))


async def _speak(person, room):
    return [await person.send(room, f"{person.user_id} {n}") for n in range(1, MESSAGES)]


async def _heard_all(person, room, users, encrypted):
    await person.until("all messages", lambda: len(person.seen[room]) >= MESSAGES * len(users))
    for user in users:
        assert person.texts(room, user) == [f"{user} {n}" for n in range(MESSAGES)]
    assert len(set(person.ids)) == len(person.ids), "a message came twice"
    assert not person.undecrypted
    assert all(sealed == encrypted for _, _, sealed in person.seen[room])


async def _typing_and_receipts(people, room, sent):
    for person, ids in zip(people, sent):
        others = [p for p in people if p is not person]
        await person.type(room)
        # A receipt for somebody else's newest message.
        newest = sent[(people.index(person) + 1) % len(people)][-1]
        await person.read(room, newest)
        for other in others:
            await other.until(f"typing of {person.user_id}", lambda: person.user_id in other.typing)
            await other.until(f"receipt of {person.user_id}", lambda: (person.user_id, newest) in other.receipts)
