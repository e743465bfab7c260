"""What a client saw, and whether that is what the server holds: pure, called by run.py. Knows
nothing of processes or time.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import NamedTuple

LISTED_MAX = 3


class Event(NamedTuple):
    seq: int
    id: str
    hash: str

    def __str__(self):
        return f"{self.seq} of {self.id!r} ({self.hash[:12]}…)"


def event_of(seq, id, value):
    return Event(seq, id, hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest())


@dataclass
class Transcript:
    """Everything one client reported, in order."""

    events: list = field(default_factory=list)
    # For each `synced`: how many events stood before it, and its cursor's seq.
    synced: list = field(default_factory=list)
    closed: list = field(default_factory=list)
    problems: list = field(default_factory=list)
    opened: int = 0
    comments: int = 0

    def take(self, line):
        """One line of a client's output."""
        match json.loads(line):
            case {"message": [type, cursor, data]}:
                self.take_message(type, cursor, data)
            case {"open": True}:
                self.opened += 1
            case {"closed": how}:
                self.closed.append(how)
            case {"comment": True}:
                self.comments += 1
            case {"violation": rule}:
                self.problems.append(rule)
            case {"failed": why}:
                self.problems.append(why)
            case other:
                raise ValueError(f"a client reported {other}")

    def take_message(self, type, cursor, data):
        try:
            body = json.loads(data)
        except ValueError:
            self.problems.append(f"a {type!r} with the data {data[:80]!r}")
            return
        cursor = cursor or ""
        seq = re.fullmatch(r"(\d+)\.[0-9a-f]{8}", cursor)
        if type == "message":
            self.events.append(event_of(body["seq"], body["id"], body["value"]))
            if not seq or int(seq[1]) != body["seq"]:
                self.problems.append(f"event {body['seq']} came with the id {cursor!r}")
        elif type == "synced" and seq and body["cursor"] == cursor:
            self.synced.append((len(self.events), int(seq[1])))
        else:
            self.problems.append(f"a {type!r} with the id {cursor!r}: {data[:80]}")


def differences(expected, seen):
    """How `seen` differs from `expected`, which is in order: sentences, none where it does not."""
    wanted, found = set(expected), set(seen)
    by_seq = {event.seq: event for event in expected}
    strange = [event for event in seen if event not in wanted]
    repeated, before = [], set()
    for event in seen:
        if event in before:
            repeated.append(event)
        before.add(event)
    reordered = [late for early, late in zip(seen, seen[1:]) if late.seq < early.seq]
    return [
        *listed("lost", [event for event in expected if event not in found]),
        *listed("altered", [event for event in strange if event.seq in by_seq]),
        *listed("not asked for", [event for event in strange if event.seq not in by_seq]),
        *listed("repeated", repeated),
        *listed("after a later one", reordered),
    ]


def listed(what, events):
    if not events:
        return []
    more = f" and {len(events) - LISTED_MAX} more" if len(events) > LISTED_MAX else ""
    return [f"{what}: {', '.join(map(str, events[:LISTED_MAX]))}{more}"]


def judge(transcript, expected, signals, reads_comments):
    """Everything wrong with a client's transcript, after the server was restarted by `signals`."""
    problems = [*differences(expected, transcript.events), *transcript.problems]
    connections = len(signals) + 1
    if len(transcript.synced) != connections:
        problems.append(f"{len(transcript.synced)} synced in {connections} connections")
    if transcript.opened < connections:
        problems.append(f"{transcript.opened} connections opened, not {connections}")
    for before, seq in transcript.synced:
        if any(event.seq > seq for event in transcript.events[:before]):
            problems.append(f"an event past {seq} came before the synced at {seq}")
        if any(event.seq <= seq for event in transcript.events[before:]):
            problems.append(f"an event up to {seq} came after the synced at {seq}")
    # Only what ended gracefully must have ended whole.
    for signal, how in zip(signals, transcript.closed):
        if signal == "SIGTERM" and how != "clean":
            problems.append(f"the graceful shutdown ended its stream with: {how}")
    if reads_comments and not transcript.comments:
        problems.append("no comment came in the silence")
    return problems
