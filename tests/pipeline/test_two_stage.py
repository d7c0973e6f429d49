import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from commands import SERVER
from composed import SMALL, composed, small
from pamfn.config.validation import checked
from pamfn.data import synthetic
from pamfn.data.synthetic import write_synthetic
from pamfn.errors import InputError
from pamfn.pipeline import record, two_stage
from pamfn.pipeline.rescore import evaluate
from pamfn.pipeline.two_stage import run_job
from pamfn.runs import environment
from pamfn.runs.folder import Run
from pamfn.training import tasks
from pamfn.training.callbacks import Record, write_weights


@pytest.fixture(autouse=True)
def data(tmp_path, tiny_synthetic):
    shutil.copytree(tiny_synthetic, tmp_path / "data")


@pytest.fixture(scope="module")
def tiny_synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    patched = pytest.MonkeyPatch()
    write_synthetic(folder, train=24, test=10)
    patched.setattr(synthetic, "write_synthetic", lambda data_dir: None)
    yield folder
    patched.undo()


@pytest.fixture(autouse=True)
def quick_plots(request, monkeypatch):
    """Drawing takes longer than a small training."""
    if "plots" not in request.keywords:
        for module, name in ((record, "plot_curves"), (tasks, "plot_predictions")):
            monkeypatch.setattr(module, name, lambda path, *a, **k: path.touch())


def run(config):
    return run_job(config)


def predictions(run: Run) -> str:
    return run.file("predictions.csv").read_text()


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.file("last.safetensors"))


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def metrics(run: Run):
    result = run.result()
    assert result is not None
    return result["metrics"]


@pytest.mark.plots
def test_both_stages_leave_a_folder_that_says_everything(tmp_path):
    fused = run(small(tmp_path))
    assert {p.name for p in fused.path.iterdir()} == {
        *("result.json", "predictions.csv", "curves.csv", "curves.png", "predictions.png"),
        *("selected.safetensors", "last.safetensors", "reference.safetensors", ".lock"),
    }
    result = fused.result()
    assert result is not None
    assert set(result["branches"]) == {"rgb", "flow", "audio"}
    assert result["videos"] == {"train": 19, "holdout": 5, "test": 10}
    assert result["data_source"] == "synthetic"
    assert result["config"]["recipe"]["fusion"]["epochs"] == 3
    assert len(list((tmp_path / "runs" / "branch").iterdir())) == 3
    assert len(predictions(fused).splitlines()) == 1 + 2 * (5 + 10)


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    first = run(small(tmp_path))
    before = predictions(first)
    monkeypatch.setattr(two_stage, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert predictions(run(small(tmp_path))) == before


def test_one_modality_is_that_branch_alone_and_the_fused_job_reuses_it(tmp_path, monkeypatch):
    alone = run(small(tmp_path, "modalities=[flow]"))
    assert alone.path.parent.name == "branch"
    trained = []
    real = two_stage.fit
    monkeypatch.setattr(
        two_stage, "fit", lambda c, r, kind, *a, **k: (trained.append(r.path), real(c, r, kind, *a, **k))
    )
    run(small(tmp_path, "modalities=[rgb,flow]"))
    assert len(trained) == 2
    assert alone.path not in trained


def test_stage_two_gives_the_same_numbers_whether_branches_were_trained_or_read(tmp_path):
    cold = run(small(tmp_path))
    before, learned = predictions(cold), weights(cold)
    shutil.rmtree(cold.path)
    warm = run(small(tmp_path))
    assert predictions(warm) == before
    assert same(weights(warm), learned)


@pytest.mark.parametrize(("kind", "recipe"), [("branch", "official"), ("fusion", "paper")])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, monkeypatch, kind, recipe):
    arguments = (f"recipe={recipe}", "recipe.branch.epochs=5", "recipe.fusion.epochs=5", "resume_seconds=0")
    straight = run(small(tmp_path, *arguments))
    if kind == "branch":
        straight = next(r for r in map(Run, straight.path.parents[1].glob("branch/*rgb*")))
    expected, learned, curves = predictions(straight), weights(straight), straight.file("curves.csv").read_text()
    shutil.rmtree(tmp_path / "runs")

    class StoppedError(Exception):
        pass

    from pamfn.training.callbacks import ResumePoint

    real = ResumePoint.on_train_epoch_end

    def stop_after_two(self, trainer, module):
        real(self, trainer, module)
        if trainer.current_epoch == 2 and kind in str(self.run.path):
            raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(ResumePoint, "on_train_epoch_end", stop_after_two)
        with pytest.raises(StoppedError):
            run(small(tmp_path, *arguments))
    assert list((tmp_path / "runs").rglob("resume.ckpt"))
    run(small(tmp_path, *arguments))
    resumed = Run(tmp_path / "runs" / straight.path.relative_to(tmp_path / "runs"))
    assert predictions(resumed) == expected
    assert same(weights(resumed), learned)
    without_seconds = [[row.split(",")[i] for i in (0, 1, 3, 4)] for row in curves.splitlines()]
    again = [[row.split(",")[i] for i in (0, 1, 3, 4)] for row in resumed.file("curves.csv").read_text().splitlines()]
    assert again == without_seconds
    assert not list((tmp_path / "runs").rglob("resume.ckpt"))


