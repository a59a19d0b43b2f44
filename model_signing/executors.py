"""Where else a model may be hashed: a Dask cluster, whose workers read the files themselves.

We write no scheduler: anything that is a `concurrent.futures.Executor` can be given to `sign`,
`verify` and `digest`. This finds one by its name on the command line, and refuses workers on which
the digests might be others.
"""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_signing.errors import DependencyError, FileError, UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor

_CONNECTED_WITHIN = 20  # seconds
_LOOKED_AT, _ALONE_FOR = 1.0, 30.0  # seconds: the workers, and how long there may be none


@contextmanager
def opened(name: str | None) -> Iterator[Executor | None]:
    """The executor of a name such as `dask:tcp://10.0.0.1:8786`; None for None.

    Raises:
        UsageError: There is no such kind of executor.
        DependencyError: The package is not installed; or a worker has another version of Python
            or of this package, or not this package.
        FileError: The cluster cannot be reached, has no workers, or fails.
    """
    if name is None:
        yield None
        return
    kind, _, address = name.partition(":")
    if kind != "dask" or not address:
        expected = "dask:ADDRESS, such as dask:tcp://10.0.0.1:8786"
        raise UsageError("not an executor", where="--executor", expected=expected, found=name)
    try:
        distributed: Any = import_module("distributed")  # some of it has types, some not
    except ImportError as error:
        raise DependencyError(
            "--executor dask: needs the package distributed",
            found=str(error),
            fix="pip install 'model-transparency[dask]'",
        ) from None
    client = _connected(distributed, address)
    with client, _watched(client) as executor:
        try:
            _check_workers(client, address)
            yield executor
        except distributed.scheduler.KilledWorker as error:
            raise FileError(
                "one worker after the other ends while it hashes",
                where=address,
                found=_said(error),
                fix="see their logs: is there enough memory?",
            ) from None
        except (CancelledError, distributed.comm.CommClosedError) as error:
            words = "the Dask cluster is gone, or has no workers any more"
            raise FileError(words, where=address, found=_said(error)) from None


def _connected(distributed: Any, address: str) -> Any:  # noqa: ANN401 - distributed has no types
    """A client. What listens there and says nothing would be waited for without end."""
    import queue

    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        try:
            found.put(distributed.Client(address, timeout=_CONNECTED_WITHIN, set_as_default=False))
        except Exception as error:  # transports have their own, such as TLS without a certificate
            found.put(error)

    threading.Thread(target=connect, name="connecting", daemon=True).start()
    try:
        client = found.get(timeout=2 * _CONNECTED_WITHIN)
    except queue.Empty:
        client = TimeoutError("it listens, and does not answer")
    if isinstance(client, Exception):
        said = _said(client)
        raise FileError("the Dask scheduler cannot be reached", where=address, found=said)
    return client


@contextmanager
def _watched(client: Any) -> Iterator[Executor]:  # noqa: ANN401 - distributed has no types
    """The client's executor; a cluster without workers would keep us waiting for ever."""
    executor, ended = client.get_executor(pure=False), threading.Event()

    def watch() -> None:
        without = 0.0
        while not ended.wait(_LOOKED_AT):
            alone = client.status != "running" or not client.scheduler_info(n_workers=-1)["workers"]
            without = without + _LOOKED_AT if alone else 0.0
            if without >= _ALONE_FOR:
                executor.shutdown(wait=False)  # cancels what is waited for
                return

    watcher = threading.Thread(target=watch, name="cluster", daemon=True)
    watcher.start()
    try:
        yield executor
    finally:
        ended.set()
        watcher.join()
        executor.shutdown(wait=False)


def _check_workers(client: Any, address: str) -> None:  # noqa: ANN401 - distributed has no types
    """Before any work starts: as many versions as there are workers would be as many answers."""
    ours = versions()
    theirs = client.run(versions, on_error="return")
    if not theirs:
        fix = "start some: dask worker ADDRESS"
        raise FileError("the Dask cluster has no workers", where=address, fix=fix)
    for worker, found in sorted(theirs.items()):
        if found != ours:
            raise DependencyError(
                "a worker differs from this machine",
                where=worker,
                expected=_told(ours),
                found=_told(found) if isinstance(found, dict) else _said(found),
                fix="install the same versions on client and workers",
            )


def versions() -> dict[str, str]:
    """What has to be the same on every machine, so that the digests are."""
    code = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        code.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    installed = "none installed: a source tree"
    with suppress(metadata.PackageNotFoundError):
        installed = metadata.version("model-transparency")
    return {
        "model-transparency": installed,
        "its code": code.hexdigest()[:16],
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }


def _told(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items())


def _said(error: object) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
