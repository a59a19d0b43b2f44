"""What a training command runs on, as far as it can change the model's bytes.

Neither the machine's name nor a user's, an address or a path is read.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slsa_for_models.evidence.training_record import (
    MOST_PACKAGES,
    Environment,
)
from slsa_for_models.training.confinement import Confinement

# The instruction sets that numerical libraries choose their code by: x86-64, then AArch64.
_CPU_FEATURES = """
    sse4_1 sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512bw avx512dq avx512vl avx512_vnni
    avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16
    asimd asimdhp asimddp asimdfhm sve sve2 bf16 i8mm svebf16 svei8mm
"""
# Asked of the command's own interpreter, which may be another than ours.
_ASK = """
import json, platform
from importlib import metadata
found = {(one.metadata["Name"] or ""): one.version or "" for one in metadata.distributions()}
print(json.dumps({"python": platform.python_version(), "packages": found}))
"""
_MAX_ANSWER = 1 << 20
_PATIENCE = 120.0  # seconds


def describe(
    confinement: Confinement,
    variables: Mapping[str, str],
    program: str,
    *,
    requirements_sha256: str | None,
    source_sha256: str,
) -> Environment:
    """The environment of a command, by its own interpreter, asked as confined as it will be.

    Args:
        confinement: Where it runs.
        variables: The variables that it has.
        program: Its first word, which is asked if it is a Python by its name; else that on PATH.
        requirements_sha256: Of the lock that it was installed from, hexadecimal, if of one.
        source_sha256: Of the source that it runs in, hexadecimal.
    """
    told = _ask(confinement, variables, program)
    packages = told.get("packages")
    packages = packages if isinstance(packages, dict) else {}
    known = {str(name): str(version) for name, version in packages.items() if name and version}
    return Environment(
        python=str(told["python"]) if "python" in told else None,
        packages=dict(sorted(known.items(), key=lambda item: item[0].lower())[:MOST_PACKAGES]),
        platform=f"{platform.system()} {platform.machine()}",
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        cpu_features=_cpu_features(Path("/proc/cpuinfo")),
        accelerators=_accelerators(Path("/proc/driver/nvidia")),
        requirements_sha256=requirements_sha256,
        source_sha256=source_sha256,
        network="allowed" if confinement.network or not confinement.confines else "none",
        confinement=confinement.form,
    )


def _ask(confinement: Confinement, variables: Mapping[str, str], program: str) -> dict[str, Any]:
    own = [program] if re.fullmatch(r"(/.*/)?python[0-9.]*", program) else []
    for name in (*own, "python", "python3"):
        command = [name, "-I", "-c", _ASK]
        try:
            done = confinement.run(
                command,
                confinement.workspace,
                variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                limit=_PATIENCE,
            )
            if done.returncode == 0 and len(done.stdout) <= _MAX_ANSWER:
                answer = json.loads(done.stdout)
                return answer if isinstance(answer, dict) else {}
        except (OSError, ValueError, subprocess.TimeoutExpired):
            continue
    return {}


def _cpu_features(cpuinfo: Path) -> tuple[str, ...]:
    """Those of `_CPU_FEATURES` that the processor has; none if unknown."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ()  # not Linux
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return tuple(sorted(set(_CPU_FEATURES.split()).intersection(flags.partition(":")[2].split())))


def _accelerators(driver: Path) -> tuple[str, ...]:
    """The models of the accelerators, and their driver's version; none if unknown."""
    found = []
    for file in (driver / "version", *sorted(driver.glob("gpus/*/information"))):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        kept = lines[:1] if file.name == "version" else [one for one in lines if "Model:" in one]
        found += [" ".join(line.split())[:256] for line in kept]
    return tuple(found[:64])
