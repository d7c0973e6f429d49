import numpy as np
import pytest

from pamfn.errors import InputError
from pamfn.pipeline.reference import FILE, Reference, read_reference, write_reference


@pytest.fixture
def reference() -> Reference:
    random = np.random.default_rng(0)
    means = {"rgb": random.normal(size=(50, 6)).astype(np.float32), "audio": np.ones((50, 3), np.float32)}
    return Reference(
        points=random.uniform(0, 25, 50),
        lengths=random.integers(10, 20, 50),
        means=means,
        predicted={"last": random.uniform(0, 25, 50)},
        extraction={"rgb": {"width": 6}, "audio": None},
    )


def test_what_is_written_is_read(tmp_path, reference):
    write_reference(tmp_path, reference)
    read = read_reference(tmp_path)
    assert read is not None
    assert read.extraction == reference.extraction
    for stream, rows in reference.means.items():
        np.testing.assert_array_equal(read.means[stream], rows)
    np.testing.assert_array_equal(read.predicted["last"], reference.predicted["last"])
    np.testing.assert_array_equal(read.points, reference.points)
    assert read_reference(tmp_path / "nothing") is None


def test_a_damaged_file_is_refused(tmp_path, reference):
    write_reference(tmp_path, reference)
    content = (tmp_path / FILE).read_bytes()
    for damaged in (content[:100], b"", content.replace(b'"means.rgb"', b'"moans.rgb"')):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(InputError, match=r"reference.safetensors is damaged .*Remove it"):
            read_reference(tmp_path)


def test_a_video_far_from_all_is_told_with_its_stream(reference):
    random = np.random.default_rng(1)
    usual = {"rgb": random.normal(0, 0.01, (15, 6)), "audio": np.ones((15, 3))}
    assert reference.warnings(usual) == []
    (said,) = reference.warnings({**usual, "rgb": usual["rgb"] + 30})
    assert said.startswith("rgb unlike any training video: ")
    assert said.endswith("further than all of them")


def test_about_one_usual_video_in_a_hundred_is_called_unusual():
    random = np.random.default_rng(2)
    reference = Reference(None, np.full(400, 9), {"rgb": random.normal(size=(400, 8)).astype(np.float32)})
    new = random.normal(size=(1000, 1, 8)).repeat(9, axis=1)
    assert 1 <= sum(bool(reference.warnings({"rgb": rows})) for rows in new) <= 30


def test_unusual_lengths_are_told(reference):
    short, long = ({"audio": np.ones((t, 3))} for t in (4, 40))
    assert reference.warnings(short) == ["shorter than any training video: 4 segments, and these have 10 to 19"]
    assert "longer than any training video: 40" in reference.warnings(long)[0]


def test_of_few_training_videos_no_distance_is_told():
    few = Reference(None, np.full(3, 9), {"rgb": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)})
    assert few.warnings({"rgb": np.full((9, 2), 1000.0)}) == []
