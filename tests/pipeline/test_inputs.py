import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamfn.data.features import FeatureSet, write_store
from pamfn.errors import InputError
from pamfn.extraction.store import FeatureFolder
from pamfn.pipeline.inputs import Sample, Stream, read_inputs

READING = {
    **{"fps": "25", "video_stream": None, "audio_stream": None, "deinterlace": False},
    **{"missing_audio": "silence", "short": "repeat", "max_gap": 2.0},
}
HOG = {"extractor": {"_target_": "pamfn.extraction.HOG"}, "width": 6}
AST = {
    "extractor": {"_target_": "pamfn.extraction.AST", "window": "padded"},
    "width": 4,
    "weights": "ab",
    "precision": "32",
}
MADE = {"rgb": {"reading": READING, **HOG}, "audio": {"reading": READING, **AST}}
STREAMS = {"rgb": Stream("HOG", 6, MADE["rgb"]), "audio": Stream("AST", 4, MADE["audio"])}
UNRECORDED = {m: Stream(spec.extractor, spec.width, None) for m, spec in STREAMS.items()}

Read = Callable[..., tuple[dict[str, Sample], dict[str, str]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def run(words: Sequence[str | Path], streams: Mapping[str, Stream] = STREAMS) -> Any:
        place = tmp_path / "extracted"
        return read_inputs([str(word) for word in words], streams, extracted=place, options=[], say=lambda _: None)

    return run


def arrays(width: int, videos: Sequence[str] = ("a", "b", "c"), segments: int = 7) -> dict[str, np.ndarray]:
    return {v: np.full((segments, width), i + 1, np.float32) for i, v in enumerate(videos)}


def dict_file(path: Path, content: dict[str, np.ndarray]) -> Path:
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def folder(path: Path, videos: Sequence[str] = ("a", "b"), **changes: Any) -> Path:
    """A folder as `pamfn.extract` leaves it; changes: of its streams or of its reading."""
    reading = READING | changes.pop("reading", {})
    streams = {"rgb_HOG": HOG, "audio_AST": AST | changes}
    made = FeatureFolder(path, reading, streams)
    made.claim()
    for video in videos:
        source = {"name": f"{video}.mp4", "bytes": 1, "checksum": "0"}
        seen = {"video": video, "source": source, "left_out": [], "warnings": ["its sound is silence"]}
        rows = {"rgb_HOG": np.ones((5, 6), np.float32), "audio_AST": np.ones((5, 4), np.float32)}
        made.write(video, rows, seen, {})
    return path


def test_files_of_many_videos_are_paired_by_their_names(tmp_path, read):
    rgb = dict_file(tmp_path / "NEW_rgb_HOG.npy", arrays(6))
    audio = dict_file(tmp_path / "NEW_audio_AST.npy", arrays(4, ["c", "a"]))
    samples, failed = read([rgb, audio])
    assert list(samples) == ["a", "b", "c"]
    assert not failed
    assert set(samples["b"].features) == {"rgb"}
    assert samples["a"].features["audio"][0, 0] == 2
    assert samples["c"].features["audio"][0, 0] == 1
    assert samples["a"].segment_seconds is None
    assert list(read([rgb, audio, "c", "a"])[0]) == ["c", "a"]


def test_plain_arrays_are_one_video(tmp_path, read):
    for stream, width in (("rgb", 6), ("audio", 4)):
        np.save(tmp_path / f"skater {stream}.npy", np.ones((7, width)))
    samples, _ = read([f"rgb={tmp_path / 'skater rgb.npy'}", f"audio={tmp_path / 'skater audio.npy'}"])
    ((name, sample),) = samples.items()
    assert name == "skater rgb"
    assert {m: x.shape for m, x in sample.features.items()} == {"rgb": (7, 6), "audio": (7, 4)}


def test_a_plain_file_is_named_without_its_stream(tmp_path, read):
    rgb, audio = tmp_path / "vid_rgb_HOG.npy", tmp_path / "vid_audio_AST.npy"
    np.save(rgb, np.ones((7, 6)))
    np.save(audio, np.ones((7, 4)))
    samples, _ = read([rgb, audio])
    assert {name: set(sample.features) for name, sample in samples.items()} == {"vid": {"rgb", "audio"}}
    assert list(read([rgb, "vid"])[0]) == ["vid"]


def test_named_videos_of_other_names_are_not_one(tmp_path, read):
    rgb = dict_file(tmp_path / "NEW_rgb_HOG.npy", arrays(6, ["a"]))
    for other, names in (("b", {"a": {"rgb"}, "b": {"audio"}}), ("a", {"a": {"rgb", "audio"}})):
        audio = dict_file(tmp_path / "NEW_audio_AST.npy", arrays(4, [other]))
        assert {name: set(sample.features) for name, sample in read([rgb, audio])[0].items()} == names
    np.save(tmp_path / "a_audio_AST.npy", np.ones((7, 4)))
    assert set(read([rgb, tmp_path / "a_audio_AST.npy"])[0]["a"].features) == {"rgb", "audio"}


def test_a_folder_of_extracted_features_brings_seconds_and_warnings(tmp_path, read):
    samples, failed = read([folder(tmp_path / "made")])
    assert list(samples) == ["a", "b"]
    assert not failed
    assert samples["a"].segment_seconds == 1.28
    assert samples["a"].warnings == ["its sound is silence"]
    assert list(read([tmp_path / "made", "b"])[0]) == ["b"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"weights": "cd"}, "weights is ab in training, and here cd"),
        ({"width": 5}, "width is 4 in training, and here 5"),
        (
            {"extractor": AST["extractor"] | {"window": "short"}},
            "extractor.window is padded in training, and here short",
        ),
        ({"reading": {"fps": "native"}}, "reading.fps is 25 in training, and here native"),
    ],
)
def test_features_made_otherwise_are_refused_by_name(tmp_path, read, changes, sentence):
    made = folder(tmp_path / "made", **changes)
    with pytest.raises(InputError, match=rf"made: its (rgb|audio) features are not .*trained on: .*{sentence}"):
        read([made])
    assert read([made], UNRECORDED)[0].keys() == {"a", "b"} or changes == {"width": 5}


