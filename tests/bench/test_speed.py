"""The bench itself: it runs, and its sums are right. (Speed is for `make bench` to judge.)"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import plain_threads
import speed

from tests.support.limits import limited

ROOT = Path(speed.__file__).parents[1]
GB = 10**9


def test_the_limit_hashes_every_byte_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for index, size in enumerate((5_000_000, 3_000_000, 1, 0)):
        paths.append(tmp_path / str(index))
        paths[-1].write_bytes(bytes([index + 1]) * size)
    seen: dict[int, int] = {}

    class Counting:
        def digest(self) -> bytes:
            return b""

        def update(self, data: memoryview) -> None:
            seen[data[0]] = seen.get(data[0], 0) + len(data)

    monkeypatch.setattr(speed, "new_hash", lambda _: Counting())
    for threads in (1, 2, 3):
        seen.clear()
        assert speed.hash_limit(paths, "sha256", threads) > 0
        assert seen == {1: 5_000_000, 2: 3_000_000, 3: 1}


@pytest.mark.parametrize(
    ("sizes", "threads", "whole", "expected"),
    [
        ([10, 10, 10, 10, 10], 2, True, [25, 25]),
        ([99, 45], 2, True, [99, 45]),
        ([99, 45], 2, False, [72, 72]),
        ([99, 20, 20, 5], 3, True, [99, 23, 22]),
        ([7], 2, True, [7]),
        ([7], 2, False, [4, 3]),
    ],
)
def test_plain_threads_share_what_can_be_shared(
    sizes: list[int], threads: int, whole: bool, expected: list[int]
) -> None:
    files = [(str(index), size) for index, size in enumerate(sizes)]
    shares = plain_threads.share(files, threads, whole=whole)
    assert [sum(count for _, _, count in share) for share in shares] == expected
    parts = sorted(part for share in shares for part in share)
    for path, size in files:
        pieces = [(start, count) for name, start, count in parts if name == path]
        assert [start for start, _ in pieces] == [
            sum(count for _, count in pieces[:index]) for index in range(len(pieces))
        ]
        assert sum(count for _, count in pieces) == size


def test_the_named_models_have_the_sizes_in_their_names() -> None:
    units = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
    for name in speed.NAMED:
        number, unit = name.rpartition("(")[2].rstrip(")").split()
        size = sum(speed.MODELS[name])
        # As du says it, or in units of a thousand.
        decimal = 1000 ** (1 + list(units).index(unit))
        assert (
            min(
                abs(size / units[unit] / float(number) - 1), abs(size / decimal / float(number) - 1)
            )
            < 0.05
        )


def test_the_readme_shows_the_named_models_in_order(tmp_path: Path) -> None:
    def row(model: str, option: str = "", cold: bool = False) -> dict[str, object]:
        seconds = {f"{who} {action}": 0.5 for who in ("peer", "ours") for action in speed.ACTIONS}
        return {
            "model": model,
            "option": option,
            "cold": cold,
            "seconds": {**seconds, "go sign": 0.25, "go verify": None},
            "limit seconds": 0.0123,
        }

    rows = [row("20,000 files of 1 KB"), row(speed.FALCON, "shards"), row(speed.BERT, cold=True)]
    rows += [row("30 MB in 5 files"), *map(row, reversed(speed.NAMED))]
    lines = speed.summary({"rows": rows}).splitlines()
    assert lines[0] == "| Model | model-signing 1.1.1 | Go port | ours | hashing alone |"
    assert [line.split(" | ")[0][2:] for line in lines[2:]] == [
        *speed.NAMED,
        f"{speed.FALCON}, shards",
        "20,000 files of 1 KB",
    ]
    assert lines[2].endswith("| 0.50 / 0.50 | 0.25 / – | 0.50 / 0.50 | 0.012 |")


def test_estimates_are_bound_by_cores_by_the_largest_file_or_by_the_disk() -> None:
    rows = {
        (row["bytes"], row["way"]): row
        for row in speed.estimate({"sha256": GB, "blake3": 4 * GB, "read": 8 * GB}, startup=0.5)
    }
    largest_decides = rows[14.4 * GB, "files, SHA-256"]
    assert largest_decides["from memory"] == pytest.approx(0.5 + 9.9)
    cores_decide = rows[1000 * GB, "files, SHA-256"]
    assert cores_decide["from memory"] == pytest.approx(0.5 + 1000 / 48)
    disk_decides = rows[140 * GB, "files, BLAKE3"]
    assert disk_decides["from NVMe"] == pytest.approx(0.5 + 140 / 7)


def test_targets_are_judged() -> None:
    row = speed.Row("x", faster=(5, 5), within=1.15, memory=80)
    found = {
        "seconds": {"peer sign": 5.0, "ours sign": 1.0, "peer verify": 4.0, "ours verify": 1.2},
        "MiB": {"ours sign": 70, "ours verify": 81},
        "limit seconds": 1.0,
    }
    speed.judge(row, found)
    assert found["targets"] == {
        "sign at least 5 times faster": True,
        "verify at least 5 times faster": False,
        "sign within 1.15 of the limit": True,
        "verify within 1.15 of the limit": False,
        "at most 80 MiB": False,
    }


def test_the_page_gets_its_figures_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "speed.md"
    begin, end = "<!-- figures: written by `make bench` -->", "<!-- end of figures -->"
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    speed.replace_figures(page, "new")
    assert page.read_text() == f"before\n{begin}\nnew\n{end}\nafter\n"


def environment(role: str) -> str:
    builder = [sys.executable, ROOT / "actions" / "setup" / "environment.py", role]
    run = subprocess.run(
        builder,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    if run.returncode:
        pytest.skip(f"not tested: the environment {role!r} cannot be built here: {run.stderr}")
    return run.stdout.strip()


@pytest.mark.full
def test_a_row_is_measured(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, ROOT / "bench" / "speed.py", "--rounds", "1", "--only", "8 KB"]
    ours = environment("base")
    places = ["--ours", ours, "--peer", environment("peer"), "--cache", tmp_path]
    go = ["--go", f"{ours}/model_signing"]  # the Go port has the same command line
    run = subprocess.run(
        [*command, *places, *go, "--json", report],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert run.returncode in (0, 1), run.stderr  # 1: a target missed, on a busy machine
    (row,) = json.loads(report.read_text())["rows"]
    assert row["bytes"] == 8192
    who = ("peer", "go", "ours")
    assert set(row["seconds"]) == {f"{one} {action}" for one in who for action in speed.ACTIONS}
    assert 0 < row["limit seconds"] < row["seconds"]["ours verify"]  # whole processes, both
    assert all(seconds > 0 for seconds in row["seconds"].values())
    (signature,) = tmp_path.glob("ours-*.sig")
    stated = json.loads(signature.read_bytes())
    assert stated["mediaType"].startswith("application/vnd.dev.sigstore.bundle")


def test_the_published_figures_are_those_of_the_report() -> None:
    report = ROOT / "docs" / "speed.json"
    if not report.exists():
        pytest.skip("not tested: no figures have been published yet")
    results = json.loads(report.read_text())
    assert speed.document(results) in (ROOT / "docs" / "speed.md").read_text()
    if {row["model"] for row in results["rows"]}.issuperset(speed.NAMED):
        assert speed.summary(results) in (ROOT / "README.md").read_text()


def test_places_elsewhere_are_measured_beside_the_files(tmp_path: Path) -> None:
    for client in ("obstore", "huggingface_hub", "oras"):
        pytest.importorskip(client, reason=f"not tested: {client} is not installed")
    command = [sys.executable, str(ROOT / "bench" / "elsewhere.py"), "--gigabytes", "0.02"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    run = subprocess.run(
        [*command, "--files", "2", "--rounds", "1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment,
    )
    head, *rows = run.stdout.splitlines()
    places = ["bucket", "registry", "hub"]
    assert head.startswith("0.02 GB in 2 file(s)")
    assert [row.split()[0] for row in rows[:4]] == ["here", *places]
    assert all(float(row.split()[2]) > 0 for row in rows[:4])
    assert [row.partition(":")[0] for row in rows[4:]] == places
    assert all(row.endswith("of the speed of files here") for row in rows[4:])


@pytest.mark.skipif(os.name != "posix", reason="not tested: POSIX signals and pipes only")
def test_accuracy_that_is_told_to_end_leaves_no_training(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started")
    training = tmp_path / "python"
    # More than a pipe holds: it is heard of when somebody reads what it prints.
    training.write_text("#!/bin/sh\nhead -c 200000 /dev/zero\necho $$ > started\nexec sleep 600\n")
    training.chmod(0o700)
    bench = [sys.executable, ROOT / "bench/accuracy.py", "--data-dir", tmp_path]
    command = [*bench, "--pytorch", tmp_path, "--tensorflow", tmp_path]
    with limited(subprocess.Popen(list(map(str, command)), cwd=tmp_path)) as process:
        reader = ["cat", tmp_path / "started"]  # which can be ended, if nobody ever writes
        pid = int(subprocess.run(reader, capture_output=True, check=True, timeout=300).stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
