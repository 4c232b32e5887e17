"""Processes, Redis and PostgreSQL die under load; nothing acknowledged is lost, nobody needs help."""

import contextlib
import json
import signal
import threading
import time

import pytest
import requests

from lib import layouts
from lib.client import MatrixError, has_event, timeline
from lib.load import Load
from lib.procs import wait_until
from lib.proxy import Proxy

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


class Listener:
    """Syncs until it is left, each time from the token it got last, whatever happens to the server."""

    def __init__(self, client, rooms):
        self.client, self.rooms, self.heard = client, rooms, []
        self.since = client.sync()["next_batch"]
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._listen, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(60)

    def _listen(self):
        while not self._stop.is_set():
            try:
                self.step(1)
            except (MatrixError, requests.RequestException):
                time.sleep(0.05)

    def step(self, wait):
        wide = '{"room": {"timeline": {"limit": 10000}}}'
        answer = self.client.sync(self.since, wait, filter=wide)
        for room in self.rooms:
            self.heard += [e["event_id"] for e in timeline(answer, room) if e["type"] == "m.room.message"]
        self.since = answer["next_batch"]

    def check(self, acked):
        """To be called when it was left."""
        end = time.monotonic() + 10
        while set(acked) - set(self.heard) and time.monotonic() < end:
            self.step(1)
        lost = [event_id for event_id in acked if event_id not in self.heard]
        assert not lost, f"{len(lost)} of {len(acked)} acknowledged messages were never in a sync"
        assert len(self.heard) == len(set(self.heard)), "a message was in two syncs"


def kill_all(cluster):
    for process in cluster.processes.values():
        process.send_signal(signal.SIGKILL)
    for name in cluster.layout.processes:
        cluster.kill(name)
    for name in cluster.layout.processes:
        cluster.start_process(name, wait=False)
    for name in cluster.layout.processes:
        cluster.wait_ready(name)


@pytest.mark.parametrize("shape", ["monolith", "workers"])
def test_all_processes_killed_at_once(make_cluster, shape):
    cluster = make_cluster(layouts.ALL[shape], config=WIDE)
    senders, reader, rooms = crowd(cluster)
    with Listener(reader, rooms) as listener:
        with Load(senders) as load:
            for _ in range(4):
                load.wait_for(20)
                kill_all(cluster)
            load.wait_for(20)
    listener.check([event_id for _, event_id, _ in load.acked])
    load.check_history(reader, rooms)


