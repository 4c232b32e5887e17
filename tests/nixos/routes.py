"""Asks for every path of every route the program has, through nginx: routes.py BASE PROMETHEUS_JSON

Prints how much was asked, then a line for each route that was answered by another process than one of its role, that
failed. Which process has answered is seen in its metrics."""
import collections
import json
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

BASE, TARGETS = sys.argv[1:]
# By what `plexus routes` says of a route: the first of these roles that there is a process of has to answer it.
ROLES = {
    "any process": ["client", "main"],
    "any process, one for a user": ["sync", "client", "main"],
    "any process, apart from other syncs": ["sync", "client", "main"],
    "any process, one for a room": ["client", "events", "main"],
    "any process, one for a server": ["federation", "main"],
    "events writer of the room": ["events", "main"],
    "writer of events": ["events", "main"],
    "media": ["media", "main"],
    "main": ["main"],
}
STREAM = ["streams", "main"]
COUNT = re.compile(r'^synapse_http_server_response_count\{code="\d+",method="(\w+)",servlet="(\w+)"\} (\d+)')


def ask(method, url, token=None, body=None):
    """Status and text of the answer."""
    request = urllib.request.Request(url, method=method, data=json.dumps(body).encode() if body is not None else None)
    if token:
        request.add_header("Authorization", "Bearer " + token)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode(errors="replace")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect leads out of the test."""

    def redirect_request(self, *_):
        return None


class Processes:
    """Those of the cluster, by what Prometheus is told of them."""

    def __init__(self, targets):
        self.urls, self.role = {}, {}
        for target in targets:
            name = target["labels"]["instance"]
            self.urls[name] = f"http://{target['targets'][0]}{target['labels']['__metrics_path__']}"
            self.role[name] = target["labels"]["role"]

    def expected(self, on):
        there = set(self.role.values())
        return next(role for role in ROLES.get(on, STREAM) if role in there)

    def answered(self, method, name):
        """How many answers each process has given on the route."""
        counts = collections.Counter()
        for process, url in self.urls.items():
            status, text = ask("GET", url)
            if status != 200:
                sys.exit(f"{process}: no metrics: {status}")
            for line in text.splitlines():
                match = COUNT.match(line)
                if match and match.group(1, 2) == (method, name):
                    counts[process] += int(match.group(3))
        return counts


class Visitor:
    """A user for requests that may log it out, and what paths are filled with."""

    def __init__(self):
        self.number = 0
        self.values = {}
        self.renew()

    def renew(self):
        """Registers another user, with a room and a message."""
        self.number += 1
        name = f"visitor{self.number}-{subprocess.run(['date', '+%s%N'], check=True, capture_output=True, text=True).stdout.strip()}"
        body = {"username": name, "password": "correct horse", "auth": {"type": "m.login.dummy"}}
        user = self.must("POST", "/_matrix/client/v3/register", body)
        self.token = user["access_token"]
        room = self.must("POST", "/_matrix/client/v3/createRoom", {})["room_id"]
        path = f"/_matrix/client/v3/rooms/{quoted(room)}/send/m.room.message/1"
        event = self.must("PUT", path, {"msgtype": "m.text", "body": "hello"})["event_id"]
        self.values = {"room_id": room, "user_id": user["user_id"], "event_id": event, "device_id": user["device_id"], "server": "example.org"}

    def must(self, method, path, body):
        status, text = ask(method, BASE + path, getattr(self, "token", None), body)
        if status != 200:
            sys.exit(f"{method} {path}: {status} {text}")
        return json.loads(text)

    def check(self):
        status, _ = ask("GET", BASE + "/_matrix/client/v3/account/whoami", self.token)
        if status != 200:
            self.token = None
            self.renew()

    def fill(self, path):
        return re.sub(r"\{\*?(\w+)\}", lambda match: quoted(self.values.get(match.group(1), "x")), path)


def quoted(text):
    return urllib.parse.quote(text, safe="")


def tried(route, processes, visitor):
    """What is wrong with the answers on the route's paths."""
    method, name = route["method"], route["name"]
    visitor.check()
    before = processes.answered(method, name)
    wrong = []
    for path in route["paths"]:
        body = {} if method in ("PUT", "POST") else None
        status, text = ask(method, BASE + visitor.fill(path) + "?timeout=0", visitor.token, body)
        # What is switched off answers 404, but does so where it belongs.
        if status >= 500:
            wrong.append(f"{method} {path}: {status} {text[:200]}")
    rose = processes.answered(method, name) - before
    expected = processes.expected(route["on"])
    if {processes.role[process] for process in rose} != {expected} or rose.total() < len(route["paths"]):
        wrong.append(f"{method} {route['path']} ({name}) belongs to {expected}; answered by {dict(rose)}")
    return wrong


def main():
    urllib.request.install_opener(urllib.request.build_opener(NoRedirect))
    with open(TARGETS, encoding="utf-8") as file:
        processes = Processes(json.load(file))
    visitor = Visitor()
    routes = json.loads(subprocess.run(["plexus", "routes", "--format", "json"], check=True, capture_output=True, text=True).stdout)
    wrong, paths, inner = [], 0, 0
    for route in routes:
        if route["resource"] == "health":
            continue
        if route["resource"] in ("replication", "metrics"):
            # Those are for the processes and the host; nginx leads nobody there.
            status, _ = ask(route["method"], BASE + visitor.fill(route["paths"][0]), None, {})
            inner += 1
            if status != 404:
                wrong.append(f"{route['method']} {route['path']} is open to all: {status}")
        else:
            paths += len(route["paths"])
            wrong += tried(route, processes, visitor)
    print(f"asked for {paths} paths of public routes, and for {inner} routes that are not public")
    for line in wrong:
        print(line)


main()
