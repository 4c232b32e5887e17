"""Real clients in a room: matrix-nio and matrix-js-sdk behind one small interface.

A person keeps every message seen, in the order seen, per room.
"""

import asyncio
import collections
import json
import os
import pathlib
import tempfile

import nio

from .client import Client

HERE = pathlib.Path(__file__).resolve().parents[1]
# Enough for any burst between two polls: a limited timeline would look like a loss.
FILTER = {"room": {"timeline": {"limit": 2000}}}


class Person:
    """What both kinds have in common."""

    def __init__(self, login: Client):
        self.login, self.user_id = login, login.user_id
        self.seen: dict[str, list[tuple[str, str, bool]]] = collections.defaultdict(list)
        self.ids: list[str] = []
        self.typing: set[str] = set()
        self.receipts: set[tuple[str, str]] = set()
        self.undecrypted: list[str] = []

    def heard(self, room: str, sender: str, text: str, encrypted: bool, event_id: str) -> None:
        self.seen[room].append((sender, text, encrypted))
        self.ids.append(event_id)

    def texts(self, room: str, sender: str) -> list[str]:
        return [text for who, text, _ in self.seen[room] if who == sender]

    async def until(self, what: str, check, seconds: float = 60) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not check():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{self.user_id} ({type(self).__name__}): {what} not within {seconds} s") from None


class NioPerson(Person):
    def __init__(self, login: Client):
        super().__init__(login)
        self.store = tempfile.TemporaryDirectory(prefix="plexus-nio-")
        self.nio = nio.AsyncClient(
            login.base, login.user_id, device_id=login.device_id, store_path=self.store.name,
            config=nio.AsyncClientConfig(encryption_enabled=True, store_sync_tokens=False, max_limit_exceeded=0))
        self.nio.restore_login(login.user_id, login.device_id, login.token)
        self.nio.add_event_callback(self._message, nio.RoomMessageText)
        self.nio.add_event_callback(self._sealed, nio.MegolmEvent)
        self.nio.add_ephemeral_callback(self._typing, nio.TypingNoticeEvent)
        self.nio.add_ephemeral_callback(self._receipt, nio.ReceiptEvent)
        self.loop: asyncio.Task | None = None

    async def start(self) -> None:
        first = await self.nio.sync(timeout=0, full_state=True, sync_filter=FILTER)
        assert isinstance(first, nio.SyncResponse), first
        self.loop = asyncio.create_task(self.nio.sync_forever(timeout=5000, sync_filter=FILTER))

    async def _message(self, room, event) -> None:
        self.heard(room.room_id, event.sender, event.body, event.decrypted, event.event_id)

    async def _sealed(self, room, event) -> None:
        self.undecrypted.append(event.event_id)

    async def _typing(self, room, event) -> None:
        self.typing.update(event.users)

    async def _receipt(self, room, event) -> None:
        self.receipts.update((r.user_id, r.event_id) for r in event.receipts)

    async def send(self, room: str, text: str) -> str:
        answer = await self.nio.room_send(room, "m.room.message", {"msgtype": "m.text", "body": text},
                                          ignore_unverified_devices=True)
        assert isinstance(answer, nio.RoomSendResponse), answer
        return answer.event_id

    async def type(self, room: str) -> None:
        answer = await self.nio.room_typing(room, True, 20000)
        assert isinstance(answer, nio.RoomTypingResponse), answer

    async def read(self, room: str, event_id: str) -> None:
        answer = await self.nio.update_receipt_marker(room, event_id)
        assert isinstance(answer, nio.UpdateReceiptMarkerResponse), answer

    async def knows_devices_of(self, users: list[str]) -> None:
        store = self.nio.device_store
        await self.until("devices of all", lambda: all(list(store.active_user_devices(u)) for u in users if u != self.user_id))

    async def stop(self) -> None:
        if self.loop:
            self.loop.cancel()
        await self.nio.close()
        self.store.cleanup()


class JsPerson(Person):
    child: asyncio.subprocess.Process

    async def start(self) -> None:
        login = self.login
        self.child = await asyncio.create_subprocess_exec(
            "node", str(HERE / "js/client.mjs"), login.base, login.user_id, login.device_id, login.token,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 22, env=dict(os.environ))
        self.ready, self.answers = asyncio.Event(), asyncio.Queue()
        self.loop = asyncio.create_task(self._listen())
        async with asyncio.timeout(60):
            await self.ready.wait()

    async def _listen(self) -> None:
        async for line in self.child.stdout:
            got = json.loads(line)
            if "ready" in got:
                self.ready.set()
            elif "message" in got:
                m = got["message"]
                self.heard(m["room"], m["sender"], m["text"], m["encrypted"], m["id"])
            elif "typing" in got:
                self.typing.update(got["typing"]["users"])
            elif "receipt" in got:
                for event_id, kinds in got["receipt"]["content"].items():
                    self.receipts.update((user, event_id) for user in kinds.get("m.read", {}))
            else:
                await self.answers.put(got)

    async def _do(self, **command) -> dict:
        self.child.stdin.write(json.dumps(command).encode() + b"\n")
        await self.child.stdin.drain()
        async with asyncio.timeout(30):
            answer = await self.answers.get()
        assert "done" in answer, answer
        return answer

    async def send(self, room: str, text: str) -> str:
        return (await self._do(do="send", room=room, text=text))["event"]

    async def type(self, room: str) -> None:
        await self._do(do="typing", room=room)

    async def read(self, room: str, event_id: str) -> None:
        await self._do(do="read", room=room, event=event_id)

    async def knows_devices_of(self, users: list[str]) -> None:
        """matrix-js-sdk asks for devices when it hears of a change, which may come after its first message."""
        async with asyncio.timeout(60):
            while len((await self._do(do="devices", users=users))["known"]) < len(users):
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        self.loop.cancel()
        if self.child.returncode is None:
            self.child.kill()
        await self.child.wait()