def test_a_resumed_training_has_the_best_weights_of_when_it_was_saved(tmp_path):
    """A later epoch, which can come out another the second time, may have replaced them."""
    record = Record(Run(tmp_path), "test")
    write_weights(record.run, "selected.safetensors", {"w": torch.ones(2)})
    saved = record.state_dict()
    write_weights(record.run, "selected.safetensors", {"w": torch.zeros(2)})
    record.load_state_dict(saved)
    assert torch.equal(load_file(record.run.file("selected.safetensors"))["w"], torch.ones(2))


def test_a_training_does_not_go_on_with_other_data(tmp_path, monkeypatch):
    from pamfn.training.callbacks import ResumePoint

    class StoppedError(Exception):
        pass

    real = ResumePoint.on_train_epoch_end

    def stop(self, trainer, module):
        real(self, trainer, module)
        raise StoppedError

    words = ("modalities=[rgb]", "recipe.branch.epochs=3", "resume_seconds=0")
    with monkeypatch.context() as patched:
        patched.setattr(ResumePoint, "on_train_epoch_end", stop)
        with pytest.raises(StoppedError):
            run_job(small(tmp_path, *words))
    labels = tmp_path / "data" / "SYNTHETIC" / "train.txt"
    labels.write_text("\n".join(labels.read_text().splitlines()[:-1]) + "\n")
    (checkpoint,) = (tmp_path / "runs").rglob("resume.ckpt")
    with pytest.raises(
        InputError, match=r"SYNTHETIC/train.txt changed since. Bring .*, or remove (.*) to begin"
    ) as told:
        run_job(small(tmp_path, *words))
    assert str(checkpoint) in str(told.value)


EITHER_STAGE = (
    *("seed=1", "protocol=paper", "protocol.holdout=0.3", "data.crop=12", "trainer.precision=bf16-mixed"),
    *("recipe.branch.lr=0.02", "recipe.branch.lr_min=0.005", "recipe.branch.head_lr_scale=0.5"),
    *("recipe.branch.momentum=0.5", "recipe.branch.weight_decay=0.1", "recipe.branch.clip=0.001"),
    *("recipe.branch.schedule=none", "recipe.branch.optimizer=adamw"),
    *("recipe.branch.epochs=4", "recipe.branch.batch_size=6"),
    *("model.branch.d_model=12", "model.branch.hidden=12", "model.branch.num_stages=2"),
    *("model.branch.dropout=0.1", "model.branch.head_dropout=0.1"),
)
FUSION = (
    *("recipe.fusion.lr=0.005", "recipe.fusion.lr_min=0.0004", "recipe.fusion.weight_decay=0.5"),
    *("recipe.fusion.schedule=none", "recipe.fusion.optimizer=sgd", "recipe.fusion.epochs=4"),
    *("recipe.fusion.batch_size=6", "recipe.fusion.clip=0.001", "recipe.fusion.head_lr_scale=1.0"),
    *("model.num_fusion_nets=4", "model.msfd_heads=2", "model.cmfd_heads=2", "model.head_reduction=1"),
    *("model.head_dropout=0.5", "model.feature_dropout=0.1", "model.attention_dropout=0.5"),
    *("model.finetune=[flow]", "model.frozen=eval", "model.double_negation=false", "model.policy_layers=2"),
    *("model.shared_attention=false", "model.temperature=positive", "model.initial_temperature=1.0"),
    *("model.decoding=argmax", "model.decoding=mean", "modalities=[rgb,audio]", "model.modality_dropout=0.5"),
    *("model.msfd=none", "model.cmfd=none", "model.msfd=weighted", "model.cmfd=weighted"),
    *("model.policy=free", "model.policy=unranked", "model.fusion_stages=1"),
    *("recipe.readings.frozen=eval", "recipe.readings.policy_layers=2", "recipe.readings.shared_attention=false"),
    *("recipe.readings.decoding=argmax", "recipe.readings.double_negation=false"),
    *("recipe.readings.temperature=positive",),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_synthetic):
    folder = tmp_path_factory.mktemp("defaults")
    shutil.copytree(tiny_synthetic, folder / "data")
    return folder


