# A Matrix client for testScripts: curl on a machine, so it needs nothing there but curl.
import json
import shlex
from urllib.parse import quote


def metrics(machine):
    """Names of the processes that Prometheus would find on this machine; each has answered with its metrics."""
    names = []
    for target in json.loads(machine.succeed("cat /etc/plexus/prometheus.json")):
        url = f"http://{target['targets'][0]}{target['labels']['__metrics_path__']}"
        machine.succeed(f"curl -sf --max-time 10 {url} | grep ^synapse_ > /dev/null")
        names.append(target["labels"]["instance"])
    return sorted(names)


class Client:
    def __init__(self, machine, base="http://localhost:8008"):
        self.machine, self.base, self.token, self.txn = machine, base, "", 0

    def ask(self, method, path, body=None):
        """The answer's JSON; a status outside 2xx fails the test with the answer."""
        words = ["curl", "-sS", "--fail-with-body", "--max-time", "60", "-X", method, self.base + path]
        if self.token:
            words += ["-H", "Authorization: Bearer " + self.token]
        if body is not None:
            words += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        return json.loads(self.machine.succeed(" ".join(shlex.quote(word) for word in words)))

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

    def join(self, room):
        self.client("POST", "/join/" + quote(room, safe=""), {})

    def send(self, room, text):
        self.txn += 1
        path = f"/rooms/{quote(room, safe='')}/send/m.room.message/t{self.txn}-{len(text)}"
        return self.client("PUT", path, {"msgtype": "m.text", "body": text})["event_id"]

    def event(self, room, event):
        return self.client("GET", f"/rooms/{quote(room, safe='')}/event/{quote(event, safe='')}")

    def sync(self, since=None):
        return self.client("GET", "/sync?timeout=0" + ("&since=" + quote(since) if since else ""))

    def texts(self, room):
        """Bodies of the messages of the room, oldest first."""
        chunk = self.client("GET", f"/rooms/{quote(room, safe='')}/messages?dir=b&limit=100")["chunk"]
        return [e["content"]["body"] for e in reversed(chunk) if e["type"] == "m.room.message"]


class Load:
    """load.py running on a machine until `finish`, while the test does something to the server."""

    def __init__(self, machine, room, sender, listener):
        self.machine = machine
        machine.succeed("rm -f /tmp/load-stop /tmp/load.json")
        words = ["python3", "/etc/load.py", sender.base, room, sender.token, listener.token, "/tmp/load.json", "/tmp/load-stop"]
        machine.execute(" ".join(map(shlex.quote, words)) + " >/tmp/load.log 2>&1 &")

    def finish(self):
        """What happened; everything that was acknowledged must have been heard, once and in order."""
        self.machine.succeed("touch /tmp/load-stop")
        self.machine.wait_for_file("/tmp/load.json", timeout=120)
        state = json.loads(self.machine.succeed("cat /tmp/load.json"))
        print(f"load: {state['requests']} requests, {len(state['failed'])} failed, {len(state['sent'])} messages, slowest {state['slowest']:.1f} s")
        for line in state["failed"][:20]:
            print("load: failed: " + line)
        heard = [event for event in state["heard"] if event in set(state["sent"])]
        assert heard == state["sent"], f"sent {len(state['sent'])}, heard {len(heard)}; missing {set(state['sent']) - set(heard)}"
        assert len(state["sent"]) >= 3, "hardly anything was said"
        return state
