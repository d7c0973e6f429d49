"""Malicious and damaged files: whoever reads one is told so in a sentence, in two seconds, and runs nothing of it.

`python -m faults.files [FOLDER]` tries them all, each in a process of its own; one printed line a case.
"""

import json
import os
import pickle
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from faults.outcome import Outcome

LIMIT = 10.0
"""Seconds until a case counts as hanging."""
SLOWEST = 2.0
"""Seconds that reading may take."""
MOST_MEMORY = 600
"""MiB that reading a few MB may take."""
MARK = "ran"
"""The file that the code in a file would write."""


@dataclass(frozen=True)
class Case:
    """A bad file.

    `write(folder)` writes it and gives its path; `words(path)` is the command that reads it, after `python`; `told` is
    a pattern of what it must print, empty when it may also be read.
    """

    name: str
    write: Callable[[Path], Path]
    words: Callable[[Path], list[str]]
    told: str = "refused: "


def reads(reader: str) -> Callable[[Path], list[str]]:
    """The command that reads a file as one of `faults.reading.READERS`."""
    return lambda path: ["-m", "faults.reading", reader, str(path)]


# pickles of feature files


def npy(pickled: bytes) -> Callable[[Path], Path]:
    """A `.npy` file that holds one Python object, and whose pickle this is."""

    def write(folder: Path) -> Path:
        path = folder / "A_rgb_X.npy"
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
            file.write(pickled)
        return path

    return write


def text(content: str) -> bytes:
    """An instruction that puts a text on the stack."""
    return b"X" + struct.pack("<I", len(content.encode())) + content.encode()


def memoized(place: int) -> bytes:
    return b"r" + struct.pack("<I", place)


def recalled(place: int) -> bytes:
    return b"j" + struct.pack("<I", place)


def shared(instruction: bytes, levels: int) -> bytes:
    """A tuple or list of two that are the same, of two that are the same, ...: small, and endless to walk through."""
    marks = b"(" * levels if instruction == b"l" else b""
    parts = [recalled(i) + instruction + memoized(i + 1) for i in range(levels)]
    return marks + b"N" + memoized(0) + b"".join(parts)


def array(values: int) -> bytes:
    """A pickled array of as many float64, without its end."""
    return pickle.dumps(np.zeros((values, 1)), 3)[2:-1]


