import base64
import html
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from finished_runs import settings, trained
from pamfn import report
from pamfn.errors import InputError
from pamfn.reporting import html_report
from pamfn.reporting.html_report import CAPTIONS, full_models, pictures_of, place, section
from pamfn.reporting.sweep import sweep_of

TABLES = ("fusionnets", "number_of_fusionnets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def words(tiny_data, folder):
    """Settings of a sweep that has one finished run, which answers both tables."""
    trained("fusionnets", "+ablation=full", tiny_data, folder)
    return settings(tiny_data, folder)


@pytest.fixture(scope="module")
def made(words):
    return html_report.report(TABLES, words)


@pytest.fixture(scope="module")
def run(folder):
    (run,) = (folder / "runs" / "fusion").iterdir()
    return run


class Elements(HTMLParser):
    """Tags with their attributes, and those that were opened and not closed."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing_else(made):
    elements = Elements(made)
    assert elements.open == []
    for tag, attributes in elements.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,")), value[:80]
    assert not re.search(r"url\(|@import", made)


def test_links_lead_to_a_section(made):
    elements = Elements(made).tags
    ids = {attributes["id"] for _, attributes in elements if "id" in attributes}
    linked = {attributes["href"][1:] for tag, attributes in elements if tag == "a"}
    assert linked == ids
    assert {*TABLES, "figures", "protocols", "environment"} == ids


def test_it_has_each_table_with_the_runs_behind_its_numbers(made, run):
    for title in ("Ranked FusionNets (Table VII)", "Number of FusionNets (Figure 6)"):
        assert f"<h2>{title}" in made
    srcc = json.loads((run / "result.json").read_text())["metrics"]["best_on_test"]["srcc"]
    assert made.count(f"<code>{place(run)}</code>") == len(TABLES)
    assert f"<td>{srcc:.4f}</td>" in made
    assert "python -m pamfn.train -m +table=fusionnets" in made


def test_it_has_the_figures_of_the_full_model(made, run):
    pictures = [base64.b64decode(png) for png in re.findall(r"data:image/png;base64,([^\"]+)", made)]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    for figure in ("Figure 5", "Figure 6", "Figure 7", "Figure 8"):
        assert f"({figure})</figcaption>" in made
    for name in ("predictions", "curves"):
        assert (run / f"{name}.png").read_bytes() in pictures


def test_it_says_what_made_it(made):
    for name in ("commit", "versions", "python", "threads"):
        assert f"<dt>{name}</dt>" in made
    assert "best epoch on the test set" in made


def test_text_is_escaped(words):
    text = html_report.report(["fusionnets"], [*words, "logger.group='<script>alert(1)</script>'"])
    assert "<script" not in text
    assert html.escape("<script>alert(1)</script>") in text


def test_what_no_page_can_hold_is_replaced(words):
    text = html_report.report(["fusionnets"], [*words, "logger.group='NUL \0, half \ud800, bell \x07'"])
    mark = "\N{REPLACEMENT CHARACTER}"
    assert f"NUL {mark}, half {mark}, bell {mark}" in text
    assert text.encode("utf-8").decode("utf-8") == text


def test_figures_stay_in_their_folder_whatever_a_data_set_is_called(run: Path, tmp_path: Path):
    names = ["../../x", "/x", "a/b", "NUL \0", "half \ud800", "$\\frac{$", "long " * 100, "_x"]
    folder = tmp_path / "one" / "two"
    pictures, left_out = pictures_of(dict.fromkeys(names, run), folder)
    assert (len(pictures), left_out) == (1 + 4 * len(names), [])
    assert list(tmp_path.iterdir()) == [tmp_path / "one"]
    assert list((tmp_path / "one").iterdir()) == [folder]
    assert len(list(folder.glob("*/attention.png"))) == len(names)


def test_a_run_with_weights_stands_for_its_data_set(words, run, tmp_path):
    sweep = sweep_of("fusionnets", words)
    assert full_models([section(sweep, [], tmp_path)], [sweep]) == {"fisv_tes": run}


def test_an_archived_run_still_has_its_decisions_and_plots(run, tmp_path):
    archived = shutil.copytree(run, tmp_path / run.name)
    (archived / "selected.safetensors").unlink()
    pictures, left_out = pictures_of({"fisv_tes": archived}, tmp_path / "pictures")
    assert [picture.caption for picture in pictures] == [
        CAPTIONS[name] for name in ("decisions", "predictions", "curves")
    ]
    assert left_out == []


def test_figures_whose_data_is_gone_are_left_out_with_a_sentence(run, tmp_path, monkeypatch):
    def gone(folder):
        raise InputError("no such file: train.txt")

    monkeypatch.setattr(html_report, "explain", gone)
    pictures, left_out = pictures_of({"fisv_tes": run}, tmp_path)
    assert len(pictures) == 3
    assert left_out == [f"attention and policy of {run.name}: no such file: train.txt"]


def test_the_command_writes_the_page(words, tmp_path, monkeypatch, capsys):
    file = tmp_path / "a folder" / "page.html"
    monkeypatch.setattr(sys, "argv", ["report", "fusionnets", *words, "--to", str(file)])
    report.main()
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert f"wrote {file}" in capsys.readouterr().out


def test_options_may_stand_between_the_words(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(html_report, "report", lambda *given: asked.append(given) or "a page")
    file = tmp_path / "page.html"
    monkeypatch.setattr(sys, "argv", ["report", "fusionnets", "seed=0", "--to", str(file), "protocol=holdout"])
    report.main()
    assert asked == [(["fusionnets"], ["seed=0", "protocol=holdout"])]
    assert f"wrote {file}" in capsys.readouterr().out


def test_what_is_not_a_table_is_refused(monkeypatch, tmp_path, capsys):
    with pytest.raises(InputError, match="which tables"):
        html_report.report([])
    file = tmp_path / "page.html"
    monkeypatch.setattr(sys, "argv", ["report", "unknown", "--to", str(file)])
    with pytest.raises(SystemExit) as end:
        report.main()
    assert end.value.code == 1
    assert "no table 'unknown'" in capsys.readouterr().err
    assert not file.exists()


def test_a_table_without_runs_says_how_to_get_them(words, tmp_path):
    nowhere = [*words, f"paths.output_dir={tmp_path}"]
    text = html_report.report(["fusionnets"], nowhere)
    assert "What would complete it" in text
    assert "The runs behind these numbers" not in text
    assert 'id="figures"' not in text
