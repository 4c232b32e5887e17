"""Which processes a cluster consists of. A layout says nothing of who plays them."""

from dataclasses import dataclass, field

CLIENT = ("client", "federation", "replication", "health")


@dataclass(frozen=True)
class Worker:
    """One process beside main: its name and the streams it writes (names as in `stream_writers`)."""
    name: str
    writes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Main plus workers; `tasks` names who runs background tasks, user directory and appservice pushes."""
    name: str
    workers: tuple[Worker, ...] = ()
    tasks: str = "main"
    extra: dict = field(default_factory=dict)

    @property
    def processes(self) -> list[str]:
        return ["main", *[w.name for w in self.workers]]

    def stream_writers(self) -> dict[str, list[str]]:
        out: dict[str, list[str]] = {}
        for worker in self.workers:
            for stream in worker.writes:
                out.setdefault(stream, []).append(worker.name)
        return out


MONOLITH = Layout("monolith")

# Enough of a cluster that every hand-over happens: two persisters, the
# ephemeral and per-user streams on a process of their own, two plain workers.
WORKERS = Layout("workers", (
    Worker("persister1", ("events",)),
    Worker("persister2", ("events",)),
    Worker("streams", ("typing", "to_device", "account_data", "receipts", "presence", "push_rules",
                       "device_lists", "thread_subscriptions")),
    Worker("generic1"),
    Worker("generic2"),
), tasks="generic2")

# Main writes everything, one worker only reads and hands on.
PAIR = Layout("pair", (Worker("generic1"),))

# What is measured: one persister, a worker clients write through, one they
# read through, and one nobody talks to, which only follows.
BENCH = Layout("bench", (
    Worker("persister1", ("events",)),
    Worker("generic1"),
    Worker("generic2"),
    Worker("follower"),
))

# For mixed clusters: whoever sits on `guest` is of the other flavour.
MIXED = Layout("mixed", (
    Worker("persister1", ("events",)),
    Worker("host"),
    Worker("guest"),
))

ALL = {layout.name: layout for layout in (MONOLITH, WORKERS, PAIR, BENCH, MIXED)}
