"""From files to splits: what is read, what is refused, and that all problems of a data set are told together."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from composed import composed
from conftest import UIPRMD_WIDTHS, WIDTHS
from pamfn.config.validation import checked
from pamfn.data.features import read_features, write_store
from pamfn.data.score_datamodule import ScoreDataModule
from pamfn.errors import InputError
from pamfn.pipeline.build import data_module

Arrays = dict[str, np.ndarray]

real = pytest.mark.skipif("PAMFN_DATA_DIR" not in os.environ, reason="PAMFN_DATA_DIR does not say where real data is")


def module(data_dir: Path, *overrides: str) -> ScoreDataModule:
    """The data of a configuration at the widths of the small files, read."""
    streams = UIPRMD_WIDTHS if "data=uiprmd" in overrides else WIDTHS
    widths = [f"features.{modality}.width={width}" for modality, width in streams.items()]
    data = data_module(checked(composed("protocol=paper", f"paths.data_dir={data_dir}", *widths, *overrides)))
    assert isinstance(data, ScoreDataModule)
    data.setup()
    return data


def refused(data_dir: Path, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as error:
        module(data_dir, *overrides)
    return error.value.problems


@pytest.fixture
def folder(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the small data that may be changed."""
    return shutil.copytree(tiny_data, tmp_path / "data")


def change(file: Path, how: Callable[[Arrays], None]) -> None:
    """Rewrites a feature file after `how` has changed its arrays in place."""
    arrays = np.load(file, allow_pickle=True).item()
    how(arrays)
    np.save(file, np.array(arrays, dtype=object), allow_pickle=True)


def features(folder: Path, stem: str) -> Path:
    return folder / "features" / f"{stem}.npy"


def sizes(data: ScoreDataModule) -> dict[str, int]:
    return {split: len(videos) for split, videos in data.splits.items()}


def test_an_action_of_rg_is_chosen_by_the_names_of_its_videos(tiny_data: Path):
    data = module(tiny_data, "data=rg_ball")
    assert sizes(data) == {"train": 12, "test": 6}
    assert data.evaluated == ["test"]
    assert all(name.startswith("Ball_") for videos in data.splits.values() for name in videos.names)
    assert {m: x.shape[1] for m, x in data.splits["train"].packed.items()} == WIDTHS


def test_a_label_file_without_a_header_loses_no_video(tiny_data: Path):
    data = module(tiny_data, "data=fisv_tes")
    assert sizes(data) == {"train": 12, "test": 6}
    assert data.splits["train"].names[0] == "1"


def test_points_and_targets_are_those_of_the_label_file(tiny_data: Path):
    first = (tiny_data / "FISV" / "test.txt").read_text().split()[1:3]
    for score, points in zip(("tes", "pcs"), map(float, first), strict=True):
        videos = module(tiny_data, f"data=fisv_{score}").splits["test"]
        assert videos.points[0] == points
        assert videos.target[0] == pytest.approx(points / 45)
        assert (videos.points.dtype, videos.target.dtype) == (torch.float64, torch.float32)


def test_the_score_range_covers_train_and_test(tiny_data: Path):
    files = [np.loadtxt(tiny_data / "FISV" / f"{split}.txt")[:, 1] for split in ("train", "test")]
    points = np.concatenate(files)
    data = module(tiny_data, "data=fisv_tes", "protocol=holdout")
    assert data.score_range == pytest.approx(points.max() - points.min())


def test_segments_are_those_of_the_feature_file_in_its_own_precision(tiny_data: Path):
    videos = module(tiny_data, "data=fisv_tes").splits["test"]
    stored = np.load(features(tiny_data, "FISV_flow_I3D"), allow_pickle=True).item()
    start, length = int(videos.start[2]), int(videos.length[2])
    assert np.array_equal(videos.packed["flow"][start : start + length].numpy(), stored[videos.names[2]])
    clips = np.load(features(tiny_data, "FISV_rgb_VST"), allow_pickle=True).item()[videos.names[2]]
    mean = clips.astype(np.float32).mean(axis=1)
    assert np.array_equal(videos.packed["rgb"][start : start + length].numpy(), mean)


