"""Measures hashing a model at an address beside the same files here: a bucket on this machine.

usage: python bench/elsewhere.py [--gigabytes N] [--files N] [--rounds N]

Both are whole processes, run by turns, so that what else the machine does meets both; medians of
wall time, processor time (also of the server, which shares the cores) and the most memory. The
server only sends files; with more cores than two, the hash is the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GB = 10**9
ETAG = '"1"'
DATE = "Sat, 28 Nov 2026 22:00:00 GMT"
HASH = """
import json, resource, sys, time, model_signing
began = time.monotonic()
digest = model_signing.digest(sys.argv[1])
wall, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime
print(json.dumps({"digest": digest, "wall": wall, "cpu": cpu, "MiB": used.ru_maxrss / 1024}))
"""


class Bucket(BaseHTTPRequestHandler):
    """Files of one folder, as S3 lists and sends them."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    folder: Path

    def do_HEAD(self) -> None:
        """Whether there is such an object."""
        self.do_GET()

    def do_GET(self) -> None:
        """A listing, or a range of an object."""
        path = self.folder / self.path.rpartition("/")[2]
        if "list-type=2" in self.path:
            items = "".join(
                f"<Contents><Key>model/{one.name}</Key><Size>{one.stat().st_size}</Size>"
                f"<ETag>{ETAG}</ETag><LastModified>2026-11-28T22:00:00.000Z</LastModified></Contents>"
                for one in sorted(self.folder.iterdir())
            )
            listing = f"<IsTruncated>false</IsTruncated>{items}"
            self._head(200, len(listing) + 37)
            self.wfile.write(f"<ListBucketResult>{listing}</ListBucketResult>".encode())
        elif not path.is_file():
            self._head(404, 0)
        else:
            size = path.stat().st_size
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            start, stop = (int(asked[1]), int(asked[2]) + 1) if asked else (0, size)
            self._head(206 if asked else 200, stop - start, f"bytes {start}-{stop - 1}/{size}")
            if self.command == "GET":
                self._send(path, start, stop)

    def _head(self, status: int, length: int, content_range: str = "") -> None:
        self.send_response(status)
        headers = {"Content-Length": length, "ETag": ETAG, "Last-Modified": DATE}
        for name, value in {**headers, "Content-Range": content_range}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.flush()

    def _send(self, path: Path, start: int, stop: int) -> None:
        with path.open("rb") as file:
            while start < stop:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


def serve(folder: Path) -> None:
    """Serves until standard input ends; prints the port."""
    Bucket.folder = folder
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


@contextmanager
def bucket(folder: Path):  # noqa: ANN201
    """The server in a process of its own; gives it and the variables that lead to it."""
    command = [sys.executable, __file__, "--serve", str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as server:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        keys = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
        try:
            yield server, {"AWS_ENDPOINT_URL": url, **keys}
        finally:
            server.stdin.close()


def hashed(address: str, variables: dict[str, str]) -> dict[str, float]:
    """One process that hashes a model."""
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HASH, address]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def cpu_of(process: subprocess.Popen) -> float:
    """Seconds of processor time that another process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Medians by place."""
    runs: dict[str, list[dict[str, float]]] = {"here": [], "bucket": []}
    with bucket(folder) as (server, variables):
        hashed(str(folder), {})  # into the page cache
        for _ in range(rounds):
            runs["here"].append(hashed(str(folder), {}))
            before = cpu_of(server)
            runs["bucket"].append(hashed("s3://bench/model", variables))
            runs["bucket"][-1]["server"] = cpu_of(server) - before
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
    here, there = found["here"]["wall"], found["bucket"]["wall"]
    print(f"at {here / there:.0%} of the speed of files here")


if __name__ == "__main__":
    main()
