"""What a training run ran on, as far as it can change the model's bytes.

Neither the machine's name nor a user's, an address or a path is read.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import slsa_for_models
from model_signing.errors import Error
from model_signing.safe_files import read_bounded
from slsa_for_models.errors import TrainingError
from slsa_for_models.evidence.training_record import Environment, File, listing_digest

PACKAGES = {
    "pytorch": ("torch", "numpy", "onnx", "onnxruntime", "safetensors"),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "keras", "h5py", "numpy"),
}

# The instruction sets that numerical libraries choose their code by: x86-64, then AArch64.
_CPU_FEATURES = """
    sse4_1 sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512bw avx512dq avx512vl avx512_vnni
    avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16
    asimd asimdhp asimddp asimdfhm sve sve2 bf16 i8mm svebf16 svei8mm
"""


# What actions/setup leaves in the environments that it builds: a copy of their lock.
LOCK_NAME = "locked-requirements.txt"
_MAX_LOCK_BYTES = 16 << 20


def describe(framework: str, requirements: Path | None = None) -> Environment:
    """The running interpreter's environment.

    Args:
        framework: `pytorch` or `tensorflow`.
        requirements: The hash-locked requirements it was installed from; by default those that
            our own set-up left in the environment, if it did.

    Raises:
        TrainingError: `requirements` cannot be read.
    """
    own = Path(sys.prefix, LOCK_NAME)
    requirements = requirements or (own if own.is_file() else None)
    try:
        lock = None
        if requirements:
            lock = hashlib.sha256(read_bounded(requirements, _MAX_LOCK_BYTES)).hexdigest()
    except Error as error:
        raise TrainingError(
            "the requirements cannot be read",
            where=str(requirements),
            found=error.found or error.message,
        ) from error
    return Environment(
        python=platform.python_version(),
        packages=_versions(PACKAGES[framework]),
        platform=f"{platform.system()} {platform.machine()}",
        cpu_features=_cpu_features(Path("/proc/cpuinfo")),
        requirements_sha256=lock,
        source_sha256=_source_digest(Path(slsa_for_models.__file__).parent),
    )


def _versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed, by name as the distribution spells it."""
    installed = {(found.name or "").lower(): found.version for found in metadata.distributions()}
    return {name: installed[name] for name in names if name in installed}


def _cpu_features(cpuinfo: Path) -> tuple[str, ...]:
    """Those of `_CPU_FEATURES` that the processor has; none if unknown."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ()  # not Linux
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return tuple(sorted(set(_CPU_FEATURES.split()).intersection(flags.partition(":")[2].split())))


def _source_digest(package: Path) -> str:
    """The digest of the listing of all modules, also in the folders below, sorted by name."""
    modules = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    return listing_digest(
        File(name, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for name, path in sorted(modules.items())
    )
