"""Plays scenario.json: a rill server, someone who appends, and clients nobody here wrote, all at
once. Fails when a client loses, repeats, reorders or alters an event. Run by scripts/clients, which
installs what this needs.

A client is a program that gets one JSON argument, {url, body, last, picture}, follows the stream,
prints a line for everything that the library under trial gives it, and ends with 0 when an event's
data contains `last`:

    {"open": true}                        a connection stands
    {"message": [TYPE, ID, DATA]}         an event was dispatched
    {"closed": "clean"} or {"closed": WHY}    the stream ended, where the library says so
    {"comment": true}, {"violation": RULE}    only where the bytes are seen
    {"failed": WHY}                       the library gave up

What the lines mean, and whether they are right, is check.py's to say.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from check import Transcript, differences, event_of, judge
from server import REQUEST_TIMEOUT_S, Appender, Failure, Server, last_line, text_of

HERE = Path(__file__).resolve().parent

STEP_TIMEOUT_S = 60
CLIENT_STOP_TIMEOUT_S = 15
RUN_TIMEOUT_S = 240
# Of one client.
PROBLEMS_MAX = 8


class Client:
    """A client's process, and what it reported so far."""

    def __init__(self, name, command, argument, work):
        self.name = name
        self.transcript = Transcript()
        self.progress = threading.Condition()
        self.log = open(work / f"{name}.log", "wb")
        self.process = subprocess.Popen(
            [*command, json.dumps(argument)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            # A group of its own, so that it is paused and ended with what it starts.
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self.read_output, daemon=True)
        self.reader.start()

    def read_output(self):
        for line in self.process.stdout:
            with self.progress:
                try:
                    self.transcript.take(line)
                except (ValueError, KeyError, TypeError) as error:
                    self.transcript.problems.append(f"{error!r} of {line[:200]!r}")
                self.progress.notify_all()
        with self.progress:
            self.progress.notify_all()

    def await_synced(self, times, deadline):
        """Until it saw so many `synced`; a client that ended never will, and is judged later."""
        with self.progress:
            self.progress.wait_for(
                lambda: len(self.transcript.synced) >= times or self.process.poll() is not None,
                max(0, deadline - time.monotonic()),
            )

    def await_end(self, deadline):
        try:
            status = self.process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.transcript.problems.append("it did not see the last event in time")
            return
        self.reader.join(CLIENT_STOP_TIMEOUT_S)
        if status != 0:
            self.transcript.problems.append(f"it ended with {status}: {last_line(self.log)}")

    def signal(self, number):
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def stop(self):
        # Asked first: Chromium's driver has processes in other groups to end.
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(CLIENT_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)


def commands(work):
    """Each client, how it is run, and which form of one selection it is given."""
    python = str(work / "venv/bin/python")
    npm = ["node", str(HERE / "node.mjs")]
    pypi = [python, str(HERE / "python_clients.py")]
    return {
        "chromium": (["node", str(HERE / "browser.mjs")], "items"),
        "eventsource": ([*npm, "eventsource"], "json"),
        "fetch-event-source": ([*npm, "fetch-event-source"], "body"),
        "httpx-sse": ([*pypi, "httpx-sse"], "items"),
        "requests-sse": ([*pypi, "requests-sse"], "json"),
        "eventsource-client": ([str(work / "rust/debug/rill-client")], "brackets"),
        "curl": ([sys.executable, str(HERE / "curl.py")], "items"),
    }


def selection_url(port, form, ids):
    pairs = {
        "body": [],
        # What begins like JSON is taken for it.
        "items": [("items", json.dumps([id]) if id[0] in "[{" else id) for id in ids],
        "json": [("items", json.dumps(ids))],
        "brackets": [(f"items[{n}][id]", id) for n, id in enumerate(ids)],
    }[form]
    query = urllib.parse.urlencode(pairs)
    return f"http://127.0.0.1:{port}/get" + (f"?{query}" if query else "")


class Run:
    """One playing of the scenario."""

    def __init__(self, scenario, binary, work, names):
        self.scenario, self.work, self.names = scenario, work, names
        self.last = next(step[1] for step in scenario["steps"] if step[0] == "end")
        self.server = Server(binary, work)
        self.appender = Appender(self.server, scenario)
        self.background = ThreadPoolExecutor(1)
        self.clients = []
        self.signals = []

    def play(self):
        self.server.start()
        for verb, *arguments in self.scenario["steps"]:
            getattr(self, verb)(*arguments)

    def append(self, events, value=None):
        self.appender.append(events, value and text_of(value))

    def connect(self):
        ids = self.scenario["storages"]
        table = commands(self.work)
        for name in self.names:
            command, form = table[name]
            argument = {
                "url": selection_url(self.server.port, form, ids),
                "body": {"items": ids},
                "last": self.last,
                "picture": str(self.work / "page.png"),
            }
            self.clients.append(Client(name, command, argument, self.work))

    def restart(self, signal_name, events):
        """Stops the server amid appends that go on when it is back."""
        enough = len(self.appender.stored) + events // 2
        appending = self.background.submit(self.appender.append, events)
        self.appender.await_stored(enough)
        self.server.stop(signal_name)
        self.signals.append(signal_name)
        self.server.start()
        appending.result(STEP_TIMEOUT_S)

    def synced(self):
        """Waits until every client has seen a `synced` of the present server."""
        deadline = time.monotonic() + STEP_TIMEOUT_S
        for client in self.clients:
            client.await_synced(len(self.signals) + 1, deadline)

    def pause(self):
        """The clients read no more (but Chromium, which its driver keeps apart): what the server
        sends fills the sockets, and when it is killed the last of it is cut inside a frame."""
        for client in self.clients:
            client.signal(signal.SIGSTOP)

    def resume(self):
        for client in self.clients:
            client.signal(signal.SIGCONT)

    def quiet(self, seconds):
        """Long enough for a comment."""
        time.sleep(seconds)

    def end(self, value):
        self.appender.append_values([value], self.scenario["storages"][0])
        deadline = time.monotonic() + STEP_TIMEOUT_S
        for client in self.clients:
            client.await_end(deadline)

    def held(self):
        """What the server says it holds of the clients' storages, in order."""
        status, reply = self.server.request("POST", "/get", {"items": self.scenario["storages"]})
        if status != 200:
            raise Failure(f"POST /get was answered {status}: {reply}")
        return sorted(
            event_of(event["seq"], item["id"], event["value"])
            for item in reply["items"]
            for event in item["events"]
        )

    def appended(self):
        read = set(self.scenario["storages"])
        return sorted(event for event in self.appender.stored if event.id in read)

    def stop(self):
        for client in self.clients:
            client.stop()
        if self.server.process and self.server.process.poll() is None:
            self.server.process.kill()
            self.server.process.wait()


def read_by_curl(url):
    command = ["curl", "-sS", "--fail", "--compressed", "--max-time", str(REQUEST_TIMEOUT_S), url]
    curl = subprocess.run(command, stdout=subprocess.PIPE)
    if curl.returncode != 0:
        raise Failure(f"curl exits {curl.returncode} for {url}")
    return json.loads(curl.stdout)


def pages_by_curl(port, ids, limit):
    """Everything, read a page at a time, as a list of pages."""
    cursor, more = "0", True
    while more:
        url = selection_url(port, "json", ids)
        reply = read_by_curl(f"{url}&limit={limit}&after={cursor}")
        yield sorted(
            event_of(event["seq"], item["id"], event["value"])
            for item in reply["items"]
            for event in item["events"]
        )
        cursor, more = reply["cursor"], reply["more"]


def outcome(name, problems, summary):
    """Prints a client's line; whether it passed."""
    if not problems:
        print(f"ok {name}: {summary}", flush=True)
        return True
    more = len(problems) - PROBLEMS_MAX
    shown = problems[:PROBLEMS_MAX] + ([f"and {more} more problems"] if more > 0 else [])
    print(f"FAIL {name}: {summary}", *shown, sep="\n    ", flush=True)
    return False


def judge_all(run):
    """A line for each reader, in turn."""
    held = run.held()
    yield outcome("/get", differences(run.appended(), held), f"{len(held)} events, as appended")
    pages = list(pages_by_curl(run.server.port, run.scenario["storages"], limit=100))
    read = list(itertools.chain.from_iterable(pages))
    yield outcome("curl, JSON", differences(held, read), f"{len(read)} events, {len(pages)} pages")
    for client in run.clients:
        transcript = client.transcript
        problems = judge(transcript, held, run.signals, reads_comments=client.name == "curl")
        summary = f"{len(transcript.events)} events, {transcript.opened} connections"
        yield outcome(client.name, problems, summary)


def arguments():
    parser = argparse.ArgumentParser(description="Drive rill with clients nobody here wrote.")
    parser.add_argument("--rill", required=True, help="the server's binary")
    parser.add_argument("--work", required=True, type=Path, help="where venv, logs, database lie")
    parser.add_argument("names", nargs="*", metavar="CLIENT", help="only these")
    chosen = parser.parse_args()
    known = commands(chosen.work)
    if unknown := set(chosen.names) - set(known):
        parser.error(f"no client is called {', '.join(unknown)}; there are {', '.join(known)}")
    chosen.names = chosen.names or list(known)
    return chosen


def interrupted(number, _frame):
    raise Failure(f"ended by {signal.Signals(number).name}")


def main():
    chosen = arguments()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, interrupted)
    signal.alarm(RUN_TIMEOUT_S)
    for stale in chosen.work.glob("rill.db*"):
        stale.unlink()
    scenario = json.loads((HERE / "scenario.json").read_text())
    run = Run(scenario, chosen.rill, chosen.work, chosen.names)
    try:
        run.play()
        passed = list(judge_all(run))
    except Failure as failure:
        print(f"FAIL: {failure}")
        return 1
    finally:
        run.stop()
    print(f"{passed.count(True)} passed, {passed.count(False)} failed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    # The appender may still insist on a server that is gone; the answer is given, so leave at once.
    status = main()
    sys.stdout.flush()
    os._exit(status)
