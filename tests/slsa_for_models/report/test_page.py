"""The page for people: whole, self-contained, and harmless with hostile texts."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.crafted import SOURCE, TRAIN, Json, Workshop, changed, refusals

HOSTILE = "</title><script>document.title='x'</script><img src=x onerror=alert(1)>\"'&\x1b[31m"
EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)
CHROMIUM = shutil.which("chromium")


class Tags(HTMLParser):
    """Every element and its attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def written(workshop: Workshop, *more: object) -> tuple[Path, int, Json]:
    model, page = workshop.model(name="<b>&model'.pth"), workshop.folder / "page.html"
    statement = workshop.train_statement(model, workshop.record(model))
    field = "predicate.buildDefinition.externalParameters.inputs.model"
    data = workshop.sign(changed(statement, field, HOSTILE), workshop.token())
    evidence = ("--provenance", workshop.write("<i>p.json", data), *EXPECTED)
    code, verdict = workshop.verify(model, *evidence, *more, "--html", page)
    return page, code, verdict


@pytest.mark.parametrize("refused", [False, True])
def test_everything_is_on_it_and_nothing_from_elsewhere(workshop: Workshop, refused: bool) -> None:
    page, code, verdict = written(workshop, *(("--source-tag", HOSTILE) if refused else ()))
    assert (code == 1) is refused
    assert bool(refusals(verdict)) is refused
    parsed = Tags(page.read_text(encoding="utf-8"))
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "img", "link", "iframe", "b", "i", "object", "base", "a"}
    assert ("svg" in names) is not refused
    for _, attributes in parsed.tags:
        assert not {name for name in attributes if name.startswith("on")}
        assert not {"src", "href", "srcset", "style"} & attributes.keys()
    assert "url(" not in page.read_text()
    assert "@import" not in page.read_text()
    for step in verdict["steps"]:
        assert step["clause"] in parsed.text
        assert step["check"] in parsed.text
    for digest in (*verdict["basis"]["files"].values(), verdict["basis"]["evidence"][0]["sha256"]):
        assert digest in parsed.text
    assert "NOT the public Sigstore" in parsed.text


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's package chromium is not installed")
def test_in_a_real_browser(workshop: Workshop) -> None:
    page, _, _ = written(workshop)
    command = [CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={workshop.folder / 'browser'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    parsed = Tags(done.stdout)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert "<title>VERIFIED" in done.stdout
    assert "document.title='x'" in parsed.text
