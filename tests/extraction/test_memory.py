"""A long video needs as much memory as a short one, its sound aside."""

import subprocess
import sys
from pathlib import Path

import av
import pytest

from made_videos import write_video

READS = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from made_videos import reading
from pamfn.extraction.extractor import Extractor, FlowSettings
from pamfn.extraction.segments import Video

class All(Extractor):
    width, name = 1, "all"
    short_sides, channels, flows = (256, 64), ("mean",), (FlowSettings("dis_fast", 64),)
    def features(self, segments):
        return None

torch.set_num_threads(1)
for segment in Video(Path(sys.argv[1]), reading(), [All()]).segments():
    last = segment.index
print(last + 1, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def segments_and_megabytes(path: Path) -> tuple[int, int]:
    command = [sys.executable, "-c", READS, str(path), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    segments, megabytes = map(int, done.stdout.split())
    return segments, megabytes


def repeated(path: Path, source: Path, times: int, seconds: int) -> Path:
    """Write a video of these seconds so many times in a row, without encoding it again."""
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        for number in range(times):
            container.seek(0)
            for packet in container.demux():
                if packet.size and packet.pts is not None and packet.dts is not None:
                    shift = round(number * seconds / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream_index]
                    output.mux(packet)
    return path


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path):
    """0.064 MB a second is the sound: one track of float32 at 16 kHz."""
    short = write_video(tmp_path / "1.mkv", 1500, sound=59.9)
    long = repeated(tmp_path / "20.mkv", short, times=20, seconds=60)
    (segments, little), (many, much) = segments_and_megabytes(short), segments_and_megabytes(long)
    assert (segments, many) == (46, 937)
    assert much - little < 19 * 60 * 0.064 * 1.3 + 40
