"""Stands before the installed programs on PATH while the documents' commands run.

The documents' keyless commands use the public Sigstore and a person's browser. Here they use the
sandbox's Sigstore and the token of the person that the documents call `you@example.com`. Nothing
else of a command is changed, and commands that name a trust configuration or a key are left alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

KEYLESS_MODEL_SIGNING = ("sign", "verify")
OTHER_METHODS = ("key", "certificate", "pkcs11-key", "pkcs11-certificate", "--help", "-h")
KEYLESS_SLSA_FOR_MODELS = ("verify", "load", "provenance", "policy")


def keyless(program: str, arguments: list[str]) -> bool:
    """Whether a command would use the public Sigstore."""
    given = {argument.partition("=")[0] for argument in arguments}
    if given & {"--trust-config", "--public-key", "--certificate-chain", "--use-staging"}:
        return False
    if program == "model_signing":
        return arguments[0] in KEYLESS_MODEL_SIGNING and not given & set(OTHER_METHODS)
    return arguments[0] in KEYLESS_SLSA_FOR_MODELS and not given & {"--help", "-h", "init"}


def main() -> None:
    program, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    added = []
    if arguments and keyless(program, arguments):
        added += ["--trust-config", os.environ["DOCUMENTS_TRUST_CONFIG"]]
        if arguments[0] in ("sign", "provenance") and "--use-ambient-credentials" not in arguments:
            added += ["--identity-token", os.environ["DOCUMENTS_IDENTITY_TOKEN"]]
    real = Path(os.environ["DOCUMENTS_PROGRAMS"]) / program
    os.execv(real, [str(real), *arguments, *added])


if __name__ == "__main__":
    main()
