"""Processes, Redis and PostgreSQL die under load; nothing acknowledged is lost, nobody needs help."""

import time

import pytest

from lib import layouts
from lib.client import has_event
from lib.load import Load

WIDE = {"filter_timeline_limit": 10000}


def crowd(cluster):
    """Four rooms everybody is in, and one sender a process."""
    places = cluster.layout.processes
    users = [cluster.user(f"user{n}", on=place) for n, place in enumerate(places)]
    reader = cluster.user("reader")
    rooms = [users[0].create_room(preset="public_chat") for _ in range(4)]
    for room in rooms:
        for user in [*users[1:], reader]:
            user.join(room)
    return [(user, rooms[n % 4]) for n, user in enumerate(users * 2)], reader, rooms


def check(cluster, load, reader, since, rooms):
    load.check_history(reader, rooms)
    for name in cluster.layout.processes:
        load.check_sync(reader.at(cluster.url(name)), since, rooms)


@pytest.mark.parametrize("shape", ["monolith", "workers"])
def test_every_process_killed_in_turn(make_cluster, shape):
    cluster = make_cluster(layouts.ALL[shape], config=WIDE)
    senders, reader, rooms = crowd(cluster)
    since = reader.sync()["next_batch"]
    with Load(senders) as load:
        for name in cluster.layout.processes:
            load.wait_for(20)
            cluster.kill(name)
            time.sleep(0.5)
            cluster.start_process(name)
        load.wait_for(50)
    check(cluster, load, reader, since, rooms)


def test_redis_restarts(make_cluster):
    cluster = make_cluster(layouts.WORKERS, config=WIDE)
    senders, reader, rooms = crowd(cluster)
    since = reader.sync()["next_batch"]
    with Load(senders) as load:
        load.wait_for(20)
        cluster.redis.process.kill()
        time.sleep(2)
        cluster.redis.start()
        load.wait_for(50)
    # What was announced while Redis was away reaches readers without anybody's help.
    for name in cluster.layout.processes:
        _catches_up(reader.at(cluster.url(name)), since, load, rooms)
    check(cluster, load, reader, since, rooms)


def test_without_redis_messages_still_arrive(make_cluster):
    cluster = make_cluster(layouts.PAIR, config=WIDE)
    alice, bob = cluster.user("alice", on="main"), cluster.user("bob", on="generic1")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    tokens = {user: user.sync()["next_batch"] for user in (alice, bob)}
    cluster.redis.process.kill()
    for n in range(3):
        for sender, watcher in ((alice, bob), (bob, alice)):
            event_id = sender.send(room, f"message {n}")
            _, tokens[watcher] = watcher.sync_until(has_event(room, event_id), tokens[watcher], seconds=10)
    cluster.redis.start()
    _, tokens[bob] = bob.sync_until(has_event(room, alice.send(room, "after")), tokens[bob], seconds=10)


def _catches_up(reader, since, load, rooms):
    end = time.monotonic() + 30
    while True:
        try:
            return load.check_sync(reader, since, rooms)
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@pytest.mark.parametrize("shape", ["monolith", "workers"])
@pytest.mark.parametrize("away", [0, 8], ids=["at once", "8 s away"])
def test_postgres_restarts(make_cluster, postgres, shape, away):
    cluster = make_cluster(layouts.ALL[shape], config=WIDE)
    senders, reader, rooms = crowd(cluster)
    since = reader.sync()["next_batch"]
    with Load(senders) as load:
        load.wait_for(20)
        postgres.stop(crash=away > 0)
        try:
            time.sleep(away)
        finally:
            postgres.start()
        load.wait_for(50, seconds=90)
    for name in cluster.layout.processes:
        assert cluster.processes[name].running, f"{name} ended"
        _catches_up(reader.at(cluster.url(name)), since, load, rooms)
    check(cluster, load, reader, since, rooms)
