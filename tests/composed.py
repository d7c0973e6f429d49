"""Small configurations for tests, composed from the real `conf/`."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from pamfn.config.compose import CONF, register
from pamfn.config.schema import Config
from pamfn.config.validation import checked

SMALL = (
    "data=synthetic",
    "model.branch.d_model=8",
    "model.branch.hidden=8",
    "model.num_fusion_nets=3",
    "recipe.branch.epochs=3",
    "recipe.fusion.epochs=3",
    "recipe.branch.batch_size=8",
    "recipe.fusion.batch_size=8",
    "logger=csv",
    "trainer.accelerator=cpu",
)


def composed(*overrides: str) -> DictConfig:
    """The configuration as Hydra composes it."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def small(folder: Path, *overrides: str) -> Config:
    """Both stages on a small synthetic data set; data and runs below `folder`."""
    paths = (f"paths.data_dir={folder / 'data'}", f"paths.output_dir={folder / 'runs'}")
    return checked(composed(*SMALL, *paths, *overrides))