def test_what_concerns_other_videos_may_differ(tmp_path, read):
    made = folder(tmp_path / "made", precision="bf16", reading={"missing_audio": "skip", "short": "error"})
    assert read([made])[0].keys() == {"a", "b"}


def test_a_store_says_how_it_was_made(tmp_path, read):
    source = dict_file(tmp_path / "source.npy", arrays(6))
    for seconds, fps in ((1.28, "25"), (None, "native")):
        made = {"reading": READING | {"fps": fps}, **HOG}
        store = tmp_path / "NEW_rgb_HOG.safetensors"
        write_store(FeatureSet(arrays(6), "0" * 32, source, made), store, extractor="HOG")
        if fps == "25":
            assert read([store])[0]["a"].segment_seconds == seconds
        else:
            with pytest.raises(InputError, match=r"reading.fps is 25 in training, and here native"):
                read([store])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NEW_rgb_VST.npy", r"rgb features of VST, and the network was trained on rgb \(HOG\), audio \(AST\)"),
        ("features.npy", r"its name does not say which stream it is. .* or write rgb="),
        ("NEW_flow_I3D.npy", r"its name does not say which stream it is"),
    ],
)
def test_files_of_other_features_are_refused(tmp_path, read, name, sentence):
    with pytest.raises(InputError, match=sentence):
        read([dict_file(tmp_path / name, arrays(6))])


def test_single_videos_fail_for_themselves(tmp_path, read):
    content = arrays(6) | {"wide": np.ones((7, 8), np.float32), "none": np.full((7, 6), np.inf, np.float32)}
    samples, failed = read([dict_file(tmp_path / "NEW_rgb_HOG.npy", content)])
    assert list(samples) == ["a", "b", "c"]
    assert failed == {
        "wide": "its rgb features are 8 wide, and the network reads 6",
        "none": "its rgb features hold values that are no finite numbers: extract them again",
    }


def test_words_that_are_nothing_are_named(tmp_path, read):
    rgb = dict_file(tmp_path / "NEW_rgb_HOG.npy", arrays(6))
    with pytest.raises(InputError, match=r"x: no file, and no video of that name; there are a, b, c"):
        read([rgb, "x"])
    with pytest.raises(InputError, match=r"gone.mp4: there is no such file or folder"):
        read([rgb, "gone.mp4"])
    with pytest.raises(InputError, match=r"the network reads no stream 'depth'; it reads rgb, audio"):
        read([f"depth={rgb}"])
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/.lock").touch()
    with pytest.raises(InputError, match=r"begun: a run that is not finished"):
        read([tmp_path / "begun"])
    with pytest.raises(InputError, match=r"--extract device=cuda: no video is given"):
        read_inputs([str(rgb)], STREAMS, extracted=tmp_path, options=["device=cuda"], say=lambda _: None)
    with pytest.raises(InputError, match=r"the rgb features were already given"):
        read([rgb, f"rgb={rgb}"])
    with pytest.raises(InputError, match=r"a, b: in two of the inputs"):
        read([rgb, folder(tmp_path / "made")])
    with pytest.raises(InputError, match=r"is one file of a folder of extracted features: give the folder"):
        read([tmp_path / "made/a.rgb_HOG.safetensors"])
    with pytest.raises(InputError, match=r"holds no finished video"):
        read([folder(tmp_path / "empty", videos=[])])


def test_of_videos_the_settings_must_be_known(tmp_path, read):
    video = tmp_path / "video.mp4"
    video.write_bytes(b"no video")
    with pytest.raises(InputError, match=r"the run does not say how its rgb_HOG, audio_AST features were extracted"):
        read([video], UNRECORDED)
    with pytest.raises(InputError, match=r"extractor.audio: AST needs its weights: weights.ast=FILE"):
        read([video])
    with pytest.raises(InputError, match=r"devise.*\n.*given by --extract KEY=VALUE"):
        read_inputs([str(video)], STREAMS, extracted=tmp_path / "out", options=["devise=cpu"], say=lambda _: None)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"others")
    real = {"audio": Stream("AST", 768, MADE["audio"] | {"width": 768})}
    with pytest.raises(InputError, match=r"its audio features are not .*weights is ab in training, and here"):
        read_inputs(
            [str(video)], real, extracted=tmp_path / "out", options=[f"weights.ast={weights}"], say=lambda _: None
        )


def test_a_folder_says_what_it_lacks(tmp_path, read):
    made = folder(tmp_path / "made")
    settings = json.loads((made / "extract.json").read_text())
    with pytest.raises(InputError, match=r"made: rgb_HOG, and the network was trained on rgb_VST"):
        read([made], {"rgb": Stream("VST", 6, None)})
    with pytest.raises(InputError, match=r"made has none of the streams that the network reads: pose"):
        read([made], {"pose": Stream("BlazePose", 6, None)})
    assert settings["streams"].keys() == {"rgb_HOG", "audio_AST"}
