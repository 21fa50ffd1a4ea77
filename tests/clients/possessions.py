"""What a server has, and clients that behave while others do not. As in tests/chaos, for what has clients here."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from server import HANG
from store import answers

# What its memory may be more than before.
MORE = 1.05
RESTS = 4


@dataclass
class Possessions:
    resident_kib: int
    threads: int
    descriptors: int

    @classmethod
    def of(cls, server):
        process = Path(f"/proc/{server.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return cls(int(status["VmRSS"].split()[0]), int(status["Threads"]), len(list((process / "fd").iterdir())))

    def most(self, other):
        return Possessions(
            max(self.resident_kib, other.resident_kib),
            max(self.threads, other.threads),
            max(self.descriptors, other.descriptors))

    def is_no_more_than(self, before):
        return (self.resident_kib <= MORE * before.resident_kib
                and self.threads <= before.threads and self.descriptors <= before.descriptors)


class Witness:
    """Asks model "m" without a pause, by so many clients, and looks whether the answers are right."""

    def __init__(self, server, clients=4):
        self.ends = threading.Event()
        self.right = 0
        self.wrong = []
        self.came = threading.Condition()
        self.clients = [threading.Thread(target=self.behave, args=[server], daemon=True) for _ in range(clients)]
        for client in self.clients:
            client.start()

    def behave(self, server):
        with server.client() as client:
            while not self.ends.is_set():
                try:
                    answers(client, "1")
                except Exception as error:
                    self.wrong.append(error)
                with self.came:
                    self.right += 1
                    self.came.notify_all()

    def sees(self, more):
        with self.came:
            wanted = self.right + more
            assert self.came.wait_for(lambda: self.right >= wanted, HANG), "it is not answered"

    def tells(self):
        """How many were right, which is all."""
        self.ends.set()
        for client in self.clients:
            client.join(HANG)
        assert not any(client.is_alive() for client in self.clients), "a request is not answered"
        assert self.wrong == []
        return self.right

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ends.set()


def warm(server):
    with Witness(server) as witness:
        witness.sees(200)
        witness.tells()


def rests(server):
    """The most that it has when it rests, which differs a little from one time to the next."""
    most = Possessions(0, 0, 0)
    for _ in range(RESTS):
        warm(server)
        time.sleep(1.5)
        most = most.most(Possessions.of(server))
    return most


def settles(server, before):
    """Waits until it has no more than before, while it serves as it usually does."""
    end = time.monotonic() + HANG
    while not (now := Possessions.of(server)).is_no_more_than(before):
        assert time.monotonic() < end, f"before {before}, and now {now}"
        warm(server)
        time.sleep(1.5)
    return now
