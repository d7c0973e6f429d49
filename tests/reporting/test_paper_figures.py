import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finished_runs import settings, trained
from pamfn import figures
from pamfn.errors import InputError
from pamfn.evaluation import plots
from pamfn.evaluation.plots import (
    middles,
    plot_attention,
    plot_curves,
    plot_decisions,
    plot_fusionnets,
    plot_highlights,
    plot_policy,
    plot_predictions,
    plot_text,
    plot_title,
    plot_video_precision,
)
from pamfn.files import file_name
from pamfn.reporting.paper_figures import draw_runs, draw_table, labelled
from pamfn.runs.folder import Run

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("figures")


@pytest.fixture(scope="module")
def run(tiny_data, folder):
    return trained("fusionnets", "+ablation=full", tiny_data, folder).run


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, instead of files."""
    kept = []
    monkeypatch.setattr(plots, "save", lambda figure, path: kept.append(figure))
    return kept


@pytest.fixture
def without_weights(run, tmp_path):
    """As archived: result and predictions alone."""
    copy = Run(shutil.copytree(run.path, tmp_path / "archived" / run.path.name))
    for name in ("selected", "last"):
        copy.file(f"{name}.safetensors").unlink()
    return copy.path


def command(monkeypatch, capsys, *words):
    """Exit status and what `python -m pamfn.figures` printed."""
    monkeypatch.setattr(sys, "argv", ["figures", *map(str, words)])
    try:
        figures.main()
        status = 0
    except SystemExit as end:
        status = end.code
    out = capsys.readouterr()
    return status, out.out + out.err


def lines(ax):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}


def test_decisions_are_drawn_as_frequencies_beside_a_uniform_choice(drawn, tmp_path):
    counts = {"ball": [[0, 1, 3, 0, 0], [0, 0, 0, 0, 2]], "hoop": [[0, 5, 0, 0, 5], [0, 0, 0, 0, 0]]}
    plot_decisions(tmp_path, counts)
    first, second = (lines(ax) for ax in drawn[0].axes)
    assert first["ball"] == ([1, 2, 3, 4], [0.25, 0.75, 0, 0])
    assert first["hoop"] == ([1, 2, 3, 4], [0.5, 0, 0, 0.5])
    assert first["uniform, K = 4"] == ([1, 4], [0.25, 0.25])
    assert set(second) == {"ball", "uniform, K = 4"}  # the other network decides nothing in its second stage


def test_a_network_that_can_disable_all_has_a_zero(drawn, tmp_path):
    plot_decisions(tmp_path, {"unranked": [[1, 0, 1], [0, 1, 1]]})
    assert [lines(ax)["unranked"][0] for ax in drawn[0].axes] == [[0, 1, 2]] * 2


def test_the_number_of_fusionnets_is_drawn_with_the_spread_over_seeds(drawn, tmp_path):
    plot_fusionnets(tmp_path, {"ball": {4: [0.5, 0.7], 2: [0.4]}}, "best_on_test")
    (ax,) = drawn[0].axes
    assert lines(ax)["ball"] == ([2, 4], [0.4, pytest.approx(0.6)])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(0.6 + 0.1 * math.sqrt(2))
    assert "best on test" in ax.get_ylabel()


def test_attention_and_policy_are_drawn_over_segments(drawn, tmp_path):
    plot_attention(tmp_path, {"rgb": [0.2, 0.3], "audio": [0.8, 0.7]}, 4, "a video")
    plot_policy(tmp_path, [1, 3, 2], 5, 4, "a video")
    attention, policy = (figure.axes[0] for figure in drawn)
    assert lines(attention)["audio"] == ([2, 6], [0.8, 0.7])
    assert list(policy.lines[0].get_ydata()) == [1, 3, 2]
    assert policy.get_ylim()[1] > 5
    assert middles(3, 4) == [2, 6, 10]


@pytest.mark.plots
def test_the_command_writes_three_figures(run, tmp_path, monkeypatch, capsys):
    status, output = command(monkeypatch, capsys, run.path, "--to", tmp_path)
    assert status == 0
    for name in ("decisions", "attention", "policy"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)
        assert f"wrote {tmp_path / name}.png" in output


def test_several_runs_are_several_lines(run, without_weights, drawn, tmp_path):
    draw_runs([run.path, without_weights], tmp_path)
    assert set(lines(drawn[0].axes[0])) == {str(run.path), str(without_weights), "uniform, K = 3"}


def test_lines_have_the_shortest_names_that_differ(tmp_path):
    results = [{"name": "ball", "seed": 0}, {"name": "ball", "seed": 1}]
    folders = [tmp_path / "a", tmp_path / "b"]
    assert list(labelled(results, folders)) == ["ball, seed 0", "ball, seed 1"]
    assert list(labelled([results[0], {"name": "hoop", "seed": 0}], folders)) == ["ball", "hoop"]
    assert list(labelled([results[0]] * 2, folders)) == ["a", "b"]
    assert list(labelled([results[0]] * 2, [Path("x/a"), Path("y/a")])) == ["x/a", "y/a"]


def test_an_archived_run_still_has_its_decisions(without_weights, drawn, tmp_path):
    result = draw_runs([without_weights], tmp_path)
    assert [path.name for path in result.files] == ["decisions.png"]
    assert result.left_out == [f"attention.png, policy.png: {without_weights} has no weights."]


def test_a_network_without_policy_has_attention_alone(tiny_data, folder, drawn, tmp_path):
    free = trained("fusionnets", "+ablation=free_fusionnets", tiny_data, folder).run.path
    result = draw_runs([free], tmp_path)
    assert [path.name for path in result.files] == ["attention.png"]
    assert ["PolicyNet" in sentence for sentence in result.left_out] == [True, True]


def test_what_cannot_be_drawn_is_refused_with_a_sentence(run, folder, tmp_path, monkeypatch, capsys):
    branch = sorted((folder / "runs" / "branch").iterdir())[0]
    for words, sentence in (
        ([], "which runs?"),
        ([tmp_path], "is not a finished run"),
        ([branch], "is a single branch"),
        ([run.path, "--video", "nobody"], "no video 'nobody'"),
        (["--table", "fusionnets"], "Figure 6 is drawn over model.num_fusion_nets, and fusionnets sweeps +ablation"),
        (["--table", "unknown"], "no table 'unknown'"),
        (["--table", "number_of_fusionnets", *settings(tmp_path, tmp_path)], "runs is finished"),
    ):
        status, output = command(monkeypatch, capsys, *words, "--to", tmp_path / "figures")
        assert status == 1, output
        assert sentence in output
        assert "Traceback" not in output


@pytest.mark.parametrize("option", [["--video", "1"], ["--split", "test"], ["--data-dir", "data"]])
def test_options_that_a_table_does_not_read_are_refused(option, monkeypatch, capsys):
    status, output = command(monkeypatch, capsys, "--table", "number_of_fusionnets", *option)
    assert status == 2
    assert f"{option[0]}: --table draws stored results and reads no videos. Leave it out." in output


def test_settings_may_stand_on_both_sides_of_an_option(monkeypatch, capsys, tmp_path):
    one, *others = settings(tmp_path, tmp_path)
    status, output = command(
        monkeypatch, capsys, "--table", "number_of_fusionnets", one, "--to", tmp_path / "figures", *others
    )
    assert (status, "runs is finished" in output) == (1, True)


def test_figure_6_is_drawn_from_the_finished_runs_of_a_sweep(tiny_data, folder, drawn, tmp_path):
    result = trained("number_of_fusionnets", "model.num_fusion_nets=3", tiny_data, folder).run.result()
    assert result is not None
    figure = draw_table("number_of_fusionnets", [*settings(tiny_data, folder), "model.num_fusion_nets=2,3"], tmp_path)
    srcc = result["metrics"]["best_on_test"]["srcc"]
    assert lines(drawn[-1].axes[0])["fisv_tes"] == ([3], [srcc])
    assert figure.left_out == ["1 of 2 runs, which are not finished."]


HOSTILE = (
    "$\\frac{$",
    "\\$$x$\\",
    "a\nb\r\tNUL \0, half \ud800",
    "_x",
    "../../x",
    "",
    "CON",
    "long " * 400,
    "\u202eשלום ⛸🤸\u200d♀️ 花样滑冰 %s {0} <b>&",
)
"""What a data set, a video or a modality may be called."""
NUMBERS = (math.nan, math.inf, -1e308, 1e30, 1e-308, -3.5)


def every_plot(text: str, value: float = 0.5) -> dict[str, Callable[[Path], None]]:
    """Every plot with this text wherever text can come from data, and this number among others."""
    curves = [{"epoch": 0, "train/loss": 1.0, "test/srcc": 0.1}, {"epoch": 1, "train/loss": value, "test/srcc": value}]
    grid, labels = [[0, 1], [1, value], [2, 3]], [0, 1, 1]
    return {
        "predictions": lambda path: plot_predictions(path, [1, 2, value], [value, 2, 3], [0, 1, abs(value)], text),
        "precision": lambda path: plot_video_precision(path, [0.5, value], [value, 0.2], text),
        "highlights": lambda path: plot_highlights(path, grid, labels, [0.1, value, 0.3], text, unit=text),
        "curves": lambda path: plot_curves(path, curves, {text: 1}, text),
        "decisions": lambda path: plot_decisions(path, {text: [[0, 1, 3]], "other": [[0, 2, 1]]}, text),
        "fusionnets": lambda path: plot_fusionnets(path, {text: {4: [0.5, value], 2: [0.4]}}, text),
        "attention": lambda path: plot_attention(path, {text: [0.5, value], "rgb": [0.5, 0.2]}, 4, text),
        "policy": lambda path: plot_policy(path, [1, 3, 2], 5, 4, text),
    }


PLOTS = sorted(every_plot(""))


def drawn_for_real(draw: Callable[[Path], None], path: Path) -> bool:
    draw(path)
    return path.read_bytes().startswith(PNG)


@pytest.mark.plots
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("plot", PLOTS)
def test_no_name_keeps_a_plot_from_being_drawn(plot: str, tmp_path: Path):
    for i, text in enumerate(HOSTILE):
        assert drawn_for_real(every_plot(text)[plot], tmp_path / f"{i}.png"), ascii(text)


@pytest.mark.plots
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("plot", PLOTS)
def test_no_number_keeps_a_plot_from_being_drawn(plot: str, tmp_path: Path):
    for i, value in enumerate(NUMBERS):
        assert drawn_for_real(every_plot("a video", value)[plot], tmp_path / f"{i}.png"), value


@pytest.mark.plots
@pytest.mark.filterwarnings("error")
def test_one_video_and_constant_values_are_drawn(tmp_path: Path):
    for value in (0.0, 7.0, math.nan):
        plot_predictions(tmp_path / "a.png", [value], [value], [0.0], "one")
        plot_predictions(tmp_path / "b.png", [value] * 3, [value] * 3, [0.0] * 3, "constant")
        plot_video_precision(tmp_path / "c.png", [value], [value], "one")
        plot_highlights(tmp_path / "d.png", [[value, value]], [1], [value], "one clip")
        plot_curves(tmp_path / "e.png", [{"epoch": 0, "train/loss": value, "test/map": value}], {}, "one epoch")
        plot_fusionnets(tmp_path / "f.png", {"ball": {2: [value]}}, "last")
        plot_attention(tmp_path / "g.png", {"rgb": [value]}, 1, "one step")
    plot_decisions(tmp_path / "h.png", {"none": [[0, 0]]})
    assert len(list(tmp_path.glob("*.png"))) == 8


def test_where_nothing_can_be_drawn_a_sentence_says_so(tmp_path: Path):
    for draw, what in (
        (lambda: plot_predictions(tmp_path, [], [], [], ""), "videos"),
        (lambda: plot_video_precision(tmp_path, [], [], ""), "videos"),
        (lambda: plot_highlights(tmp_path, [], [], [], ""), "clips"),
        (lambda: plot_curves(tmp_path, [], {}, ""), "epochs"),
        (lambda: plot_decisions(tmp_path, {}), "runs"),
        (lambda: plot_fusionnets(tmp_path, {}, ""), "runs"),
        (lambda: plot_attention(tmp_path, {}, 1, ""), "modalities"),
    ):
        with pytest.raises(InputError, match=f"nothing can be drawn: there are no {what}."):
            draw()


def test_names_are_shown_as_they_are_and_in_the_legend(drawn, tmp_path):
    for name, shown in (("_x", " _x"), ("$a$", r"\$a\$"), ("a\nb", "a\N{REPLACEMENT CHARACTER}b")):
        plot_attention(tmp_path, {name: [0.2], "rgb": [0.8]}, 4, f"{name}\nattention")
        (legend,) = drawn[-1].legends
        assert [text.get_text() for text in legend.get_texts()] == [shown, "rgb", "uniform"]
    assert drawn[1].axes[0].get_title() == "\\$a\\$\nattention"


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Z", "C"])))
def test_a_line_for_a_plot_is_one_printable_line_and_stays_as_it_is(text: str):
    shown = plot_text(text)
    assert shown.isprintable()
    assert not shown.startswith("_")
    assert shown.count("$") == shown.count(r"\$")
    assert len(shown.replace(r"\$", "$")) <= 200
    assert plot_text(shown) == shown


def test_a_title_has_three_lines_at_most():
    assert plot_title("a\nb\nc\nd\ne").split("\n") == [
        "a",
        "b",
        "c\N{REPLACEMENT CHARACTER}d\N{REPLACEMENT CHARACTER}e",
    ]


def within(folder: Path, name: str) -> bool:
    """Whether a file of that name can be written, into that folder itself."""
    (folder / name).write_text("")
    return [path.name for path in folder.iterdir()] == [name] and (folder / name).resolve().parent == folder.resolve()


def test_a_file_is_inside_its_folder_whatever_it_is_named_after(tmp_path: Path):
    names = [
        file_name(text)
        for text in (
            *HOSTILE,
            ".",
            "..",
            "a/b",
            "a\nb",
            "\0",
            "\ud800",
            "a\\b",
            "C:x",
            "-x",
            "~",
            ".hidden",
            "x.",
            "x ",
            "aux.txt",
        )
    ]
    assert len(set(names)) == len(names)
    for i, name in enumerate(names):
        (tmp_path / str(i)).mkdir()
        assert within(tmp_path / str(i), name), ascii(name)
        assert name.isprintable()
        assert len(name.encode()) <= 100


def test_a_name_that_can_be_a_files_is_its_own():
    for name in (
        "fisv_tes-rgb_flow_audio-seed0-0123456789",
        "Ball_001",
        "-dQw4w9WgXcQ",
        "_x",
        "花样滑冰",
        "a b",
        "CONE",
    ):
        assert file_name(name) == name


@given(st.text(st.characters(), max_size=4), st.text(st.characters(), max_size=4))
def test_different_texts_have_different_file_names(one: str, other: str):
    assert (file_name(one) == file_name(other)) is (one == other)
    assert file_name(file_name(one)) != file_name(one) or file_name(one) == one


def test_file_names_that_differ_in_what_is_replaced_alone_differ():
    texts = ["a/b", "a:b", "a\\b", "a\0b", "a\nb", "a_b", "a~b", "x" * 200, "x" * 201, "CON", "con", "_CON"]
    assert len({file_name(text) for text in texts}) == len(texts)
