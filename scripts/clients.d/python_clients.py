"""Two clients of PyPI: `httpx-sse`, which leaves reconnecting to its user, and `requests-sse`,
which reconnects by itself. Run by run.py with the client's name and one JSON argument; prints what
the client dispatches, a line each, as run.py describes. Judges nothing.
"""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse
from requests_sse import EventSource


def report(**line):
    print(json.dumps(line), flush=True)


def with_httpx_sse(url, last):
    headers, retry_ms = {}, 2000
    with httpx.Client(timeout=None) as client:
        while True:
            try:
                with connect_sse(client, "GET", url, headers=dict(headers)) as source:
                    source.response.raise_for_status()
                    report(open=True)
                    for event in source.iter_sse():
                        report(message=[event.event, event.id, event.data])
                        if last in event.data:
                            return
                        headers["Last-Event-ID"] = event.id
                        retry_ms = event.retry or retry_ms
                report(closed="clean")
            except httpx.RemoteProtocolError as error:
                report(closed=str(error))
            except httpx.TransportError as error:
                print(f"error: {error!r}", file=sys.stderr)
            time.sleep(retry_ms / 1000)


def with_requests_sse(url, last):
    with EventSource(url, on_open=lambda: report(open=True)) as source:
        for event in source:
            report(message=[event.type, event.last_event_id, event.data])
            if last in event.data:
                return


if __name__ == "__main__":
    name, argument = sys.argv[1], json.loads(sys.argv[2])
    clients = {"httpx-sse": with_httpx_sse, "requests-sse": with_requests_sse}
    clients[name](argument["url"], argument["last"])
