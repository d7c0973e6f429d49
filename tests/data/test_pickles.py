"""Pickles are read without running them: good ones whole, malicious ones refused by the name they try to load."""

import copyreg
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faults.files import CASES, environment, problem
from pamfn.data.pickles import load_npy_dict
from pamfn.errors import InputError
from refusals import FORMS, GADGETS, Runs, malicious, sentence

GOOD = {"a": np.arange(12, dtype="float16").reshape(3, 4), "b": np.ones((2, 4), "float32")}


def npy(path: Path, pickled: bytes) -> Path:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(pickled)
    return path


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return list(found) == list(wanted) and all(
        found[name].dtype == wanted[name].dtype and np.array_equal(found[name], wanted[name]) for name in wanted
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_arrays_of_every_pickle_protocol_and_numpy_version_are_read(tmp_path: Path, protocol: int, core: bytes):
    content = GOOD | {
        "fortran": np.asfortranarray(GOOD["a"]),
        "strided": np.arange(24.0).reshape(4, 6)[::2, ::3],
        "turned": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        "empty": np.zeros((0, 4)),
        "big-endian": np.arange(3, dtype=">f4"),
        "whole": np.arange(3),
        "single": np.array(1.5),
    }
    pickled = pickle.dumps(np.array(content, dtype=object), protocol)
    if core != b"numpy._core" and protocol < 4:
        pickled = pickled.replace(b"numpy._core", core)
    assert same(load_npy_dict(npy(tmp_path / "a.npy", pickled)), content)


def test_the_old_spelling_of_numpys_modules_is_read_in_new_protocols(tmp_path: Path):
    pickled = pickle.dumps(np.array(GOOD, dtype=object), 4)
    start = pickled.index(b"\x8c\x16numpy._core.multiarray")
    frame = struct.unpack("<Q", pickled[3:11])[0]
    older = b"\x80\x04\x95" + struct.pack("<Q", frame - 1) + pickled[11:]
    older = older[:start] + b"\x8c\x15numpy.core.multiarray" + older[start + 24 :]
    assert same(load_npy_dict(npy(tmp_path / "a.npy", older)), GOOD)


def test_numbers_and_numpy_text_are_accepted_as_names(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.array({1: GOOD["a"], np.str_("two"): GOOD["b"]}, dtype=object), allow_pickle=True)
    assert same(load_npy_dict(tmp_path / "a.npy"), {"1": GOOD["a"], "two": GOOD["b"]})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"a": [1, 2]}, "video a is a list"),
        ({"a": np.array([GOOD], dtype=object)}, "video a is an array of Python objects"),
        ({"a": np.array([None, {}], dtype=object)}, "video a is an array of Python objects"),
        ({"a": np.array(None, dtype=object)}, "video a is an array of Python objects"),
        ({(1, 2): GOOD["a"]}, "video name (1, 2) is a tuple"),
        ({1: GOOD["a"], "1": GOOD["a"]}, "video 1 is there twice"),
        ([GOOD["a"]], "holds a list: expected a dict"),
        ({"a": np.zeros(2, "datetime64[s]")}, "dtype 'M8'"),
        ({"a": np.zeros(2, [("x", "f4")])}, "an array with fields"),
        ({"a": GOOD["a"].astype("datetime64[s]").astype("timedelta64[s]")}, "dtype 'm8'"),
    ],
)
def test_a_dict_of_other_things_than_arrays_of_numbers_is_refused(tmp_path: Path, content: object, told: str):
    box = np.empty((), dtype=object)
    box[()] = content
    assert told in sentence(load_npy_dict, npy(tmp_path / "a.npy", pickle.dumps(box, 4)))


def test_other_files_are_refused_with_what_was_expected(tmp_path: Path):
    np.save(tmp_path / "plain.npy", GOOD["a"])
    assert "one array of float16 (3, 4): expected a dict" in sentence(load_npy_dict, tmp_path / "plain.npy")
    (tmp_path / "empty.npy").touch()
    assert "is empty" in sentence(load_npy_dict, tmp_path / "empty.npy")
    (tmp_path / "text.npy").write_text("hello, this is no array at all")
    assert "not a numpy .npy file" in sentence(load_npy_dict, tmp_path / "text.npy")
    assert "looked for" in sentence(load_npy_dict, tmp_path / "none.npy")
    assert "cannot read" in sentence(load_npy_dict, tmp_path)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.array(GOOD, dtype=object), allow_pickle=True)
    whole = (tmp_path / "a.npy").read_bytes()
    for kept in range(len(whole)):
        (tmp_path / "cut.npy").write_bytes(whole[:kept])
        assert "cut.npy" in sentence(load_npy_dict, tmp_path / "cut.npy")


def test_a_file_with_any_byte_changed_is_read_or_refused_and_nothing_else(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.array(GOOD, dtype=object), allow_pickle=True)
    whole = (tmp_path / "a.npy").read_bytes()
    for place in range(len(whole)):
        for value in (0, 0xFF, ord("R"), ord("b"), whole[place] ^ 1):
            (tmp_path / "odd.npy").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                found = load_npy_dict(tmp_path / "odd.npy")
            except InputError:
                continue
            assert all(isinstance(array, np.ndarray) for array in found.values())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", GADGETS)
