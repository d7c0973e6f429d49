"""Label files are read whole, or refused with every problem and its line."""

import os
from pathlib import Path

import pytest

from pamfn.data.score_labels import read_scores
from pamfn.errors import InputError

RG = ["name", "difficulty", "execution", "total", "deduction", "seconds"]
FISV = ["name", "tes", "pcs", "deduction"]


def label_file(folder: Path, content: str | bytes) -> Path:
    path = folder / "train.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def problems(path: Path, *, columns: list[str] | None = None, score: str = "tes", select: str = "") -> list[str]:
    with pytest.raises(InputError) as raised:
        read_scores(path, columns=columns or FISV, score=score, select=select)
    return raised.value.problems


def test_a_header_that_mixes_tabs_and_spaces_is_skipped(tmp_path: Path):
    path = label_file(
        tmp_path, "Video_Name\tDifficulty    Execution Total\tPenalty\tLength\nBall_1\t1\t2\t3.5\t0\t92\n"
    )
    assert read_scores(path, columns=RG, score="total") == {"Ball_1": 3.5}


def test_the_first_video_is_kept_where_there_is_no_header(tmp_path: Path):
    path = label_file(tmp_path, "1 28.71 29.36 1\n3 28.79 27.89 1\n")
    assert list(read_scores(path, columns=FISV, score="pcs").items()) == [("1", 29.36), ("3", 27.89)]


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_are_accepted(tmp_path: Path):
    path = label_file(tmp_path, b"\xef\xbb\xbfa 1\r\n\r\nb 2\r\n   \r\n")
    assert read_scores(path, columns=["name", "score"], score="score") == {"a": 1.0, "b": 2.0}


def test_select_keeps_the_videos_whose_name_starts_with_it(tmp_path: Path):
    path = label_file(tmp_path, "Ball_1 1\nHoop_1 2\nBall_2 3\n")
    assert read_scores(path, columns=["name", "score"], score="score", select="Ball_") == {"Ball_1": 1, "Ball_2": 3}
    assert "starts with 'Club_'" in problems(path, columns=["name", "score"], score="score", select="Club_")[0]


def test_all_problems_of_a_file_are_told_together_with_their_lines(tmp_path: Path):
    path = label_file(tmp_path, "1 2 3 0\n\n2 x 3 0\n3 nan 3 0\n4 inf 3 0\n5 2 3\n6 2 3 0 9\n1 2 3 0\n7 2,5 3 0\n")
    found = problems(path)
    assert [problem.removeprefix(f"{path}:").split(":")[0] for problem in found] == ["3", "4", "5", "6", "7", "8", "9"]
    assert "the tes of video 2 is 'x'" in found[0]
    assert "expected 4 columns (name tes pcs deduction), found 3" in found[3]
    assert "video 1 is already on line 1" in found[5]


def test_a_first_line_with_some_numbers_is_a_mistake_and_no_header(tmp_path: Path):
    assert "the tes of video 1 is 'n/a'" in problems(label_file(tmp_path, "1 n/a 29.36 1\n2 3 4 5\n"))[0]


@pytest.mark.parametrize("number", ["1_0", "1_0.5", "٣", "²", "0x1", "1e999", "nan", "1e5_0", "½", "1,5", "--1", "."])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_not_plainly_a_finite_number_is_refused_and_no_header(tmp_path: Path, number: str, first: bool):
    lines = ["b 2"] if number in (".", "²", "½") else []  # no header starts so, and no number
    path = label_file(tmp_path, "\n".join([*lines, f"a {number}", "c 3"] if first else ["c 3", f"a {number}"]))
    (found,) = problems(path, columns=["name", "score"], score="score")
    line = 1 + len(lines) if first else 2
    assert found == f"{path}:{line}: the score of video a is '{number}': expected a finite number."


@pytest.mark.parametrize(("text", "points"), [("1", 1), ("-1.50", -1.5), ("+.5", 0.5), ("2.", 2), ("1e2", 100)])
def test_numbers_are_read_in_every_usual_form(tmp_path: Path, text: str, points: float):
    path = label_file(tmp_path, f"a {text}\n")
    assert read_scores(path, columns=["name", "score"], score="score") == {"a": points}


