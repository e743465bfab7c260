"""Owns what is measured: every benchmark, its contenders, and how a run becomes numbers. Used by
`scripts/bench`. Starts every contender fresh for every round."""

import contextlib
import json
import subprocess
import threading
import time
from dataclasses import dataclass
from functools import partial

from contenders import running
from machine import cpu_us, rss_bytes

# So much is kept for everything in a process that is not a subscriber.
DESCRIPTORS_KEPT = 1_000
SUBSCRIBERS_MAX = 19_000
SMALL_BODY_BYTES = 128
VALUES_A_FILL = 100
MANY_STORAGES = 1_000
# How often a server is asked for its gauges while it is measured, and how long each part of that
# is, about, whose largest are told; a short one has two parts.
GAUGES_SECONDS = 0.1
GAUGES_PART_SECONDS = 10
# Beside wrk's --timeout: nothing here takes as long.
PATIENCE_SECONDS = 300


@dataclass
class Options:
    machine: object
    seconds: float
    events: int


@dataclass
class Benchmark:
    what: str
    contenders: dict

    def round(self, options):
        """One measurement of each contender in turn: (contender, {part: sample or error})."""
        for contender, measure in self.contenders.items():
            try:
                yield contender, measure(options)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                yield contender, {"": {"error": str(error)}}


# --- Load --------------------------------------------------------------------------------------

def load_command(options, server, mode, flags):
    names = [] if mode == "read" else [f"--server={server.kind.removesuffix(' broadcast')}"]
    pairs = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    return [options.machine.load, mode, *names, f"--address={server.address}",
            f"--pid={server.pid}", *pairs]


def outcome(process):
    """The line of JSON with which a process ended."""
    out, error = process.communicate(timeout=PATIENCE_SECONDS)
    if process.returncode != 0:
        raise RuntimeError((error or out).strip()[-500:])
    return json.loads(out.splitlines()[-1])