def test_held_out_videos_are_taken_from_train_and_nothing_is_lost(tiny_data: Path):
    whole = module(tiny_data, "data=fisv_tes").splits["train"]
    data = module(tiny_data, "data=fisv_tes", "protocol=holdout", "protocol.holdout=0.25")
    assert sizes(data) == {"train": 9, "test": 6, "holdout": 3}
    assert data.evaluated == ["holdout", "test"]
    parts = [*data.splits["train"].names, *data.splits["holdout"].names]
    assert sorted(parts) == sorted(whole.names)
    keys = [*data.splits["train"].key.tolist(), *data.splits["holdout"].key.tolist()]
    assert [whole.names[key] for key in keys] == parts


def test_the_same_videos_are_held_out_for_every_choice_of_modalities(tiny_data: Path):
    one = module(tiny_data, "data=rg_ball", "protocol=holdout", "modalities=[audio]")
    all_of_them = module(tiny_data, "data=rg_ball", "protocol=holdout")
    other_seed = module(tiny_data, "data=rg_ball", "protocol=holdout", "seed=1")
    assert one.splits["holdout"].names == all_of_them.splits["holdout"].names != other_seed.splits["holdout"].names


def test_refitting_trains_on_all_of_train(tiny_data: Path):
    assert sizes(module(tiny_data, "data=fisv_tes", "protocol=holdout", "protocol.refit=true")) == {
        "train": 12,
        "test": 6,
    }


def test_streams_named_by_the_user_need_one_yaml_file_and_no_code(tiny_data: Path):
    data = module(tiny_data, "data=uiprmd")
    assert sizes(data) == {"train": 12, "test": 6}
    assert {m: x.shape[1] for m, x in data.splits["test"].packed.items()} == UIPRMD_WIDTHS
    assert list(module(tiny_data, "data=uiprmd", "modalities=[kinect_angles]").splits["test"].packed) == [
        "kinect_angles"
    ]


def test_data_says_whether_it_is_real(tiny_data: Path):
    assert module(tiny_data, "data=uiprmd").source == "real"
    assert module(tiny_data, "data=uiprmd", "data.name=synthetic_squats").source == "synthetic"
    assert data_module(checked(composed("data=synthetic", "data.name=demo"))).source == "synthetic"
    assert module(tiny_data, "data=uiprmd").left_out == {}


def test_only_the_chosen_modalities_are_read(folder: Path):
    features(folder, "FISV_flow_I3D").unlink()
    features(folder, "FISV_audio_AST").write_bytes(b"nonsense")
    assert list(module(folder, "data=fisv_tes", "modalities=[rgb]").splits["train"].packed) == ["rgb"]


def test_some_of_the_modalities_are_the_same_data_not_read_again(tiny_data: Path):
    data = module(tiny_data, "data=fisv_tes")
    part = data.only(["audio", "rgb"])
    assert list(part.splits["train"].packed) == ["audio", "rgb"]
    assert part.splits["train"].packed["rgb"] is data.splits["train"].packed["rgb"]
    assert list(data.splits["train"].packed) == list(WIDTHS)


def test_a_modality_of_several_is_as_long_as_alone(folder: Path):
    """Else a branch would depend on what it was trained for."""
    file = features(folder, "FISV_audio_AST")
    shorter = {video: x[:-1] for video, x in np.load(file, allow_pickle=True).item().items()}
    np.save(file, np.array(shorter, dtype=object), allow_pickle=True)
    data = module(folder, "data=fisv_tes")
    assert data.left_out == {"truncated": {"videos": 18, "rows": 18}}
    assert data.only(list(WIDTHS)).left_out == data.left_out
    part, alone = data.only(["rgb"]), module(folder, "data=fisv_tes", "modalities=[rgb]")
    assert (part.left_out, part.checksums, part.evaluated) == ({}, alone.checksums, alone.evaluated)
    for split, videos in alone.splits.items():
        assert torch.equal(part.splits[split].length, videos.length)
        assert torch.equal(part.splits[split].packed["rgb"], videos.packed["rgb"])
        assert len(videos.packed["rgb"]) > len(data.splits[split].packed["rgb"])


