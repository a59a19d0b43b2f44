"""Measures hashing a model at an address beside the same files here: places on this machine.

usage: python bench/elsewhere.py [--gigabytes N] [--files N] [--rounds N]

All are whole processes, run by turns, so that what else the machine does meets all; medians of
wall time, processor time (also of the server, which shares the cores) and the most memory. The
server only sends files, as a bucket, a registry and a hub do; with more cores than two, the hash is
the limit.

Of one file there are two more rows, for what can be had here at most: `client` hashes what the
bucket's client gives as it gives it, without a second request or a copy; `socket` is no client at
all, but a thread that receives whole megabytes, beside one that hashes them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GB = 10**9
DATE = "2026-11-28T22:00:00.000Z"
COMMIT = "c" * 40
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
BEGIN = """
import hashlib, json, os, queue, resource, socket, sys, threading, time
began = time.monotonic()
"""
OURS = """
import model_signing
digest = model_signing.digest(sys.argv[1])
"""
CLIENT = """
import obstore
store = obstore.store.from_url("s3://bench", client_options={"allow_http": True})
state = hashlib.sha256()
for piece in obstore.get(store, "model/0.bin").stream(64 << 10):
    state.update(piece)
digest = hashlib.sha256(state.digest()).hexdigest()
"""
SOCKET = """
address = os.environ["AWS_ENDPOINT_URL"].rpartition("/")[2].split(":")
line = socket.create_connection(address)
line.sendall(b"GET /bench/model/0.bin HTTP/1.1\\r\\n\\r\\n")
head = b""
while not head.endswith(b"\\r\\n\\r\\n"):
    head += line.recv(1)
left, free, full = int(head.partition(b"Length: ")[2].split()[0]), queue.Queue(), queue.Queue()
for _ in range(4):
    free.put(memoryview(bytearray(1 << 20)))
def receive():
    global left
    while left:
        room = free.get()
        left -= (count := line.recv_into(room[:left], 0, socket.MSG_WAITALL))
        full.put((room, count))
    full.put((b"", 0))
threading.Thread(target=receive).start()
state = hashlib.sha256()
while (found := full.get())[1]:
    state.update(found[0][:found[1]])
    free.put(found[0])
