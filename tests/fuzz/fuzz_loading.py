"""Mutates models of every format: no loader crashes, hangs, fills memory, writes or speaks.

usage: python -m tests.fuzz.fuzz_loading [--format FORMAT] [--cases N] [--seed N]

Each case changes a small model: bytes of a file, a member of its archive, a part of its JSON, of
its program or of its protobuf message. It is then loaded as `load` does it, in two processes that
are forks of one that has the framework:

- the first examines it under limits. It may refuse the model, and it may die;
- the second loads what the first found harmless, with no limits. It may raise an exception. It may
  not die, take longer than ten seconds or more memory than four times the model and 256 MiB, leave
  a file, or print a line that starts as a mutation does.

The same seed makes the same cases.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from slsa_for_models.models import formats
from slsa_for_models.models.safety import quarantine
from tests.support import small_models

MODULES = {"pytorch": "torch", "tensorflow": "tensorflow"}
SECONDS = 10
EXIT_LOADED, EXIT_RAISED, EXIT_MEMORY = 0, 1, 2
NUMBERS = [0, 1, -1, 2, 7, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, -(2**63)]
FORGED = "x\n::error::forged by the model\n\x1b[2J"
TEXTS = ["", " ", "..", "/etc/passwd", "__setstate__", "os", "function", "Lambda", FORGED, "é" * 40]
LINES = [
    "def __setstate__(self, state: int) -> NoneType:",
    '    torch.save(input, "written")',
    "    _0 = ops.aten.save(input)",
    "  __forward_hooks__ = [forward, ]",
    "import os",
    "    fork(input)",
]


class Mutator:
    """Changes bytes, and what lies in them, by a seeded choice."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def raw(self, data: bytes) -> bytes:
        """Some bytes, a number, a piece more or less."""
        changed = bytearray(data)
        for _ in range(self.random.choice([1, 1, 1, 2, 4, 16])):
            at = self.random.randrange(len(changed) + 1)
            kind = self.random.randrange(6)
            if kind < 3 and at < len(changed):
                changed[at] = self.random.choice([changed[at] ^ 1 << kind, 0, 255, 0x80])
            elif kind == 3:
                size = self.random.choice([1, 2, 4, 8])
                number = self.random.choice(NUMBERS) % (1 << 8 * size)
                changed[at : at + size] = number.to_bytes(size, "little")
            elif kind == 4:
                end = at + self.random.choice([1, 8, 64])
                changed[at:end] = b""
            else:
                begin = self.random.randrange(len(changed) + 1)
                changed[at:at] = changed[begin : begin + self.random.choice([1, 8, 64])]
        return bytes(changed)

    def json(self, data: bytes) -> bytes:
        """One value, key or part of a JSON text."""
        try:
            root = json.loads(data)
        except ValueError:
            return self.raw(data)
        places: list[tuple[Any, Any]] = []
        pending = [root]
        while pending:
            node = pending.pop()
            keys = node if isinstance(node, dict) else range(len(node))
            for key in keys:
                places.append((node, key))
                if isinstance(node[key], dict | list):
                    pending.append(node[key])
        node, key = self.random.choice(places)
        kind = self.random.randrange(4)
        if kind == 0:
            node[key] = self.random.choice([*NUMBERS, *TEXTS, None, [], {}, True, 1e308, [None]])
        elif kind == 1:
            other, name = self.random.choice(places)
            node[key] = json.loads(json.dumps(other[name]))
        elif kind == 2 and isinstance(node, dict):
            node[self.random.choice(TEXTS)] = node.pop(key)
        elif isinstance(node[key], int | float):
            node[key] *= self.random.choice([-1, 1000, 10**7])
        else:
            del node[key]
        return json.dumps(root).encode()

    def program(self, data: bytes) -> bytes:
        """A line of TorchScript, or a word of it."""
        lines = data.decode("latin-1").split("\n")
        at = self.random.randrange(len(lines))
        kind = self.random.randrange(4)
        if kind == 0:
            lines.insert(at, self.random.choice(LINES))
        elif kind == 1:
            lines[at] = self.random.choice(lines)
        elif kind == 2:
            lines[at] = lines[at].replace("torch.", "ops.aten.").replace("forward", "_0")
        else:
            words = lines[at].split(" ")
            words[self.random.randrange(len(words))] = self.random.choice([*TEXTS, "1" * 30, "(("])
            lines[at] = " ".join(words)
        return "\n".join(lines).encode("utf-8", "replace")

    def archive(self, data: bytes) -> bytes:
        """A member of a zip archive, which is a valid archive afterwards; or its bytes."""
        if self.random.random() < 0.25:
            return self.raw(data)
        written = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(written, "w") as new:
            members = old.infolist()
            names = [each.filename for each in members for _ in range(_weight(each.filename))]
            chosen = self.random.choice(names)
            for member in members:
                content = old.read(member)
                if member.filename == chosen:
                    content = self.member(chosen)(content)
                new.writestr(member.filename, content)
        return written.getvalue()

    def member(self, name: str) -> Callable[[bytes], bytes]:
        """How a member of that name is changed."""
        kinds = {".json": self.json, ".py": self.program}
        return kinds.get(Path(name).suffix, self.raw)

    def safetensors(self, data: bytes) -> bytes:
        """The header, whose length is right afterwards; or the bytes."""
        if self.random.random() < 0.25:
            return self.raw(data)
        (length,) = struct.unpack_from("<Q", data)
        header = self.json(data[8 : 8 + length])
        return struct.pack("<Q", len(header)) + header + data[8 + length :]

    def message(self, data: bytes, kind: Any) -> bytes:
        """One field of a protobuf message, at any depth; or the bytes."""
        if self.random.random() < 0.25:
            return self.raw(data)
        root = kind.FromString(data)
        for _ in range(self.random.choice([1, 1, 2, 4])):
            pending, places = [root], []
            while pending:
                message = pending.pop()
                for field, value in message.ListFields():
                    repeated = not hasattr(value, "DESCRIPTOR") and hasattr(value, "append")
                    places.append((message, field, value, repeated))
                    if field.message_type is None:
                        continue
                    if hasattr(value, "ListFields"):
                        pending.append(value)
                    elif hasattr(value, "values"):
                        pending += [each for each in value.values() if hasattr(each, "ListFields")]
                    else:
                        pending += value
            self._field(*self.random.choice(places))
        return root.SerializeToString()

    def _field(self, message: Any, field: Any, value: Any, repeated: bool) -> None:
        if field.message_type is not None:
            if repeated and len(value) and self.random.random() < 0.5:
                value.append(value[self.random.randrange(len(value))])
            elif repeated and len(value):
                del value[self.random.randrange(len(value))]
            else:
                message.ClearField(field.name)
            return
        choices: list[Any] = list(NUMBERS)
        if field.type == field.TYPE_STRING:
            choices = TEXTS
        elif field.type == field.TYPE_BYTES:
            given = value if isinstance(value, bytes) else value[0]
            choices = [self.raw(given), b"", given * 2, FORGED.encode()]
        elif field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
            choices = [0.0, -1.0, 1e30, float("nan"), float("inf")]
        try:
            if repeated:
                value[self.random.randrange(len(value))] = self.random.choice(choices)
            else:
                setattr(message, field.name, self.random.choice(choices))
        except (ValueError, TypeError, OverflowError):  # too large for the field
            message.ClearField(field.name)


