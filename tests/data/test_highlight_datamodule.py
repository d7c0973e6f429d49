"""YouTube Highlights: what is read, left out and refused; batches of labelled clips; planted features."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from composed import composed
from faults.files import npy_with_header, plain_header
from pamfn import convert
from pamfn.config.validation import checked
from pamfn.data.batches import Batch, ShuffledVideos, Videos, WholeVideos
from pamfn.data.checksums import present_checksums
from pamfn.data.highlight_datamodule import YouTubeHighlightsDataModule
from pamfn.data.highlight_labels import Clips, read_clips, read_split
from pamfn.data.planted_clips import planted
from pamfn.errors import InputError
from pamfn.pipeline.build import data_module
from small_clips import COUNTS, DATASET, FEATURES, SPLIT, annotation, file_of, match, save, write, write_clips

PLANTED = {m: {"extractor": "planted", "width": 8} for m in FEATURES}
TOPICS = ("dog", "gymnastics", "parkour", "skating", "skiing", "surfing")
SIZES: dict[str, tuple[int, int]] = dict(
    zip(TOPICS, ((40, 17), (33, 26), (19, 11), (23, 10), (67, 50), (53, 43)), strict=True)
)

real = pytest.mark.skipif("PAMFN_DATA_DIR" not in os.environ, reason="PAMFN_DATA_DIR does not say where real data is")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_clips(tmp_path)


def node(**arguments: Any) -> dict[str, Any]:
    files = {"annotations": f"{DATASET}/youtube_anno.json", "split": f"{DATASET}/umt_splits.json"}
    return {"name": "youtube_dog", "dataset": DATASET, "topic": "dog", **files, **arguments}


def module(folder: Path, **arguments: Any) -> YouTubeHighlightsDataModule:
    data = YouTubeHighlightsDataModule(**node(**{"features": FEATURES, "data_dir": str(folder), **arguments}))
    data.setup()
    return data


def refused(folder: Path, **arguments: Any) -> list[str]:
    with pytest.raises(InputError) as error:
        module(folder, **arguments)
    return error.value.problems


def rows(videos: Videos, name: str, modality: str = "rgb") -> np.ndarray:
    i = videos.names.index(name)
    start, length = int(videos.start[i]), int(videos.length[i])
    return videos.packed[modality][start : start + length].numpy()


def labels(videos: Videos, name: str) -> list[float]:
    i = videos.names.index(name)
    assert videos.labels is not None
    return videos.labels[int(videos.start[i]) :][: int(videos.length[i])].tolist()


# annotations


def test_a_clip_is_a_highlight_when_its_match_is_above_zero(folder: Path):
    data = module(folder)
    assert data.splits["train"].names == SPLIT["dog"]["train"]
    for name in SPLIT["dog"]["train"]:
        assert labels(data.splits["train"], name) == [float(m > 0) for m in match(name)]
    videos = data.splits["test"]
    assert {-1, 0, 1} <= set(match("d6"))
    assert videos.target.tolist() == pytest.approx([np.mean(np.array(match(v)) > 0) for v in videos.names])
    assert (videos.points.dtype, videos.target.dtype) == (torch.float64, torch.float32)


def test_clips_are_in_seconds_where_the_frame_rate_is_known_and_in_frames_elsewhere(folder: Path):
    content = {f"{annotation(v)['domain']}/{v}": {**annotation(v), "umt_split": "train"} for v in COUNTS}
    del content["dog/d5"]["fps"], content["dog/d5"]["frames"]
    content["dog/d6"]["fps"] = None
    path = write(folder, "match_labels_all.json", content)
    clips = read_clips(path)
    assert clips.keys() == COUNTS.keys()
    assert clips["d1"].grid.tolist() == [[0, 4], [2, 6], [4, 8]]
    data = module(folder, annotations=f"{DATASET}/match_labels_all.json")
    assert data.grid["d5"][1].tolist() == [50, 150]
    assert [data.grid_unit[v] for v in ("d1", "d5", "d6")] == ["seconds", "frames", "frames"]
    same = module(folder)
    assert labels(data.splits["test"], "d6") == labels(same.splits["test"], "d6")


def test_all_problems_of_the_annotations_are_told_together(folder: Path):
    content = {video: annotation(video) for video in COUNTS}
    content["d1"]["match"] = content["d1"]["match"][:-1]
    content["d2"]["match"][0] = 2
    content["d3"]["clip"][0] = [100, 100]
    content["d4"]["fps"] = 0
    content["d5"] = {"domain": "dog"}
    content["s2"]["match"][0] = True
    content["s3"]["clip"][0] = [0, 10**400]
    content["d7"] = {**annotation("d1"), "clip": [[50, 150], [0, 100], [100, 200]]}
    content["d8"] = {**annotation("d1"), "clip": [[-50, 50], [0, 100], [50, 150]]}
    content["cat/d6"] = content.pop("d6")
    content["skiing/s1"] = annotation("s1")
    path = write(folder, "youtube_anno.json", content)
    lists = {
        "dog": {"train": ["d1", "d1"], "val": ["d2"]},
        "skiing": {"train": ["s1"]},
        "surfing": {"train": 5, "val": ["s1"]},
        "parkour": {"train": ["p1"], "val": ["p2"]},
        "skating": {"train": ["p2"], "val": ["p3"]},
    }
    write(folder, "umt_splits.json", lists)
    told = refused(folder)
    for sentence in (
        f"{path}: video d1 needs as many matches as clips",
        f"{path}: video d2 has a match other than -1, 0 and 1.",
        f"{path}: video d3 has a clip that is not [first frame, last frame].",
        f"{path}: video d4 has a frame rate of 0",
        f"{path}: video d5 has no domain, clip or match",
        f"{path}: video s2 has a match other than -1, 0 and 1.",
        f"{path}: video s3 has a clip that is not [first frame, last frame].",
        f"{path}: video d7 has clips before frame 0 or not in the order of time.",
        f"{path}: video d8 has clips before frame 0 or not in the order of time.",
        f"{path}: video cat/d6 is of the domain 'dog'",
        f"{path}: video skiing/s1 is there twice",
        f"{folder / DATASET / 'umt_splits.json'}: topic dog has videos more than once: d1.",
        f"{folder / DATASET / 'umt_splits.json'}: topic skiing needs two lists of videos, train and val.",
        f"{folder / DATASET / 'umt_splits.json'}: topic surfing needs two lists of videos, train and val.",
        f"{folder / DATASET / 'umt_splits.json'}: video p2 is listed under parkour and skating",
    ):
        assert len([problem for problem in told if problem.startswith(sentence)]) == 1, (sentence, told)
    assert len(told) == 15


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json", '{"d1": 3}'])
def test_files_that_are_not_annotations_are_refused_by_name(folder: Path, text: str):
    for name, reader in (("youtube_anno.json", read_clips), ("umt_splits.json", read_split)):
        path = folder / DATASET / name
        path.write_text(text)
        with pytest.raises(InputError, match=str(path)):
            reader(path)
        path.unlink()
        with pytest.raises(InputError, match=f"looked for {path}"):
            reader(path)


DEEP = "[" * 700 + "]" * 700


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ('"a": {"domain": ' + DEEP + ', "clip": [[0, 1]], "match": [1]}', "video a is of the domain [[["),
        (
            '"a": {"domain": "d", "fps": ' + DEEP + ', "clip": [[0, 1]], "match": [1]}',
            "video a has a frame rate of [[[",
        ),
        ('"a": {"domain": "d", "fps": NaN, "clip": [[0, 1]], "match": [1]}', "video a has a frame rate of nan"),
        ('"a": {"domain": "d", "clip": [[0, NaN]], "match": [1]}', "video a has a clip that is not"),
        ('"a": {"domain": "d", "clip": [[0, 1]], "match": [1]}, "a": {"domain": "d"}', "'a' is there twice"),
        (
            '"a\\u0000": {"domain": "d", "clip": [[0, 1]], "match": [1]}',
            r"video name 'a\x00' holds a control character",
        ),
        ('"d/": {"domain": "d", "clip": [[0, 1]], "match": [1]}', "video name 'd/' is empty"),
        (
            '"a": {"domain": "\\ud800", "clip": [[0, 1]], "match": [1]}',
            r"domain '\ud800', which holds half a character",
        ),
    ],
)
def test_odd_annotations_are_one_sentence_each(folder: Path, entries: str, told: str):
    (folder / "odd.json").write_text("{" + entries + "}")
    with pytest.raises(InputError) as error:
        read_clips(folder / "odd.json")
    (problem,) = error.value.problems
    assert told in problem
    assert problem.isprintable()


@pytest.mark.parametrize(
    ("topic", "train", "told"),
    [
        ("d", ["a\n"], r"topic d: the video name 'a\n' holds a control character"),
        ("d", [""], "topic d: the video name '' is empty"),
        ("\x1b", ["a"], r"the topic '\x1b' holds a control character"),
        ("d", ["a"] * 200_000, "topic d has videos more than once: a."),
    ],
)
def test_odd_lists_of_videos_are_one_sentence_each(folder: Path, topic: str, train: list[str], told: str):
    (folder / "odd.json").write_text(json.dumps({topic: {"train": train, "val": ["b"]}}))
    with pytest.raises(InputError) as error:
        read_split(folder / "odd.json")
    (problem,) = error.value.problems
    assert told in problem
    assert problem.isprintable()


def test_an_unknown_topic_and_a_video_of_another_topic_are_refused(folder: Path):
    assert "no 'cat'" in refused(folder, topic="cat")[0]
    write(folder, "umt_splits.json", {"dog": {"train": ["d1", "s1"], "val": ["d2"]}})
    (problem,) = refused(folder)
    assert problem.endswith("under dog are of another domain: s1.")


# what is left out


def test_videos_that_are_not_annotated_are_counted_and_told_once(folder: Path, caplog: pytest.LogCaptureFixture):
    write(folder, "youtube_anno.json", {v: annotation(v) for v in COUNTS if v not in ("d1", "d5")})
    with caplog.at_level("INFO", logger="pamfn"):
        data = module(folder)
    assert {split: videos.names for split, videos in data.splits.items()} == {
        "train": ["d4", "d2", "d3"],
        "test": ["d6"],
    }
    lost = {"train": {"count": 1, "videos": ["d1"]}, "test": {"count": 1, "videos": ["d5"]}}
    assert data.left_out == {"not_annotated": lost, "no_features": {}, "truncated": {"videos": 0, "rows": 0}}
    assert json.loads(json.dumps(data.left_out)) == data.left_out
    assert caplog.text.count("1 of 4 videos of train are not in") == 1


def test_videos_without_features_are_left_out_by_modality(folder: Path):
    file_of(folder, "audio", "d4").unlink()
    file_of(folder, "rgb", "d5").unlink()
    data = module(folder)
    assert (data.splits["train"].names, data.splits["test"].names) == (["d1", "d2", "d3"], ["d6"])
    assert data.left_out["no_features"] == {
        "rgb": {"test": {"count": 1, "videos": ["d5"]}},
        "audio": {"train": {"count": 1, "videos": ["d4"]}},
    }
    assert module(folder, features={"flow": FEATURES["flow"]}).left_out["no_features"] == {}


def test_more_than_half_of_a_split_is_not_left_out_but_refused(folder: Path):
    for modality, video in (("rgb", "d1"), ("rgb", "d2"), ("audio", "d3")):
        file_of(folder, modality, video).unlink()
    (problem,) = refused(folder)
    assert "2 of 4 videos of train are without rgb features in " in problem
    assert f"{folder / DATASET / 'video_features' / '*_rgb.npy'} (which has those of 7): d1, d2" in problem
    assert "1 of 4 videos of train are without audio features" in problem
    write(folder, "youtube_anno.json", {v: annotation(v) for v in COUNTS if v[0] != "d"})
    assert "4 of 4 videos of train are not in" in refused(folder)[0]


def test_features_and_labels_are_cut_to_the_shortest_when_they_differ_by_two(folder: Path):
    whole = module(folder)
    save(folder, "flow", "d4", np.ones((COUNTS["d4"] - 2, 3), np.float32))
    save(folder, "rgb", "d1", np.ones((COUNTS["d1"] + 1, 4), np.float32))
    data = module(folder)
    train = data.splits["train"]
    assert dict(zip(train.names, train.length.tolist(), strict=True)) == {"d4": 5, "d1": 3, "d2": 5, "d3": 4}
    assert data.left_out["truncated"] == {"videos": 2, "rows": 3}
    assert labels(train, "d4") == labels(whole.splits["train"], "d4")[:5]
    assert len(data.grid["d4"]) == 5
    assert np.array_equal(rows(train, "d2"), rows(whole.splits["train"], "d2"))
    save(folder, "flow", "d4", np.ones((COUNTS["d4"] + 3, 3), np.float32))
    save(folder, "flow", "d6", np.ones((2, 3), np.float32))
    (problem,) = refused(folder)
    assert "2 videos have different numbers of segments in rgb, flow, audio, labels" in problem
    assert "d4: [7, 10, 7, 7]" in problem


def test_videos_shorter_than_the_network_needs_are_refused(folder: Path):
    assert "1 videos are shorter than the 4 segments that the network needs: d1." in refused(folder, min_segments=4)[0]


# features


def test_features_are_those_of_the_folder_in_their_own_precision(folder: Path):
    for video in COUNTS:
        save(folder, "audio", video, np.random.default_rng(1).normal(size=(COUNTS[video], 2)).astype(np.float16))
        save(folder, "flow", video, np.random.default_rng(1).normal(size=(COUNTS[video], 3)))
    videos = module(folder).splits["test"]
    assert {m: x.dtype for m, x in videos.packed.items()} == {
        "rgb": torch.float32,
        "flow": torch.float32,
        "audio": torch.float16,
    }
    assert np.array_equal(rows(videos, "d6"), np.load(file_of(folder, "rgb", "d6")))
    assert np.array_equal(rows(videos, "d6", "flow"), np.load(file_of(folder, "flow", "d6")).astype(np.float32))


def test_stores_give_the_same_bits_and_checksums_as_the_folders(folder: Path, capsys: pytest.CaptureFixture[str]):
    plain = module(folder)
    convert.main(["features", "--data-dir", str(folder)])
    assert f"9 videos, audio of {DATASET} by PANN, 2 wide float32" in capsys.readouterr().out
    for with_folders in (True, False):
        if not with_folders:
            for modality in FEATURES:
                for video in COUNTS:
                    file_of(folder, modality, video).unlink()
        store = module(folder)
        assert store.checksums == plain.checksums
        for split, videos in plain.splits.items():
            for modality, packed in videos.packed.items():
                assert torch.equal(store.splits[split].packed[modality], packed)


def test_a_store_of_another_folder_is_refused_until_it_is_converted_again(folder: Path):
    convert.main(["features", "--data-dir", str(folder)])
    save(folder, "rgb", "d1", np.ones((COUNTS["d1"], 4)))
    (problem,) = refused(folder)
    assert "YouTubeHighlights_rgb_I3D.safetensors was made of another file than" in problem
    convert.main(["features", "--data-dir", str(folder)])
    assert rows(module(folder).splits["train"], "d1").tolist() == np.ones((3, 4)).tolist()
    convert.main(["features", "--data-dir", str(folder)])


def test_missing_folders_are_told_with_where_they_were_looked_for(folder: Path, tmp_path: Path):
    (problem,) = refused(folder, features={"rgb": {"extractor": "VST", "width": 4}})
    assert "looked for " + str(folder / "features" / f"{DATASET}_rgb_VST.npy") in problem
    for video in COUNTS:
        file_of(folder, "audio", video).unlink()
    (problem,) = refused(folder)
    assert f"and {folder / DATASET / 'audio_features' / '*.npy'}; there are: none." in problem
    assert problem.endswith("; synthetic ones are made of the labels: features=planted_clips.")


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


def test_pickled_arrays_are_refused_by_name_and_not_run(folder: Path):
    marker = folder / "ran"
    bad = file_of(folder, "rgb", "d1")
    np.save(bad, np.array([RunsCode(marker)], dtype=object), allow_pickle=True)
    assert [problem.split(" is refused")[0] for problem in refused(folder)] == [str(bad)]
    with pytest.raises(SystemExit):
        convert.main(["features", "--data-dir", str(folder)])
    assert not marker.exists()


def test_an_array_that_its_file_cannot_hold_is_refused(folder: Path):
    for video, shape in (("d1", "(1099511627776, 4)"), ("d2", "(-1, 1)"), ("d3", f"(0x{'f' * 5000}, 1)")):
        file_of(folder, "rgb", video).write_bytes(npy_with_header(plain_header(shape), bytes(64)))
    told = refused(folder)
    assert [problem.partition("_rgb.npy is refused (")[0][-2:] for problem in told] == ["d1", "d2", "d3"]


def test_all_problems_of_the_features_are_told_together(folder: Path):
    file_of(folder, "rgb", "d1").write_bytes(b"nonsense")
    file_of(folder, "rgb", "d2").write_bytes(b"")
    save(folder, "rgb", "d3", np.ones((4, 2, 4)))
    save(folder, "flow", "d4", np.full((7, 3), np.nan))
    save(folder, "flow", "d5", np.ones((4, 9)))
    save(folder, "audio", "d6", np.ones((6, 2), int))
    file_of(folder, "audio", "s1").write_bytes(b"of another topic: not read")
    told = refused(folder)
    for part in (
        "d1_rgb.npy is refused",
        "d2_rgb.npy is refused",
        "d3_rgb.npy holds float64 (4, 2, 4): expected (clips, width)",
        "(d4) hold values that are not finite",
        "(d5) are 9 wide: asked for 3 (features.flow.width)",
        "d6.npy holds int64 (6, 2)",
    ):
        assert len([problem for problem in told if part in problem]) == 1, (part, told)
    assert len(told) == 6


def test_an_array_without_rows_is_one_problem(folder: Path):
    save(folder, "rgb", "d1", np.ones((0, 4), np.float32))
    (problem,) = refused(folder)
    assert "(d1) have no segment" in problem


def test_counts_that_are_none_are_refused_together(folder: Path):
    told = refused(folder, batch_size=0, bags=2.5)
    assert [problem.partition(":")[0] for problem in told] == ["data.batch_size", "data.bags"]


def test_checksums_of_what_is_there_are_those_of_the_run(folder: Path):
    data = module(folder)
    assert present_checksums(folder, node(), FEATURES) == data.checksums
    assert len(data.checksums) == 5
    file_of(folder, "rgb", "d1").rename(file_of(folder, "rgb", "other"))
    now = present_checksums(folder, node(), FEATURES)
    assert {name for name in now if now[name] != data.checksums[name]} == {f"features/{DATASET}_rgb_I3D"}
    made = module(folder, features=PLANTED)
    assert made.checksums[f"features/{DATASET}_rgb_planted"] == "planted-v1"
    assert present_checksums(folder, node(), PLANTED) == made.checksums
    assert present_checksums(folder / "nowhere", node(), FEATURES) == {}


# batches


def batches(source: Any, epoch: int = 0) -> list[Batch]:
    source.set_epoch(epoch)
    return list(source)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_training_sees_every_clip_of_every_video_with_its_label_and_masks_the_rest(folder: Path, batch_size: int):
    data = module(folder, batch_size=batch_size)
    train, seen = data.splits["train"], []
    source = data.train_dataloader()
    assert len(source) == len(list(source)) == -(-4 // batch_size)
    for batch in source:
        longest = batch.features["rgb"].shape[1]
        lengths = [longest] * len(batch.videos) if batch.lengths is None else batch.lengths.tolist()
        assert (batch.lengths is None) == (len(set(lengths)) == 1)
        assert batch.target.shape == (len(batch.videos), longest)
        assert batch.target.dtype == torch.float32
        for i, (video, length) in enumerate(zip(batch.videos.tolist(), lengths, strict=True)):
            name = train.names[video]
            seen.append(name)
            assert length == COUNTS[name]
            assert batch.target[i].tolist() == labels(train, name) + [0.0] * (longest - length)
            assert np.array_equal(batch.features["rgb"][i, :length], rows(train, name))
            assert batch.features["rgb"][i, length:].count_nonzero() == 0
    assert sorted(seen) == sorted(train.names)


def test_the_order_of_videos_follows_from_seed_and_epoch(folder: Path):
    train = module(folder).splits["train"]

    def order(seed: int, epoch: int) -> tuple[int, ...]:
        source = ShuffledVideos(train, batch_size=1, seed=seed)
        return tuple(int(batch.videos) for batch in batches(source, epoch))

    assert order(0, 3) == order(0, 3)
    assert len({order(seed, epoch) for seed in range(3) for epoch in range(3)}) > 4
    source = ShuffledVideos(train, batch_size=1, seed=0)
    assert source.sampler is source


def test_test_batches_hold_labels_and_survive_choosing_modalities(folder: Path):
    data = module(folder).only(["flow"]).without(["flow"])
    ((batch,),) = data.val_dataloader()
    names = [data.splits["test"].names[i] for i in batch.videos.tolist()]
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [COUNTS[v] for v in names] == [4, 6]
    assert batch.target.tolist() == [[*(float(m > 0) for m in match("d5")), 0, 0], [float(m > 0) for m in match("d6")]]
    assert batch.features.keys() == {"flow"}
    assert batch.features["flow"].count_nonzero() == 0


def test_labels_stay_with_their_videos_in_a_subset_and_on_a_device(folder: Path):
    train = module(folder).splits["train"].to(torch.device("cpu"))
    some = train.subset([2, 0])
    assert [labels(some, v) for v in some.names] == [labels(train, v) for v in ("d2", "d4")]
    (batch,) = WholeVideos(some.subset([0]), batch_size=1)
    assert batch.target.tolist() == [labels(train, "d2")]


def test_a_part_of_train_spread_over_the_share_of_highlights_is_held_out(folder: Path):
    data = module(folder, holdout=0.5, seed=3)
    assert data.evaluated == ["holdout", "test"]
    assert {split: len(videos) for split, videos in data.splits.items()} == {"train": 2, "test": 2, "holdout": 2}
    assert sorted(data.splits["train"].names + data.splits["holdout"].names) == ["d1", "d2", "d3", "d4"]
    again, other = (module(folder, holdout=0.5, seed=seed).splits["holdout"].names for seed in (3, 4))
    assert again == data.splits["holdout"].names
    assert {tuple(module(folder, holdout=0.5, seed=s).splits["holdout"].names) for s in range(8)} > {tuple(other)}


@pytest.fixture
def larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With three more training videos of dogs, seven in all."""
    for video, clips in (("d7", 8), ("d8", 5), ("d9", 9)):
        monkeypatch.setitem(COUNTS, video, clips)
    monkeypatch.setitem(SPLIT["dog"], "train", [*SPLIT["dog"]["train"], "d7", "d8", "d9"])
    return write_clips(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_videos_are_held_out_whatever_features_are_missing(larger: Path, seed: int):
    whole = module(larger, holdout=0.3, seed=seed)
    (first, *held_out), (lost, *_) = (whole.splits[split].names for split in ("holdout", "train"))
    for video in (first, lost):
        file_of(larger, "audio", video).unlink()
    rgb = module(larger, holdout=0.3, seed=seed, features={"rgb": FEATURES["rgb"]})
    assert {s: v.names for s, v in rgb.splits.items()} == {s: v.names for s, v in whole.splits.items()}
    data = module(larger, holdout=0.3, seed=seed)
    assert data.splits["holdout"].names == held_out
    assert data.splits["train"].names == [v for v in whole.splits["train"].names if v != lost]
    alone = data.only(["rgb"])
    assert alone.splits["train"].names == rgb.splits["train"].names
    assert alone.left_out == rgb.left_out != data.left_out
    assert alone.checksums == rgb.checksums


def test_a_hold_out_without_any_features_is_refused(folder: Path):
    (held_out,) = module(folder, holdout=0.2).splits["holdout"].names
    file_of(folder, "audio", held_out).unlink()
    assert f"none of the 1 videos that are held out is there ({held_out})" in refused(folder, holdout=0.2)[0]


def test_bags_pair_every_video_with_one_of_another_topic(folder: Path):
    data = module(folder, bags=4, batch_size=3)
    assert data.others is not None
    assert data.others.names == ["s1", "s2"]
    assert {split: len(videos) for split, videos in data.splits.items()} == {"train": 4, "test": 2}
    seen: list[int] = []
    paired: list[int] = []
    for batch in data.train_dataloader():
        count = len(batch.videos) // 2
        assert {m: tuple(x.shape) for m, x in batch.features.items()} == {
            m: (2 * count, 4, spec["width"]) for m, spec in FEATURES.items()
        }
        assert batch.lengths is None
        assert batch.target.tolist() == [1.0] * count + [0.0] * count
        sides = [(data.splits["train"], range(count), seen), (data.others, range(count, 2 * count), paired)]
        for videos, places, found in sides:
            for i in places:
                video = int(batch.videos[i])
                found.append(video)
                stored = rows(videos, videos.names[video]).tolist()
                drawn = [stored.index(row) for row in batch.features["rgb"][i].tolist()]
                if len(stored) <= 4:
                    assert drawn == [j % len(stored) for j in range(4)]
                else:
                    assert drawn == sorted(set(drawn))
    assert sorted(seen) == [0, 1, 2, 3]
    assert sorted(paired) == [0, 0, 1, 1]


def test_bags_follow_from_seed_and_epoch(folder: Path):
    source = module(folder, bags=4, batch_size=2).train_dataloader()

    def drawn(epoch: int) -> list[list[float]]:
        return [batch.features["rgb"].flatten().tolist() for batch in batches(source, epoch)]

    assert drawn(1) == drawn(1)
    assert len({str(drawn(epoch)) for epoch in range(4)}) == 4


def test_bags_are_the_same_in_batches_of_any_size(folder: Path):
    """d4 and s2 are longer than a bag, so that clips are drawn."""

    def bags(batch_size: int) -> Tensor:
        batches = list(module(folder, bags=4, batch_size=batch_size).train_dataloader())
        sides = zip(*(batch.features["rgb"].chunk(2) for batch in batches), strict=True)
        return torch.stack([torch.cat(side) for side in sides])

    torch.testing.assert_close(bags(1), bags(4))


def test_other_topics_are_read_for_bags_only(folder: Path):
    file_of(folder, "rgb", "s1").write_bytes(b"nonsense")
    assert module(folder).others is None
    assert "s1_rgb.npy is refused" in refused(folder, bags=60)[0]


def test_bags_of_some_modalities(folder: Path):
    data = module(folder, bags=4, batch_size=4).only(["audio"])
    (batch,) = data.train_dataloader()
    assert batch.features.keys() == {"audio"}


# planted features


def clips_of(count: int, topic: str = "dog") -> Clips:
    return Clips(topic, (np.arange(count) % 2).astype(np.float32), np.zeros((count, 2)), "seconds")


def test_planted_features_depend_on_the_video_alone(folder: Path):
    one, two = module(folder, features=PLANTED), module(folder, features={"audio": PLANTED["audio"]}, bags=4)
    write(folder, "umt_splits.json", {**SPLIT, "dog": {"train": ["d2", "d4"], "val": ["d6"]}})
    three = module(folder, features=PLANTED)
    for data in (two, three):
        for name in ("d2", "d4"):
            expected = rows(one.splits["train"], name, "audio")
            assert np.array_equal(rows(data.splits["train"], name, "audio"), expected)
    assert one.source == two.source == "synthetic"
    assert one.splits["train"].packed["rgb"].dtype == torch.float32


def test_planted_features_differ_between_modalities_topics_and_videos():
    features = [
        planted("rgb", "a", clips_of(5), 6),
        planted("flow", "a", clips_of(5), 6),
        planted("rgb", "b", clips_of(5), 6),
        planted("rgb", "a", clips_of(5, "skiing"), 6),
    ]
    assert len({array.tobytes() for array in features}) == 4
    assert features[0].shape == (5, 6)
    with pytest.raises(InputError, match=r"features.depth: there are planted features of rgb, flow, audio only"):
        planted("depth", "a", clips_of(5), 6)


def test_planted_features_are_the_same_on_every_machine():
    expected = [[0.017526, -2.565064], [-1.213875, -3.310350], [-0.377622, -2.622146]]
    assert planted("rgb", "video", clips_of(3), 2) == pytest.approx(np.array(expected), abs=1e-5)


def test_planted_and_real_features_are_not_mixed(folder: Path):
    (problem,) = refused(folder, features={**FEATURES, "audio": PLANTED["audio"]})
    assert problem.startswith("features: audio planted and rgb, flow real cannot be mixed in one run")
    assert module(folder).source == "real"


# numbers and configuration


def test_a_split_is_described_by_its_labels(folder: Path):
    described = module(folder).described()
    positive = sum(m > 0 for v in SPLIT["dog"]["train"] for m in match(v))
    assert described["train"] == {
        "videos": 4,
        "clips": 19,
        "positive": pytest.approx(positive / 19),
        "clips_per_video": {"min": 3, "median": 4.5, "max": 7},
    }
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize("topic", TOPICS)
def test_the_name_of_the_data_says_whether_its_features_are_planted(topic: str):
    real, made = (
        checked(composed(f"data=youtube_{topic}", "model=pamfn_clips", *more))
        for more in ([], ["features=planted_clips"])
    )
    assert (real.data["name"], made.data["name"]) == (f"youtube_{topic}", f"youtube_{topic}_synthetic")
    assert real.data["topic"] == made.data["topic"] == topic
    assert {m: (s.extractor, s.width) for m, s in real.streams.items()} == {
        "rgb": ("I3D", 1024),
        "flow": ("I3D", 1024),
        "audio": ("PANN", 2048),
    }


def test_another_topic_has_another_name():
    chosen = checked(composed("+experiment=youtube_dog", "data.topic=skiing", "features=planted_clips"))
    assert chosen.data == checked(composed("+experiment=youtube_skiing", "features=planted_clips")).data


@real
@pytest.mark.parametrize("topic", TOPICS)
def test_the_real_split_has_these_videos(topic: str):
    place = f"paths.data_dir={os.environ['PAMFN_DATA_DIR']}"
    few = ["features=planted_clips", "protocol=paper", "model.branch.num_stages=1"]
    data: Any = data_module(checked(composed(f"data=youtube_{topic}", "model=pamfn_clips", *few, place)))
    data.setup()
    assert (len(data.splits["train"]), len(data.splits["test"])) == SIZES[topic]
    every = f"data.annotations={DATASET}/match_labels_all.json"
    whole: Any = data_module(checked(composed(f"data=youtube_{topic}", "model=pamfn_clips", *few, place, every)))
    whole.setup()
    for split, ours in {"train": "train", "test": "test"}.items():
        absent = data.left_out["not_annotated"].get(split, {"count": 0})["count"]
        assert len(whole.splits[ours]) == len(data.splits[split]) + absent
    assert whole.left_out["not_annotated"] == {}
    assert set(data.grid_unit.values()) == {"seconds"}
    assert all(
        len(data.grid[v]) == t for v, t in zip(data.splits["test"].names, data.splits["test"].length, strict=True)
    )
