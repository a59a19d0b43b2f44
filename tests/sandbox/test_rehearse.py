"""Signing and verifying with a Sigstore that lives for one call, as pull requests do."""

from __future__ import annotations

import html
import shutil
import subprocess
import sys
from pathlib import Path

from sandbox.github.workflows import load

ROOT = Path(__file__).resolve().parents[2]
RUN = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_REPOSITORY": "octo-org/models",
    "GITHUB_REF": "refs/pull/1/merge",
    "GITHUB_SHA": "b" * 40,
    "GITHUB_EVENT_NAME": "pull_request",
    "GITHUB_WORKFLOW_REF": "octo-org/models/.github/workflows/train.yml@refs/pull/1/merge",
    "GITHUB_RUN_ID": "42",
    "GITHUB_RUN_ATTEMPT": "1",
}


def rehearse(model: Path, summary: Path) -> subprocess.CompletedProcess[str]:
    """As the action does, in a workspace with modules of unlucky names."""
    step = load(ROOT / "actions/rehearse/action.yml")["runs"]["steps"][-1]
    workspace = summary.parent / "workspace"
    workspace.mkdir()
    for name in ("sandbox", "slsa_for_models", "model_signing", "json"):
        (workspace / f"{name}.py").write_text("raise SystemExit('code of the workspace runs')")
    given = {
        "BIN": str(Path(sys.executable).parent),
        "MODEL": str(model),
        "TRAINING_RECORD": str(model.with_name("training.json")),
        "WORKFLOW_INPUTS": "{}",
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_ACTION_PATH": str(ROOT / "actions/rehearse"),
    }
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", step["run"]],
        cwd=workspace,
        env={
            **{name: text for name, text in step["env"].items() if "${{" not in text},
            "PATH": "/usr/bin:/bin",
            "HOME": str(summary.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            **RUN,
            **given,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_rehearsal_says_that_it_proves_nothing(
    demonstration: tuple[str, Path], tmp_path: Path
) -> None:
    out = demonstration[1]
    model = tmp_path / "tensorflow_model.keras"
    for name in (model.name, "training.json"):
        shutil.copy(out / name, tmp_path / name)
    done = rehearse(model, tmp_path / "summary.md")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERIFIED" in done.stdout and "octo-org/models" in done.stdout
    page = html.unescape((tmp_path / "summary.md").read_text(encoding="utf-8"))
    assert page.startswith(
        f"## 🧪 REHEARSED {model.name}: the chain works; this proves nothing about the model\n"
    )
    for step in ("Provenance", "Signature", "Verdict"):
        assert f"\n- ✅ {step}\n" in page
    assert "What was trained" in page
    for word in ("VERIFIED", "SLSA Build", "Verify it yourself"):
        assert word not in page
    left = {path.name for path in tmp_path.iterdir()}
    assert not {name for name in left if "sig" in name or "provenance" in name}


def test_a_model_with_another_record_does_not_pass(
    demonstration: tuple[str, Path], tmp_path: Path
) -> None:
    out = demonstration[1]
    shutil.copy(out / "training.json", tmp_path / "training.json")
    model = tmp_path / "tensorflow_model.keras"
    model.write_bytes((out / model.name).read_bytes() + b"x")
    done = rehearse(model, tmp_path / "summary.md")
    assert done.returncode == 1
    assert "training record" in done.stderr.lower()
    page = html.unescape((tmp_path / "summary.md").read_text(encoding="utf-8"))
    assert page.startswith("## ❌ REHEARSED tensorflow_model.keras: the chain does not work; ")
    assert "\n- ❌ Provenance\n" in page and "Signature" not in page
    assert "error: the training record is about another model" in page
