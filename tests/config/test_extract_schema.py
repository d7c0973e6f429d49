"""The configuration of an extraction: every option of it, and what goes together."""

from typing import Any

import hydra
import pytest

from pamfn.config.compose import CONF, register
from pamfn.config.extract_schema import ExtractConfig, checked_extraction
from pamfn.config.targets import build
from pamfn.errors import InputError

OPTIONS = sorted(
    "/".join(file.relative_to(CONF).parts[:-1]) + f"={file.stem}" for file in (CONF / "extractor").rglob("*.yaml")
)
ASKED = ("videos=v", "out=f")


def settings_of(*words: str) -> ExtractConfig:
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return checked_extraction(hydra.compose("extract", [*ASKED, *words]))


@pytest.mark.parametrize("preset", ["sound", "authors"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_its_extractors_say_what_they_are(option: str, preset: str):
    added = f"+{option}" if option.startswith("extractor/pose") else option
    settings = settings_of(added, f"preset={preset}")
    assert settings.reading.fps == {"sound": "25", "authors": "native"}[preset]
    for node in settings.extractor.values():
        extractor: Any = build({key: value for key, value in node.items() if key != "weights"})
        assert extractor.width > 0
        assert extractor.name.replace("-", "").isalnum()
        assert extractor.short_sides or extractor.flows or extractor.channels


def test_the_files_of_weights_are_named_once():
    settings = settings_of("extractor=paper", "weights.vst=a", "weights.i3d=b", "weights.ast=c")
    assert {stream: node["weights"] for stream, node in settings.extractor.items()} == {
        "rgb": "a", "flow": "b", "audio": "c"
    }  # fmt: skip


@pytest.mark.parametrize("words", [("videos=v",), ("out=f",), ("dry=true",), ("render=d",)])
def test_packing_refuses_what_is_for_extraction(words: tuple[str, ...]):
    alone = ("videos=null", "out=null", "pack=f", "dataset=A")
    assert settings_of(*alone, "streams=[pose]").streams == ["pose"]
    with pytest.raises(InputError, match=f"pack: writes stores .*and {words[0].partition('=')[0]} is for extraction"):
        settings_of(*alone, *words)


def test_a_dry_run_makes_no_videos():
    with pytest.raises(InputError, match="render: makes videos, and dry=true makes nothing"):
        settings_of("dry=true", "render=data")


def test_all_problems_are_said_at_once():
    with pytest.raises(InputError) as raised:
        settings_of("part=4", "streams=[pose]", "++extractor.rgb.colour=1")
    assert len(raised.value.problems) == 2
