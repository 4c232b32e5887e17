"""A TCP proxy before a server, to be held up or cut where a network would be."""

import contextlib
import socket
import threading

from .procs import free_port


class Proxy:
    """Listens on `port` of 127.0.0.1 and hands on to `target`, a port there.

    Held (`hold`), nothing goes through in either direction and new connections are taken without an answer: a network
    that drops packets. Cut (`cut`), the connections of clients end; the server is told nothing.
    """

    def __init__(self, target: int):
        self.port, self.target = free_port(), target
        self._open, self._lock = threading.Event(), threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def cut(self) -> None:
        """Ends all connections on the clients' side; the server's side stays open."""
        with self._lock:
            for client, _ in self._pairs:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self._open.set()
        with self._lock:
            for pair in self._pairs:
                for sock in pair:
                    sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        with self._lock:
            self._pairs.append((client, server))
        threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
        self._pump(server, client)
        # The server has ended it. Where the client does, it is not told.
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                sink.sendall(data)