def call(name: str, arguments: bytes) -> bytes:
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n".encode() + b"(" + arguments + b"tR"


def numbered(count: int, value: bytes) -> bytes:
    """Pairs of a number and a value."""
    return b"".join(b"J" + struct.pack("<i", i) + value for i in range(count))


class Touches:
    """Writes the mark when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARK}",)


GOOD = array(3)
NUMPY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
DTYPE = b"cnumpy\ndtype\n(U\x02f4tR"
PICKLES: dict[str, bytes] = {
    "a call of os.system": call("os.system", text(f"touch {MARK}")) + b".",
    "a call by reduce": pickle.dumps(np.array({"a": Touches()}, dtype=object), 4),
    "a call in a name": b"}" + call("os.system", text(f"touch {MARK}")) + GOOD + b"s.",
    "an evaluated text": call("builtins.eval", text(f"open('{MARK}', 'w')")) + b".",
    "a call by an instance": b"(" + text(f"touch {MARK}") + b"ios\nsystem\n.",
    "numpy.load of itself": call("numpy.load", text("A_rgb_X.npy")) + b".",
    "a function's attributes": b"cnumpy\ndtype\n}" + text("__call__") + b"cos\nsystem\nsb.",
    "a persistent id": text("id") + b"Q.",
    "an extension": b"\x80\x02\x82\xf0.",
    "a set": b"\x80\x04\x8f(" + text("a") + b"\x90.",
    "a deep tuple as name": b"}N" + b"\x85" * 800_000 + GOOD + b"s.",
    "a deep tuple as value": b"}" + text("a") + b"N" + b"\x85" * 800_000 + b"s.",
    "a shared tuple as name": b"}" + shared(b"\x86", 60) + GOOD + b"s.",
    "a shared tuple in a set": b"\x80\x04(" + shared(b"\x86", 60) + b"\x91.",
    "a list in a tuple as name": b"}" + shared(b"l", 60) + b"\x85" + GOOD + b"s.",
    "shared lists": b"}" + text("a") + shared(b"l", 60) + b"s.",
    "a shared list as shape": NUMPY + b"(K\x01(J\xff\xff\xff\xff" + shared(b"l", 60) + b"l" + DTYPE + b"\x89U\x00tb.",
    "a shared list as encoding": call("_codecs.encode", text("a") + shared(b"l", 60)) + b".",
    "a shared list as byte order": DTYPE
    + b"(K\x03"
    + shared(b"l", 60)
    + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.",
    "a list of itself": b"]" + memoized(0) + recalled(0) + b"a.",
    "a dict of itself": b"}" + memoized(0) + text("a") + recalled(0) + b"s.",
    "lists in lists": b"]" * 240_000 + b"a" * 239_999 + b".",
    "dicts in dicts": (b"}" + text("a")) * 160_000 + b"N" + b"s" * 160_000 + b".",
    "5 MB of Nones": b"N" * 5_000_000 + b".",
    "5 MB of marks": b"(" * 5_000_000 + b".",
    "5 MB of lists": b"]" * 5_000_000 + b".",
    "5 MB of the memo": b"\x80\x04]" + b"\x94" * 5_000_000 + b".",
    "a dict of many": b"}(" + numbered(1_000_000, b"N") + b"u.",
    "many names of one array": b"}"
    + text("a")
    + array(500_000)
    + memoized(0)
    + b"s("
    + numbered(200_000, recalled(0))
    + b"u.",
    "bytes made again and again": text("a" * 2_000_000)
    + memoized(0)
    + (b"c_codecs\nencode\n(" + recalled(0) + text("latin1") + b"tR") * 30_000
    + b".",
    "a name of millions of digits": b"}\x8b" + struct.pack("<i", 5_000_000) + b"\x01" * 5_000_000 + GOOD + b"s.",
    "a name of many digits": b"}\x8a\x20" + b"\x01" * 32 + GOOD + b"s.",
    "a number in millions of letters": b"I" + b"9" * 5_000_000 + b"\n.",
    "a name of a million letters": b"}" + text("a" * 1_000_000) + GOOD + b"s.",
    "a name with a NUL": b"}" + text("a\0b") + GOOD + b"s.",
    "a name with half a character": b"}X\x03\x00\x00\x00\xed\xa0\x80" + GOOD + b"s.",
    "an empty name": b"}" + text("") + GOOD + b"s.",
    "2**60 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".",
    "2**35 bytes to be written": b"\x80\x05\x96" + struct.pack("<Q", 2**35) + b".",
    "2**35 letters": b"\x80\x04\x8d" + struct.pack("<Q", 2**35) + b".",
    "2**60 bytes in a frame": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
    "a number of 2**31 bytes": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "a memo of 2**32": b"Nr\xff\xff\xff\xff.",
    "an array of 2**62": NUMPY + b"(K\x01(\x8a\x08" + struct.pack("<q", 2**62) + b"t" + DTYPE + b"\x89U\x00tb.",
    "an array below 0": NUMPY + b"(K\x01(J\xff\xff\xff\xfft" + DTYPE + b"\x89U\x00tb.",
}


# other feature files


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def npy_with_header(header: str, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header.encode() + content


def plain_header(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


PLAIN: dict[str, bytes] = {
    "values for 2**40": npy_with_header(plain_header("(1099511627776, 4)")),
    "values for 2**34": npy_with_header(plain_header("(4294967296, 4)"), bytes(4_000_000)),
    "a size beyond 64 bits": npy_with_header(plain_header("(4294967296, 4294967296)")),
    "a size below 0": npy_with_header(plain_header("(-1, 1)"), bytes(40)),
    "a size with a million digits": npy_with_header(plain_header(f"(0x{'f' * 9000}, 1)")),
    "a header of 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
    "a header of brackets": npy_with_header("(" * 9000),
    "a header of signs": npy_with_header("-" * 9000 + "1"),
    "a header of indices": npy_with_header("a" + "[0]" * 3000),
    "a type in types": npy_with_header(plain_header("(1, 1)", "[('a'," * 150 + "'f4'" + ")]" * 150)),
    "values cut off": npy_with_header(plain_header("(10, 10)"), bytes(399)),
    "pickled objects": npy_with_header(plain_header("(1, 1)", "'|O'"), pickle.dumps([Touches()], 4)),
}


def store(header: dict[str, Any] | bytes, content: bytes = b"", length: int | None = None) -> Callable[[Path], Path]:
    """A `.safetensors` file with this header, which may say that it has another length than it has."""
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = struct.pack("<Q", len(written) if length is None else length)
    return raw("A_rgb_X.safetensors", size + written + content)


def checked_store(packed: np.ndarray | None = None, offsets: Any = (0, 2, 3), names: str = '["a", "b"]', **more: str):
    """A store with a right checksum and wrong content."""
    from pamfn.data.features import _payload_checksum

    packed = np.zeros((3, 4), np.float32) if packed is None else packed
    tensors = {"features": packed, "offsets": np.asarray(offsets, np.int64)}
    metadata = {"version": "1", "extractor": "X", "names": names, "source_name": "A_rgb_X.npy", "source_size": "1"}
    metadata |= {"source_checksum": "0" * 32} | more
    metadata["checksum"] = _payload_checksum(metadata, tensors["offsets"], packed)
    return raw("A_rgb_X.safetensors", save(tensors, metadata))


def spot(shape: list[Any], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


STORES: dict[str, Callable[[Path], Path]] = {
    "a header of 2**63 bytes": store(b"{}", length=2**63),
    "a header longer than the file": store(b"{}", length=90_000_000),
    "a header of brackets": store(b'{"a":' + b"[" * 5_000_000),
    "values beyond the file": store({"features": spot([3, 4], 0, 48)}, bytes(8)),
    "values that lie on each other": store({"a": spot([2], 0, 8), "b": spot([2], 4, 12)}, bytes(12)),
    "a size below 0": store({"features": spot([-3, -4], 0, 48)}, bytes(48)),
    "a size beyond 64 bits": store({"features": spot([2**62, 4, 4], 0, 48)}, bytes(48)),
    "metadata in metadata": store({"__metadata__": {"names": {"a": {}}}}),
    "no names": checked_store(names="[]"),
    "names of a few": checked_store(names='["a"]'),
    "names that are numbers": checked_store(names="[1, 2]"),
    "names that are a text": checked_store(names='"ab"'),
    "names that are no JSON": checked_store(names="ab"),
    "names in brackets": checked_store(names="[" * 1_000_000),
    "a name twice": checked_store(names='["a", "a"]'),
    "a name with a NUL": checked_store(names='["a", "b\\u0000"]'),
    "a name with half a character": checked_store(names='["a", "\\ud800"]'),
    "videos one after the next": checked_store(offsets=(0, 3, 2)),
    "videos before the start": checked_store(offsets=(-3, 0, 3)),
    "videos beyond the end": checked_store(offsets=(0, 2, 9)),
    "no offsets": checked_store(offsets=np.zeros(0)),
    "offsets in a table": checked_store(offsets=[[0, 2, 3]]),
    "offsets of one": checked_store(offsets=0),
    "one value": checked_store(np.zeros((), np.float32)),
    "whole numbers": checked_store(np.zeros((3, 4), np.int32)),
    "a source that is none": checked_store(source_checksum="\x1b[31m"),
}


# labels


LABELS: dict[str, bytes] = {
    "a number with a line in it": b"a 1\nb 1_0\n",
    "a first number with a line in it": b"a 1_0\nb 1\n",
    "digits of another script": "a 1\nb ١٠\n".encode(),
    "first digits of another script": "a ١٠\nb 1\n".encode(),
    "a first number in quotes": b'a "10"\nb 1\n',
    "a first number with another minus": "a −1\nb 1\n".encode(),
    "a first number that is none": b"a nan\nb 1\n",
    "a number beyond all": b"a 1e999\n",
    "a number of millions of digits": b"a " + b"1" * 5_000_000 + b"x\n",
    "a name with an escape": b"a\x1b[31m 1\n",
    "a name with a NUL": b"a\0 1\n",
    "a name of thousands of letters": b"a" * 5_000 + b" 1\n",
    "5 MB of one line": b"a" * 5_000_000,
    "a million lines": b"a 1\n" * 1_250_000,
    "thousands of lines": b"a 1\n" * 99_000,
}
DEEP = b"[" * 700 + b"]" * 700
CLIP = b'"clip": [[0, 1]], "match": [1]'
CLIPS: dict[str, bytes] = {
    "brackets": b"[" * 5_000_000,
    "objects in objects": b'{"a":' * 1_000_000,
    "a deep domain": b'{"a": {"domain": %b, %b}}' % (DEEP, CLIP),
    "a deep frame rate": b'{"a": {"domain": "d", "fps": %b, %b}}' % (DEEP, CLIP),
    "a frame rate of NaN": b'{"a": {"domain": "d", "fps": NaN, %b}}' % CLIP,
    "a frame that is NaN": b'{"a": {"domain": "d", "clip": [[NaN, 1]], "match": [1]}}',
    "a frame of many digits": b'{"a": {"domain": "d", "clip": [[0, 1%b]], "match": [1]}}' % (b"0" * 4000),
    "a frame of millions of digits": b'{"a": {"domain": "d", "clip": [[0, 1%b]], "match": [1]}}' % (b"0" * 4_000_000),
    "a match that is true": b'{"a": {"domain": "d", "clip": [[0, 1]], "match": [true]}}',
    "a video twice": b'{"a": {"domain": "d", %b}, "a": {"domain": "d", %b}}' % (CLIP, CLIP),
    "a name with a NUL": b'{"a\\u0000": {"domain": "d", %b}}' % CLIP,
    "a name with half a character": b'{"\\ud800": {"domain": "d", %b}}' % CLIP,
    "a name that is empty": b'{"d/": {"domain": "d", %b}}' % CLIP,
    "a domain with an escape": b'{"a": {"domain": "\\u001b[31m", %b}}' % CLIP,
}
SPLITS: dict[str, bytes] = {
    "videos a million times": b'{"d": {"train": ["a"%b], "val": ["b"]}}' % (b',"a"' * 1_000_000),
    "a video that is empty": b'{"d": {"train": [""], "val": ["b"]}}',
    "a video of a list": b'{"d": {"train": [%b], "val": ["b"]}}' % DEEP,
    "a video with a line break": b'{"d": {"train": ["a\\n"], "val": ["b"]}}',
    "a topic with an escape": b'{"\\u001b": {"train": ["a"], "val": ["b"]}}',
    "a topic twice": b'{"d": {"train": ["a"], "val": ["b"]}, "d": {"train": ["c"], "val": ["e"]}}',
}


# what is no file


def pipe(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return write


def endless(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).symlink_to("/dev/zero")
        return folder / name

    return write


def a_folder(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return write


def a_socket(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        made, before = socket.socket(socket.AF_UNIX), Path.cwd()
        os.chdir(folder)  # the path of a socket may not be long
        made.bind(name)
        os.chdir(before)
        made.close()
        return folder / name

    return write


def sparse(name: str) -> Callable[[Path], Path]:
    """A file that says it has 2**42 bytes, and takes none."""

    def write(folder: Path) -> Path:
        (folder / name).touch()
        os.truncate(folder / name, 2**42)
        return folder / name

    return write


READ_AS = {
    "features": "A_rgb_X.npy",
    "stores": "A_rgb_X.safetensors",
    "plain": "a.npy",
    "labels": "labels.txt",
    "clips": "clips.json",
    "split": "split.json",
}
KINDS = {"a pipe": pipe, "a device": endless, "a folder": a_folder, "a socket": a_socket}
CASES: list[Case] = [
    *(Case(f"features: {n}", npy(content), reads("features")) for n, content in PICKLES.items()),
    *(Case(f"plain: {n}", raw("a.npy", content), reads("plain")) for n, content in PLAIN.items()),
    *(Case(f"store: {n}", write, reads("features")) for n, write in STORES.items()),
    *(Case(f"labels: {n}", raw("labels.txt", content), reads("labels")) for n, content in LABELS.items()),
    *(Case(f"clips: {n}", raw("clips.json", content), reads("clips")) for n, content in CLIPS.items()),
    *(Case(f"split: {n}", raw("split.json", content), reads("split")) for n, content in SPLITS.items()),
    *(
        Case(f"{what}: {kind}", of(name), reads("features" if what == "stores" else what), f"refused: .*is {kind}:")
        for what, name in READ_AS.items()
        for kind, of in KINDS.items()
    ),
    *(
        Case(f"{what}: 4 TB of nothing", sparse(READ_AS[what]), reads(what), "refused: .*bytes")
        for what in ("features", "labels", "clips", "split")
    ),
    Case("checksum: a pipe", pipe("A_rgb_X.npy"), reads("checksum"), "refused: .*is a pipe:"),
]


def campaign(folder: Path) -> Outcome:
    """Tries every case in a folder of its own and a process of its own."""
    outcome = Outcome()
    for case in CASES:
        place = Path(tempfile.mkdtemp(dir=folder))
        wrong, told = tried(case, place)
        outcome.tried += 1
        outcome.wrong += bool(wrong)
        if wrong:
            outcome.notes.append(f"{case.name}: {wrong}")
        print(f"{'WRONG' if wrong else 'ok':5} {case.name}: {wrong + ': ' if wrong else ''}{told}", flush=True)
    return outcome


def tried(case: Case, place: Path) -> tuple[str, str]:
    """What went wrong with a case, or nothing, and the last of what was printed."""
    path = case.write(place)
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *case.words(path)], cwd=place, env=environment(), capture_output=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return f"hangs, ended after {LIMIT:g} s", ""
    seconds = time.perf_counter() - start
    printed = (done.stdout + done.stderr).decode(errors="backslashreplace")
    last = printed.strip().replace(str(place), "")
    return problem(case, place, done.returncode, printed, seconds), last.rpartition("\n")[2][:200]


def problem(case: Case, place: Path, status: int, printed: str, seconds: float) -> str:
    """What is wrong with how a command ended; a reader says itself how long it took, without its start."""
    measured = re.match(r"([\d.]+) s, (\d+) MiB", printed)
    if measured:
        seconds = float(measured[1])
    if status < 0:
        return f"crashed (signal {-status})"
    if "Traceback" in printed:
        return "printed a traceback"
    if any(file.name == MARK for file in place.rglob("*")):
        return "ran code"
    if seconds > SLOWEST:
        return f"took {seconds:.1f} s"
    if measured and int(measured[2]) > MOST_MEMORY:
        return f"took {measured[2]} MiB"
    if not re.search(case.told, printed):
        return "was not refused" if case.told == "refused: " else f"did not say {case.told!r}"
    return "" if printed.replace("\n", "").isprintable() else "printed control characters"


def environment() -> dict[str, str]:
    """With this folder and the project's code where Python finds them."""
    paths = [str(Path(__file__).parents[1]), *(path for path in sys.path if path.endswith("src"))]
    found = [*paths, os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, found))}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as made:
        result = campaign(Path(made))
    print(f"{result.tried} tried, {result.wrong} wrong", *result.notes, sep="\n")
    sys.exit(bool(result.wrong))