@pytest.mark.parametrize("setting", EITHER_STAGE)
def test_every_setting_of_stage_one_changes_its_numbers(setting, folder):
    default, changed = (run(small(folder, "modalities=[rgb]", *more)) for more in ((), (setting,)))
    assert changed.path != default.path
    assert not same(weights(changed), weights(default))


@pytest.mark.slow
@pytest.mark.parametrize("setting", FUSION)
def test_every_setting_of_stage_two_changes_its_numbers_and_no_branch(setting, folder):
    default, changed = (run(small(folder, *more)) for more in ((), (setting,)))
    assert changed.path != default.path
    assert result(changed)["branches"].items() <= result(default)["branches"].items()
    assert predictions(changed) != predictions(default)


def test_momentum_and_samples_change_the_numbers_where_they_act(folder):
    for base, more in (
        ("recipe.fusion.optimizer=sgd", "recipe.fusion.momentum=0.9"),
        ("model.decoding=mean", "model.samples=2"),
    ):
        default, changed = run(small(folder, base)), run(small(folder, base, more))
        assert predictions(changed) != predictions(default)


def result(run: Run):
    found = run.result()
    assert found is not None
    return found


def test_the_seed_zero_is_a_seed(tmp_path):
    first = predictions(run(small(tmp_path, "seed=0", "modalities=[rgb]")))
    shutil.rmtree(tmp_path / "runs")
    assert predictions(run(small(tmp_path, "seed=0", "modalities=[rgb]"))) == first


def test_refit_trains_on_all_of_train_for_the_chosen_number_of_epochs(tmp_path):
    refit = run(small(tmp_path, "protocol.refit=true"))
    chosen = run(small(tmp_path))
    assert result(refit)["videos"] == {"train": 24, "test": 10}
    assert result(refit)["times"]["epochs"] == metrics(chosen)["holdout"]["epoch"] + 1
    assert result(refit)["reported"] == "refit"
    assert metrics(refit)["refit"]["srcc"] == metrics(refit)["last"]["srcc"]


@pytest.mark.slow
@pytest.mark.parametrize("modalities", ["[rgb]", "[rgb,flow,audio]"])
def test_eight_videos_are_learned_by_heart_in_each_stage(tmp_path, modalities):
    labels = tmp_path / "data" / "SYNTHETIC" / "train.txt"
    lines = labels.read_text().splitlines()[:9]
    labels.write_text("\n".join(lines) + "\n")
    for file in (tmp_path / "data" / "features").iterdir():  # so that a crop is the whole video
        arrays = {v: x[:10] for v, x in np.load(file, allow_pickle=True).item().items()}
        np.save(file, np.array(arrays, dtype=object), allow_pickle=True)
    learned = run(
        small(
            tmp_path,
            f"modalities={modalities}",
            *("protocol=paper", "recipe=paper", "model.branch.d_model=32", "model.branch.hidden=32", "data.crop=10"),
            *(
                "recipe.branch.epochs=60",
                "recipe.fusion.epochs=80",
                "recipe.fusion.lr=0.006",
                "recipe.fusion.head_lr_scale=1.0",
                "recipe.branch.lr=0.05",
            ),
            *("model.branch.dropout=0.0", "model.branch.head_dropout=0.0", "model.feature_dropout=0.0"),
        )
    )
    from pamfn.pipeline.reload import configuration
    from pamfn.pipeline.rescore import rescored

    scored, _ = rescored(configuration(result(learned), None, None, None), learned.path, "train", "last")
    assert scored["srcc"] == pytest.approx(1.0)


