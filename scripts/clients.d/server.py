"""The server under trial and the one who appends to it, with what only run.py needs of them. Knows
nothing of clients.
"""

import http.client
import itertools
import json
import queue
import re
import signal
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path

from check import event_of

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 15
REQUEST_TIMEOUT_S = 30
APPEND_TIMEOUT_S = 60
# While the server is away an append is tried again this often.
APPEND_RETRY_S = 0.05
# Every so many appends carry so many values at once.
BATCH_EVERY, BATCH_EVENTS = 8, 5


class Failure(Exception):
    """The scenario cannot go on."""


def last_line(log):
    lines = Path(log.name).read_text(errors="replace").splitlines()
    return f"{lines[-1] if lines else 'it wrote nothing'} ({log.name})"


class Server:
    """A rill on a port that stays the same once it was given one."""

    def __init__(self, binary, work):
        self.command = [binary, "serve", "--db", str(work / "rill.db")]
        self.log = open(work / "server.log", "wb")
        self.port = 0
        self.process = None

    def start(self):
        listen = ["--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(
            [*self.command, *listen],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        ports = queue.Queue()
        threading.Thread(target=self.read_output, args=(self.process, ports), daemon=True).start()
        try:
            self.port = ports.get(timeout=START_TIMEOUT_S)
        except queue.Empty:
            raise Failure("the server printed no URL") from None
        if self.port is None:
            raise Failure(f"the server ended with {self.process.wait()}: {last_line(self.log)}")

    @staticmethod
    def read_output(process, ports):
        for line in process.stdout:
            if match := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                ports.put(int(match[1]))
        ports.put(None)

    def stop(self, name):
        self.process.send_signal(signal.Signals[name])
        try:
            status = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Failure(f"{name} did not end the server in {STOP_TIMEOUT_S} s") from None
        if name == "SIGTERM" and status != 0:
            raise Failure(f"the server ended with {status} after {name}")

    def request(self, method, path, body=None):
        """Status and JSON of one exchange on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.request(method, path, body and json.dumps(body).encode())
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()


def text_of(value):
    return value["text"] * value.get("times", 1)


class Appender:
    """Appends the scenario's values in turn, through restarts, and knows what it was answered."""

    def __init__(self, server, scenario):
        self.server = server
        ids = itertools.cycle([*scenario["storages"], *scenario["unread"]])
        texts = itertools.cycle([text_of(value) for value in scenario["values"]])
        self.ids, self.texts = ids, texts
        self.numbers = itertools.count(1)
        self.requests = itertools.count(1)
        self.stored = []
        self.progress = threading.Condition()

    def append(self, events, text=None):
        """So many events, of the scenario's texts in turn, or of one."""
        while events:
            batch = BATCH_EVENTS if next(self.requests) % BATCH_EVERY == 0 else 1
            batch = min(batch, events)
            texts = [text or next(self.texts) for _ in range(batch)]
            # A number makes a value unique; the text stands at both ends of it.
            values = [f"{text}{n}{text}" for text, n in zip(texts, self.numbers)]
            self.append_values(values, next(self.ids))
            events -= batch

    def append_values(self, values, id):
        body = {"value": values[0]} if len(values) == 1 else {"values": values}
        reply = self.insist(f"/set/{urllib.parse.quote(id, safe='')}", body)
        placed = reply.get("events", [reply])
        with self.progress:
            for value, place in zip(values, placed, strict=True):
                event = event_of(place["seq"], id, value)
                if event.hash != place["hash"]:
                    raise Failure(f"the server's hash of {value[:40]!r} is {place['hash']}")
                self.stored.append(event)
            self.progress.notify_all()

    def insist(self, path, body):
        """Appending is idempotent, so whatever went unanswered is sent again."""
        deadline = time.monotonic() + APPEND_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                status, reply = self.server.request("POST", path, body)
            except (OSError, http.client.HTTPException):
                time.sleep(APPEND_RETRY_S)
                continue
            if status in (200, 201):
                return reply
            if status != 503:
                raise Failure(f"POST {path} was answered {status}: {reply}")
            time.sleep(APPEND_RETRY_S)
        status = self.server.process.poll()
        ended = "" if status is None else f", it ended with {status}: {last_line(self.server.log)}"
        raise Failure(f"the server did not answer POST {path} in {APPEND_TIMEOUT_S} s{ended}")

    def await_stored(self, events):
        with self.progress:
            if not self.progress.wait_for(lambda: len(self.stored) >= events, APPEND_TIMEOUT_S):
                raise Failure(f"{len(self.stored)} events stored in {APPEND_TIMEOUT_S} s")
