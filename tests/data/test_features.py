"""Feature files are found, read alike from both forms and checked; none is half-written, stale or damaged."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from faults.files import checked_store
from pamfn.data import features as module
from pamfn.data.features import FeatureSet, feature_file, problems_of, read_features, write_store
from pamfn.errors import InputError
from pamfn.files import regular, whole


def arrays(*, width: int = 6, dtype: str = "float16") -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {str(n): random.normal(size=(n + 3, width)).astype(dtype) for n in range(7)}


def npy(path: Path, content: dict[str, np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def same_bits(one: FeatureSet, other: FeatureSet) -> bool:
    return list(one.arrays) == list(other.arrays) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(one.arrays.values(), other.arrays.values(), strict=True)
    )


def sentence(call, *arguments, **keywords) -> str:
    with pytest.raises(InputError) as raised:
        call(*arguments, **keywords)
    return str(raised.value)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_holds_the_same_bits_and_checksum_as_the_npy(tmp_path: Path, dtype: str):
    source = read_features(npy(tmp_path / "A_rgb_X.npy", arrays(dtype=dtype)))
    write_store(source, tmp_path / "A_rgb_X.safetensors", extractor="X")
    store = read_features(tmp_path / "A_rgb_X.safetensors")
    assert same_bits(source, store)
    assert store.checksum == source.checksum == module.file_checksum(source.path)
    assert all(array.dtype == dtype for array in store.arrays.values())


def test_a_store_is_mapped_and_not_copied(tmp_path: Path):
    write_store(read_features(npy(tmp_path / "a.npy", arrays())), tmp_path / "a.safetensors", extractor="X")
    one, other, *_ = read_features(tmp_path / "a.safetensors").arrays.values()
    assert not one.flags.owndata
    assert other.ctypes.data == one.ctypes.data + one.nbytes


def test_clips_of_a_segment_are_averaged_in_float32(tmp_path: Path):
    clips = np.random.default_rng(0).normal(size=(5, 3, 4)).astype("float16")
    read = read_features(npy(tmp_path / "a.npy", {"v": clips})).arrays["v"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, clips.astype("float32").mean(axis=1))


@pytest.mark.parametrize(("stored", "read"), [("float64", "float32"), (">f4", "float32"), (">f2", "float16")])
def test_other_floating_types_become_native_float32_or_float16(tmp_path: Path, stored: str, read: str):
    content = arrays()
    found = read_features(npy(tmp_path / "a.npy", {name: array.astype(stored) for name, array in content.items()}))
    assert {array.dtype for array in found.arrays.values()} == {np.dtype(read)}
    np.testing.assert_array_equal(found.arrays["0"], content["0"])


def test_features_cannot_be_changed_by_accident(tmp_path: Path):
    source = read_features(npy(tmp_path / "a.npy", arrays()))
    write_store(source, tmp_path / "a.safetensors", extractor="X")
    for read in (source, read_features(tmp_path / "a.safetensors")):
        with pytest.raises(ValueError, match="read-only"):
            read.arrays["0"][0] = 1


def test_every_kind_of_problem_is_one_sentence_with_its_videos(tmp_path: Path):
    content = arrays() | {
        "ints": np.zeros((3, 6), dtype=int),
        "flat": np.zeros(6),
        "deep": np.zeros((2, 2, 2, 2)),
        "none": np.zeros((0, 6)),
        "wide": np.zeros((3, 8)),
        "wide too": np.zeros((3, 8)),
        "nan": np.full((3, 6), np.nan),
        "huge": np.full((3, 6), 1e300),
        "no clips": np.zeros((3, 0, 6)),
    }
    videos = [*content, *(f"lost{n}" for n in range(8))]
    found = problems_of(read_features(npy(tmp_path / "a.npy", content)), modality="rgb", width=6, videos=videos)
    text = "\n".join(found)
    assert all(problem.startswith(f"{tmp_path / 'a.npy'}: the rgb features of ") for problem in found)
    assert "8 of 24 videos (lost0, lost1, lost2, lost3, lost4, ...) are missing" in text
    assert "1 of 24 videos (ints) are of type int64" in text
    assert "1 of 24 videos (flat) have 1 dimensions" in text
    assert "1 of 24 videos (deep) have 4 dimensions" in text
    assert "1 of 24 videos (no clips) have 3 dimensions" in text
    assert "1 of 24 videos (none) have no segment" in text
    assert "2 of 24 videos (wide, wide too) are 8 wide: asked for 6 (features.rgb.width)" in text
    assert "2 of 24 videos (nan, huge) hold values that are not finite" in text
    assert len(found) == 8


def test_good_features_have_no_problems_and_only_wanted_videos_count(tmp_path: Path):
    content = arrays() | {"bad": np.full((3, 6), np.inf)}
    read = read_features(npy(tmp_path / "a.npy", content))
    assert problems_of(read, modality="rgb", width=6, videos=arrays()) == []


def test_the_store_is_preferred_and_the_npy_is_enough(tmp_path: Path):
    source = npy(tmp_path / "features/A_vicon_positions_X.npy", arrays())
    assert feature_file(tmp_path, "A", "vicon_positions", "X") == source
    store = source.with_suffix(".safetensors")
    write_store(read_features(source), store, extractor="X")
    assert feature_file(tmp_path, "A", "vicon_positions", "X") == store
    source.unlink()
    assert feature_file(tmp_path, "A", "vicon_positions", "X") == store


def test_a_missing_file_is_told_with_what_is_there_and_what_to_do(tmp_path: Path):
    for name in ("A_rgb_VST", "A_rgb_UNMT", "A_vicon_positions_X", "B_flow_I3D"):
        npy(tmp_path / f"features/{name}.npy", arrays())
    text = sentence(feature_file, tmp_path, "A", "flow", "I3D")
    assert f"no flow features for A: looked for {tmp_path}/features/A_flow_I3D.npy (or .safetensors)" in text
    assert "there are: rgb (UNMT), rgb (VST), vicon_positions (X)." in text
    assert "modalities=[rgb, vicon_positions]" in text


def test_a_missing_file_among_none_offers_nothing_that_is_not_there(tmp_path: Path):
    text = sentence(feature_file, tmp_path / "nowhere", "A", "rgb", "VST")
    assert "there are: none" in text
    assert "modalities" not in text


def test_a_store_of_another_npy_is_refused(tmp_path: Path):
    source = npy(tmp_path / "features/A_rgb_X.npy", arrays())
    store = source.with_suffix(".safetensors")
    write_store(read_features(source), store, extractor="X")
    same_size = {name: -array for name, array in arrays().items()}
    npy(source, same_size)
    later = time.time() + 10
    for when in (later, 1):  # tar, cp -p and rsync give a file the time it had
        os.utime(source, (when, when))
        assert "pamfn.convert features" in sentence(feature_file, tmp_path, "A", "rgb", "X")
    npy(source, arrays())
    os.utime(source, (later, later))
    assert feature_file(tmp_path, "A", "rgb", "X") == store
    npy(source, arrays(width=7))
    os.utime(source, (1, 1))
    assert "pamfn.convert features" in sentence(feature_file, tmp_path, "A", "rgb", "X")


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_damaged_store_is_refused_wherever_the_damage_is(tmp_path: Path, place: float):
    store = tmp_path / "a.safetensors"
    write_store(read_features(npy(tmp_path / "a.npy", arrays())), store, extractor="X")
    content = bytearray(store.read_bytes())
    content[int(place * len(content))] ^= 1
    store.write_bytes(content)
    assert "convert features" in sentence(read_features, store)


@pytest.mark.parametrize("kept", [0, 4, 100, 500, -1])
def test_a_cut_off_store_is_refused(tmp_path: Path, kept: int):
    store = tmp_path / "a.safetensors"
    write_store(read_features(npy(tmp_path / "a.npy", arrays())), store, extractor="X")
    store.write_bytes(store.read_bytes()[:kept])
    assert "damaged or cut off" in sentence(read_features, store)


def test_a_safetensors_file_of_someone_else_is_refused(tmp_path: Path):
    from safetensors.numpy import save_file

    save_file({"features": np.zeros((3, 2))}, tmp_path / "a.safetensors")
    assert "was not written by this version" in sentence(read_features, tmp_path / "a.safetensors")
    assert "looked for" in sentence(read_features, tmp_path / "none.safetensors")


@pytest.mark.parametrize("names", ['["a"]', "[1, 2]", '"ab"', "no JSON", '["a", "a"]', '["a", "\\n"]', "[" * 100_000])
def test_a_store_whose_names_cannot_be_right_is_refused_whatever_its_checksum(tmp_path: Path, names: str):
    assert "convert features" in sentence(read_features, checked_store(names=names)(tmp_path))


@pytest.mark.parametrize("offsets", [(0, 3, 2), (-3, 0, 3), (0, 2, 9), (0, 2, 2), (1, 2, 3), (), [[0, 2, 3]], 0])
def test_a_store_whose_videos_do_not_follow_one_another_is_refused(tmp_path: Path, offsets: object):
    assert "damaged" in sentence(read_features, checked_store(offsets=offsets)(tmp_path))


def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder"), (Path("/dev/zero"), "a device")):
        assert sentence(regular, path) == f"cannot read {path}: it is {kind}: expected a file."
        assert f"it is {kind}" in sentence(module.file_checksum, path)
    assert "no file can have this name" in sentence(regular, tmp_path / "a\0")
    (tmp_path / "file").write_bytes(b"four")
    for path in (tmp_path / "file", tmp_path / "missing", tmp_path / "file/below"):
        assert regular(path, most=4) == path
    assert "it has 4 bytes, and 3 at most" in sentence(regular, tmp_path / "file", most=3)
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    assert "it is a pipe" in sentence(read_features, tmp_path / "link")


@pytest.mark.parametrize("odd", [np.zeros((3, 8), "float16"), np.zeros((3, 6)), np.zeros((3, 6), int), np.zeros(6)])
def test_arrays_that_do_not_pack_are_refused_and_leave_nothing(tmp_path: Path, odd: np.ndarray):
    source = read_features(npy(tmp_path / "a.npy", arrays() | {"odd": odd}))
    assert "cannot become a store" in sentence(write_store, source, tmp_path / "out/a.safetensors", extractor="X")
    assert not (tmp_path / "out").exists()


def test_a_store_that_cannot_be_written_whole_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, store = read_features(npy(tmp_path / "a.npy", arrays())), tmp_path / "out/a.safetensors"
    write_store(source, store, extractor="X")
    before = store.read_bytes()

    def full_disk(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    assert f"no space left to write {store}" in sentence(write_store, source, store, extractor="Y")
    assert list(store.parent.iterdir()) == [store]
    assert store.read_bytes() == before


@pytest.mark.parametrize("reason", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, reason: type[BaseException]):
    def stop_half_way() -> None:
        with whole(tmp_path / "new/file") as temporary:
            temporary.write_text("half")
            raise reason

    with pytest.raises(reason):
        stop_half_way()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.skipif("PAMFN_DATA_DIR" not in os.environ, reason="PAMFN_DATA_DIR is not set: no real features")
def test_real_fisv_features_are_the_same_from_both_forms(tmp_path: Path):
    path = feature_file(Path(os.environ["PAMFN_DATA_DIR"]), "FISV", "rgb", "VST")
    source = read_features(path)
    assert problems_of(source, modality="rgb", width=1024, videos=source.arrays) == []
    assert (len(source.arrays), min(map(len, source.arrays.values()))) == (500, 124)
    write_store(source, tmp_path / "FISV_rgb_VST.safetensors", extractor="VST")
    assert same_bits(source, read_features(tmp_path / "FISV_rgb_VST.safetensors"))
