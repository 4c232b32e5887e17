"""Senders that go on whatever happens, and remember what the server acknowledged."""

import json
import threading
import time

import requests

from .client import Client, MatrixError, timeline


class Load:
    """One thread a sender; a failed send is tried again under the same transaction id.

    Use as a context: leaving it ends the senders, each when its current
    message is acknowledged (or a minute has passed).
    """

    def __init__(self, senders: list[tuple[Client, str]], pause: float = 0.02):
        self.acked: list[tuple[str, str, str]] = []  # room, event id, text
        self.refused: list[str] = []
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(n, client, room, pause), daemon=True)
                         for n, (client, room) in enumerate(senders)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    def count(self) -> int:
        with self._lock:
            return len(self.acked)

    def wait_for(self, more: int, seconds: float = 60) -> None:
        """Waits until that many further messages are acknowledged: the load is alive."""
        goal, end = self.count() + more, time.monotonic() + seconds
        while self.count() < goal:
            if time.monotonic() > end:
                raise TimeoutError(f"only {self.count() + more - goal} of {more} messages in {seconds} s; {self.refused[-3:]}")
            time.sleep(0.05)

    def _send(self, who: int, client: Client, room: str, pause: float) -> None:
        n = 0
        while not self._stop.is_set():
            text = f"sender {who} message {n}"
            event_id = self._insist(client, room, text)
            if event_id:
                with self._lock:
                    self.acked.append((room, event_id, text))
            n += 1
            time.sleep(pause)

    def _insist(self, client: Client, room: str, text: str) -> str | None:
        patience = None
        while True:
            try:
                return client.send(room, text, txn=text.replace(" ", "-"))
            except MatrixError as error:
                # 5xx is the server's trouble; any other refusal would be wrong and must show.
                if error.status < 500:
                    with self._lock:
                        self.refused.append(str(error))
            except requests.RequestException:
                pass
            if self._stop.is_set():
                patience = patience or time.monotonic() + 60
                if time.monotonic() > patience:
                    return None
            time.sleep(0.1)

    # -- afterwards ---------------------------------------------------------

    def check_history(self, reader: Client, rooms: list[str]) -> None:
        """Everything acknowledged is in its room once, nothing is there twice, senders in order."""
        assert not self.refused, self.refused[:5]
        for room in rooms:
            events = [e for e in reader.history(room) if e["type"] == "m.room.message"]
            self._check(room, [(e["event_id"], e["content"]["body"]) for e in events])

    def check_sync(self, reader: Client, since: str, rooms: list[str]) -> None:
        """A sync from a token of before the load shows all of it."""
        wide = json.dumps({"room": {"timeline": {"limit": 10000}}})
        answer = reader.sync(since, filter=wide)
        for room in rooms:
            events = [e for e in timeline(answer, room) if e["type"] == "m.room.message"]
            self._check(room, [(e["event_id"], e["content"]["body"]) for e in events])

    def _check(self, room: str, found: list[tuple[str, str]]) -> None:
        acked = [(event_id, text) for where, event_id, text in self.acked if where == room]
        lost = set(acked) - set(found)
        assert not lost, f"{len(lost)} acknowledged messages of {len(acked)} are not in {room}: {sorted(lost)[:5]}"
        texts = [text for _, text in found]
        twice = {text for text in texts if texts.count(text) > 1}
        assert not twice, f"more than once in {room}: {sorted(twice)[:5]}"
        for sender in {text.split(" message ")[0] for text in texts}:
            numbers = [int(t.split(" message ")[1]) for t in texts if t.startswith(sender + " ")]
            assert numbers == sorted(numbers), f"{sender} out of order in {room}"
