"""A small Matrix client: blocking, no state of its own beyond the access token."""

import itertools
import time
import urllib.parse

import requests

_txn = itertools.count(int(time.time() * 1000))


class MatrixError(Exception):
    """An answer outside 2xx."""

    def __init__(self, status: int, body, what: str):
        self.status, self.body = status, body
        self.errcode = body.get("errcode") if isinstance(body, dict) else None
        super().__init__(f"{what}: {status} {body}")


def quote(part: str) -> str:
    return urllib.parse.quote(part, safe="")


class Client:
    def __init__(self, base: str, token: str | None = None, user_id: str | None = None, device_id: str | None = None):
        self.base, self.token, self.user_id, self.device_id = base, token, user_id, device_id
        self.session = requests.Session()

    def at(self, base: str) -> "Client":
        """The same login, speaking to another process."""
        return Client(base, self.token, self.user_id, self.device_id)

    def raw(self, method: str, path: str, body=None, patience: float = 60, **kw) -> requests.Response:
        headers = kw.pop("headers", {})
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None:
            kw["json"] = body
        return self.session.request(method, self.base + path, headers=headers, timeout=patience, **kw)

    def request(self, method: str, path: str, body=None, patience: float = 60, **params):
        answer = self.raw(method, path, body, patience, params=params or None)
        try:
            content = answer.json()
        except ValueError:
            content = answer.text
        if not 200 <= answer.status_code < 300:
            raise MatrixError(answer.status_code, content, f"{method} {path}")
        return content

    def get(self, path: str, **params):
        return self.request("GET", "/_matrix/client/v3" + path, **params)

    def post(self, path: str, body=None, **params):
        return self.request("POST", "/_matrix/client/v3" + path, {} if body is None else body, **params)

    def put(self, path: str, body=None, **params):
        return self.request("PUT", "/_matrix/client/v3" + path, {} if body is None else body, **params)

    # -- accounts -----------------------------------------------------------

    def login(self, user: str, password: str = "pass", **extra) -> "Client":
        got = self.post("/login", {"type": "m.login.password", "password": password,
                                   "identifier": {"type": "m.id.user", "user": user}, **extra})
        return Client(self.base, got["access_token"], got["user_id"], got["device_id"])

    # -- rooms --------------------------------------------------------------

    def create_room(self, **options) -> str:
        return self.post("/createRoom", options)["room_id"]

    def join(self, room: str, via: str | None = None) -> str:
        params = {"via": via, "server_name": via} if via else {}
        return self.post(f"/join/{quote(room)}", **params)["room_id"]

    def leave(self, room: str) -> None:
        self.post(f"/rooms/{quote(room)}/leave")

    def invite(self, room: str, user_id: str) -> None:
        self.post(f"/rooms/{quote(room)}/invite", {"user_id": user_id})

    def send(self, room: str, text: str, txn: str | None = None) -> str:
        return self.send_event(room, "m.room.message", {"msgtype": "m.text", "body": text}, txn)

    def send_event(self, room: str, kind: str, content: dict, txn: str | None = None) -> str:
        txn = txn or f"t{next(_txn)}"
        return self.put(f"/rooms/{quote(room)}/send/{kind}/{quote(txn)}", content)["event_id"]

    def set_state(self, room: str, kind: str, content: dict, key: str = "") -> str:
        return self.put(f"/rooms/{quote(room)}/state/{kind}/{quote(key)}", content)["event_id"]

    def state(self, room: str) -> list[dict]:
        return self.get(f"/rooms/{quote(room)}/state")

    def state_event(self, room: str, kind: str, key: str = "") -> dict:
        return self.get(f"/rooms/{quote(room)}/state/{kind}/{quote(key)}")

    def members(self, room: str) -> dict:
        return self.get(f"/rooms/{quote(room)}/joined_members")["joined"]

    def history(self, room: str, page: int = 100) -> list[dict]:
        """All events of a room, oldest first, read backwards page by page."""
        events, params = [], {"dir": "b", "limit": page}
        while True:
            got = self.get(f"/rooms/{quote(room)}/messages", **params)
            events += got["chunk"]
            if not got.get("end") or not got["chunk"]:
                return events[::-1]
            params["from"] = got["end"]

    def texts(self, room: str) -> list[str]:
        return [e["content"]["body"] for e in self.history(room)
                if e["type"] == "m.room.message" and "body" in e["content"]]

    # -- sync ---------------------------------------------------------------

    def sync(self, since: str | None = None, wait: float = 0, **params) -> dict:
        if since is not None:
            params["since"] = since
        return self.get("/sync", patience=wait + 60, **params | {"timeout": int(wait * 1000)})

    def sync_until(self, check, since: str | None = None, seconds: float = 20, **params):
        """Long-polls until `check(answer)` gives something true; returns it and the last token."""
        end = time.monotonic() + seconds
        while True:
            answer = self.sync(since, min(5, max(0, end - time.monotonic())) if since else 0, **params)
            got, since = check(answer), answer["next_batch"]
            if got:
                return got, since
            if time.monotonic() > end:
                raise TimeoutError(f"{self.user_id}: nothing of it in /sync within {seconds} s")


def registered(base: str, localpart: str, password: str = "pass", **extra) -> Client:
    """Registers with the dummy stage and stays logged in."""
    got = Client(base).post("/register", {
        "username": localpart, "password": password, "auth": {"type": "m.login.dummy"}, **extra})
    return Client(base, got["access_token"], got["user_id"], got["device_id"])


def timeline(answer: dict, room: str) -> list[dict]:
    """The timeline events of one joined room in a /sync answer."""
    return answer.get("rooms", {}).get("join", {}).get(room, {}).get("timeline", {}).get("events", [])


def has_event(room: str, event_id: str):
    """A check for `sync_until`: that event is in that room's timeline."""
    return lambda answer: any(e["event_id"] == event_id for e in timeline(answer, room))
