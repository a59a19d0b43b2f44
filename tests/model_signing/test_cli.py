"""The command line: its contract, its words, and what a wrong input of each kind looks like."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography import x509

from model_signing import api, errors
from model_signing.cli import main
from model_signing.errors import Error, UsageError
from model_signing.terminal import command_line
from sandbox.sigstore import LocalSigstore
from tests.support.limits import limited, open_fifo_to_write
from tests.support.material import (
    ROOT,
    authority,
    base64_of,
    certify,
    der,
    edited,
    leaf,
    make_model,
    new_key,
    pem,
    private_pem,
    public_pem,
    shared,
    statement,
)

PERSON = "dev@example.test"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, a key pair, an encrypted key, a certified key, a signature."""
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path)
    key, other, root = new_key(), new_key(), authority()
    holder = leaf(root)
    for name, content in {
        "key.pem": private_pem(key),
        "key.pub": public_pem(key),
        "other.pub": public_pem(other),
        "encrypted.pem": private_pem(key, b"secret"),
        "leaf.key": private_pem(holder.key),
        "leaf.pem": pem(holder.certificate),
        "root.pem": pem(root.certificate),
        "junk": b"\x00\xffjunk",
    }.items():
        (tmp_path / name).write_bytes(content)
    assert main(["sign", "key", "model", "--private-key", "key.pem", "--quiet"]) == 0
    return tmp_path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process: exit code, standard output, standard error."""

    def run(line: str | list[str]) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(line.split() if isinstance(line, str) else line)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def schema() -> Any:
    return json.loads((ROOT / "slsa_for_models/schemas/model_signing-result.v1.json").read_text())


VERIFY = "verify key model --signature model.sig --public-key key.pub"


class TestResults:
    def test_sign_and_verify_say_who_when_and_how_much(self, here: Path, run: Run) -> None:
        code, out, err = run("sign key model --private-key key.pem --signature again.sig")
        assert (code, err) == (0, "")
        assert out.startswith("signed\n")
        assert re.search(r"files: +2\n +bytes: +2061\n", out)
        assert "again.sig" in out
        code, out, err = run(VERIFY)
        assert (code, err) == (0, "")
        assert out.startswith("verified\n")
        assert re.search(r"method: +key\n +identity: +sha256:[0-9a-f]{64}\n", out)
        assert re.search(r"files: +2\n +bytes: +2061\n", out)

    def test_quiet_says_nothing(self, here: Path, run: Run) -> None:
        assert run(VERIFY + " --quiet") == (0, "", "")

    @pytest.mark.parametrize("output", ["", " --quiet", " --format json"])
    def test_warnings_are_shown(self, here: Path, run: Run, output: str) -> None:
        (here / "model/.DS_Store").write_text("x")
        line = "sign key model --private-key key.pem --signature s.sig --ignore-paths absent"
        code, _, err = run(line + output)
        assert code == 0
        assert "warning: --ignore-paths matches nothing: absent" in err
        assert "--ignore-paths .DS_Store" in err
        line = "verify key model --public-key key.pub --signature s.sig --ignore-paths gone"
        code, _, err = run(line + output)
        assert (code, err) == (0, "model_signing: warning: --ignore-paths matches nothing: gone\n")

    @pytest.mark.services
    def test_json_is_as_documented(
        self, here: Path, run: Run, sigstore: LocalSigstore, trust_config: Path
    ) -> None:
        token = sigstore.oidc.token(PERSON)
        sig = f"--trust-config {trust_config} --signature s.sig"
        who = f"--identity {PERSON} --identity-provider {sigstore.url}"
        chain = "--signing-certificate leaf.pem --certificate-chain root.pem"
        for line, code, result in (
            ("sign key model --private-key key.pem", 0, "signed"),
            (f"sign certificate model --private-key leaf.key {chain}", 0, "signed"),
            (
                "verify certificate model --signature model.sig --certificate-chain root.pem",
                0,
                "verified",
            ),
            ("inspect model.sig", 0, "UNVERIFIED"),
            ("sign key model --private-key key.pem --ignore-paths absent", 0, "signed"),
            (f"sign model --identity-token {token} {sig}", 0, "signed"),
            (f"verify model {sig} {who}", 0, "verified"),
            ("inspect s.sig", 0, "UNVERIFIED"),
            ("digest model", 0, "digest"),
            ("verify key model --signature s.sig --public-key key.pub", 1, None),
            ("verify key model --signature absent --public-key key.pub", 1, None),
            ("verify key model --sig s.sig", 2, None),
            ("vrify", 2, None),
        ):
            found, out, err = run(f"{line} --format json")
            assert (found, "warning" in err) == (code, "absent" in line and code == 0), line
            document = json.loads(out)
            jsonschema.Draft202012Validator(schema()).validate(document)
            assert document.get("result") == result

    def test_digest_is_what_a_signature_names(self, here: Path, run: Run) -> None:
        code, out, _ = run("digest model")
        bundle = json.loads((here / "model.sig").read_text())
        assert code == 0
        assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", out)
        import base64

        signed = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        assert out.strip() == "sha256:" + signed["subject"][0]["digest"]["sha256"]

    def test_inspect_lists_files(self, here: Path, run: Run) -> None:
        for index in range(12):
            (here / f"model/{index}.bin").write_bytes(b"x" * 1500)
        assert run("sign key model --private-key key.pem --quiet --signature s.sig")[0] == 0
        digest = hashlib.sha256(b"x" * 1500).hexdigest()
        code, out, _ = run("inspect s.sig")
        assert (code, out.count(digest)) == (0, 10)
        assert "4 more: --files" in out
        assert "signed at:" in out
        code, out, _ = run("inspect s.sig --files")
        assert (code, out.count(digest), "more" in out) == (0, 12, False)
        listed = json.loads(run("inspect s.sig --format json")[1])["resources"]
        assert {"name": "11.bin", "digest": digest, "algorithm": "sha256"} in listed
        assert len(listed) == 14
        run("sign key model --private-key key.pem --quiet --signature s.sig --shard-size 1000")
        assert "    11.bin:1000:1500: sha256 " in (out := run("inspect s.sig --files")[1])
        assert ", 500 bytes" in out

    def test_inspect_verifies_nothing_and_says_so(self, here: Path, run: Run) -> None:
        signature = here / "model.sig"
        forged = edited(signature.read_bytes(), "dsseEnvelope", "signatures", 0, "sig", to="AAAA")
        signature.write_bytes(forged)
        code, out, _ = run("inspect model.sig")
        assert code == 0
        assert out.startswith("UNVERIFIED")
        assert re.search(r"root digest: +" + run("digest model")[1].strip()[-64:], out)
        assert run(VERIFY)[0] == 1
        historical = shared("oms", "test-cases", "verify", "historical")
        code, out, _ = run(["inspect", str(historical / "historical-v1.1.0-sigstore/bundle.sig")])
        assert "stefanb@us.ibm.com" in out
        assert "598151086" in out
        assert "2025-10-10T02:12" in out  # of its timestamp

    def test_fingerprints(self, here: Path, run: Run) -> None:
        sign = "sign certificate model --private-key leaf.key --signing-certificate leaf.pem"
        assert run(sign)[0] == 0
        verify = "verify certificate model --signature model.sig --certificate-chain root.pem"
        code, _, err = run(verify + " --log-fingerprints")
        assert code == 0
        assert len(re.findall(r"sha256 (?:[0-9A-F]{2}:){31}[0-9A-F]{2}", err)) == 2

    def test_version_and_help(self, run: Run) -> None:
        assert run("--version")[0] == 0
        for line in ("--help", "sign -h", "sign key --help", "verify sigstore -h", "digest -h"):
            code, out, _ = run(line)
            assert code == 0
            assert "usage: model_signing" in out
        for method in ("sigstore", "key", "certificate", "pkcs11-key", "pkcs11-certificate"):
            assert f"model_signing sign {method} my-model" in run(f"sign {method} --help")[1]


class TestOptions:
    def test_underscores_stand_for_hyphens(self, here: Path, run: Run) -> None:
        assert run("verify key model --signature model.sig --public_key=key.pub")[0] == 0
        assert run("verify key model --signature model.sig --public_key key.pub")[0] == 0

    @pytest.mark.parametrize(
        ("line", "found", "fix"),
        [
            ("sgin key model --private-key key.pem", "sgin", "`sign`"),
            ("sign keey model --private-key key.pem", "keey", "`key`"),
            ("sign kye --private-key key.pem", "kye", "`key`"),
            ("sign sigstor model", "sigstor", "`sigstore`"),
            ("verify certficate model --signature model.sig", "certficate", "`certificate`"),
            ("verify pkcs11-key model --signature model.sig", "pkcs11-key", None),
            ("sign key model --private-ky key.pem", "--private-ky", "`--private-key`"),
            ("sign key model --privatekey=key.pem", "--privatekey", "`--private-key`"),
            ("sign model --use-ambient-credential", "--use-ambient-credential", "credentials`"),
            ("sign key model --private-key key.pem --hash-algorithm sha25", "sha25", "`sha256`"),
        ],
    )
    def test_a_slip_is_understood_not_obeyed(
        self, here: Path, run: Run, line: str, found: str, fix: str | None
    ) -> None:
        before = (here / "model.sig").read_bytes()
        code, out, err = run(line)
        assert (code, out) == (2, "")
        assert re.search(rf"found: +{re.escape(found)}\n", err)
        assert fix is None or fix in err
        assert (here / "model.sig").read_bytes() == before

    @pytest.mark.services
    def test_without_a_method_it_is_sigstore(
        self, here: Path, run: Run, sigstore: LocalSigstore, trust_config: Path
    ) -> None:
        token = sigstore.oidc.token(PERSON)
        (here / "token").write_text(token + "\n")
        trust = f"--trust-config {trust_config}"
        who = f"--identity {PERSON} --identity-provider {sigstore.url}"
        assert run(f"sign model --identity-token {token} {trust}")[0] == 0
        assert run(f"verify model --signature model.sig {trust} {who}")[0] == 0
        assert run(f"sign --identity-token-file token {trust} model")[0] == 0
        code, out, _ = run(f"verify --signature model.sig {trust} {who} model")
        assert code == 0
        assert PERSON in out
        assert "localhost" in out

    def test_a_model_may_be_called_like_a_method(self, here: Path, run: Run) -> None:
        (here / "keys").mkdir()
        (here / "keys" / "w").write_text("1")
        code, _, err = run("sign keys --identity-token junk")
        assert code == 1
        assert "unknown value" not in err

    def test_the_identity_to_expect_is_shown(
        self, here: Path, run: Run, sigstore: LocalSigstore, trust_config: Path
    ) -> None:
        sign = f"sign model --identity-token {sigstore.oidc.token(PERSON)}"
        assert run(f"{sign} --trust-config {trust_config}")[0] == 0
        for given in ("", f"--identity {PERSON}", f"--identity-provider {sigstore.url}"):
            code, out, err = run(f"verify model --signature model.sig {given}")
            assert (code, out) == (2, "")
            assert "UNVERIFIED" in err
            assert f"--identity {PERSON} --identity-provider {sigstore.url}\n" in err

    def test_a_claimed_identity_is_quoted_for_the_shell(self, here: Path, run: Run) -> None:
        evil = "'; rm -rf ~; echo '"
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(evil)])
        issuer = x509.UnrecognizedExtension(
            x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8"), b"\x0c\x02ok"
        )
        forged = {"rawBytes": base64_of(der(certify("evil", None, [names, issuer]).certificate))}
        material = {"certificate": forged, "tlogEntries": [{"logIndex": "1"}]}
        data = edited((here / "model.sig").read_bytes(), "verificationMaterial", to=material)
        (here / "model.sig").write_bytes(data)
        code, _, err = run("verify model --signature model.sig")
        assert code == 2
        command = err.split("then pass ")[1].strip()
        assert shlex.split(command)[:2] == ["--identity", evil]

    def test_passwords(self, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        sign = "sign key model --private-key encrypted.pem"
        code, _, err = run(sign)
        assert code == 1
        assert "MODEL_SIGNING_PASSWORD" in err
        assert run(f"{sign} --password secret")[0] == 0
        assert run(f"{sign} --password wrong")[0] == 1
        monkeypatch.setenv("MODEL_SIGNING_PASSWORD", "secret")
        assert run(sign)[0] == 0
        assert run("sign key model --private-key key.pem")[0] == 0  # no matter for this key
        monkeypatch.delenv("MODEL_SIGNING_PASSWORD")
        asked: list[str] = []
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        monkeypatch.setattr(getpass, "getpass", lambda text: asked.append(text) or "secret")
        assert run(sign)[0] == 0
        assert asked == ["password of encrypted.pem: "]

    def test_ignored_paths_from_here_or_from_the_model(self, here: Path, run: Run) -> None:
        sign = "sign key model --private-key key.pem --ignore-paths"
        for path in (
            "weights",
            "model/weights",
            str(here / "model" / "weights"),
            "./model/weights/",
        ):
            code, out, _ = run(f"{sign} {path}")
            assert code == 0
            assert re.search(r"files: +1\n", out)

    def test_serializations(self, here: Path, run: Run) -> None:
        for options in ("--shard-size 100", "--hash-algorithm blake2b", "--hash-algorithm blake3"):
            assert run(f"sign key model --private-key key.pem {options} --jobs 1")[0] == 0
            assert run(VERIFY + " --jobs 2")[0] == 0

    def test_unsigned_files(self, here: Path, run: Run) -> None:
        (here / "model" / "more").write_text("x")
        code, _, err = run(VERIFY)
        assert code == 1
        assert "more" in err
        code, out, _ = run(VERIFY + " --ignore-unsigned-files")
        assert code == 0
        assert re.search(r"unsigned: +more", out)

    def test_the_log_level(self, here: Path, run: Run) -> None:
        assert run("--log-level warning digest model")[0] == 0
        assert run("--log_level warning sign model --identity-token junk")[0] == 1
        assert run("--log-level=warning sign model --identity-token junk")[0] == 1


WRONG: list[tuple[str, int, str]] = [
    ("", 2, "COMMAND"),
    ("sign", 2, "METHOD"),
    ("sign key", 2, "required"),
    ("sign key model", 2, "--private-key"),
    ("sign key model --private-key key.pem model", 2, "one argument too many"),
    ("sign key model model/weights --private-key key.pem", 2, "part of another"),
    ("sign key junk key.pub --private-key key.pem --signature-name s", 2, "the same signature"),
    ("sign key model --private-key key.pem --signature-name a/b", 2, "a name, not a path"),
    ("sign key model junk --private-key key.pem --signature s", 2, "--signature is of one model"),
    ("verify key model junk --public-key key.pub --signature s", 2, "--signature is of one model"),
    ("verify key model junk --public-key key.pub --jobs 0", 2, "jobs"),
    ("verify key model junk --public-key key.pub --copy-to x", 2, "--copy-to is of one model"),
    ("sign key model --private-key", 2, "--private-key"),
    ("sign key absent --private-key key.pem", 1, "absent"),
    ("sign key model --private-key absent", 1, "cannot read the file"),
    ("sign key model --private-key model", 1, "cannot read the file"),
    ("sign key model --private-key junk", 1, "not a private key\n  where:    junk"),
    ("sign key model --private-key key.pub", 1, "found:    a public key"),
    ("sign key model --private-key key.pem --signature absent/x.sig", 1, "no such directory"),
    ("sign key model --private-key key.pem --signature model", 1, "model"),
    ("sign key model --private-key key.pem --shard-size x", 2, "--shard-size"),
    ("sign key model --private-key key.pem --shard-size 0", 2, "shard"),
    ("sign key model --private-key key.pem --jobs 0", 2, "jobs"),
    ("sign key model --private-key key.pem --ignore-paths ../x", 2, "ignore"),
    ("sign key model --private-key key.pem --ignore-paths *", 2, "ignore"),
    ("sign key model --private-key key.pem --timestamp-url ftp://x", 1, "timestamp"),
    ("sign certificate model --private-key leaf.key", 2, "--signing-certificate"),
    ("sign certificate model --private-key key.pem --signing-certificate leaf.pem", 1, "not of"),
    ("sign certificate model --private-key key.pem --signing-certificate junk", 1, "certificate"),
    ("sign pkcs11-key model", 2, "--pkcs11-uri"),
    ("sign pkcs11-key model --pkcs11-uri x", 2, "PKCS #11 URI"),
    ("sign pkcs11-key model --pkcs11-uri pkcs11:object=a?module-path=/absent", 1, "not installed"),
    ("sign model --trust-config absent --identity-token x", 1, "cannot read the file"),
    ("sign model --trust-config junk --identity-token x", 1, "trust configuration"),
    ("sign model --identity-token x --identity-token-file junk", 2, "not both"),
    ("verify key junk --public-key key.pub", 1, "no signature in the model or beside it"),
    ("verify key absent --public-key key.pub", 1, "no such model\n  where:    absent"),
    ("verify key model --signature model.sig", 2, "--public-key"),
    ("verify key absent --signature model.sig --public-key key.pub", 1, "absent"),
    ("verify key model --signature absent --public-key key.pub", 1, "cannot read the file"),
    ("verify key model --signature junk --public-key key.pub", 1, "where:    junk"),
    ("verify key model --signature key.pub --public-key key.pub", 1, "this file is no signature"),
    ("verify key model --signature model --public-key key.pub", 1, "cannot read the file"),
    ("verify key model --signature model.sig --public-key absent", 1, "cannot read the file"),
    ("verify key model --signature model.sig --public-key key.pem", 1, "found:    a private key"),
    ("verify key model --signature model.sig --public-key other.pub", 1, "another key"),
    (VERIFY + " --tsa-certificate-chain junk", 1, "not a certificate\n  where:    junk"),
    (VERIFY + " --no-ignore-git-paths", 2, "for signing"),
    (VERIFY + " --ignore-paths ../x", 2, "ignore"),
    ("verify certificate model --signature model.sig", 2, "whose certificates"),
    ("verify certificate model --signature model.sig --certificate-chain junk", 1, "certificate"),
    ("verify certificate model --signature model.sig --certificate-chain root.pem", 1, "method"),
    ("verify model --signature model.sig", 2, "not signed with Sigstore"),
    ("verify model --signature model.sig --identity a --identity-provider b", 1, "method"),
    (
        "verify model --signature model.sig --identity a --identity-provider b "
        "--source-repository x",
        2,
        "not a repository",
    ),
    ("digest absent", 1, "absent"),
    ("digest junk --shard-size -1", 2, "shard"),
    ("inspect absent", 1, "cannot read the file"),
    ("inspect junk", 1, "this file is no signature\n  where:    junk"),
    ("inspect model", 1, "cannot read the file"),
]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("sign key '' --private-key key.pem", "MODEL_PATH"),
        ("sign key model --private-key ''", "--private-key"),
        ("sign key model --private-key=", "--private-key"),
        ("verify key ' ' --signature model.sig --public-key key.pub", "MODEL_PATH"),
        (f"{VERIFY} --ignore-paths ''", "--ignore-paths"),
        ("verify model --signature model.sig --identity ''", "--identity"),
        ("verify model --signature model.sig --source-repository ''", "--source-repository"),
        ("digest ''", "MODEL_PATH"),
        ("inspect ''", "BUNDLE"),
    ],
)
def test_an_empty_value_is_no_value(here: Path, run: Run, line: str, name: str) -> None:
    code, out, err = run(shlex.split(line))
    assert (code, out) == (2, "")
    assert f"{name} is empty" in err


@pytest.mark.parametrize(("line", "code", "words"), WRONG, ids=[line for line, _, _ in WRONG])
def test_a_wrong_input_of_each_kind(here: Path, run: Run, line: str, code: int, words: str) -> None:
    before = sorted(path for path in here.rglob("*"))
    found, out, err = run(line)
    assert found == code, err
    assert out == ""
    message = err.removeprefix("model_signing: error: ")
    assert message != err
    assert message.strip()
    assert words in err
    for trace in ("Traceback", "<class", " object at 0x", "b'", "PosixPath", "Error("):
        assert trace not in err
    assert sorted(path for path in here.rglob("*")) == before


def test_names_cannot_write_to_the_terminal(here: Path, run: Run) -> None:
    (here / "model" / "\x1b[2Jevil\n::error::x").write_text("x")
    code, _, err = run(VERIFY)
    assert code == 1
    assert "\x1b" not in err
    assert not any(line.startswith("::") for line in err.splitlines())


def test_names_are_no_commands_to_a_runner(here: Path, run: Run) -> None:
    """GitHub's runner obeys `::command::` at the start of a line, and `##[command]` anywhere."""
    (here / "model" / "##[set-output name=verdict]verified").write_text("x")
    code, _, err = run(VERIFY)
    assert code == 1
    assert "##[" not in err
    assert r"\x23#[set-output" in err
    assert errors.printable(" ::error::x") == r" \x3a:error::x"
    assert errors.printable("a::b") == "a::b"