def test_stored_numbers_are_recomputed_from_stored_weights(tmp_path, capsys):
    fused = run(small(tmp_path))
    for kind in ("selected", "last"):
        assert evaluate(fused.path, "test", kind, None, None, None) == []
    assert "stored" in capsys.readouterr().out
    claimed = result(fused)
    claimed["metrics"]["holdout"]["mae"] += 1
    fused.write_result(claimed)
    assert evaluate(fused.path, "test", "selected", None, None, None) == ["mae"]


LATE = ("+ablation=weighted", "+ablation=average", "+ablation=attention", "+ablation=concat")


@pytest.mark.parametrize("fusion", LATE)
def test_late_fusions_share_the_branches_of_pamfn_unless_trained_in_one_stage(fusion, folder):
    words = [word for word in SMALL if "num_fusion_nets" not in word]
    places = (f"paths.data_dir={folder / 'data'}", f"paths.output_dir={folder / 'runs'}")
    two = run(checked(composed(*words, *places, fusion)))
    one = run(checked(composed(*words, *places, f"{fusion}_one_stage")))
    assert result(two)["branches"] == result(run(small(folder)))["branches"]
    assert result(one)["branches"] == {}
    assert result(one)["parameters"]["trained"] > result(two)["parameters"]["trained"]
    assert not same(weights(one), weights(two))


def test_a_missing_modality_is_scored_without_training_again(folder, capsys):
    whole = run(small(folder))
    without = run(small(folder, "available=[rgb,audio]"))
    assert without.path.parent.name == "missing"
    assert (result(without)["network"], result(without)["available"]) == (whole.path.name, ["rgb", "audio"])
    assert set(result(without)["metrics"]) == {"holdout", "last"}
    assert predictions(without) != predictions(whole)
    assert run(small(folder, "available=[rgb,flow,audio]")).path == whole.path
    assert not list(without.path.glob("*.safetensors"))
    with pytest.raises(InputError, match="is a network scored with modalities missing, without weights of its own"):
        evaluate(without.path, "test", "selected", None, None, None)


def test_both_stages_train_in_bf16(folder):
    fused = run(small(folder, "trainer.precision=bf16-mixed"))
    assert result(fused)["metrics"]["last"]["mae"] > 0
    assert not same(weights(fused), weights(run(small(folder))))


def test_changed_data_is_noticed_when_a_finished_run_is_read(tmp_path):
    run(small(tmp_path, "modalities=[rgb]"))
    file = tmp_path / "data" / "features" / "SYNTHETIC_rgb_planted.npy"
    arrays = np.load(file, allow_pickle=True).item()
    next(iter(arrays.values()))[0, 0] += 1
    np.save(file, np.array(arrays, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="SYNTHETIC_rgb_planted changed since"):
        run(small(tmp_path, "modalities=[rgb]"))


def test_a_store_and_its_npy_are_the_same_data(tmp_path, monkeypatch):
    from pamfn.data.features import read_features, write_store

    first = predictions(run(small(tmp_path, "modalities=[rgb]")))
    npy = tmp_path / "data" / "features" / "SYNTHETIC_rgb_planted.npy"
    write_store(read_features(npy), npy.with_suffix(".safetensors"), extractor="planted")
    npy.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(two_stage, "fit", lambda *a, **k: pytest.fail("trained again"))
        run(small(tmp_path, "modalities=[rgb]"))
    shutil.rmtree(tmp_path / "runs")
    assert predictions(run(small(tmp_path, "modalities=[rgb]"))) == first


def test_diverging_training_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match="training diverged: the loss of epoch"):
        run(small(tmp_path, "modalities=[rgb]", "recipe.branch.lr=1e30", "recipe.branch.clip=null"))
    assert not list((tmp_path / "runs").rglob("result.json"))