def test_a_store_gives_the_same_videos_as_its_npy(folder: Path):
    npy = module(folder, "data=fisv_tes", "modalities=[rgb]")
    file = features(folder, "FISV_rgb_VST")
    write_store(read_features(file), file.with_suffix(".safetensors"), extractor="VST")
    file.unlink()
    store = module(folder, "data=fisv_tes", "modalities=[rgb]")
    assert torch.equal(store.splits["train"].packed["rgb"], npy.splits["train"].packed["rgb"])
    assert store.checksums == npy.checksums


def test_all_problems_of_a_data_set_are_told_together(folder: Path):
    features(folder, "FISV_audio_AST").unlink()
    labels = folder / "FISV" / "train.txt"
    first, second, *rest = labels.read_text().splitlines()
    labels.write_text("\n".join([first.replace(" ", " x", 1), second.replace(second.split()[1], "99"), *rest]) + "\n")
    test = folder / "FISV" / "test.txt"
    test.write_text(test.read_text() + rest[-1] + "\n")

    def spoil_rgb(arrays: Arrays) -> None:
        arrays["3"][0, 0, 0] = np.nan
        arrays["14"] = arrays["14"][..., :-1]
        del arrays["5"]
        arrays["6"] = arrays["6"][:2]

    def spoil_flow(arrays: Arrays) -> None:
        arrays["4"] = arrays["4"][:-3]
        arrays["6"] = arrays["6"][:2]

    change(features(folder, "FISV_rgb_VST"), spoil_rgb)
    change(features(folder, "FISV_flow_I3D"), spoil_flow)
    told = refused(folder, "data=fisv_tes")
    rgb = features(folder, "FISV_rgb_VST")
    sentences = [
        f"{labels}:1: the tes of video 1 is 'x",
        f"{labels}: 1 scores are outside 0..45 (data.max_score): 2.",
        "FISV: 1 videos are in train and in test: 12.",
        f"no audio features for FISV: looked for {features(folder, 'FISV_audio_AST')} (or .safetensors); there are: "
        "audio (MAST), flow (I3D), rgb (UNMT), rgb (VST). Put them there (README, 'Data'), or run without them: "
        "modalities=[flow, rgb].",
        f"{rgb}: the rgb features of 1 of 18 videos (3) hold values that are not finite",
        f"{rgb}: the rgb features of 1 of 18 videos (14) are 5 wide: asked for 6 (features.rgb.width).",
        f"{rgb}: the rgb features of 1 of 18 videos (5) are missing: add them, or take",
        "FISV: 1 videos have different numbers of segments in rgb, flow (4: [",
        "FISV: 1 videos are shorter than the 4 segments that the network needs: 6.",
    ]
    for sentence in sentences:
        assert len([problem for problem in told if problem.startswith(sentence)]) == 1, (sentence, told)
    assert len(told) == len(sentences)


def test_streams_that_differ_by_two_segments_are_cut_to_the_shortest(folder: Path, caplog: pytest.LogCaptureFixture):
    before = module(folder, "data=fisv_tes").splits["train"]
    names, length = before.names, before.length.tolist()

    def shorten(arrays: Arrays) -> None:
        for video, segments in ((names[0], 1), (names[3], 2)):
            arrays[video] = arrays[video][:-segments]

    change(features(folder, "FISV_audio_AST"), shorten)
    with caplog.at_level("INFO", logger="pamfn"):
        after = module(folder, "data=fisv_tes").splits["train"]
    assert after.length.tolist() == [t - {0: 1, 3: 2}.get(i, 0) for i, t in enumerate(length)]
    assert {len(x) for x in after.packed.values()} == {sum(length) - 3}
    assert torch.equal(after.packed["rgb"][0], before.packed["rgb"][0])
    start = int(after.start[1])
    assert torch.equal(after.packed["rgb"][start], before.packed["rgb"][length[0]])
    assert "2 videos cut to their shortest stream" in caplog.text


def test_streams_that_differ_by_more_are_refused_with_their_lengths(folder: Path):
    length = len(np.load(features(folder, "FISV_flow_I3D"), allow_pickle=True).item()["7"])
    change(features(folder, "FISV_flow_I3D"), lambda arrays: arrays.update({"7": arrays["7"][:-3]}))
    (problem,) = refused(folder, "data=fisv_tes")
    assert f"7: [{length}, {length - 3}, {length}]" in problem
    assert "Up to 2 are cut to the shortest" in problem
    assert sizes(module(folder, "data=fisv_tes", "modalities=[rgb,audio]"))["train"] == 12


