"""Puts into the built package what lies at the repository's top and is read at run time. The rest: pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

READ = ("conf", "experiments/table", "experiments/reference", "experiments/results/runs")


class BuildWithConfiguration(build_py):
    """`conf/` and `experiments/` become `pamfn/conf/` and `pamfn/experiments/`; an editable install needs no copy."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for folder in READ:
            copy = Path(self.build_lib, "pamfn", folder)
            shutil.rmtree(copy, ignore_errors=True)  # of an earlier build, which may have had more files
            shutil.copytree(folder, copy)


setup(cmdclass={"build_py": BuildWithConfiguration})