@pytest.mark.parametrize("field", ['"10"', "−1", "inf", "-NaN", "(3)", "٣"])
def test_a_first_line_that_may_hold_a_number_is_no_header(tmp_path: Path, field: str):
    path = label_file(tmp_path, f"a {field}\nb 2\n")
    assert "train.txt:1: the score of video a" in problems(path, columns=["name", "score"], score="score")[0]


@pytest.mark.parametrize("field", ["Score", "Information", "nanometres", "points_1"])
def test_a_header_may_start_like_the_name_of_a_number(tmp_path: Path, field: str):
    path = label_file(tmp_path, f"Video {field}\nb 2\n")
    assert read_scores(path, columns=["name", "score"], score="score") == {"b": 2}


@pytest.mark.parametrize("name", ["a\0", "\x1b[31ma", "a\x7f", "a\x9f", "a" * 201])
def test_a_name_that_cannot_be_right_is_refused_with_its_line(tmp_path: Path, name: str):
    (found,) = problems(label_file(tmp_path, f"b 1\n{name} 2\n"), columns=["name", "score"], score="score")
    assert found.startswith(f"{tmp_path / 'train.txt'}:2: the video name '{ascii(name)[1:5]}")
    assert found.isprintable()


def test_other_names_are_kept_as_they_are(tmp_path: Path):
    names = ["$HOME", "../a", "Ås_北", "a" * 200, "m01_s01;e01"]
    path = label_file(tmp_path, "".join(f"{name} 1\n" for name in names))
    assert list(read_scores(path, columns=["name", "score"], score="score")) == names


def test_a_long_list_of_problems_is_cut(tmp_path: Path):
    found = problems(label_file(tmp_path, "first 1 2 3\n" + "".join(f"v{i} 1\n" for i in range(100))))
    assert len(found) == 21
    assert "and 80 more" in found[-1]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"Name TES PCS Deduction\n", "a header line and no videos"),
        (b"1 2 3 0\n2 \xff 3 0\n", "train.txt:2: not text in UTF-8 (byte 0xff)"),
        ("1 2 3 0\n".encode("utf-16"), "not text in UTF-8"),
        (b"1\n", "expected 4 columns (name tes pcs deduction), found 1"),
    ],
)
def test_a_file_without_readable_videos_is_refused(tmp_path: Path, content: bytes, sentence: str):
    assert sentence in problems(label_file(tmp_path, content))[0]


def test_a_missing_file_is_told_with_where_it_was_looked_for(tmp_path: Path):
    assert f"looked for {tmp_path / 'none.txt'}" in problems(tmp_path / "none.txt")[0]
    assert "cannot read" in problems(tmp_path)[0]


@pytest.mark.parametrize("score", ["total", "name", ""])
def test_a_score_that_is_no_column_is_refused_with_what_is_allowed(tmp_path: Path, score: str):
    assert "choose one of tes, pcs, deduction" in problems(label_file(tmp_path, "1 2 3 0\n"), score=score)[0]


@pytest.mark.skipif("PAMFN_DATA_DIR" not in os.environ, reason="PAMFN_DATA_DIR is not set: no real label files")
@pytest.mark.parametrize(
    ("file", "columns", "score", "select", "count"),
    [
        ("FISV/train.txt", FISV, "tes", "", 400),
        ("FISV/test.txt", FISV, "pcs", "", 100),
        ("RG/train.txt", RG, "total", "Ball_", 200),
        ("RG/test.txt", RG, "total", "Ribbon_", 50),
        ("UIPRMD/test.txt", ["name", "score"], "score", "", 60),
    ],
)
def test_real_label_files_are_read_whole(file: str, columns: list[str], score: str, select: str, count: int):
    path = Path(os.environ["PAMFN_DATA_DIR"]) / file
    assert len(read_scores(path, columns=columns, score=score, select=select)) == count
