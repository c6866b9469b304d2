"""The page: what its source holds, and what it does in a browser."""

from __future__ import annotations

import base64
import html.parser
import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from mmpt.models.adapter_files import save_adapter
from mmpt.report.details import masks
from mmpt.report.load import load
from mmpt.report.page import embed
from tests.commands import report as main
from tests.report.browser import Browser, program
from tests.report.builder import HOSTILE, write, write_masks
from tests.tiny import adapted


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three methods with hyperparameters, masks, a failed trial and hostile names."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        for rate, score in ((0.05, 0.6), (0.5, 0.9)):
            name = f"multimask-{rate}-{seed}"
            settings = {"method.lr.prefix": rate}
            write_masks(write(root, "multimask", seed, score + seed / 100, name=name, settings=settings))
        write(root, "prefix", seed, 0.7, answers=[True, False])
        write(root, HOSTILE[0], seed, 0.5, answers=[False, False], name=f"hostile-{seed}")
    write(root, "a$\\alpha$ $x", 1, 0.5)
    write(root, "prefix", 3, status={"status": "failed", "error": {"message": HOSTILE[1]}})
    main([str(root), "--out", str(root / "out"), "--baseline", "prefix", "--published", "--formats", "html"])
    return root / "out" / "report.html"


class Reader(html.parser.HTMLParser):
    """Counts elements and keeps attributes that name something outside."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]


def test_the_page_asks_nothing_from_outside(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.links and all(link.startswith("#") for link in reader.links)
    assert not re.search(r"url\([^#]|@import|https?://", text)
    assert "img" not in reader.tags and reader.tags.count("script") == 2


def test_every_picture_has_a_title_and_a_description(report: Path) -> None:
    pictures = re.findall(
        r'<svg viewBox="[^"]*" role="img" aria-label="([^"]+)"><title>([^<]+)</title><desc>([^<]+)</desc>',
        report.read_text(),
    )
    assert len(pictures) == report.read_text().count("<svg ")
    titles = {title for _, title, _ in pictures}
    assert {"Score by method", "Score against trainable parameters", "Score against training seconds"} <= titles
    assert {"Validation score over training", "Training loss", "Effect of method.lr.prefix on multimask"} <= titles
    assert any(title.startswith("Route load: ") for title in titles)
    assert any(title.startswith("Masks at cross: multimask lr.prefix=0.5, seed 1") for title in titles)


def test_the_data_in_the_page_are_json(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="rows">(.*?)</script>', text, re.S)
    assert found is not None and "<" not in found[1]
    assert {row["method"] for row in json.loads(found[1])} == {"multimask", "prefix", HOSTILE[0], "a$\\alpha$ $x"}


@pytest.mark.parametrize("name", [*HOSTILE, "<!--", "]]>", "\u2028"])
def test_embedded_json_cannot_break_out(name: str) -> None:
    text = embed([name])
    assert not set("<>&\u2028") & set(text) and json.loads(text) == [name]


def test_masks_are_what_the_adapter_has(tmp_path: Path) -> None:
    write_masks(write(tmp_path))
    (run,) = load([tmp_path]).runs
    found, problem = masks(run)
    assert not problem and list(found) == ["cross"]
    expected = 1 / (1 + np.exp(-np.linspace(-3, 3, 12, dtype=np.float32).reshape(2, 3, 2)))
    np.testing.assert_allclose(found["cross"], expected, rtol=1e-6)
    (tmp_path / "rte-prefix-1" / "adapter" / "adapter.safetensors").write_bytes(b"\xff" * 20)
    found, problem = masks(run)
    assert not found and problem.startswith("masks of rte-prefix-1 cannot be read")


@pytest.mark.parametrize("granularity", ["layer", "head", "key_value"])
def test_finer_masks_are_shown_as_the_method_shows_them(granularity: str, tmp_path: Path) -> None:
    options = {"mask_granularity": granularity, "mask_temperature": 0.5, "num_routes": 3}
    method = adapted("multimask", options).method
    save_adapter(write(tmp_path) / "adapter", method, {})
    (run,) = load([tmp_path]).runs
    found, problem = masks(run)
    wanted = method.mask_values()
    assert not problem and found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert values.shape == (3, 10, 3)
        np.testing.assert_allclose(found[name], values.numpy(), atol=1e-6)


def test_the_page_has_unique_ids_and_no_notation_in_names(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 100
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)
    assert "a$\\alpha$ $x" in text and "<title>a$\\alpha$ $x: 0.500" in text


def test_figures_are_written_for_papers(report: Path, tmp_path: Path) -> None:
    assert main([str(report.parents[1]), "--figures", str(tmp_path)]) == 1
    files = {path.name for path in tmp_path.iterdir()}
    stems = {name.rpartition(".")[0] for name in files}
    assert files == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "pdf", "png")}
    assert any(stem.endswith("Score_by_method") for stem in stems)
    heads = {path.suffix: path.read_bytes()[:5] for path in tmp_path.iterdir()}
    assert heads == {".svg": b"<?xml", ".pdf": b"%PDF-", ".png": b"\x89PNG\r"}
    stem = tmp_path / "rte-bundled-02-Score_against_trainable_parameters"
    drawn = stem.with_suffix(".svg").read_text()
    root = ElementTree.fromstring(drawn)  # an XML file of its own
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and float(root.attrib["width"].removesuffix("pt")) < 3.7 * 72
    assert "var(--" not in drawn and "<text" not in drawn and "<!-- multimask -->" in drawn  # colours, fonts, a legend
    assert b"/FontFile2" in stem.with_suffix(".pdf").read_bytes()
    assert imread(stem.with_suffix(".png")).shape[1] > 3 * 300


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if program() is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


COLUMN = "[...document.querySelectorAll('#task-1 tbody tr')].map(row => row.children[{}].dataset.value)"


def test_the_page_in_a_browser(report: Path, browser: Browser, tmp_path: Path) -> None:
    browser.size(1200, 1000)
    browser.scheme("light")
    browser.open(report)
    assert browser.run("document.title") == "Report of runs"

    # sorts, by mouse and by keyboard
    browser.run("document.querySelectorAll('#task-1 thead button')[1].click()")
    means = [float(value) for value in browser.run(COLUMN.format(1))]
    assert means == sorted(means, reverse=True) and len(means) == 5
    browser.run("document.querySelectorAll('#task-1 thead button')[0].focus()")
    browser.press("Enter", "\r")
    names = browser.run(COLUMN.format(0))
    assert names == sorted(names, key=str.casefold)
    assert browser.run("document.querySelector('#task-1 [aria-sort]').ariaSort") == "ascending"
    browser.press("Enter", "\r")
    assert browser.run(COLUMN.format(0)) == names[::-1]
    browser.press("Tab")
    assert browser.run("document.activeElement.textContent") == "test, mean ± sd"
    assert "Sorted by method" in browser.run("document.getElementById('status').textContent")

    # toggles a method everywhere, by keyboard
    browser.run("scrollTo(0, 300)")
    before = imread(browser.screenshot(tmp_path / "light.png"))
    parts = "document.querySelectorAll('#task-1 .m2, #task-1 [id*=\"-m2-\"]')"
    shown = f"[...{parts}].filter(one => one.getClientRects().length).length"
    assert browser.run(shown) > 4
    browser.run("document.querySelector('input[data-off=\"off-2\"]').focus()")
    browser.press(" ", " ")
    assert browser.run("document.querySelector('input[data-off=\"off-2\"]').checked") is False
    assert browser.run(shown) == 0
    browser.run("scrollTo(0, 300)")
    after = imread(browser.screenshot(tmp_path / "toggled.png"))
    assert (before != after).any(axis=-1).mean() > 0.001
    browser.press(" ", " ")
    assert browser.run(shown) > 4

    # what one sees: a bright page with colours, a dark one, and one that fits a narrow window
    assert before[..., :3].mean() > 0.8 and len(np.unique((before[..., :3] * 15).round().reshape(-1, 3), axis=0)) > 20
    browser.scheme("dark")
    assert imread(browser.screenshot(tmp_path / "dark.png"))[..., :3].mean() < 0.3
    browser.size(400, 800)
    assert browser.run("document.documentElement.scrollWidth") <= 400
    browser.size(1400, 900)
    assert browser.run("[...document.querySelectorAll('.scroll')].every(one => one.scrollWidth <= one.clientWidth)")

    # a column on request, and the names of points by keyboard
    column = "document.querySelector('#task-1 td.col-median').getClientRects().length"
    assert browser.run(column) == 0
    browser.run("document.querySelector('[data-off=\"without-median\"]').click()")
    assert browser.run(column) == 1
    browser.run("document.querySelector('#task-1 figure svg').focus()")
    browser.press("ArrowRight")
    assert browser.run("document.getElementById('tip').hidden === false")
    assert "multimask lr.prefix=0.5" in browser.run("document.getElementById('tip').textContent")
    assert base64.b64decode(browser.call("Page.printToPDF")["data"]).startswith(b"%PDF-")

    # nothing was asked for, nothing failed, no text became code
    urls = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert set(urls) == {report.as_uri()}
    assert not [
        event for event in browser.events if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")
    ]
    assert browser.run("document.scripts.length") == 2
