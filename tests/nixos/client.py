# What the testScripts are written with: users on a machine, Load, which talks and listens all the while, and processes.
# A client here is curl on the machine: the driver itself is not on its network.
import json
import shlex
from urllib.parse import quote

# The processes of presets.
SMALL = ["main", "events1", "sync1"]
MEDIUM = ["main", "client1", "events1", "events2", "federation1", "streams1", "sync1", "sync2"]
# Those of each host of machines.three, where clients reach that cluster, and the port of a first sync process: ports
# follow from role and number.
THREE = {"one": ["main", "one-events1"], "two": ["two-sync1", "two-client1"], "three": ["three-sync1", "three-client1"]}
ONE = "http://one:8008"
SYNC = 8098
# Patience, in seconds. No test fails because a machine is slow.
LONG = 300


def serving(machine, names, client=None, base="http://server:8008"):
    """Waits until the processes run and the server answers a client."""
    for name in names:
        machine.wait_until_succeeds(f"systemctl is-active plexus-{name}.service", timeout=LONG)
    (client or machine).wait_until_succeeds(f"curl -sf --max-time 20 {base}/_matrix/client/versions", timeout=LONG)


def pid(machine, name):
    return machine.succeed(f"systemctl show -p MainPID --value plexus-{name}.service").strip()


def pids(machine, names):
    return {name: pid(machine, name) for name in names}


def replaced(machine, name, old):
    """Waits until another process than `old` has taken over."""
    machine.wait_until_succeeds(f"test $(systemctl show -p MainPID --value plexus-{name}.service) != {old}", timeout=LONG)
    machine.wait_until_succeeds(f"systemctl is-active plexus-{name}.service", timeout=LONG)


def kill(machine, name):
    """SIGKILL; another process is there when it returns."""
    old = pid(machine, name)
    machine.succeed(f"systemctl kill -s KILL plexus-{name}.service")
    replaced(machine, name, old)


def metrics(machine):
    """Names of the processes that Prometheus would find on this machine; each has answered with its metrics."""
    names = []
    for target in json.loads(machine.succeed("cat /etc/plexus/prometheus.json")):
        url = f"http://{target['targets'][0]}{target['labels']['__metrics_path__']}"
        machine.succeed(f"curl -sf --max-time 30 {url} | grep ^synapse_ > /dev/null")
        names.append(target["labels"]["instance"])
    return sorted(names)


class Client:
    """A user on a machine."""

    def __init__(self, machine, base="http://server:8008"):
        self.machine, self.base, self.token, self.txn = machine, base, "", 0

    def ask(self, method, path, body=None):
        """The answer's JSON; a status outside 2xx fails the test with the answer."""
        words = ["curl", "-sS", "--fail-with-body", "--max-time", "120", "-X", method, self.base + path]
        if self.token:
            words += ["-H", "Authorization: Bearer " + self.token]
        if body is not None:
            words += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        return json.loads(self.machine.succeed(shlex.join(words)))

    def client(self, method, path, body=None):
        return self.ask(method, "/_matrix/client/v3" + path, body)

    def register(self, name, password="correct horse"):
        answer = self.client("POST", "/register", {"username": name, "password": password, "auth": {"type": "m.login.dummy"}})
        self.token = answer["access_token"]
        return answer["user_id"]

    def login(self, name, password="correct horse"):
        who = {"type": "m.id.user", "user": name}
        self.token = self.client("POST", "/login", {"type": "m.login.password", "identifier": who, "password": password})["access_token"]

    def create_room(self, **options):
        return self.client("POST", "/createRoom", options)["room_id"]

    def invite(self, room, user):
        self.client("POST", f"/rooms/{quote(room, safe='')}/invite", {"user_id": user})

    def join(self, room):
        self.client("POST", "/join/" + quote(room, safe=""), {})

    def send(self, room, text):
        self.txn += 1
        path = f"/rooms/{quote(room, safe='')}/send/m.room.message/t{self.txn}-{len(text)}"
        return self.client("PUT", path, {"msgtype": "m.text", "body": text})["event_id"]

    def event(self, room, event):
        return self.client("GET", f"/rooms/{quote(room, safe='')}/event/{quote(event, safe='')}")

    def sync(self, since=None):
        whole = quote('{"room":{"timeline":{"limit":10000}}}')
        return self.client("GET", f"/sync?timeout=0&filter={whole}" + ("&since=" + quote(since) if since else ""))

    def heard(self, room, since):
        """Ids of the messages since then, as its syncs have them, in as many as it takes; none may leave any out."""
        ids: list[str] = []
        while True:
            answer = self.sync(since)
            since = answer["next_batch"]
            timeline = answer.get("rooms", {}).get("join", {}).get(room, {}).get("timeline", {})
            t.assertFalse(timeline.get("limited", False))
            new = [e["event_id"] for e in timeline.get("events", []) if e["type"] == "m.room.message"]
            if not new:
                return ids
            ids += new

    def texts(self, room):
        """Bodies of the last messages of the room, oldest first."""
        chunk = self.client("GET", f"/rooms/{quote(room, safe='')}/messages?dir=b&limit=100")["chunk"]
        return [e["content"]["body"] for e in reversed(chunk) if e["type"] == "m.room.message"]


