"""`python -m pamfn.extract videos=FOLDER out=FOLDER`: features of every segment of every video, as training reads them.

With `--dry` (or `dry=true`) only what there is and how long it would take; with `pack=FOLDER dataset=NAME` the stores
of a data set.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pamfn.command_line.process import refuse, refuse_unread, refusing, say
from pamfn.config.compose import CONF, let_checked_refuse, register
from pamfn.config.extract_schema import checked_extraction
from pamfn.pipeline.failures import foreseen, list_failed, record, run_jobs

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="extract")
def job(raw: DictConfig) -> None:
    """Run one job of Hydra's: all videos, or a part of them."""
    settings = HydraConfig.get()
    try:
        config = checked_extraction(raw)
        if config.pack is not None:
            from pamfn.pipeline.feature_stores import pack

            pack(Path(config.pack), str(config.dataset), Path(config.data_dir), say, config.streams)
        else:
            from pamfn.data.rendered import make_rendered
            from pamfn.extraction.job import extract, forecast, videos_of
            from pamfn.extraction.store import warning_of_names

            if config.render is not None:
                train, test, mistakes = config.clips
                say(f"rendered {make_rendered(Path(config.render), train=train, test=test, mistakes=mistakes)}")
            if warning := warning_of_names(videos_of(config)):
                say(warning)
            (forecast if config.dry else extract)(config, say).refuse_failures()
    except BrokenPipeError as error:
        refuse_unread(error)
    except Exception as error:
        if settings.mode == RunMode.MULTIRUN:  # the other parts go on
            record(error)
            return
        refuse(foreseen(error, settings.overrides.task))


@refusing()
def main() -> None:
    words = ["dry=true" if word == "--dry" else word for word in sys.argv[1:]]
    sys.argv[1:] = let_checked_refuse(sorted(words, key=lambda word: word not in ("-m", "--multirun")))
    run_jobs(job, words)
    if list_failed():
        raise SystemExit(1)


if __name__ == "__main__":
    main()
