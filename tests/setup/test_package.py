"""What `pip install .` installs."""

import configparser
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheel, built twice with the locked build backend, at two times in two folders."""
    builder = [sys.executable, "-I", str(ROOT / "actions/setup/environment.py"), "bootstrap"]
    programs = subprocess.run(
        builder,
        capture_output=True,
        text=True,
        check=True,
        timeout=1800,
    ).stdout.strip()
    built = []
    for number in range(2):
        folder = tmp_path_factory.mktemp(f"wheel{number}")
        subprocess.run(
            [f"{programs}/python", "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
            cwd=ROOT,
            env={**os.environ, "TZ": ["UTC", "Asia/Tokyo"][number]},
            capture_output=True,
            check=True,
            timeout=1800,
        )
        built += folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheels: list[Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = wheel.namelist()
        top = {name.split("/")[0] for name in names}
        metadata = next(name for name in top if name.endswith(".dist-info"))
        assert top == {"model_signing", "slsa_for_models", metadata}
        assert {"model_signing/py.typed", "slsa_for_models/py.typed"} <= set(names)
        scripts = configparser.ConfigParser()
        scripts.read_string(wheel.read(f"{metadata}/entry_points.txt").decode())
        assert set(scripts["console_scripts"]) == {"model_signing", "slsa_for_models"}
        text = wheel.read(f"{metadata}/METADATA").decode()
        assert f"{metadata}/licenses/LICENSE" in names
    needed = {
        re.match(r"[\w-]+", line)[0]  # type: ignore[index]
        for line in re.findall(r"^Requires-Dist: (.*)$", text, re.MULTILINE)
        if "extra ==" not in line
    }
    locked = (ROOT / "requirements/base.in").read_text()
    assert needed == set(re.findall(r"^([a-z][\w-]+)", locked, re.MULTILINE))


def test_the_wheel_is_reproducible(wheels: list[Path]) -> None:
    first, second = (hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels)
    assert first == second
