"""The wheel, built from a copy of the checkout, unpacked, and used from an empty folder."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest

import pamfn
from pamfn.config.compose import CONF, EXPERIMENTS, ROOT
from pamfn.runs.lookup import ARCHIVE

assert ROOT is not None
BUILT_FROM = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src", "conf", "experiments")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
SCRIPT = "import sys; from pamfn.__main__ import main; sys.argv[0] = 'bin/pamfn'; sys.exit(main())"

OWN_DATA = """\
# @package _global_
defaults:
  - override /features: in_data
data: {_target_: pamfn.data.ScoreDataModule, name: mine, dataset: MINE, train: MINE/train.txt, test: MINE/test.txt,
       columns: [name, score], score: score, max_score: 10.0, crop: 8}
features:
  rgb: {extractor: own, width: 6}
  audio: {extractor: own, width: 4}
"""
OWN_EXPERIMENT = """\
# @package _global_
# My own data, which cost $5.
defaults:
  - override /data: mydata
"""
OWN_TABLE = """\
# @package _global_
# My own table.
table: {name: own, title: My own table, source: mine, reference: null, row: +ablation, column: +experiment,
        rows: {full: Ranked, free_fusionnets: Free}, full: full}
hydra: {sweeper: {params: {+ablation: "full,free_fusionnets", +experiment: mine, seed: "0,1"}}}
"""

Pamfn = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's file."""
    assert ROOT is not None
    checkout = tmp_path_factory.mktemp("checkout")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, checkout / name)
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=checkout, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the unpacked wheel."""
    folder = tmp_path_factory.mktemp("site-packages")
    ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Pamfn:
    """`run("tables", "fusionnets")`: the console script in `tmp_path`; `start`: another way to start Python."""
    left_out = ("PAMFN_DATA_DIR", "PAMFN_OUTPUT_DIR", "PYTHONSAFEPATH")
    environment = {k: v for k, v in os.environ.items() if k not in left_out} | {"PYTHONPATH": str(installed)}

    def run(*words: str, start: Sequence[str] = ("-c", SCRIPT)) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, *start, *words]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def own_conf(tmp_path: Path) -> Path:
    """A folder `conf` of the user's with data, an experiment and a table."""
    contents = {"data/mydata": OWN_DATA, "experiment/mine": OWN_EXPERIMENT, "table/own": OWN_TABLE}
    for name, content in contents.items():
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(content)
    return tmp_path / "conf"


def test_the_wheel_holds_all_that_is_read_at_run_time(wheel: Path):
    assert ROOT is not None
    read = [CONF, EXPERIMENTS / "table", EXPERIMENTS / "reference", ARCHIVE]
    files = {str(Path("pamfn", file.relative_to(ROOT))) for folder in read for file in folder.rglob("*.*")}
    source = [file for file in (ROOT / "src").rglob("*") if file.suffix in (".py", ".jinja", ".typed")]
    files |= {str(file.relative_to(ROOT / "src")) for file in source}
    about = f"pamfn-{pamfn.__version__}.dist-info"
    names = set(ZipFile(wheel).namelist())
    assert {name for name in names if not name.startswith(about)} == files
    assert {f"{about}/licenses/LICENSE", f"{about}/entry_points.txt"} <= names
    assert wheel.stat().st_size < 3 * 2**20


def test_an_installed_package_works_in_the_current_folder(run: Pamfn, tmp_path: Path):
    assert run("--version").stdout == f"pamfn {pamfn.__version__}\n"
    assert run("--version", start=("-m", "pamfn")).stdout == f"pamfn {pamfn.__version__}\n"
    job = run("train", "--cfg", "job", "--resolve").stdout
    assert f"data_dir: {tmp_path}/data\n" in job
    assert f"output_dir: {tmp_path}/runs\n" in job
    assert f"default:{tmp_path}/data,or$PAMFN" in "".join(run("convert", "features", "--help").stdout.split())
    assert "required: --to" in run("archive", "nothing").stderr  # the package's own folder is no place to write to
    assert list(tmp_path.iterdir()) == []


def test_an_installed_package_has_the_archived_results(run: Pamfn):
    done = run("tables", "aqa_methods", "+experiment=fisv_tes", "logger=csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert ".607 ± .000 (3)" in done.stdout
    assert "of 15 runs" in done.stdout


def test_an_installed_package_finds_what_the_user_configured(run: Pamfn, own_conf: Path):
    told = run("train", "--help").stdout
    assert re.search(r"^  \+experiment=mine +My own data, which cost \$5\.$", told, re.MULTILINE)
    assert "Of your own, in conf/ of the current folder:\ndata: mydata\nexperiment: mine\ntable: own\n" in told
    assert "dataset: MINE" in run("train", "+experiment=mine", "--cfg", "job").stdout
    swept = run("train", "-m", "+table=own", "--dry").stdout
    assert swept.count("missing      mine-rgb_audio-seed") == 4
    table = run("tables", "own", "logger=csv")
    assert (table.returncode, table.stderr) == (0, "")
    assert "| Ranked | ours | -      |" in table.stdout


def test_the_console_script_imports_nothing_from_the_current_folder(run: Pamfn, tmp_path: Path):
    for name in ("pamfn", "hydra", "numpy", "torch", "difflib"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError")
    done = run("train", "--cfg", "job", start=("-P", "-c", SCRIPT))  # as in bin/, which is no folder of the user's
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "pamfn.py").unlink()
    assert run("--version", start=("-m", "pamfn")).stdout == f"pamfn {pamfn.__version__}\n"
