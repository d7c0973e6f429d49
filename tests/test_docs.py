"""What the documents show is what there is: commands run, the example is the file it names, links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from benchmarks.reference import ReferencePAMFN
from commands import command
from conftest import UIPRMD_WIDTHS, WIDTHS
from made_videos import write_video
from pamfn.__main__ import commands
from small_clips import write_clips

ROOT = Path(__file__).parents[1]
PAGES = (
    *("README.md", "docs/README.md", "docs/data.md", "docs/extraction.md", "docs/configuration.md", "docs/running.md"),
    *("docs/prediction.md", "docs/tables.md", "docs/highlights.md", "docs/export.md", "docs/results.md"),
    *("docs/performance.md", "docs/methods.md", "docs/paper-vs-code.md", "docs/extending.md"),
)
"""In an order in which their commands work."""
TEXT = {page: (ROOT / page).read_text() for page in PAGES}
SMALL = (
    "model.branch.d_model=8 model.branch.hidden=8 model.branch.num_stages=1 model.num_fusion_nets=2 data.crop=8 "
    "recipe.branch.epochs=1 recipe.fusion.epochs=1 trainer.accelerator=cpu"
)

METHOD = (
    "model.d_model=8 model.hidden=8 data.crop=8 recipe.baseline.epochs=1 recipe.baseline.crop=8 trainer.accelerator=cpu"
)


def blocks(language: str) -> list[str]:
    found = (re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for text in TEXT.values())
    return [block for of_page in found for block in of_page]


COMMANDS = list(dict.fromkeys(line for block in blocks("bash") for line in block.splitlines()))


def widths(streams: Mapping[str, int]) -> str:
    return " ".join(f"features.{modality}.width={width}" for modality, width in streams.items())


def made_small(command: str) -> str:
    """The same command on the tiny data set, with a tiny network, for one epoch; `make` says what it would do."""
    if command.startswith("make "):
        return f"{command} -n -C '{ROOT}'"
    if command.startswith("python -m pamfn.check"):
        return f"{command} {widths(UIPRMD_WIDTHS)}"
    command = command.replace("protocol.folds=10", "protocol.folds=3")
    if command.startswith("python -m pamfn.archive"):
        return f"{command} --to kept"
    if "render=" in command:
        return command.replace("clips=[120,60,0]", "clips=[5,2,0]")
    if "+experiment=rendered" in command:
        return f"{command} {SMALL} logger=csv"
    if "=youtube" in command:
        return made_small_on_clips(command)
    of_sweep = command.startswith(("python -m pamfn.tables", "python -m pamfn.report")) and "protocols" not in command
    if not (of_sweep or command.startswith("python -m pamfn.train")) or "--help" in command:
        return command
    streams = UIPRMD_WIDTHS if "=uiprmd" in command else WIDTHS
    quiet = "" if "logger=" in command else "logger=csv"
    return f"{command} {METHOD if ' model=' in command else SMALL} {widths(streams)} {quiet}"


def made_small_on_clips(command: str) -> str:
    """The same for highlights, whose clips are not cropped."""
    return f"{command} {SMALL.replace('data.crop=8 ', '')} logger=csv"


@pytest.mark.slow
def test_the_commands_of_readme_and_docs_run_one_after_another(tmp_path: Path, tiny_data: Path):
    shutil.copytree(tiny_data, tmp_path / "data")
    write_clips(tmp_path / "data")
    (tmp_path / "videos").mkdir()
    for name in ("001", "002"):
        write_video(tmp_path / "videos" / f"{name}.mp4", 40, sound=2)
    torch.save(ReferencePAMFN(widths=WIDTHS, num_fusion_nets=2, d_model=8).state_dict(), tmp_path / "PAMFN.pth")
    places = {"PAMFN_DATA_DIR": str(tmp_path / "data"), "PAMFN_OUTPUT_DIR": str(tmp_path / "runs")}
    for line in map(made_small, COMMANDS):
        words = [found for word in shlex.split(line) for found in expanded(word, tmp_path)]
        if words[:2] == ["python", "-m"]:
            done = command(words[2:], tmp_path, os.environ | places)
        else:
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, line + "\n" + done.stdout + done.stderr
    for block in (block for block in blocks("python") if "pamfn.fit(" not in block):  # tests/test_main.py trains
        code = [sys.executable, "-c", block]
        done = subprocess.run(code, cwd=tmp_path, env=os.environ | places, capture_output=True, text=True)
        assert done.returncode == 0, block + "\n" + done.stdout + done.stderr


def test_the_job_for_slurm_is_a_script_whose_command_composes(tmp_path: Path, tiny_data: Path):
    (script,) = blocks("sh")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    (line,) = [line for line in script.splitlines() if line.startswith("python ")]
    words = shlex.split(made_small(line.removesuffix(" &")))
    places = {"PAMFN_DATA_DIR": str(tiny_data), "PAMFN_OUTPUT_DIR": str(tmp_path / "runs")}
    done = command([*words[2:], "--cfg", "job"], tmp_path, os.environ | places)
    assert done.returncode == 0, done.stderr


def expanded(word: str, folder: Path) -> list[str]:
    """What a shell in `folder` makes of a word."""
    return sorted(str(path.relative_to(folder)) for path in folder.glob(word)) if "*" in word else [word]


def test_readme_and_docs_show_commands_of_every_kind():
    kinds = {" ".join(command.split()[: 1 if command.startswith("make") else 3]) for command in COMMANDS}
    assert kinds == {"make", *(f"python -m pamfn.{name}" for name in commands())}


def test_a_data_set_is_shown_as_it_is():
    shown = [block for block in blocks("yaml") if "name: uiprmd" in block]
    assert shown
    assert all(OmegaConf.create(block) == OmegaConf.load(ROOT / "conf/data/uiprmd.yaml") for block in shown)


def test_every_page_is_read_here():
    assert {*PAGES} == {"README.md", *(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))}


def anchors(text: str) -> set[str]:
    """Of a page's headings, as they are linked to."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_documents_lead_somewhere():
    for page, text in TEXT.items():
        for link, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", text):
            target = ((ROOT / page).parent / link) if link else ROOT / page
            assert target.exists(), f"{page} points to {link}"
            assert not anchor or anchor in anchors(target.read_text()), f"{page} points to {link}#{anchor}"


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  make ([a-z-]+)", listed, re.MULTILINE) == phony.split()