class TestEnds:
    """The one exit path."""

    @pytest.mark.parametrize(
        ("raised", "code", "words"),
        [
            (KeyboardInterrupt(), 130, "interrupted"),
            (MemoryError(), 1, "not enough memory"),
            (RecursionError(), 1, "nested too deeply"),
            (OSError(28, "No space left on device", "model.sig"), 1, "No space left on device"),
            (ZeroDivisionError("division"), 1, "internal error"),
        ],
    )
    def test_every_end_has_a_message(
        self,
        here: Path,
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
        raised: BaseException,
        code: int,
        words: str,
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise raised

        monkeypatch.setattr(api, "verify", fail)
        found, out, err = run(VERIFY)
        assert (found, out) == (code, "")
        assert words in err
        assert "Traceback" not in err

    def test_a_developer_may_see_the_traceback(
        self, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(api, "verify", fail)
        monkeypatch.setenv("MODEL_TRANSPARENCY_DEBUG", "1")
        with pytest.raises(ZeroDivisionError):
            run(VERIFY)

    def test_a_terminal_without_the_letters(self, here: Path) -> None:
        (here / "model").rename(here / "модель")
        command = [sys.executable, "-m", "model_signing", "digest", "модель", "--format", "json"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
        assert (
            subprocess.run(
                command,
                env=environment,
                check=False,
                timeout=300,
            ).returncode
            == 0
        )
        verify = ["verify", "key", "модель", "--signature", "model.sig", "--public-key", "key.pub"]
        run = subprocess.run(
            [*command[:3], *verify],
            env=environment,
            capture_output=True,
            check=False,
            timeout=300,
        )
        assert (run.returncode, run.stderr) == (0, b"")
        assert rb"\u043c" in run.stdout

    def test_a_reader_that_goes_away(self, here: Path) -> None:
        command = [sys.executable, "-m", "model_signing", "inspect", "model.sig"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        read, write = os.pipe()
        os.close(read)
        run = subprocess.run(
            command,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            check=False,
            timeout=300,
        )
        os.close(write)
        assert (run.returncode, run.stderr) == (1, "")

    def test_ctrl_c_leaves_nothing(self, here: Path) -> None:
        os.mkfifo(here / "key.fifo")  # reading the key waits until somebody writes one
        command = [sys.executable, "-m", "model_signing", "sign", "key", "model"]
        command += ["--private-key", "key.fifo", "--signature", "new.sig"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        with limited(run) as process:
            writer = open_fifo_to_write(here / "key.fifo")
            for _ in range(10):  # a signal between two instructions only shows at the next one
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=20)
                    break
            _, err = process.communicate(timeout=60)
            os.close(writer)
        assert (process.returncode, err) == (130, "interrupted\n")
        assert not (here / "new.sig").exists()


class TestParser:
    """Shared with the other command line."""

    def parser(self) -> command_line.Parser:
        parser = command_line.Parser(prog="x")
        parser.add_argument("--one-two")
        parser.add_argument("rest", nargs="*")
        return parser

    def test_values_keep_their_underscores(self) -> None:
        assert self.parser().parse_args(["--one_two=a_b", "c_d"]).one_two == "a_b"
        assert self.parser().parse_args(["--", "--one_two"]).rest == ["--one_two"]

    def test_no_abbreviations(self) -> None:
        with pytest.raises(UsageError, match="unknown option"):
            self.parser().parse_args(["--one", "x"])

    def test_refusals_carry_their_own_exit_code(self, capsys: pytest.CaptureFixture[str]) -> None:
        class Odd(Error):
            exit_code = 1

        def fail(_: object) -> int:
            raise Odd("odd", where="here", fix="do it")

        def build() -> command_line.Parser:
            parser = self.parser()
            parser.set_defaults(run=fail)
            return parser

        assert command_line.run(build, [], "x") == 1
        assert capsys.readouterr().err == "x: error: odd\n  where:    here\n  fix:      do it\n"
        assert command_line.run(build, ["--nope"], "x") == 2


def test_a_statement_of_another_kind_is_no_model_signature(here: Path, run: Run) -> None:
    from model_signing.methods.key import key_signer

    signature = key_signer((here / "key.pem").read_bytes())(statement())
    (here / "model.sig").write_bytes(signature)
    code, _, err = run(VERIFY)
    assert code == 1
    assert "predicateType" in err