def popen(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def load(options, server, mode="run", **flags):
    if mode == "run":
        flags.setdefault("seconds", options.seconds)
    return outcome(popen(load_command(options, server, mode, flags)))


def wrk_command(options, server, *arguments, seconds=None, connections=64):
    return ["wrk", "-t1", f"-c{connections}", f"-d{seconds or round(options.seconds)}", "--latency",
            "-s", options.machine.root / "bench" / "get.lua", f"http://{server.address}", "--",
            *arguments]


def wrk(options, server, *arguments, reply_bytes=None, **flags):
    """Reads with wrk. Every answer must be 200 and, where it is known, of the right length."""
    cpu = cpu_us(server.pid)
    measured = outcome(popen(wrk_command(options, server, *arguments, **flags)))
    measured["cpu_us"] = cpu_us(server.pid) - cpu
    measured["rss_bytes"] = rss_bytes(server.pid)
    check_wrk(measured, reply_bytes)
    return measured


def check_wrk(measured, reply_bytes=None):
    if measured["not_ok"] or measured["failed"]:
        raise RuntimeError(f"{measured['not_ok']} answers were no 2xx, {measured['failed']} failed")
    # Up to one reply a connection is cut off by the end of the measurement.
    if reply_bytes and not 0 <= measured["bytes"] - measured["requests"] * reply_bytes <= 64e3:
        raise RuntimeError(f"{measured['requests']} replies of {reply_bytes} bytes are "
                           f"{measured['bytes']} bytes")


def sample(measured, operations=None, latency="reply"):
    """The columns of the table."""
    operations = operations or measured["requests"]
    numbers = {
        "per_second": operations / measured["seconds"],
        "p50_us": measured.get(f"{latency}_p50_us"),
        "p99_us": measured.get(f"{latency}_p99_us"),
        "cpu_us": measured["cpu_us"] / operations if "cpu_us" in measured else None,
        "rss_bytes": measured.get("rss_bytes"),
    }
    return {name: number for name, number in numbers.items() if number is not None}


def metrics(server, *names):
    """What rill says of itself."""
    lines = server.get("/metrics")[2].decode().splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return [float(numbers[name]) for name in names]


def fill(options, server, storages, events, values=1, **flags):
    load(options, server, storages=storages, requests=events // values, values=values,
         warm_up=0, **flags)


# --- Appends -----------------------------------------------------------------------------------

def append(kind, options, values=1, **flags):
    with running(options.machine, kind) as server, growth(server) as grown:
        measured = load(options, server, values=values, **flags)
    return {"": sample(measured, measured["requests"] * values) | grown}


@contextlib.contextmanager
def growth(server):
    """Of rill: the largest log and backlog in each part of what is done meanwhile."""
    grown = {}
    if server.kind != "rill":
        yield grown
        return
    over, seen = threading.Event(), []

    def watch():
        while not over.wait(GAUGES_SECONDS):
            log, backlog = metrics(server, "rill_wal_bytes", "rill_unfolded_events")
            seen.append((time.monotonic(), log / 2**20, backlog))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield grown
    finally:
        over.set()
        watching.join()
    first, last = seen[0][0], seen[-1][0]
    parts = max(2, round((last - first) / GAUGES_PART_SECONDS))
    ends = [first + (last - first) * part / parts for part in range(parts + 1)]
    for place, name in ((1, "log_mib"), (2, "backlog")):
        for part, (begin, end) in enumerate(zip(ends, ends[1:]), 1):
            within = [one[place] for one in seen if begin <= one[0] <= end]
            grown[f"{name}_{part}_of_{parts}"] = max(within)


def append_rows(options, storages):
    with running(options.machine, "floor fixed") as server:
        measured = outcome(popen([options.machine.floor, "rows", server.folder / "rows.db",
                                  str(max(1, round(options.seconds))), str(storages)]))
        return {"": sample(measured)}


def appends(kinds, **flags):
    return {label: partial(append, kind, **flags) for label, kind in kinds.items()}


DURABLE = {"rill": "rill", "durable-streams": "durable-streams", "redis": "redis"}


# --- Reads -------------------------------------------------------------------------------------

def get_small(kind, path, options):
    with running(options.machine, kind) as server:
        match kind:
            case "rill":
                # As long a value as makes the body as long as the others'.
                fill(options, server, storages=1, events=1, connections=1, bytes=28)
            case "durable-streams":
                fill(options, server, storages=1, events=1, connections=1, bytes=SMALL_BODY_BYTES)
            case "nginx":
                (server.folder / "files" / "s0").write_text("x" * SMALL_BODY_BYTES)
        reply, status, body = server.get(path)
        if status != 200 or len(body) != SMALL_BODY_BYTES:
            raise RuntimeError(f"{path} was answered {status} with {len(body)} bytes")
        return {"": sample(wrk(options, server, path, reply_bytes=len(reply)))}


def get_many(kind, path, options):
    storages = 10_000
    with running(options.machine, kind) as server:
        parts = {}
        if kind == "nginx":
            for number in range(storages):
                (server.folder / "files" / f"s{number}").write_text("x" * SMALL_BODY_BYTES)
        else:
            fill(options, server, storages=storages, events=storages, bytes=28)
            for connections, by in ((1, "one reader"), (64, "64 connections")):
                server.stop()
                server.start()
                # Each once after a start, when none is in memory yet, and once more.
                for part in ("cold", "again"):
                    hits, = metrics(server, "rill_hot_hits_total")
                    read = load(options, server, "read", storages=storages, events=1, form="json",
                                connections=connections)
                    answered, = metrics(server, "rill_hot_hits_total")
                    parts[f"{part}, {by}"] = sample(read, storages) | {
                        "hit_rate": (answered - hits) / storages}
        parts["hot, 64 connections"] = sample(wrk(options, server, path, str(storages)))
        return parts


def stream_million(storages, options):
    """Without anything in rill's memory, one storage after another."""
    each = options.events // storages
    with running(options.machine, "rill") as server:
        if storages == 1:
            fill(options, server, 1, options.events, values=VALUES_A_FILL, connections=1)
        else:
            fill(options, server, storages, each * storages)
        server.stop()
        server.start()
        parts = {}
        for form in ("json", "stream"):
            read = load(options, server, "read", storages=storages, events=each, form=form,
                        connections=1)
            parts[form] = sample(read, read["events"])
            parts[form]["first_event_us"] = read["first_event_us"]
        return parts


# --- Streams -----------------------------------------------------------------------------------

def fanout(kind, subscribers, options, connections=1, storages=1, pace="lockstep"):
    with running(options.machine, kind) as server:
        measured = load(options, server, subscribers=subscribers, storages=storages,
                        connections=connections, pace=pace)
        return {"": sample(measured, measured["deliveries"], "last_reception")}


def fanouts(subscribers, **flags):
    kinds = {"rill": "rill", "bare write": "floor broadcast", "nchan": "nchan",
             "durable-streams": "durable-streams"}
    if flags.get("storages", 1) > 1:
        # It knows one storage.
        del kinds["bare write"]
    return {label: partial(fanout, kind, subscribers, **flags) for label, kind in kinds.items()}


def delivery(kind, options):
    with running(options.machine, kind) as server:
        measured = load(options, server, subscribers=100, storages=100, connections=32, pace=1_000)
        parts = {"sent to received": sample(measured, measured["deliveries"], "reception")}
        parts["sent to answered"] = sample(measured)
        return parts


def mixed(kind, path, options):
    """Three loads at once, each a process of its own, so that none waits for another's work."""
    seconds = max(1, round(options.seconds))
    with running(options.machine, kind) as server:
        fill(options, server, 1, 1, connections=1, bytes=28, prefix="g", first=10**9)
        broadcast = popen(load_command(options, server, "run", {
            "subscribers": 9_000, "connections": 4, "pace": 10, "prefix": "b",
            "warm_up": 1, "seconds": seconds}))
        if broadcast.stderr.readline() != "subscribed\n":
            return outcome(broadcast)
        appending = popen(load_command(options, server, "run", {
            "storages": 1_000, "connections": 64, "pace": 2_000, "first": 10**8,
            "warm_up": 1, "seconds": seconds}))
        reading = popen(wrk_command(options, server, path, connections=16, seconds=seconds + 1))
        read, appended, sent = outcome(reading), outcome(appending), outcome(broadcast)
        check_wrk(read)
        parts = {"get": sample(read), "append": sample(appended)}
        parts["broadcast"] = sample(sent, sent["deliveries"], "last_reception")
        for part in parts.values():
            # The server did all of it at once: its time is nobody's alone.
            part.pop("cpu_us", None)
        parts["broadcast"]["server_cpus"] = sent["cpu_us"] / sent["seconds"] / 1e6
        return parts


# --- The process -------------------------------------------------------------------------------

def memory(kind, options):
    subscribers = min(SUBSCRIBERS_MAX, options.machine.descriptors_max - DESCRIPTORS_KEPT)
    with running(options.machine, kind) as server:
        idle = rss_bytes(server.pid)
        measured = load(options, server, subscribers=subscribers, connections=0)
        grown = measured["subscribed_rss_bytes"] - measured["first_rss_bytes"]
        added = measured["subscribed_subscribers"] - measured["first_subscribers"]
        return {"": {"rss_bytes": idle, "bytes_a_subscriber": grown / added,
                     "subscribers": subscribers}}


def start(kind, options):
    with running(options.machine, kind) as server:
        fill(options, server, MANY_STORAGES, options.events)
        rss = rss_bytes(server.pid)
        server.stop()
        stopped = {"start_ms": server.start() * 1e3, "events": options.events}
        server.process.kill()
        server.process.wait()
        killed = {"start_ms": server.start() * 1e3, "events": options.events}
        return {"after a stop": stopped | {"rss_bytes": rss}, "after a kill": killed}


RILL_GET = "/get?id="
DURABLE_STREAMS_GET = "/s0?offset=-1"

BENCHMARKS = {
    "append-1k": Benchmark(
        "200-byte values, 1,000 storages, 64 connections",
        appends(DURABLE | {"nchan, in memory": "nchan"}, storages=1_000)
        | {"sqlite alone": partial(append_rows, storages=1_000)}),
    "get-small": Benchmark(
        "one storage with one event, 64 connections",
        {"rill": partial(get_small, "rill", RILL_GET + "s0"),
         "mio alone": partial(get_small, "floor fixed", "/"),
         "nginx, a file": partial(get_small, "nginx", "/s0"),
         "durable-streams": partial(get_small, "durable-streams", DURABLE_STREAMS_GET)}),
    "fanout-1k": Benchmark("one event to 1,000 subscribers, then the next", fanouts(1_000)),
    "fanout-9k": Benchmark("one event to 9,000 subscribers, then the next", fanouts(9_000)),
    "memory": Benchmark(
        "resident when idle, and for each idle subscriber from 1,000 to 19,000",
        {kind: partial(memory, kind) for kind in ("rill", "nchan", "durable-streams")}),
    "append-100k": Benchmark(
        "200-byte values, 100,000 storages, 64 connections",
        # A stream of durable-streams holds a descriptor.
        appends({"rill": "rill", "redis": "redis"}, storages=100_000)
        | {"sqlite alone": partial(append_rows, storages=100_000)}),
    "append-256": Benchmark(
        "200-byte values, 1,000 storages, 256 connections",
        appends(DURABLE, storages=1_000, connections=256)),
    "append-batch": Benchmark(
        "100 values of 200 bytes a request, 1,000 storages, 16 connections",
        appends({"rill": "rill", "durable-streams, 100 lines": "durable-streams",
                 "redis, pipelined": "redis"},
                storages=1_000, connections=16, values=100)),
    "delivery": Benchmark(
        "1,000 appends a second to 100 storages with a subscriber each",
        {kind: partial(delivery, kind) for kind in ("rill", "nchan", "durable-streams")}),
    "mixed": Benchmark(
        "small GETs beside ten broadcasts to 9,000 and 2,000 appends a second",
        {"rill": partial(mixed, "rill", RILL_GET + "g0"),
         "durable-streams": partial(mixed, "durable-streams", "/g0?offset=-1")}),
    "get-many": Benchmark(
        "10,000 storages with one event, 64 connections",
        {"rill": partial(get_many, "rill", RILL_GET + "s"),
         "nginx, files": partial(get_many, "nginx", "/s")}),
    "stream-million": Benchmark(
        "histories of --events events, one reader, nothing in memory before",
        {"rill, 1 storage": partial(stream_million, 1),
         "rill, 1,000 storages": partial(stream_million, MANY_STORAGES)}),
    "fanout-8": Benchmark(
        "eight events in flight to 1,000 subscribers", fanouts(1_000, connections=8)),
    "fanout-spread": Benchmark(
        "9,000 subscribers, each on a storage of its own, 64 connections appending",
        fanouts(9_000, storages=9_000, connections=64, pace="closed")),
    "start": Benchmark(
        "until the first answer, with --events events in 1,000 storages",
        {"rill": partial(start, "rill"), "durable-streams": partial(start, "durable-streams")}),
}