def command(tmp_path: Path, *overrides: str) -> list[str]:
    paths = (f"paths.data_dir={tmp_path / 'data'}", f"paths.output_dir={tmp_path / 'runs'}")
    as_it_is = "data._target_=pamfn.data.ScoreDataModule"  # the synthetic one would write its own 240 videos
    return [sys.executable, "-m", "pamfn.train", *SMALL, as_it_is, *paths, *overrides]


def train_in_a_process(folder: str, queue) -> None:
    torch.set_num_threads(1)
    trained = []
    real = two_stage.fit
    two_stage.fit = lambda *a, **k: (trained.append(1), real(*a, **k))  # type: ignore[assignment]
    synthetic.write_synthetic = lambda data_dir: None  # type: ignore[assignment]
    run_job(small(Path(folder), "modalities=[rgb]"))
    queue.put(len(trained))


def test_two_processes_do_not_train_the_same_branch_twice(tmp_path):
    queue = SERVER.Queue()
    processes = [SERVER.Process(target=train_in_a_process, args=(str(tmp_path), queue)) for _ in range(2)]
    for process in processes:
        process.start()
    assert sorted(queue.get(timeout=120) for _ in processes) == [0, 1]
    for process in processes:
        process.join()


def interrupted(words: list[str], how: signal.Signals) -> tuple[int, str]:
    """Exit status and output of a training that got a signal after its third epoch."""
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background inherits "ignore"
    )
    assert process.stdout is not None
    read = []
    for line in process.stdout:
        read.append(line)
        if sum("  epoch " in line for line in read) == 3:
            process.send_signal(how)
            break
    read.append(process.stdout.read())
    return process.wait(timeout=60), "".join(read)


@pytest.mark.slow
def test_an_interrupted_command_leaves_nothing_half_written_and_goes_on(tmp_path):
    long = command(tmp_path, "modalities=[rgb]", "resume_seconds=0", "recipe.branch.epochs=40")
    branches = tmp_path / "runs" / "branch"
    for number, how in enumerate((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)):
        status, output = interrupted(long, how)
        assert status != 0
        assert "Traceback" not in output, output
        assert ("going on from" in output) == (number > 0)
        (folder,) = branches.iterdir()
        assert not (folder / "result.json").exists()
        left = [p.name for p in folder.iterdir() if p.name.startswith(".") and p.name != ".lock"]
        assert how == signal.SIGKILL or left == []
    again = subprocess.run(long, capture_output=True, text=True, check=True)
    assert "going on from" in again.stdout
    assert "epoch 1/" not in again.stdout
    assert len(list(branches.glob("*/result.json"))) == 1


def test_a_launcher_that_takes_sigterm_keeps_it(tmp_path, monkeypatch):
    """As submitit's do, whose jobs are requeued by the signal after it."""
    from pamfn.training.callbacks import Progress

    taken = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: taken.append(number))
    monkeypatch.setattr(Progress, "on_train_epoch_end", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        done = run(small(tmp_path, "modalities=[rgb]", "recipe.branch.epochs=3"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.result() is not None
    assert len(taken) == 3


def test_a_full_disk_ends_with_a_sentence_and_nothing_half_written(tmp_path, monkeypatch):
    def no_space(file, content):
        with file.open("wb") as opened:
            opened.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(InputError, match="no space left to write"):
        run(small(tmp_path, "modalities=[rgb]"))
    assert [p.name for p in (tmp_path / "runs").rglob("*") if p.is_file() and p.name != ".lock"] == []


def test_peak_of_start_up_is_short(tmp_path):
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "pamfn.train", "--help"], check=True, capture_output=True)
    assert time.monotonic() - began < 20  # 1 s on an idle machine


def test_code_that_is_no_commit_is_marked(tmp_path, monkeypatch):
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path / "code"), *who, *words], check=True, capture_output=True)

    monkeypatch.setattr(environment, "ROOT", tmp_path / "code")
    (tmp_path / "code" / "src").mkdir(parents=True)
    assert environment.commit() is None
    model = tmp_path / "code" / "src" / "model.py"
    model.write_text("a = 1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = environment.commit()
    assert clean is not None
    assert len(clean) == 40
    (model.parent / "added.py").touch()
    assert environment.commit() == clean + "+"
    (model.parent / "added.py").unlink()
    model.write_text("a = 2")
    assert environment.commit() == clean + "+"
