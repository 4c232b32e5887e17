"""Users who talk and listen all the while: load.py BASE ROOM SENDER_TOKEN LISTENER_TOKEN RESULT STOP

One user sends numbered messages, another hears them by long polls, a third thread reads. Every request has a
connection of its own, as that of a client that has been away. It ends when the file STOP is there and writes to
RESULT what failed, what was acknowledged, what was heard and what the room holds in the end."""
import json
import pathlib
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

BASE, ROOM, SENDER, LISTENER, RESULT, STOP = sys.argv[1:]
# Messages and transaction ids of an earlier run are not mistaken for this one's.
RUN = str(time.time_ns())
ROOM_PATH = "/rooms/" + urllib.parse.quote(ROOM, safe="")
TIMEOUT = 60
# How long it goes on asking, after STOP, for what is missing.
PATIENCE = 180
state = {"requests": 0, "failed": [], "sent": [], "heard": [], "stored": [], "limited": 0, "slowest": 0.0}


def stopped():
    return pathlib.Path(STOP).exists()


def ask(method, path, token, body=None):
    """The answer's JSON, or None if the request failed, which is noted."""
    request = urllib.request.Request(BASE + "/_matrix/client/v3" + path, method=method)
    request.add_header("Authorization", "Bearer " + token)
    request.data = json.dumps(body).encode() if body is not None else None
    began = time.time()
    state["requests"] += 1
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as e:
        why = f"{e.code} {e.read()[:200]!r}"
    except (OSError, ValueError) as e:
        why = str(e)
    finally:
        if "/sync" not in path:
            state["slowest"] = max(state["slowest"], time.time() - began)
    state["failed"].append(f"{time.time():.2f} {method} {path[:60]}: {why}")
    time.sleep(0.2)
    return None


def mine(events):
    """Ids of this run's messages among the events."""
    return [e["event_id"] for e in events if e["type"] == "m.room.message" and e["content"].get("body", "").startswith(RUN)]


def send():
    number = 0
    while not stopped():
        number += 1
        body = {"msgtype": "m.text", "body": f"{RUN} {number}"}
        answer, end = None, time.time() + TIMEOUT + PATIENCE
        # A client repeats what it has no answer to, under the same transaction id.
        while answer is None and time.time() < end:
            answer = ask("PUT", f"{ROOM_PATH}/send/m.room.message/{RUN}-{number}", SENDER, body)
        if answer is not None:
            state["sent"].append(answer["event_id"])
        time.sleep(0.1)


def sync(since):
    timeline = '{"room":{"timeline":{"limit":10000}}}'
    query = urllib.parse.urlencode({"since": since, "timeout": 0 if stopped() else 8000, "filter": timeline})
    answer = ask("GET", "/sync?" + query, LISTENER)
    if answer is None:
        return since
    room = answer.get("rooms", {}).get("join", {}).get(ROOM, {}).get("timeline", {})
    state["heard"] += mine(room.get("events", []))
    state["limited"] += bool(room.get("limited"))
    return answer["next_batch"]


def listen(since, sender):
    while sender.is_alive():
        since = sync(since)
        if stopped():
            # The sender may wait a minute for its last answer, and these come at once.
            time.sleep(0.5)
    end = time.time() + PATIENCE
    while set(state["sent"]) - set(state["heard"]) and time.time() < end:
        since = sync(since)
        time.sleep(0.5)
    # What is heard twice, if anything.
    time.sleep(2)
    sync(since)


def read():
    while not stopped():
        ask("GET", f"{ROOM_PATH}/messages?dir=b&limit=5", LISTENER)
        time.sleep(0.3)


def stored():
    """This run's messages as the room's history has them, oldest first."""
    found, place, end = [], "", time.time() + PATIENCE
    while time.time() < end:
        page = ask("GET", f"{ROOM_PATH}/messages?dir=b&limit=100{place}", LISTENER)
        if page is None:
            continue
        found += mine(page["chunk"])
        if "end" not in page or not page["chunk"] or (found and not mine(page["chunk"])):
            break
        place = "&from=" + urllib.parse.quote(page["end"])
    return found[::-1]


first = ask("GET", "/sync?timeout=0", LISTENER)
since = first["next_batch"] if first else sys.exit("no first sync: " + str(state["failed"]))
sender = threading.Thread(target=send)
threads = [sender, threading.Thread(target=read), threading.Thread(target=listen, args=(since, sender))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
state["stored"] = stored()
pathlib.Path(RESULT + ".part").write_text(json.dumps(state))
pathlib.Path(RESULT + ".part").rename(RESULT)