def _weight(name: str) -> int:
    """Weights are most of a model, and hardly worth a change."""
    return 1 if "/data/" in name or name.endswith("debug_pkl") else 6


def mutate(mutator: Mutator, sample: Path, target: Path) -> None:
    """A copy of a model with something changed."""
    suffix = sample.suffix
    if sample.is_dir():
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

        shutil.copytree(sample, target)
        files = [path for path in sorted(target.rglob("*")) if path.is_file()]
        chosen = mutator.random.choice([*files, *[target / "saved_model.pb"] * 8])
        data = chosen.read_bytes()
        graph = chosen.name == "saved_model.pb"
        chosen.write_bytes(mutator.message(data, SavedModel) if graph else mutator.raw(data))
        return
    data = sample.read_bytes()
    if suffix == ".onnx":
        import onnx

        target.write_bytes(mutator.message(data, onnx.ModelProto))
    elif suffix == ".safetensors":
        target.write_bytes(mutator.safetensors(data))
    elif suffix == ".h5":
        target.write_bytes(mutator.raw(data))
    else:
        target.write_bytes(mutator.archive(data))


def _child(work: Callable[[], int], output: Path) -> tuple[int, float]:
    """Forks, works, and returns how the fork ended and after how many seconds."""
    start = time.monotonic()
    child = os.fork()
    if not child:
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - start


