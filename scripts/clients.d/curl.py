"""curl, and the bytes of the stream as they are: the head, every line, and how it ends are held to
the wire's rules, which are narrower than the standard's. Run by run.py with one JSON argument;
prints what the stream says, a line each, as run.py describes, and a line for each broken rule.
"""

import json
import os
import re
import subprocess
import sys
import time

HEAD_RULES = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
    "transfer-encoding": "chunked",
    "content-encoding": None,
    "content-length": None,
}
CURSOR = re.compile(rb"[1-9][0-9]*\.[0-9a-f]{8}")
RETRY = re.compile(rb"retry: [1-9][0-9]*")
FIELD = re.compile(rb"(event|id|data): ([^\n]+)")


def report(**line):
    print(json.dumps(line), flush=True)


class Stream:
    """One connection's body, line by line."""

    def __init__(self):
        self.lines = 0
        self.block = b""
        self.after_comment = False
        # The server said when to come back: its last line.
        self.sent_away = False

    def take(self, line):
        """Judges a line, without its LF; the frame that it ends, or None."""
        self.lines += 1
        after_comment, self.after_comment = self.after_comment, False
        if b"\r" in line or b"\x00" in line or line.startswith(b"\xef\xbb\xbf"):
            report(violation=f"line {self.lines} has a CR, a NUL or a BOM: {line[:80]!r}")
        if self.lines == 1:
            if line != b"retry: 2000":
                report(violation=f"the first line is {line[:80]!r}")
        elif self.sent_away:
            report(violation=f"line {self.lines} follows the last retry: {line[:80]!r}")
        elif RETRY.fullmatch(line) and not self.block:
            self.sent_away = True
        elif line == b":" and not self.block:
            self.after_comment = True
            report(comment=True)
        elif line:
            self.block += line + b"\n"
        elif after_comment or not self.block:
            report(violation=f"line {self.lines} is a blank line of its own")
        else:
            block, self.block = self.block, b""
            return self.frame(block)
        return None

    def frame(self, block):
        matches = [FIELD.fullmatch(line) for line in block.splitlines()]
        fields = dict(match.groups() for match in matches if match)
        name = fields.get(b"event", b"message")
        known = name in (b"message", b"synced", b"reset") and fields.keys() >= {b"id", b"data"}
        cursor = fields.get(b"id", b"")
        begins = name != b"message" and cursor == b"0"
        if len(fields) != len(matches) or not known or not (begins or CURSOR.fullmatch(cursor)):
            report(violation=f"line {self.lines} ends what is no frame: {block[:200]!r}")
            return None
        return [name.decode(), cursor.decode(), fields[b"data"].decode()]


def judge_head(head):
    status, *fields = head.decode("latin-1").split("\r\n")
    if status != "HTTP/1.1 200 OK":
        report(violation=f"the status line is {status!r}")
    found = {}
    for field in fields:
        name, _, value = field.partition(":")
        found[name.lower()] = value.strip()
    for name, expected in HEAD_RULES.items():
        if found.get(name) != expected:
            report(violation=f"{name} is {found.get(name)!r}, not {expected!r}")


def follow(curl, last):
    """Reads one connection to its end: the last cursor, and whether `last` was seen."""
    pending, stream, cursor = b"", None, None
    while piece := os.read(curl.stdout.fileno(), 65536):
        pending += piece
        if stream is None:
            head, end, rest = pending.partition(b"\r\n\r\n")
            if not end:
                continue
            judge_head(head)
            report(open=True)
            pending, stream = rest, Stream()
        *lines, pending = pending.split(b"\n")
        for line in lines:
            if frame := stream.take(line):
                report(message=frame)
                cursor = frame[1]
                if last in frame[2]:
                    return cursor, True
    if stream and curl.wait() == 0 and (pending or stream.block):
        report(violation=f"a clean end cuts a frame: {(stream.block + pending)[:80]!r}")
    return cursor, False


def main(url, last):
    cursor = None
    while True:
        command = ["curl", "-sS", "-N", "-i", "--compressed", "-H", "Accept: text/event-stream"]
        if cursor:
            command += ["-H", f"Last-Event-ID: {cursor}"]
        with subprocess.Popen([*command, url], stdout=subprocess.PIPE) as curl:
            reached, ended = follow(curl, last)
            if ended:
                curl.terminate()
                return
        if reached:
            cursor = reached
            report(closed="clean" if curl.returncode == 0 else f"curl exits {curl.returncode}")
        time.sleep(2)


if __name__ == "__main__":
    argument = json.loads(sys.argv[1])
    main(argument["url"], argument["last"])
