"""What a run's page on GitHub shows: the verdict, what was trained, and how to check it at home.

Everything shown comes from files that a stranger may have written, so all of it is escaped.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from model_signing.errors import printable
from slsa_for_models.record import TrainingRecord
from slsa_for_models.report import Verdict, markdown, run_on_github

MAX_EPOCHS_SHOWN = 50
# Options of `verify` that whoever repeats it has to choose alike; not those about its output.
_REPEATED = (
    *("source_uri", "source_branch", "source_tag", "source_versioned_tag", "source_commit"),
    *("builder_id", "build_workflow_input", "identity", "identity_provider", "dataset_digest"),
    *("minimum_level", "resource_uri"),
)
_FILES = (
    *("signature", "provenance", "training_record", "vsa", "public_key", "builder_key", "policy"),
    "trust_config",
)


def page(
    verdict: Verdict, record: TrainingRecord | None, model: Path, options: dict[str, object]
) -> str:
    """The whole page, in Markdown.

    Args:
        verdict: The verdict.
        record: The training record beside the model; shown only with a model that was accepted.
        model: The model.
        options: The command line's options by name, as argparse has them.
    """
    if not verdict.accepted:
        return markdown(verdict)
    shown = training(record) if record is not None else ""
    return markdown(verdict, shown) + at_home(model, options, run_on_github(verdict.chain))


def training(record: TrainingRecord) -> str:
    """What was trained, on what, and how well: the training job's own words."""
    epochs = record.metrics.epochs[-MAX_EPOCHS_SHOWN:]
    rows = {
        "Format": f"{record.model.format} ({record.model.framework})",
        "Accuracy on held-out images": f"{record.metrics.test_accuracy:.1%}",
        "Data set": f"{record.dataset.name}, {record.dataset.train_images} images",
        "Data set SHA-256": record.dataset.sha256,
        "Parameters": ", ".join(f"{name} {value}" for name, value in record.parameters.items()),
    }
    lines = ["", "### What was trained", "", "As the training job says of itself.", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {name} | <code>{plain(value)}</code> |" for name, value in rows.items()]
    lines += [
        *("", "```mermaid", '%%{init: {"xyChart": {"width": 500, "height": 240}}}%%'),
        "xychart-beta",
        '  title "Accuracy on the training images, by epoch"',
        f"  x-axis [{', '.join(str(int(epoch.epoch)) for epoch in epochs)}]",
        '  y-axis "percent" 0 --> 100',
        f"  bar [{', '.join(f'{epoch.accuracy * 100:.1f}' for epoch in epochs)}]",
        *("```", ""),
    ]
    return "\n".join(lines)


def at_home(model: Path, options: dict[str, object], run: tuple[str, str] | None) -> str:
    """The commands that give the same verdict, with the files in the current folder.

    Args:
        model: The model.
        options: See `page`.
        run: The repository and number of the run that has the files as artifacts, if one has.
    """
    words = ["slsa_for_models verify", shlex.quote(printable(model.name))]
    for name in (*_FILES, *_REPEATED):
        for value in _values(options.get(name)):
            text = Path(str(value)).name if name in _FILES else str(value)
            words.append(f"--{name.replace('_', '-')} {shlex.quote(printable(text))}")
    command = " \\\n  ".join(words)
    get = ["pip install model-transparency"]
    if run is not None:  # each artifact becomes a folder
        get.append(
            f"gh run download {run[1]} --repo {run[0]} --dir artifacts && cp -r artifacts/*/. ."
        )
    return "\n".join(["### Verify it yourself", "", "```shell", *get, command, "```", ""])


def _values(value: object) -> Sequence[object]:
    if value is None or value == "":
        return ()
    return value if isinstance(value, list) else (value,)


def plain(value: str) -> str:
    """Text for Markdown or within <code>: no markup, links, mentions or table cells."""
    return "".join(
        char if char.isalnum() or char in " ,.=+-%()/" else f"&#{ord(char)};"
        for char in printable(value)[:500]
    )
