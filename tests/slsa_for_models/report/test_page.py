"""The page for people: whole, self-contained, and harmless with hostile texts."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from model_signing.errors import Error
from model_signing.methods.sigstore_trust import SigstoreTrust
from slsa_for_models.report import page
from slsa_for_models.verdict.expectations import Expectations, builder_from_option
from slsa_for_models.verdict.verification import verify
from tests.support.crafted import SOURCE, TRAIN, Json, Workshop, changed, refusals

NASTY = (
    "</title></style></svg></h1><script>document.title='x'</script>",
    "<img src=x onerror=document.title='x'>",
    "'\" onload=document.title='x' x='",
    "<svg onload=document.title='x'><a href=javascript:document.title='x'>",
    "]]><!-- --!><iframe srcdoc='<script>parent.document.title=1</script>'>",
    "&lt;b&gt;&#60;b>{{7*7}}${7*7}",
    "\0\x1b[31m\r\n\u2028\u202e\udc80\U0001f4a3",
    "x" * 500,
)
HOSTILE = "</title><script>document.title='x'</script><img src=x onerror=alert(1)>\"'&\x1b[31m"
EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)
# As Debian, Ubuntu and GitHub's runners call it.
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


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
    model, html = workshop.model(name="<b>&model'.pth"), workshop.folder / "page.html"
    statement = workshop.train_statement(model, workshop.record(model))
    field = "predicate.buildDefinition.externalParameters.inputs.model"
    data = workshop.sign(changed(statement, field, HOSTILE), workshop.token())
    evidence = ("--provenance", workshop.write("<i>p.json", data), *EXPECTED)
    code, verdict = workshop.verify(model, *evidence, *more, "--html", html)
    return html, code, verdict


@pytest.mark.parametrize("refused", [False, True])
def test_everything_is_on_it_and_nothing_from_elsewhere(workshop: Workshop, refused: bool) -> None:
    html, code, verdict = written(workshop, *(("--source-tag", HOSTILE) if refused else ()))
    assert (code == 1) is refused
    assert bool(refusals(verdict)) is refused
    parsed = Tags(html.read_text(encoding="utf-8"))
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "img", "link", "iframe", "b", "i", "object", "base", "a"}
    assert ("svg" in names) is not refused
    for _, attributes in parsed.tags:
        assert not {name for name in attributes if name.startswith("on")}
        assert not {"src", "href", "srcset", "style"} & attributes.keys()
    assert "url(" not in html.read_text()
    assert "@import" not in html.read_text()
    for step in verdict["steps"]:
        assert step["clause"] in parsed.text
        assert step["check"] in parsed.text
    for digest in (*verdict["basis"]["files"].values(), verdict["basis"]["evidence"][0]["sha256"]):
        assert digest in parsed.text
    assert "NOT the public Sigstore" in parsed.text


def hostile(value: Any, place: str, nasty: str) -> Any:
    """The same with every text in it replaced: names, digests, addresses, whatever is shown."""
    if isinstance(value, str):
        return f"{place} {nasty}"
    if isinstance(value, Error):
        told = {name: f"{place}.{name} {nasty}" for name in ("where", "expected", "found", "fix")}
        return type(value)(f"{place} {nasty}", **told)
    if isinstance(value, (tuple, list)):
        return type(value)(hostile(one, f"{place}.{n}", nasty) for n, one in enumerate(value))
    if isinstance(value, Mapping):
        items = enumerate(value.values())
        return {f"{place}.key{n} {nasty}": hostile(one, f"{place}.{n}", nasty) for n, one in items}
    if not is_dataclass(value):
        return value
    changed = copy.copy(value)
    for one in fields(value):
        if one.name not in ("outcome", "method"):  # one of a few words each
            new = hostile(getattr(value, one.name), f"{place}.{one.name}", nasty)
            object.__setattr__(changed, one.name, new)
    return changed


def hostile_pages(workshop: Workshop) -> dict[str, str]:
    """What is said of an accepted and of a refused model, with nasty texts in every field."""
    model = workshop.model()
    evidence: dict[str, Any] = {
        "signature": workshop.sign_model(model),
        "provenance": [workshop.train_provenance(model)],
        "training_record": workshop.record_file(model),
        "trust": SigstoreTrust(trust_config=workshop.trust_config),
    }
    expected = Expectations(source_uri=SOURCE).stating(
        builders=(builder_from_option(TRAIN),), inputs={"model": "pytorch_model.pth"}
    )
    pages = {}
    for state, more in (("VERIFIED", {}), ("REFUSED", {"tag": "v1"})):
        verdict = verify(model, expected.stating(**more), **evidence)
        assert page.headline(verdict).startswith(state)
        for number, nasty in enumerate(NASTY):
            pages[f"{state}-{number}.html"] = page.page(hostile(verdict, "verdict", nasty))
    return pages


ALLOWED = frozenset(
    {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "ul", "li", "table"}
    | {"tbody", "tr", "td", "br", "svg", "rect", "text", "path"}
)
SHOWN = ("model.name", "steps.0.subject", "steps.0.title", "steps.0.clause", "steps.0.found")
SHOWN += ("trust_root", "evidence.0.0", "evidence.0.1", "model.files.key0", "expected.source_uri")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="not tested: no chromium here")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_texts_in_every_field_in_a_real_browser(workshop: Workshop, scheme: str) -> None:
    """All pages in frames of one, so that the browser starts once."""
    pages = hostile_pages(workshop)
    for name, text in pages.items():
        workshop.write(name, text.encode())
    assert len(pages) == 2 * len(NASTY)
    frames = "".join(f'<iframe src="{name}"></iframe>' for name in pages)
    script = """<script>onload = () => { const all = [...document.querySelectorAll("iframe")];
      document.body.textContent = JSON.stringify(all.map(frame => {
        const inner = frame.contentDocument, dark = matchMedia("(prefers-color-scheme: dark)");
        return { tags: [...inner.querySelectorAll("*")].map(one => one.localName),
          attributes: [...inner.querySelectorAll("*")].flatMap(one => one.getAttributeNames()),
          title: inner.title, text: inner.body.textContent, dark: dark.matches,
          wide: inner.documentElement.scrollWidth > inner.documentElement.clientWidth,
          colour: getComputedStyle(inner.querySelector("h1")).borderLeftColor }; })); };</script>"""
    whole = f"<meta charset=utf-8><style>iframe {{ width: 60rem }}</style>{frames}{script}"
    start = workshop.write("all.html", whole.encode())
    command = [CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"]
    command += ["--allow-file-access-from-files", "--virtual-time-budget=20000"]
    command += [f"--user-data-dir={workshop.folder / 'browser'}", start.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    seen = json.loads(unescape(done.stdout.partition("<body>")[2].partition("</body>")[0]))
    for name, one in zip(pages, seen, strict=True):
        assert set(one["tags"]) <= ALLOWED, name
        assert not {"src", "href", "style", "srcdoc"} & set(one["attributes"])
        assert not [attribute for attribute in one["attributes"] if attribute.startswith("on")]
        assert one["title"].startswith(f"{name.partition('-')[0]} verdict.model.name"), name
        for place in SHOWN:
            assert f"verdict.{place}" in one["text"], (name, place)
        assert not one["wide"], name
        assert one["dark"] is (scheme == "dark")
        good = ("rgb(63, 185, 80)" if scheme == "dark" else "rgb(26, 127, 55)", "VERIFIED")
        assert (one["colour"] == good[0]) is name.startswith(good[1])


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="not tested: no chromium here")
def test_it_can_be_printed(workshop: Workshop) -> None:
    """On a few pages of paper, all of it, whatever the screen is like."""
    shown, _, verdict = written(workshop)
    paper = workshop.folder / "page.pdf"
    command = [CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--blink-settings=preferredColorScheme=0", f"--print-to-pdf={paper}"]
    command += [f"--user-data-dir={workshop.folder / 'browser'}", shown.as_uri()]
    subprocess.run(command, capture_output=True, timeout=90, check=True)
    pages = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    rows = len(verdict["steps"])
    assert rows // 20 <= pages <= 2 + rows // 5


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="not tested: no chromium here")
def test_in_a_real_browser(workshop: Workshop) -> None:
    html, _, _ = written(workshop)
    command = [CHROMIUM or "", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={workshop.folder / 'browser'}", html.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    parsed = Tags(done.stdout)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert "<title>VERIFIED" in done.stdout
    assert "document.title='x'" in parsed.text