def test_a_malicious_feature_file_is_refused_by_name_and_runs_nothing(tmp_path: Path, name: str, form: str):
    mark = tmp_path / "ran"
    runs = Runs(name, *(argument.format(str(mark)) for argument in GADGETS[name]))
    path = npy(tmp_path / "a.npy", malicious(runs, form))
    assert f"it tries to load {name}," in sentence(load_npy_dict, path)
    assert not mark.exists()


class Touches:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_call_between_good_arrays_is_refused_and_does_not_run(tmp_path: Path, protocol: int):
    mark = tmp_path / "ran"
    pickled = pickle.dumps(np.array(GOOD | {"c": Touches(mark)}, dtype=object), protocol)
    assert f"it tries to load {os.system.__module__}.system" in sentence(
        load_npy_dict, npy(tmp_path / "a.npy", pickled)
    )
    assert not mark.exists()
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert mark.exists(), "the attack works on a reader without restrictions"


@pytest.mark.parametrize("code", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_a_name_from_the_extension_registry_is_refused(tmp_path: Path, code: bytes):
    path = npy(tmp_path / "a.npy", b"\x80\x02" + code + b"(X\x02\x00\x00\x00ls" + b"tR.")
    assert "unregistered extension" in sentence(load_npy_dict, path)
    copyreg.add_extension("os", "system", 0xF0)
    try:
        assert "it tries to load os.system" in sentence(load_npy_dict, path)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)


@pytest.mark.parametrize(
    "pickled",
    [
        b"cnumpy\ndtype\n}(U\x09_functioncnumpy\ndtype\nub.",
        b"cnumpy\ndtype\nN}(U\x09_functionNu\x86b.",
        b"cnumpy\ndtype\n}b.",
        b"cnumpy\ndtype\n(U\x02f4tR(K\x03U\x01<(NNtNNtb.",
        b"cnumpy\ndtype\n(U\x01OtR(K\x03U\x01|NNNtb.",
        b"X\x02\x00\x00\x00idQ.",
        b"Pid\n.",
        b"c_codecs\nencode\n(U\x04abcdU\x03hextR.",
        b"cbuiltins\nbytes\n(J\xff\xff\xff\x7ftR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\xff\xff\xff\x7ftU\x01btR.",
        b"N\x72\xff\xff\xff\xff.",
        b"(" * 100_000 + b".",
        b"N" + b"\x85" * 100_000 + b".",
    ],
)
def test_instructions_that_numpy_never_writes_are_refused(tmp_path: Path, pickled: bytes):
    assert "a.npy" in sentence(load_npy_dict, npy(tmp_path / "a.npy", pickled))
    assert same(load_npy_dict(npy(tmp_path / "b.npy", pickle.dumps(np.array(GOOD, dtype=object), 4))), GOOD)


def test_an_array_cannot_claim_more_values_than_the_file_holds(tmp_path: Path):
    pickled = pickle.dumps(np.array(GOOD, dtype=object), 0).replace(b"I3\nI4\n", b"I30000000\nI40000000\n")
    assert b"I30000000" in pickled
    assert "cannot reshape" in sentence(load_npy_dict, npy(tmp_path / "a.npy", pickled))


def test_a_file_may_name_one_array_a_few_times(tmp_path: Path):
    content = GOOD | dict.fromkeys("cdef", GOOD["a"])
    assert same(load_npy_dict(npy(tmp_path / "a.npy", pickle.dumps(np.array(content, dtype=object), 4))), content)


@pytest.mark.parametrize("name", ["", "a\0", "a\nb", "\ud800", "a\x85", "a" * 201])
def test_a_name_that_cannot_be_right_is_refused_on_one_line(tmp_path: Path, name: str):
    pickled = pickle.dumps(np.array(GOOD | {name: GOOD["a"]}, dtype=object), 4)
    told = sentence(load_npy_dict, npy(tmp_path / "a.npy", pickled))
    assert "a.npy: the video name '" in told
    assert told.isprintable()


def test_other_names_are_kept_as_they_are(tmp_path: Path):
    content = {str(name): GOOD["a"] for name in ("$HOME", "../a b", "Ås_北", "a" * 200)}
    assert same(load_npy_dict(npy(tmp_path / "a.npy", pickle.dumps(np.array(content, dtype=object), 4))), content)


@pytest.mark.slow
def test_every_bad_file_is_refused_in_time_and_runs_nothing(tmp_path: Path):
    """In one process, which must survive all of them."""
    words = []
    for number, case in enumerate(CASES):
        folder = tmp_path / str(number)
        folder.mkdir()
        words += case.words(case.write(folder))[2:]
    program = [sys.executable, "-m", "faults.reading", *words]
    done = subprocess.run(program, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    told = done.stdout.splitlines()
    wrong = [
        f"{case.name}: {why}"
        for case, line in zip(CASES, told, strict=False)
        if (why := problem(case, tmp_path, 0, line, 0.0))
    ]
    assert (wrong, len(told), done.returncode, done.stderr) == ([], len(CASES), 0, "")


def test_reading_features_does_not_import_torch():
    program = "import sys; import pamfn.data.features, pamfn.data.pickles; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
