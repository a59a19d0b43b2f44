"""The workflows and actions keep to the rules and please the linters; and both bite.

Each planted fault is an edit of a real file, made in a copy. `by` names who has to notice it: a
rule of ours, or a linter and its rule.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.checkout import programs_of
from tests.workflows.rules import ROOT, RULES, findings

PEDANTIC = ("--persona", "pedantic", "--strict-collection")
LINTERS = {
    "actionlint": [["actionlint"]],
    "zizmor": [["zizmor", "--offline", "--quiet", *PEDANTIC, ".github", "actions"]],
    "check-jsonschema": [
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", "WORKFLOWS"],
        ["check-jsonschema", "--builtin-schema", "vendor.github-actions", "ACTIONS"],
        ["check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml"],
    ],
}


def lint(linter: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Runs a linter over a tree; the first of its calls that fails, else the last."""
    workflows = [str(path) for path in sorted(root.glob(".github/workflows/*.yml"))]
    actions = [str(path) for path in sorted(root.glob("actions/*/action.yml"))]
    programs = programs_of("lint")
    for command in LINTERS[linter]:
        arguments = [
            word
            for argument in command
            for word in {"WORKFLOWS": workflows, "ACTIONS": actions}.get(argument, [argument])
        ]
        done = subprocess.run(
            [str(programs / arguments[0]), *arguments[1:]],
            cwd=root,
            env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode:
            return done
    return done


def copy_of_the_files(folder: Path) -> Path:
    shutil.copytree(ROOT / ".github", folder / ".github")
    shutil.copytree(ROOT / "actions", folder / "actions")
    (folder / ".git").mkdir()  # where actionlint takes the root of the project to be
    return folder


@dataclass(frozen=True)
class Fault:
    """Replace `old` by `new` in `file`, once; `by` has to say something that matches `says`."""

    name: str
    by: str
    file: str
    old: str
    new: str
    says: str


TRAIN = ".github/workflows/train.yml"
SIGN = ".github/workflows/sign.yml"
ATTEST = ".github/workflows/attest.yml"
VERIFY = ".github/workflows/verify.yml"
CI = ".github/workflows/ci.yml"
RELEASE = ".github/workflows/release.yml"
CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
NEWLINE_RUN = "      - name: Planted\n        shell: bash\n        run: "

FAULTS = [
    Fault("action by tag", "zizmor", CI, CHECKOUT, "actions/checkout@v7", "unpinned-uses"),
    Fault(
        "action by tag, our rule",
        "rules",
        CI,
        CHECKOUT,
        "actions/checkout@v7",
        r"third_parties_are_pinned: not pinned",
    ),
    Fault(
        "hash without a version",
        "rules",
        CI,
        CHECKOUT,
        CHECKOUT.partition(" ")[0],
        r"third_parties_are_pinned: no version",
    ),
    Fault(
        "generator by branch",
        "rules",
        TRAIN,
        "generator_generic_slsa3.yml@v2.1.0",
        "generator_generic_slsa3.yml@main",
        r"third_parties_are_pinned: the generator",
    ),
    Fault(
        "generator by short tag",
        "rules",
        TRAIN,
        "generator_generic_slsa3.yml@v2.1.0",
        "generator_generic_slsa3.yml@v2",
        r"third_parties_are_pinned: the generator",
    ),
    Fault(
        "untrusted text in a command",
        "zizmor",
        CI,
        'run: make "$TARGET"',
        'run: make "$TARGET" "${{ github.event.pull_request.title }}"',
        "template-injection",
    ),
    Fault(
        "untrusted text in a command, seen by actionlint",
        "actionlint",
        CI,
        'run: make "$TARGET"',
        'run: make "$TARGET" "${{ github.event.pull_request.title }}"',
        "potentially untrusted",
    ),
    Fault(
        "an input in an action's command",
        "rules",
        "actions/train/action.yml",
        '--workflow-inputs "$INPUTS"',
        '--workflow-inputs "${{ inputs.model }}"',
        "no_expression_in_a_shell",
    ),
    Fault(
        "a broad token",
        "zizmor",
        TRAIN,
        "permissions: {}\n# A job",
        "permissions: write-all\n# A job",
        "excessive-permissions",
    ),
    Fault(
        "no `permissions: {}` at the top",
        "rules",
        SIGN,
        "permissions: {}\ncache-mode",
        "cache-mode",
        "no_permission_by_default",
    ),
    Fault(
        "a grant without a reason",
        "zizmor",
        TRAIN,
        "actions: read # the generator reads which workflow runs",
        "actions: read",
        "undocumented-permissions",
    ),
    Fault(
        "a grant without a reason, our rule",
        "rules",
        TRAIN,
        "actions: read # the generator reads which workflow runs",
        "actions: read",
        "every_grant_has_a_reason",
    ),
    Fault(
        "credentials left behind",
        "zizmor",
        CI,
        "          persist-credentials: false\n\n      - name: Set up Python",
        "          fetch-depth: 1\n\n      - name: Set up Python",
        "artipacked",
    ),
    Fault(
        "credentials left behind, our rule",
        "rules",
        SIGN,
        "          persist-credentials: false\n",
        "",
        "no_credentials_stay_behind",
    ),
    Fault(
        "id-token in the job that trains",
        "rules",
        TRAIN,
        "    permissions:\n      contents: read # the caller's commit\n",
        "    permissions:\n      id-token: write # planted\n",
        "training_cannot_sign: job 'train'",
    ),
    Fault(
        "a job that trains and inherits its token",
        "rules",
        TRAIN,
        "    permissions:\n      contents: read # the caller's commit\n",
        "",
        "training_cannot_sign: job 'train'",
    ),
    Fault(
        "a job that signs and runs a build",
        "rules",
        SIGN,
        "      - name: Sign the model\n",
        f"{NEWLINE_RUN}make model\n\n      - name: Sign the model\n",
        "signing_runs_no_foreign_code",
    ),
    Fault(
        "signing without comparing digests",
        "rules",
        SIGN,
        "          expected: ${{ inputs.subjects }}\n",
        "",
        "signing_checks_first: job 'sign'",
    ),
    Fault(
        "signing after a comparison with nothing",
        "rules",
        SIGN,
        "          expected: ${{ inputs.subjects }}\n",
        '          expected: ${{ inputs.subjects }}\n          list-only: "true"\n',
        "signing_checks_first: job 'sign'",
    ),
    Fault(
        "an artifact where programs start",
        "rules",
        SIGN,
        "          path: evidence\n",
        "",
        "downloads_have_a_folder: job 'verify'",
    ),
    Fault(
        "a path of the machine outside a container",
        "rules",
        "actions/train/action.yml",
        "        SOURCE: ${{ inputs.source }}\n",
        "        SOURCE: ${{ inputs.source }}\n        HERE: ${{ github.action_path }}\n",
        "no_host_path",
    ),
    Fault(
        "attesting what was fetched and not compared",
        "rules",
        ATTEST,
        "      - name: Write the subjects as a file\n",
        "      - name: Planted\n        uses: actions/download-artifact@"
        "3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c # v8.0.1\n"
        "        with:\n          name: x\n          path: y\n\n"
        "      - name: Write the subjects as a file\n",
        "signing_checks_first: job 'attest'",
    ),
    Fault(
        "an artifact fetched after the comparison",
        "rules",
        TRAIN,
        "      - name: Sign the model\n",
        "      - name: Planted\n        uses: actions/download-artifact@"
        "3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c # v8.0.1\n"
        "        with:\n          name: other\n\n"
        "      - name: Sign the model\n",
        "signing_checks_first: job 'sign'",
    ),
    Fault(
        "a cache in a job that signs",
        "rules",
        SIGN,
        "      - name: Sign the model\n",
        "      - name: Planted\n        uses: actions/cache@"
        f"{'0' * 40} # v5.0.0\n        with:\n          path: x\n          key: x\n\n"
        "      - name: Sign the model\n",
        "no_cache: it uses a cache",
    ),
    Fault(
        "a cache that training can write",
        "rules",
        TRAIN,
        "cache-mode: none\n",
        "",
        "no_cache: the workflow does not say",
    ),
    Fault(
        "a cache that one job can write",
        "rules",
        TRAIN,
        "    timeout-minutes: 350\n",
        "    timeout-minutes: 350\n    cache-mode: write-only\n",
        "no_cache: job 'train' has a cache mode of its own",
    ),
    Fault(
        "a cache mode that does not exist",
        "actionlint",
        TRAIN,
        "cache-mode: none\n",
        "cache-mode: nothing\n",
        "cache-mode",
    ),
    Fault(
        "signing in pull_request_target",
        "rules",
        TRAIN,
        "      !cancelled() && needs.train.result == 'success' && "
        "!startsWith(github.event_name, 'pull_request')\n",
        "      !cancelled() && needs.train.result == 'success'\n",
        "never_signs_for_a_pull_request: job 'sign' may sign",
    ),
    Fault(
        "a refusal of one kind of pull request",
        "rules",
        SIGN,
        "        if: startsWith(github.event_name, 'pull_request')\n",
        "        if: github.event_name == 'pull_request'\n",
        "never_signs_for_a_pull_request: it looks for one kind",
    ),
    Fault(
        "a refusal of pull requests that only warns",
        "rules",
        SIGN,
        "action 'rehearse'\"\n          exit 1\n",
        "action 'rehearse'\"\n",
        "never_signs_for_a_pull_request: job 'sign' may sign",
    ),
    Fault(
        "a second place for the default",
        "rules",
        SIGN,
        "        default: default\n",
        "        default: github-attestation\n",
        "what_cannot_work_is_refused_first: workflow_call: it has a default of its own",
    ),
    Fault(
        "training before it is known whether it can be signed",
        "rules",
        TRAIN,
        "      - name: Choose the second witness\n        id: witness\n"
        "        uses: $/actions/witness\n",
        "      - name: Planted\n        id: witness\n        uses: $/actions/setup\n",
        "what_cannot_work_is_refused_first: its first job begins with",
    ),
    Fault(
        "a witness that fails without a word",
        "rules",
        SIGN,
        "    if: ${{ !cancelled() && (needs.provenance.result == 'failure' || "
        "needs.attest.result == 'failure') }}\n",
        "    if: needs.attest.result == 'failure'\n",
        "a_witness_that_fails_names_the_other",
    ),
    Fault(
        "a job after a failure that hides it",
        "rules",
        SIGN,
        'OTHER or none if it does so again"\n          exit 1\n',
        'OTHER or none if it does so again"\n',
        "failures_stay_failures: job 'witness-failed'",
    ),
    Fault(
        "a cache in the set-up action",
        "rules",
        "actions/setup/action.yml",
        "        python-version: ${{ inputs.python-version }}\n",
        "        python-version: ${{ inputs.python-version }}\n        cache: pip\n",
        "no_cache: step 'Set up Python'",
    ),
    Fault(
        "a cache where a release is made",
        "rules",
        RELEASE,
        '          python-version: "3.11"\n',
        '          python-version: "3.11"\n          cache: pip\n',
        "no_cache: step 'Set up Python' turns a cache on",
    ),
    Fault(
        "signing on the caller's runner",
        "rules",
        TRAIN,
        "&& (needs.provenance.result == 'success' || needs.attest.result == 'success')\n"
        "    runs-on: ubuntu-latest",
        "&& (needs.provenance.result == 'success' || needs.attest.result == 'success')\n"
        "    runs-on: ${{ inputs.runner }}",
        "only_training_chooses_its_runner: job 'sign'",
    ),
    Fault(
        "a secret",
        "rules",
        SIGN,
        "          signature: ${{ steps.model.outputs.name }}.sig\n",
        "          signature: ${{ secrets.NAME }}.sig\n",
        "no_secret",
    ),
    Fault(
        "inherited secrets",
        "zizmor",
        TRAIN,
        "generator_generic_slsa3.yml@v2.1.0\n",
        "generator_generic_slsa3.yml@v2.1.0\n    secrets: inherit\n",
        "secrets-inherit",
    ),
    Fault(
        "a refusal that is ignored",
        "rules",
        VERIFY,
        "        id: verify\n",
        "        id: verify\n        continue-on-error: true\n",
        "failures_stay_failures",
    ),
    Fault(
        "an exit code that is ignored",
        "rules",
        "actions/verify/action.yml",
        '--summary "$GITHUB_STEP_SUMMARY"',
        '--summary "$GITHUB_STEP_SUMMARY" || true',
        "failures_stay_failures",
    ),
    Fault(
        "signing whatever happened before",
        "rules",
        TRAIN,
        "      !cancelled() && needs.train.result == 'success' && "
        "!startsWith(github.event_name, 'pull_request')\n"
        "      && (needs.provenance.result == 'success' || needs.attest.result == 'success')\n",
        "      !cancelled()\n",
        "failures_stay_failures: job 'sign'",
    ),
    Fault(
        "a trigger with a writing token",
        "zizmor",
        CI,
        "  pull_request:\n",
        "  pull_request_target:\n",
        "dangerous-triggers",
    ),
    Fault(
        "a trigger with a writing token, our rule",
        "rules",
        CI,
        "  pull_request:\n",
        "  pull_request_target:\n",
        "no_privileged_trigger",
    ),
    Fault(
        "two programs in one step of an action",
        "rules",
        "actions/sign/action.yml",
        "      run: >-\n",
        '      run: >-\n        "$BIN/slsa_for_models" train &&\n',
        "actions_are_one_command",
    ),
    Fault(
        "an input that does not exist",
        "actionlint",
        TRAIN,
        "          plan: ${{ toJSON(inputs) }}\n",
        "          plans: ${{ toJSON(inputs) }}\n",
        'input "plans" is not defined',
    ),
    Fault(
        "an output that does not exist",
        "actionlint",
        TRAIN,
        "${{ steps.subjects.outputs.subjects }}",
        "${{ steps.subjects.outputs.subject }}",
        'property "subject" is not defined',
    ),
    Fault(
        "a job that is not needed",
        "actionlint",
        TRAIN,
        "    needs: [train, attest, sign]\n",
        "    needs: [attest, sign]\n",
        'property "train" is not defined',
    ),
    Fault(
        "an unquoted variable",
        "actionlint",
        CI,
        'run: make "$TARGET"',
        "run: make $TARGET",
        "SC2086",
    ),
    Fault(
        "a job that belongs elsewhere",
        "check-jsonschema",
        SIGN,
        "    timeout-minutes: 60\n",
        "    timeout: 60\n",
        "timeout",
    ),
    Fault(
        "an action without a description",
        "check-jsonschema",
        "actions/sign/action.yml",
        "description: >-\n  Sign a model",
        "about: >-\n  Sign a model",
        "description",
    ),
    Fault(
        "an ecosystem that Dependabot does not know",
        "check-jsonschema",
        ".github/dependabot.yml",
        "package-ecosystem: uv",
        "package-ecosystem: wheels",
        "wheels",
    ),
]


def test_every_file_keeps_to_the_rules() -> None:
    assert findings(ROOT) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_planted_fault_is_found(fault: Fault, tmp_path: Path) -> None:
    root = copy_of_the_files(tmp_path)
    file = root / fault.file
    text = file.read_text(encoding="utf-8")
    assert fault.old in text, "the fault has nothing to replace: the test is out of date"
    file.write_text(text.replace(fault.old, fault.new, 1), encoding="utf-8")
    if fault.by == "rules":
        said = "\n".join(findings(root))
    else:
        done = lint(fault.by, root)
        said = done.stdout + done.stderr
        assert done.returncode != 0
    assert re.search(fault.says, said), said


def test_the_untouched_copy_is_clean(tmp_path: Path) -> None:
    """So that a planted fault is all that a linter can be complaining about."""
    root = copy_of_the_files(tmp_path)
    assert findings(root) == []
    for linter in LINTERS:
        done = lint(linter, root)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_planted_fault() -> None:
    said = " ".join(fault.says for fault in FAULTS if fault.by == "rules")
    assert [rule.__name__ for rule in RULES if rule.__name__ not in said] == []
