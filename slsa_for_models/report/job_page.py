"""What a run's page on GitHub shows: the verdict, what was trained, and how to check it at home.

Everything shown comes from files that a stranger may have written, so all of it is escaped.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from model_signing.errors import printable
from model_signing.sources import PLACES
from slsa_for_models.evidence.training_record import TrainingRecord
from slsa_for_models.report.markdown import markdown, run_on_github
from slsa_for_models.report.plain import chain_of
from slsa_for_models.verdict.result import Verdict, inputs_of

MAX_METRICS_SHOWN = 50


def page(verdict: Verdict, model: Path | str, options: Mapping[str, object]) -> str:
    """The whole page, in Markdown.

    Args:
        verdict: The verdict. What training says of itself is shown of a model that was accepted,
            and where its record was given.
        model: The model, or its address.
        options: The options that decide a verdict, by name, with their values.
    """
    if not verdict.verified:
        return markdown(verdict)
    record = verdict.record if options.get("--training-record") else None
    shown = "" if record is None else training(record)
    return markdown(verdict, shown) + at_home(model, options, run_on_github(chain_of(verdict)))


def training(record: TrainingRecord) -> str:
    """What was trained, on what, and how well: the training job's own words."""
    shown = [name for name in record.metrics if not name.startswith("epoch.")]
    rows = {
        "Command": shlex.join(record.command),
        "Data": inputs_of(record) or "none",
        "Data SHA-256": record.dataset.sha256 or "none",
        "Network": record.environment.network,
        **{name: f"{record.metrics[name]:.4g}" for name in shown[:MAX_METRICS_SHOWN]},
    }
    if record.parameters:
        given = (f"{name} {value}" for name, value in record.parameters.items())
        rows["Parameters"] = ", ".join(given)
    lines = ["", "### What was trained", "", "As the training job says of itself.", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {plain(name)} | <code>{plain(value)}</code> |" for name, value in rows.items()]
    return "\n".join([*lines, ""])


def at_home(model: Path | str, options: Mapping[str, object], run: tuple[str, str] | None) -> str:
    """The commands that give the same verdict, with the files in the current folder.

    Args:
        model: The model, or its address.
        options: See `page`.
        run: The repository and number of the run that has the files as artifacts, if one has.
    """
    given = [
        (name, value)
        for name, values in options.items()
        for value in (values if isinstance(values, list) else [values])
        if value not in (None, "", False)
    ]
    # Files of one name cannot lie in one folder: they are named as they were.
    paths = {value for _, value in [("", model), *given] if isinstance(value, Path)}
    names = Counter(path.name for path in paths)
    words = ["slsa_for_models verify", shlex.quote(_local(model, names))]
    for option, value in given:
        text = _local(value, names)
        # A value that begins with a dash would be taken for another option.
        joint = "=" if text.startswith("-") else " "
        words.append(option if value is True else f"{option}{joint}{shlex.quote(text)}")
    command = " \\\n  ".join(words)
    extra = f"[{PLACES[model.partition('://')[0]][1]}]" if isinstance(model, str) else ""
    get = [f"pip install {shlex.quote(f'model-transparency{extra}')}"]
    if run is not None:
        get += [f"gh run download {run[1]} --repo {run[0]} --dir artifacts", _gather(model)]
    return "\n".join(["### Verify it yourself", "", "```shell", *get, command, "```", ""])


def _gather(model: Path | str) -> str:
    """Puts the files of a run's artifacts side by side: of each artifact a folder was made.

    The artifact of a model that is a folder holds it (`train.yml`) or is it (`sign.yml`).
    """
    if isinstance(model, str) or not model.is_dir():
        return "cp -r artifacts/*/. ."
    name = shlex.quote(printable(model.absolute().name))
    return (
        f'for a in artifacts/*; do if [ "$a" = artifacts/{name} ] && [ ! -e "$a"/{name} ]; '
        'then cp -r "$a" .; else cp -r "$a"/. .; fi; done'
    )


def _local(path: object, names: Mapping[str, int]) -> str:
    """A file's name in the current folder, where no other file has it; anything else as it is."""
    if not isinstance(path, Path):
        return printable(str(path))
    text = printable((path.name if names[path.name] == 1 else "") or str(path))
    return f"./{text}" if text.startswith("-") else text


def plain(value: str) -> str:
    """Text for Markdown or within <code>: no markup, links, mentions or table cells."""
    return "".join(
        char if char.isalnum() or char in " ,.=+-%()/" else f"&#{ord(char)};"
        for char in printable(value)[:500]
    )