digest = hashlib.sha256(state.digest()).hexdigest()
"""
END = """
wall, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime
print(json.dumps({"digest": digest, "wall": wall, "cpu": cpu, "MiB": used.ru_maxrss / 1024}))
"""


class Places(socketserver.StreamRequestHandler):
    """Files of one folder, as places list and send them; the less it does, the more is measured."""

    disable_nagle_algorithm = True
    folder: Path
    digests: dict[str, str]  # name -> SHA-256

    def handle(self) -> None:
        """Answers until nobody asks any more, or wants the rest."""
        with suppress(ConnectionError):
            while request := self.rfile.readline().decode():
                headers = "".join(iter(lambda: self.rfile.readline().decode(), "\r\n"))
                method, path, _ = request.split()
                asked = re.search(r"(?im)^range: bytes=(\d+)-(\d+)\r$", headers)
                self._answer(method, path, asked)

    def _answer(self, method: str, path: str, asked: re.Match[str] | None) -> None:
        """A listing, or a range of a file, which is known by its name or its digest."""
        last = path.rpartition("/")[2]
        names = {f"sha256:{digest}": name for name, digest in self.digests.items()}
        name = names.get(last, last)
        if (listing := self._listing(path)) is not None:
            self._head("200 OK", len(listing))
            self.wfile.write(listing.encode())
        elif name not in self.digests:
            self._head("404 Not Found", 0)
        else:
            file = self.folder / name
            size = file.stat().st_size
            start, stop = (int(asked[1]), int(asked[2]) + 1) if asked else (0, size)
            status = "206 Partial Content" if asked else "200 OK"
            said = f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n" if asked else ""
            etag = self.digests[name]
            self._head(status, stop - start, f'{said}X-Linked-Etag: {etag}\r\nETag: "{etag}"\r\n')
            if method == "GET":
                self._send(file, start, stop)

    def _listing(self, path: str) -> str | None:
        """What S3, a registry and the hub answer to who asks which files there are."""
        files = [(name, (self.folder / name).stat().st_size) for name in sorted(self.digests)]
        if "list-type=2" in path:
            items = "".join(
                f"<Contents><Key>model/{name}</Key><Size>{size}</Size><ETag>"
                f'"{self.digests[name]}"</ETag><LastModified>{DATE}</LastModified></Contents>'
                for name, size in files
            )
            items = f"<IsTruncated>false</IsTruncated>{items}"
            return f"<ListBucketResult>{items}</ListBucketResult>"
        kind = "application/octet-stream"
        if "/manifests/" in path:
            layers = [
                {
                    "mediaType": kind,
                    "size": size,
                    "digest": f"sha256:{self.digests[name]}",
                    "annotations": {"org.opencontainers.image.title": name},
                }
                for name, size in files
            ]
            config = {"mediaType": kind, "size": 2, "digest": f"sha256:{sha256(b'{}').hexdigest()}"}
            return json.dumps(
                {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
            )
        if "/revision/" in path:
            return json.dumps({"sha": COMMIT})
        if "/tree/" in path:
            return json.dumps(
                [
                    {
                        "type": "file",
                        "path": name,
                        "oid": COMMIT,
                        "size": size,
                        "lfs": {"oid": self.digests[name], "size": size},
                    }
                    for name, size in files
                ]
            )
        return None

    def _head(self, status: str, length: int, more: str = "") -> None:
        self.wfile.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Type: {MANIFEST}\r\n"
            f"X-Repo-Commit: {COMMIT}\r\nLast-Modified: Sat, 28 Nov 2026 22:00:00 GMT\r\n"
            f"{more}\r\n".encode()
        )

    def _send(self, path: Path, start: int, stop: int) -> None:
        with path.open("rb") as file:
            while start < stop:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)


def digest_of(file: Path) -> str:
    """SHA-256, hexadecimal, as registries and the hub list it."""
    state = sha256()
    with file.open("rb") as opened:
        while data := opened.read(1 << 20):
            state.update(data)
    return state.hexdigest()


def serve(folder: Path) -> None:
    """Serves until standard input ends; prints the port."""
    Places.folder = folder
    Places.digests = {file.name: digest_of(file) for file in folder.iterdir()}
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Places)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


@contextmanager
def places(folder: Path):  # noqa: ANN201
    """The server in a process of its own; gives it, its host and the variables that lead to it."""
    command = [sys.executable, __file__, "--serve", str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as server:
        host = f"127.0.0.1:{int(server.stdout.readline())}"
        url = f"http://{host}"
        keys = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
        try:
            yield server, host, {"AWS_ENDPOINT_URL": url, "HF_ENDPOINT": url, **keys}
        finally:
            server.stdin.close()


def hashed(script: str, address: str, variables: dict[str, str]) -> dict[str, float]:
    """One process that hashes a model."""
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BEGIN + script + END, address]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def cpu_of(process: subprocess.Popen) -> float:
    """Seconds of processor time that another process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Medians by place."""
    there = {"bucket": OURS, "registry": OURS, "hub": OURS}
    if len(list(folder.iterdir())) == 1:
        there |= {"client": CLIENT, "socket": SOCKET}
    runs: dict[str, list[dict[str, float]]] = {"here": [], **{place: [] for place in there}}
    with places(folder) as (server, host, variables):
        addresses = {"registry": f"oci://{host}/bench/model:v1", "hub": "hf://bench/model"}
        hashed(OURS, str(folder), {})  # into the page cache
        for _ in range(rounds):
            runs["here"].append(hashed(OURS, str(folder), {}))
            for place, script in there.items():
                before = cpu_of(server)
                runs[place].append(
                    hashed(script, addresses.get(place, "s3://bench/model"), variables)
                )
                runs[place][-1]["server"] = cpu_of(server) - before
    if len({run["digest"] for found in runs.values() for run in found}) != 1:
        raise SystemExit("the digests differ")
    names = ("wall", "cpu", "server", "MiB")
    return {
        place: {name: statistics.median(run.get(name, 0) for run in found) for name in names}
        for place, found in runs.items()
    }


def main() -> None:
    """Makes the files, measures, and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        size = int(args.gigabytes * GB / args.files)
        for index in range(args.files):
            with Path(folder, f"{index}.bin").open("wb") as file:
                for start in range(0, size, 1 << 20):
                    file.write(os.urandom(min(1 << 20, size - start)))
        found = measure(Path(folder), args.rounds)
    print(f"{args.gigabytes:g} GB in {args.files} file(s), {os.cpu_count()} cores, seconds")
    for place, row in found.items():
        print(f"{place:8}" + "".join(f"  {name} {value:7.2f}" for name, value in row.items()))
    here = found.pop("here")["wall"]
    for place, row in found.items():
        print(f"{place}: at {here / row['wall']:.0%} of the speed of files here")


if __name__ == "__main__":
    main()