def two_users(machine, base="http://server:8008"):
    """Alice and Bob, and a room they are both in."""
    alice, bob = Client(machine, base), Client(machine, base)
    alice.register("alice")
    bob.register("bob")
    room = alice.create_room(preset="public_chat")
    bob.join(room)
    return alice, bob, room


def begin(processes, machine, base="http://server:8008"):
    """Starts all machines and waits for the processes, by their machine; then two users on a machine of theirs."""
    start_all()
    for host, names in processes.items():
        serving(host, names, machine, base)
    return two_users(machine, base)


def directly(machine, user, host):
    """The same user on a machine, who asks the sync process of a host of machines.three itself."""
    client = Client(machine, f"http://{host}:{SYNC}")
    client.token = user.token
    return client


class Load:
    """load.py on the machine of the sender, who talks to the listener until `finish`; meanwhile the test does something
    to the server."""

    def __init__(self, room, sender, listener):
        self.machine, self.room, self.listener = sender.machine, room, listener
        self.before = sender.send(room, "before")
        self.machine.succeed("rm -f /tmp/load-stop /tmp/load-over /tmp/load.json")
        words = ["python3", "/etc/load.py", sender.base, room, sender.token, listener.token, "/tmp/load.json", "/tmp/load-stop"]
        self.machine.execute(f"({shlex.join(words)}; touch /tmp/load-over) >/tmp/load.log 2>&1 &")
        self.machine.sleep(3)

    def finish(self):
        """The requests that failed. Whatever they were: all that was acknowledged is in the room and was heard, once
        and in order, and so is what was said before."""
        self.machine.succeed("touch /tmp/load-stop")
        self.machine.wait_for_file("/tmp/load-over", timeout=2 * LONG)
        state = json.loads(self.machine.succeed("cat /tmp/load.json || { cat /tmp/load.log >&2; false; }"))
        print(f"load: {state['requests']} requests, {len(state['failed'])} failed, {len(state['sent'])} messages, slowest {state['slowest']:.1f} s")
        for line in state["failed"][:20]:
            print("load: failed: " + line)
        t.assertGreaterEqual(len(state["sent"]), 3, "hardly anything was said")
        t.assertEqual(state["heard"], state["sent"], "heard is not what was acknowledged")
        t.assertEqual(state["stored"], state["sent"], "the room holds something else than what was acknowledged")
        t.assertEqual(state["limited"], 0, "a sync left messages out")
        t.assertEqual(self.listener.event(self.room, self.before)["content"]["body"], "before")
        return state["failed"]
