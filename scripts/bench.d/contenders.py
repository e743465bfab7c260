"""Owns the servers: how each is configured and started, on a free port and in an empty folder, so
that one measurement leaves nothing to the next. Used by `benchmarks`."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time

from machine import NCHAN_MODULE

START_SECONDS_MAX = 60
# Fair means: one worker, as rill has one loop; no access log; nothing closed for its age; appends
# on disk before they are answered, where a contender can do that.
NGINX = """
{load_module}
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {descriptors_max};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections {connections_max}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
    server {{
        listen {address} backlog=4096;
        {server}
    }}
}}
"""
# Of the ways to serve small files, the one that was measured to be its fastest.
FILES = ("sendfile off; open_file_cache max=20000;", "root {folder}/files;")
NCHAN = ("nchan_shared_memory_size 512M;", """
        location ~ ^/pub/(.+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length 20;
        }}
        location ~ ^/sub/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
""")


class Server:
    """A running contender."""

    def __init__(self, machine, kind, folder):
        self.machine, self.kind, self.folder = machine, kind, folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        """Starts it; returns after how many seconds it took connections, or answered for rill."""
        with open(self.folder / "server.log", "ab") as log:
            begin = time.monotonic()
            self.process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        while not self._is_up():
            if self.process.poll() is not None or time.monotonic() - begin > START_SECONDS_MAX:
                text = (self.folder / "server.log").read_text(encoding="utf-8")
                raise RuntimeError(f"{self.kind} did not start: {text}")
            time.sleep(0.001)
        return time.monotonic() - begin

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(START_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def get(self, path):
        """The whole reply to a GET, head and body, and its status and body."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            reply = b""
            while True:
                head, found, body = reply.partition(b"\r\n\r\n")
                if found:
                    fields = dict(line.lower().split(": ", 1)
                                  for line in head.decode().split("\r\n")[1:])
                    if len(body) >= int(fields["content-length"]):
                        return reply, int(head.split()[1]), body
                piece = connection.recv(65536)
                if not piece:
                    raise RuntimeError(f"{self.kind} {path}: the reply was cut")
                reply += piece

    def _command(self):
        folder, machine = self.folder, self.machine
        match self.kind:
            case "rill":
                return [machine.rill, "serve", f"--listen={self.address}",
                        f"--db={folder / 'rill.db'}", "--log-level=warn"]
            case "durable-streams":
                return [machine.durable_streams, "--port", str(self.port), "--durability", "wal",
                        "--data-dir", folder / "data"]
            case "redis":
                return ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
                        "--save", "", "--appendonly", "yes", "--appendfsync", "always",
                        "--dir", folder]
            case "nchan":
                return self._nginx(f"load_module {NCHAN_MODULE};", *NCHAN)
            case "nginx":
                (folder / "files").mkdir(exist_ok=True)
                return self._nginx("", *FILES)
            case "floor fixed":
                return [machine.floor, "fixed", self.address, "128"]
            case "floor broadcast":
                return [machine.floor, "broadcast", self.address]
        raise ValueError(f"no contender {self.kind}")

    def _nginx(self, load_module, http, server):
        configuration = self.folder / "nginx.conf"
        # Its worker would be another user's, who may not read the folder.
        user = "user root;" if os.geteuid() == 0 else ""
        configuration.write_text(NGINX.format(
            load_module=load_module, user=user, folder=self.folder, address=self.address,
            descriptors_max=self.machine.descriptors_max,
            # With less than a sixteenth of them free it closes those that have not asked yet.
            connections_max=self.machine.descriptors_max * 11 // 10,
            http=http, server=server.format(folder=self.folder)), encoding="utf-8")
        return ["nginx", "-e", self.folder / "error.log", "-c", configuration]

    def _is_up(self):
        try:
            if self.kind == "rill":
                return self.get("/healthz")[1] == 200
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


@contextlib.contextmanager
def running(machine, kind):
    """A contender in an empty folder, stopped and removed at the end."""
    folder = machine.work / "data"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    server = Server(machine, kind, folder)
    try:
        server.start()
        yield server
    finally:
        if server.process:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def free_port():
    # Below the ports that the kernel gives to connections, which would otherwise take it.
    for port in range(free_port.next, 32768):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        free_port.next = port + 1
        return port
    raise RuntimeError("no port is free")


free_port.next = 21000