def _load(row: formats.Format, path: Path) -> int:
    """What a process does with a model that was found harmless."""
    signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = EXIT_LOADED
    try:
        getattr(formats.framework(row), row.load)(path)
    except Exception:
        code = EXIT_RAISED
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return EXIT_MEMORY if grown * 1024 > quarantine.most_memory(path) else code


def case(row: formats.Format, model: Path, folder: Path) -> str:
    """Loads one model; returns how that ended.

    Raises:
        AssertionError: It crashed, hung, took too much memory, wrote or spoke.
    """
    clean, output, before = folder / "clean" / row.name, folder / "output", _files(model)
    clean.parent.mkdir()
    code, _ = _child(lambda: quarantine.child(row.name, str(model), str(clean)) or 0, output)
    answer = output.read_text()
    if not answer:
        return f"died ({code})"
    refusal = json.loads(answer)
    if refusal:
        return f"refused: {refusal['message']}"
    code, seconds = _child(lambda: _load(row, clean if clean.exists() else model), output)
    said = [line for line in output.read_text(errors="replace").splitlines() if line[:2] == "::"]
    assert code in (EXIT_LOADED, EXIT_RAISED), f"loading ended with {code} after {seconds:.1f} s"
    assert not said, f"the model's own lines: {said}"
    assert _files(model) == before
    assert {path.name for path in folder.iterdir()} <= {"clean", "output", "model"}
    return "loaded" if code == EXIT_LOADED else "raised"


def _files(model: Path) -> list[Path]:
    return sorted(model.parent.rglob("*"))


def fuzz(name: str, cases: int, seed: int, first: int = 0) -> Counter[str]:
    """Runs cases of one format in this process, which has its framework from then on.

    Raises:
        AssertionError: One ended as none may; the message has its number.
    """
    row, outcomes = formats.FORMATS[name], Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        samples = Path(scratch, "samples")
        small_models.write(row.framework, samples)
        formats.framework(row)  # before the forks
        quarantine.checker(row)
        for number in range(first, first + cases):
            folder = Path(scratch, str(number))
            model = folder / "model" / name
            model.parent.mkdir(parents=True)
            mutate(Mutator(seed * 1_000_003 + number), samples / name, model)
            os.chdir(folder / "model")
            try:
                outcomes[case(row, model, folder)] += 1
            except AssertionError as error:
                kept = Path(tempfile.mkdtemp(prefix="fuzz-loading-")) / name
                (shutil.copytree if model.is_dir() else shutil.copy)(model, kept)
                raise AssertionError(
                    f"{name}, seed {seed}, case {number}: {error}; {kept}"
                ) from None
            finally:
                os.chdir(scratch)
                shutil.rmtree(folder)
    return outcomes


def main(arguments: list[str]) -> int:
    """The command line; each format has a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    names = [name for name, row in formats.FORMATS.items() if not row.runs_code]
    parser.add_argument("--format", choices=names, help="default: all of the frameworks here")
    parser.add_argument("--cases", type=int, default=10_000, help="of each; default: 10,000")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--first", type=int, default=0, help="the first case's number; default: 0")
    args = parser.parse_args(arguments)
    if args.format is None:
        codes = [
            subprocess.run(
                [sys.executable, "-m", __spec__.name, "--format", name, *arguments],
                timeout=24 * 3600,
            )
            for name in names
            if importlib.util.find_spec(MODULES[formats.FORMATS[name].framework])
        ]
        return int(any(code.returncode for code in codes))  # a crash is a negative one
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    start = time.monotonic()
    outcomes = fuzz(args.format, args.cases, args.seed, args.first)
    for outcome, count in outcomes.most_common():
        print(f"{count:>9,}  {outcome}")
    print(f"{args.cases:>9,}  cases of {args.format}, seed {args.seed}: no crash, no hang, no more")
    print(f"           memory than allowed; {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