# PostgreSQL executes to its end what a killed client had asked for: here it takes seconds over it.
SLOW_COMMIT = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(4); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.room_id = '%s') EXECUTE FUNCTION slow();
"""
SLEEPING = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event = 'PgSleep'"


def two_rooms(cluster):
    """alice and bob, and two rooms both are in."""
    alice, bob = cluster.user("alice"), cluster.user("bob")
    rooms = [alice.create_room(preset="public_chat") for _ in range(2)]
    for room in rooms:
        bob.join(room)
    return alice, bob, *rooms


@pytest.mark.parametrize("shape", ["monolith", "workers"])
def test_a_commit_that_outlives_its_process(make_cluster, postgres, shape):
    cluster = make_cluster(layouts.ALL[shape], config=WIDE)
    alice, bob, slow, quick = two_rooms(cluster)
    with Listener(bob, [slow, quick]) as listener:
        postgres.run(cluster.database, SLOW_COMMIT % slow)
        with Load([(alice, slow)]) as load:
            wait_until("a commit takes long", lambda: postgres.run(cluster.database, SLEEPING, (cluster.database,)))
            kill_all(cluster)
            acked = [alice.at(cluster.url()).send(quick, "after")]
            # The listener has a token beyond it by now.
            wait_until("it is heard", lambda: acked[0] in listener.heard)
            load.wait_for(1)
    listener.check(acked + [event_id for _, event_id, _ in load.acked])


@pytest.fixture
def proxy(postgres):
    """What the processes take for PostgreSQL."""
    proxy = Proxy(postgres.port)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("shape", ["monolith", "workers"])
def test_a_connection_lost_during_a_commit(make_cluster, postgres, proxy, shape):
    """The processes live on. PostgreSQL, which nobody tells, would commit seconds later."""
    cluster = make_cluster(layouts.ALL[shape], config=WIDE, postgres_port=proxy.port)
    alice, bob, slow, quick = two_rooms(cluster)
    with Listener(bob, [slow, quick]) as listener:
        postgres.run(cluster.database, SLOW_COMMIT % slow)
        with Load([(alice, slow)]) as load:
            wait_until("a commit takes long", lambda: postgres.run(cluster.database, SLEEPING, (cluster.database,)))
            proxy.cut()
            acked = [alice.at(cluster.url()).send(quick, f"after {n}") for n in range(3)]
            wait_until("they are heard", lambda: set(acked) <= set(listener.heard))
            load.wait_for(1)
    acked += [event_id for _, event_id, _ in load.acked]
    listener.check(acked)
    load.check_history(bob, [slow])


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


@pytest.mark.parametrize("shape", ["monolith", "workers"])
def test_scheduled_tasks_outlast_postgres(make_cluster, postgres, shape):
    cluster = make_cluster(layouts.ALL[shape])
    alice = cluster.user("alice")
    rooms = [alice.create_room() for _ in range(4)]
    run = lambda sql, *args: postgres.run(cluster.database, sql, args)
    tasks = lambda: dict(run("SELECT action, status FROM scheduled_tasks"))
    name = lambda room: alice.get(f"/rooms/{room}/state/m.room.member/{alice.user_id}").get("displayname")
    # What a Synapse worker leaves when a device is deleted, and what waited for that device.
    gone = {"user_id": alice.user_id, "device_id": "GONE", "up_to_stream_id": 1}
    run("INSERT INTO scheduled_tasks (id, action, status, timestamp, params) "
        "VALUES ('gone', 'delete_device_messages', 'scheduled', 0, %s)", json.dumps(gone))
    run("INSERT INTO device_inbox (user_id, device_id, stream_id, message_json, instance_name) "
        "VALUES (%s, 'GONE', 1, '{}', 'master')", alice.user_id)
    # Both tasks are held up until PostgreSQL goes: one in a room, the other by somebody who looks at the table.
    run(SLOW_COMMIT % rooms[1])
    with contextlib.closing(postgres.connect(cluster.database)) as reader:
        reader.cursor().execute("BEGIN; LOCK TABLE device_inbox IN SHARE MODE")
        alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice the Second"})
        wait_until("a commit takes long", lambda: run(SLEEPING, cluster.database))
        assert set(tasks().values()) == {"active"}
        # One hears of it while others still have a connection.
        run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'", cluster.database)
        time.sleep(0.5)
        postgres.stop(crash=True)
        time.sleep(3)
        postgres.start()
    wait_until("the tasks have ended", lambda: "active" not in tasks().values(), 50)
    assert tasks() == {"delete_device_messages": "complete", "update_join_states": "complete"}
    assert not run("SELECT 1 FROM device_inbox")
    assert [name(room) for room in rooms] == ["Alice the Second"] * 4


def test_a_long_poll_goes_on_while_postgres_is_away(make_cluster, postgres):
    cluster = make_cluster(layouts.MONOLITH)
    alice, bob = cluster.user("alice"), cluster.user("bob")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    # Twice, so that the process knows who asks.
    since, answers = bob.sync(bob.sync()["next_batch"])["next_batch"], []
    postgres.stop(crash=True)
    poll = threading.Thread(target=lambda: answers.append(bob.sync(since, 40)))
    poll.start()
    # Longer than a request waits for a connection.
    time.sleep(12)
    postgres.start()
    sent = alice.send(room, "after")
    poll.join()
    assert [e["event_id"] for answer in answers for e in timeline(answer, room)] == [sent]