@pytest.mark.parametrize("line", ["{name} 46.00 20.00 0", "{name} -0.01 20.00 0"])
def test_scores_beyond_the_maximum_are_refused(folder: Path, line: str):
    labels = folder / "FISV" / "test.txt"
    first, *rest = labels.read_text().splitlines()
    labels.write_text("\n".join([line.format(name=first.split()[0]), *rest]) + "\n")
    (problem,) = refused(folder, "data=fisv_tes")
    assert problem == f"{labels}: 1 scores are outside 0..45 (data.max_score): {first.split()[0]}."
    assert (
        sizes(module(folder, "data=fisv_tes", "data.max_score=50.0" if "46" in line else "data.score=pcs"))["test"] == 6
    )


def test_a_video_must_be_as_long_as_the_network_needs(folder: Path):
    for stem in ("FISV_rgb_VST", "FISV_flow_I3D", "FISV_audio_AST"):
        change(features(folder, stem), lambda arrays: arrays.update({"9": arrays["9"][:3]}))
    (problem,) = refused(folder, "data=fisv_tes")
    assert problem == "FISV: 1 videos are shorter than the 4 segments that the network needs: 9."
    assert sizes(module(folder, "data=fisv_tes", "model.branch.num_stages=2"))["train"] == 12


def test_a_missing_label_file_is_told_with_where_it_was_looked_for(folder: Path):
    (folder / "FISV" / "test.txt").unlink()
    (problem,) = refused(folder, "data=fisv_tes")
    assert problem.startswith(f"no label file: looked for {folder / 'FISV' / 'test.txt'}.")


def test_too_few_videos_to_train_on_are_refused_every_time(folder: Path):
    labels = folder / "FISV" / "train.txt"
    labels.write_text("\n".join(labels.read_text().splitlines()[:2]) + "\n")
    settings = checked(
        composed("data=fisv_tes", f"paths.data_dir={folder}", "features.rgb.width=6", "modalities=[rgb]")
    )
    data = data_module(settings)
    for _ in range(2):
        with pytest.raises(InputError, match="fisv_tes: 1 videos to train on; at least 2 are needed"):
            data.setup()


def test_loaders_give_crops_for_training_and_whole_videos_of_every_evaluated_split(tiny_data: Path):
    data = module(tiny_data, "data=fisv_tes", "protocol=holdout", "data.crop=5")
    data.batch_size, data.test_batch_size = 3, 4
    shapes = [batch.features["flow"].shape for batch in data.train_dataloader()]
    assert shapes == [(3, 5, WIDTHS["flow"])] * 3
    counts = [[len(batch.videos) for batch in loader] for loader in data.val_dataloader()]
    assert counts == [[2], [4, 2]]


@real
@pytest.mark.parametrize(
    ("overrides", "videos", "widths"),
    [
        (
            ["data=uiprmd"],
            {"train": 120, "test": 60},
            {"vicon_positions": 117, "kinect_angles": 66, "kinect_positions": 66},
        ),
        (["data=uiprmd", "protocol=holdout"], {"train": 96, "test": 60, "holdout": 24}, None),
        (["data=fisv_tes", "modalities=[rgb]"], {"train": 400, "test": 100}, {"rgb": 1024}),
    ],
)
def test_real_data_is_read_whole(overrides: list[str], videos: dict[str, int], widths: dict[str, int] | None):
    data = data_module(
        checked(composed("protocol=paper", f"paths.data_dir={os.environ['PAMFN_DATA_DIR']}", *overrides))
    )
    assert isinstance(data, ScoreDataModule)
    data.setup()
    assert sizes(data) == videos
    packed = data.splits["train"].packed
    assert widths is None or {m: x.shape[1] for m, x in packed.items()} == widths
    assert {x.dtype for x in packed.values()} == {torch.float16}
    assert 0 <= float(data.splits["train"].target.min()) <= float(data.splits["train"].target.max()) <= 1
