"""The page of a video: complete, readable without a mouse or colours, and nothing in it can run or load."""

import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from made_videos import write_video
from pamfn.errors import InputError
from pamfn.extraction.preview import READING
from pamfn.pipeline.occlusion import windows_of
from pamfn.pipeline.prediction import Explained, FusionSteps, Occlusion, Prediction
from pamfn.reporting.video_page import Clock, chosen, rank, video_page, windows_that_matter

STREAMS = ("rgb", "flow", "audio")
TRAINING = np.linspace(5, 20, 400)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


class Elements(HTMLParser):
    """Tags with their attributes, checked for being closed; all text."""

    VOID = ("meta", "img", "line", "rect", "polyline")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def occluded(segments):
    windows = windows_of(segments)
    return Occlusion(windows, np.sin(np.arange(len(windows)) + 1.0), {"rgb": 1.5, "flow": 0.25, "audio": -0.5})


def stages(segments):
    several = [max(segments // 2**i, 1) for i in range(3)]
    made = [
        FusionSteps(2**i, {m: np.full(t, (j + 1) / 6) for j, m in enumerate(STREAMS)}, np.arange(t) % 3 + 1, 4)
        for i, t in enumerate(several)
    ]
    return [*made, FusionSteps(segments, {m: np.array([1 / 3]) for m in STREAMS}, np.array([2]), 4)]


def explained(segments=12, seconds: float | None = 1.28, **changed):
    prediction = Prediction(
        15.5,
        11.0,
        19.0,
        0.4,
        ["it is unlike training"],
        {0.8: (12.0, 18.0), 0.9: (11.0, 19.0)},
        None,
        {"a": 15.0, "b": 16.0},
    )
    plain = {"occlusion": occluded(segments), "stages": stages(segments), "prediction": prediction, "video": "routine"}
    return Explained(segments=segments, segment_seconds=seconds, **{**plain, **changed})


def rendered(of, **changed):
    plain = {"unit_range": (0.0, 25.0), "training_points": TRAINING, "file": None, "reading": None, "synthetic": False}
    return video_page(of, **{"networks": ["a", "b"], **plain, **changed})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("page") / "routine.mp4", 100, sound=4.0)


@pytest.fixture(scope="module")
def whole(file):
    return rendered(explained(3), file=file, synthetic=True)


def bare(**changed):
    return Explained("routine", Prediction(15.5, None, None, 0.0), 60, None, **changed)


def test_everything_is_on_the_page_in_order(whole):
    text = Elements(whole).text
    said = [
        "Synthetic.",
        "15.50 points on a scale of 0 to 25",
        "higher than 70 % of the 400 training videos",
        "80 %: 12.00 to 18.00",
        "90 %: 11.00 to 19.00",
        "Spread over 2 networks: 0.40",
        "it is unlike training",
        "Attention to each modality",
        "Enabled FusionNets",
        "Points lost when a window is masked",
        "Loudness (dB)",
        "Onset strength",
        "The windows that matter",
        "A: 0.0 to 3.8 s",
        "loses 0.84 points",
        "Without a whole stream",
        "+1.50",
        "−0.50",
        "Its limits",
        "no verdict",
    ]
    places = [text.find(each) for each in said]
    assert -1 not in places
    assert places == sorted(places)


def test_nothing_is_loaded_and_nothing_runs(whole):
    elements = Elements(whole)
    (policy,) = [meta["content"] for meta in elements.named("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert not {tag for tag, _ in elements.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    addresses = [v for _, a in elements.tags for k, v in a.items() if k in ("src", "href", "srcset", "xlink:href")]
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in addresses)
    assert not [k for _, attributes in elements.tags for k in attributes if k.startswith("on")]
    assert "url(" not in whole
    assert "@import" not in whole


def test_frames_motion_and_sound_are_shown_with_their_text(whole):
    images = Elements(whole).named("img")
    assert len(images) == 12 + 2 * 1
    assert all(image["alt"] for image in images)
    assert "Optical flow at 1.9 s" in [image["alt"] for image in images]


def test_every_plot_has_a_text_alternative_and_headings_are_in_order(whole):
    elements = Elements(whole)
    pictures = [svg for svg in elements.named("svg") if svg.get("role") == "img"]
    assert len(pictures) == 6
    assert all(len(svg["aria-label"]) > 20 for svg in pictures)
    levels = [int(tag[1]) for tag, _ in elements.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert elements.named("html") == [{"lang": "en"}]


def test_a_page_is_small(whole):
    assert len(whole) < 400_000


def test_a_hostile_name_is_shown_and_cannot_run():
    prediction = Prediction(15.5, None, None, 0.0, [HOSTILE], {}, None, {HOSTILE: 15.5})
    stage = FusionSteps(1, {HOSTILE: np.ones(3), "x": np.ones(3)}, None, 0)
    losses = Occlusion(np.array([[0, 3]]), np.array([1.0]), {HOSTILE: 1.0})
    of = Explained(f"{HOSTILE}\x00\ud800", prediction, 3, None, losses, [stage])
    page = rendered(of, networks=[HOSTILE])
    page.encode()
    elements = Elements(page)
    assert {"script", "img"}.isdisjoint(tag for tag, _ in elements.tags)
    assert elements.text.count("<script>alert(1)</script>") >= 5
    assert HOSTILE in unescape(page)


def test_a_bare_score_says_that_it_has_no_interval():
    text = Elements(rendered(bare(), unit_range=None, training_points=None, networks=["run"])).text
    assert "There is no prediction interval, since the network has no held-out residuals." in text
    assert "Scored by run." in text
    for left_out in ("Over time", "Synthetic", "Warnings", "Spread", "The score among", "Masking", "training video"):
        assert left_out not in text
    assert "no verdict" in text


def test_sampled_decisions_have_a_spread_as_well():
    of = Explained("v", Prediction(15.5, None, None, 0.3), 4, None)
    assert "Spread over sampled decisions: 0.30" in Elements(rendered(of)).text


def test_of_highlights_the_scores_are_shown_over_time():
    scores = np.linspace(0.1, 0.9, 20)
    of = Explained("v", Prediction(0.9, None, None, 0.0, scores=scores), 20, 2.0)
    elements = Elements(rendered(of, unit_range=None, training_points=None))
    assert "is the highest score of 20 clips, at 38.0 to 40.0 s" in elements.text
    assert "Highlight scores" in elements.text
    assert "interval" not in elements.text
    assert len(elements.named("polyline")) == 1


def test_clips_and_segments_are_counted_from_1_as_on_the_terminal():
    of = Explained("v", Prediction(0.9, None, None, 0.0, scores=np.linspace(0.9, 0.1, 20)), 20, None)
    text = Elements(rendered(of, unit_range=None, training_points=None)).text
    assert "is the highest score of 20 clips, at clip 1 " in text
    assert "clip 20" in text
    assert "in clips" in text
    clock = Clock(40, None)
    assert (clock.span(27, 30), clock.span(6, 7), clock.moment(28.5)) == (
        "segments 28 to 30",
        "segment 7",
        "segment 29",
    )


def test_a_video_whose_segments_have_no_known_length_is_shown_in_segments(file):
    elements = Elements(rendered(explained(12, None), file=file))
    assert "in segments" in elements.text
    assert "Frames and sound are left out" in elements.text
    assert "segments 1 to 3" in elements.text
    assert "segments 0" not in elements.text
    assert elements.named("img") == []


@pytest.mark.parametrize("segments", [1, 2, 3, 200, 3000])
@pytest.mark.parametrize("seconds", [1.28, None])
def test_a_video_of_any_length_is_shown(segments, seconds):
    page = rendered(explained(segments, seconds))
    elements = Elements(page)
    assert len(page) < 1_000_000
    assert not re.search(r"\b(nan|inf)\b", page, re.IGNORECASE)
    places = [float(x) for x in re.findall(r'(?:x|x1|width)="([-\d.e]+)"', page)]
    assert all(-0.01 <= place <= 100.01 for place in places)
    for line in elements.named("polyline"):
        x, y = np.array([pair.split(",") for pair in line["points"].split()], dtype=float).T
        assert (np.diff(x) >= 0).all()
        assert 0 <= x.min() <= x.max() <= 100
        assert 0 <= y.min() <= y.max() <= 100


def test_what_is_no_number_is_left_out():
    losses = Occlusion(np.array([[0, 3], [1, 4]]), np.array([np.nan, 0.5]), {"rgb": np.nan, "flow": 1.0})
    stage = FusionSteps(1, {"rgb": np.array([np.nan, 0.5]), "flow": np.array([0.5, 0.5])}, None, 0)
    page = rendered(explained(4, occlusion=losses, stages=[stage]), training_points=np.array([np.nan, 3.0]))
    assert "nan" not in page.lower()
    assert "higher than that of the only training video" in page


def test_losses_of_zero_are_drawn_and_no_window_matters():
    losses = Occlusion(windows_of(10), np.zeros(8), {"rgb": 0.0, "flow": 0.0})
    page = rendered(explained(10, occlusion=losses))
    assert "Masking changes the score in no window." in page
    assert "nan" not in page


def test_losses_and_gains_are_told_apart_by_shape():
    elements = Elements(rendered(explained(12)))
    kinds = {bar["class"] for bar in elements.named("rect")}
    assert {"loss", "gain"} <= kinds
    zero = float(elements.named("line")[[i.get("class") for i in elements.named("line")].index("zero")]["y1"])
    for bar in elements.named("rect"):
        top, bottom = float(bar["y"]), float(bar["y"]) + float(bar["height"])
        if bar["class"] == "loss" and float(bar["height"]) < 100:
            assert bottom == pytest.approx(zero, abs=0.01)
        elif bar["class"] == "gain" and float(bar["height"]) < 100:
            assert top == pytest.approx(zero, abs=0.01)


def test_windows_that_matter_do_not_overlap():
    losses = np.array([5.0, 4, 3, 2, 1, -1, -2, -3, -4, -5])
    occlusion = Occlusion(windows_of(12), losses, {})
    found = windows_that_matter(occlusion, Clock(12, 1.0))
    assert [(w.letter, w.first, w.last, w.loss) for w in found] == [
        ("A", 0, 3, 5.0),
        ("B", 3, 6, 2.0),
        ("C", 9, 12, -5.0),
        ("D", 6, 9, -2.0),
    ]


def test_the_last_stage_of_several_steps_is_shown():
    made = stages(12)
    assert chosen(made) is made[2]
    assert chosen(made[3:]) is made[3]
    assert chosen([]) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (4.0, "not higher than any of the 400 training videos"),
        (5.01, "higher than less than 1 % of the 400 training videos"),
        (12.5, "higher than 50 % of the 400 training videos"),
        (19.99, "higher than 99 % of the 400 training videos"),
        (21.0, "higher than all 400 training videos"),
    ],
)
def test_a_score_is_compared_with_those_of_training(value, said):
    assert rank(value, TRAINING) == said


@pytest.mark.parametrize("training", [np.full(5, 15.5), np.array([15.5]), np.array([])])
def test_training_scores_that_are_all_the_same_have_no_histogram_to_fail(training):
    of = Explained("v", Prediction(15.5, None, None, 0.0), 4, 1.0)
    assert "nan" not in rendered(of, training_points=training, unit_range=None)


def test_a_video_is_shown_as_it_was_read(file):
    with pytest.raises(InputError, match="no video stream has the index 7"):
        rendered(explained(), file=file, reading=READING.model_copy(update={"video_stream": 7}))
