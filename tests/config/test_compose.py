"""Files under conf/ compose to what they promise, what does not fit is refused, a run is named by what decides it."""

import copy
import random
from functools import cache
from typing import Any

import pytest
from omegaconf import OmegaConf

from composed import composed
from pamfn.config.compose import CONF, let_checked_refuse, listed
from pamfn.config.schema import Config
from pamfn.config.targets import target
from pamfn.config.validation import checked, parsed
from pamfn.errors import InputError
from pamfn.reporting.provenance import provenance
from pamfn.runs.fingerprint import OLD_NAMES, as_before, branch_identity, fingerprint, fusion_identity
from pamfn.runs.lookup import ARCHIVE, every_run, locate

GROUPS = {
    *("ablation", "data", "experiment", "features", "logger", "model", "protocol", "recipe", "trainer"),
    "recipe/baseline",
    *("extractor", "extractor/rgb", "extractor/flow", "extractor/audio", "extractor/pose"),
}
OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name != "extractor")
METHODS = sorted(path.stem for path in (CONF / "recipe" / "baseline").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
ON_CLIPS = ("pamfn_clips", "umt_clips", "joint_va_clips", "mini_net")
TOPICS = ("dog", "gymnastics", "parkour", "skating", "skiing", "surfing")
NEEDS = {
    "protocol=folds": ["protocol.fold=0"],
    "features=in_data": ["data=uiprmd"],
    **{f"data=youtube_{topic}": ["model=pamfn_clips"] for topic in TOPICS},
    **{f"{group}={name}": ["data=youtube_dog"] for group in ("model", "ablation") for name in ON_CLIPS},
    **{f"recipe={name}": ["data=youtube_dog", "model=pamfn_clips"] for name in ("highlights", "highlights_batched")},
}
"""Options that go with others only."""

CELLS = {
    "rg_ball": (10, 5e-4, 400),
    "rg_clubs": (10, 5e-4, 500),
    "rg_hoop": (10, 5e-4, 300),
    "rg_ribbon": (10, 5e-4, 500),
    "fisv_tes": (6, 8e-4, 500),
    "fisv_pcs": (6, 8e-4, 500),
}
"""K, learning rate and epochs of stage 2 in the main table."""


def refused(*arguments: str) -> list[str]:
    """The sentences that a command line is answered with."""
    with pytest.raises(InputError) as error:
        checked(composed(*let_checked_refuse(list(arguments))))
    return error.value.problems


@cache
def settings_of(*arguments: str) -> Config:
    return checked(composed(*arguments))


@cache
def defaults() -> str:
    return OmegaConf.to_yaml(composed(), resolve=True)


def changed(place: str | None = None, value: Any = None) -> Config:
    """The default configuration with one setting changed."""
    raw: Any = OmegaConf.to_container(OmegaConf.create(defaults()))
    if place is not None:
        *path, last = place.split(".")
        node = raw
        for key in path:
            node = node[key]
        assert node[last] != value
        node[last] = value
    return checked(raw)


def branch(settings: Config, modality: str = "rgb") -> str:
    return fingerprint(branch_identity(settings, modality))


def fusion(settings: Config) -> str:
    return fingerprint(fusion_identity(settings))


def test_every_group_of_options_is_known():
    assert {str(path.parent.relative_to(CONF)) for path in CONF.rglob("*.yaml") if path.parent != CONF} == GROUPS
    assert {path.name for path in CONF.glob("*.yaml")} == {"train.yaml", "extract.yaml"}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes(option: str):
    needed = NEEDS.get(option, [])
    added = f"+{option}" if option.startswith(("ablation=", "experiment=")) else option
    assert checked(composed(added, *needed)).streams


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_recipe_is_the_one_it_names_and_can_be_another(method: str):
    models = [
        path.stem for path in (CONF / "model").glob("*.yaml") if f"/recipe/baseline: {method}\n" in path.read_text()
    ]
    for model in models or ["joint_va"]:
        words = [f"model={model}", *NEEDS.get(f"model={model}", [])]
        chosen, default = (checked(composed(*words, *more)) for more in ([f"recipe/baseline={method}"], []))
        assert (chosen.recipe.baseline == default.recipe.baseline) == bool(models)
    assert models or method == "one_stage_adamw"


@pytest.mark.parametrize("protocol", ["paper", "holdout"])
@pytest.mark.parametrize("recipe", ["paper", "official"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_under_both_recipes_and_protocols(experiment: str, recipe: str, protocol: str):
    settings = settings_of(f"+experiment={experiment}", f"recipe={recipe}", f"protocol={protocol}")
    assert settings.model["double_negation"] == (recipe == "official")
    assert settings.protocol.select == {"paper": "test", "holdout": "holdout"}[protocol]
    scheduled = "none" if recipe == "official" and settings.data["dataset"] == "FISV" else "cosine"
    assert (settings.recipe.branch.schedule, settings.recipe.fusion.schedule) == ("cosine", scheduled)


def test_there_is_an_experiment_for_every_cell_of_the_main_table():
    assert {*CELLS, "demo", "uiprmd", *(f"youtube_{topic}" for topic in TOPICS)} <= set(EXPERIMENTS)


@pytest.mark.parametrize("recipe", ["paper", "official"])
@pytest.mark.parametrize("cell", CELLS)
def test_an_experiment_carries_the_numbers_of_its_cell(cell: str, recipe: str):
    settings = settings_of(f"+experiment={cell}", f"recipe={recipe}", "protocol=paper")
    stage = settings.recipe.fusion
    assert (settings.model["num_fusion_nets"], stage.lr, stage.epochs) == CELLS[cell]
    assert settings.data["name"] == cell
    assert (settings.data["crop"], settings.data["max_score"]) == ((70, 25) if cell.startswith("rg") else (130, 45))
    assert (settings.model["msfd_heads"], settings.model["cmfd_heads"], settings.model["head_reduction"]) == (1, 1, 2)
    assert (settings.model["head_dropout"], settings.model["feature_dropout"]) == (0, 0.5)
    assert (stage.optimizer, stage.lr_min, stage.batch_size, stage.head_lr_scale) == ("adamw", 5e-6, 32, 0.1)
    assert settings.recipe.branch.model_dump(exclude={"clip"}) == {
        **{"optimizer": "sgd", "lr": 0.01, "lr_min": 5e-6, "momentum": 0.9, "weight_decay": 1e-4},
        **{"schedule": "cosine", "epochs": 250, "batch_size": 32, "head_lr_scale": 1.0},
    }


@pytest.mark.parametrize(
    ("recipe", "readings", "weight_decay", "clip"),
    [
        (
            "paper",
            {
                **{"double_negation": False, "policy_layers": 2, "decoding": "argmax", "frozen": "eval"},
                **{"temperature": "positive", "shared_attention": False},
            },
            1e-4,
            None,
        ),
        (
            "official",
            {
                **{"double_negation": True, "policy_layers": 1, "decoding": "sample", "frozen": "train"},
                **{"temperature": "unconstrained", "shared_attention": True},
            },
            1e-2,
            2.0,
        ),
    ],
)
def test_a_recipe_gives_its_reading_of_every_row(recipe: str, readings: dict, weight_decay: float, clip: float | None):
    settings = settings_of(f"recipe={recipe}")
    assert {name: settings.model[name] for name in readings} == readings
    assert settings.recipe.fusion.weight_decay == weight_decay
    assert (settings.recipe.branch.clip, settings.recipe.fusion.clip) == (clip, clip)
    assert settings.model["finetune"] == ["audio"]


@pytest.mark.parametrize("model", ["pamfn", "late_fusion"])
def test_the_last_stream_is_finetuned_unless_told_otherwise(model: str):
    assert settings_of(f"model={model}", "data=uiprmd").model["finetune"] == ["kinect_positions"]
    assert settings_of(f"model={model}", "modalities=[rgb,flow]").model["finetune"] == ["audio"]


def test_for_a_single_branch_the_recipes_differ_in_clipping_alone():
    paper, official = (settings_of(f"recipe={recipe}").recipe.branch for recipe in ("paper", "official"))
    assert paper.model_copy(update={"clip": 2.0}) == official


MISSPELT = {
    "sede=1": ("seed", "recipe, resume_seconds"),
    "+sed=1": ("seed", "data, features"),
    "data.crpo=1": ("crop", "columns, crop, dataset"),
    "model.num_fusion_net=3": ("num_fusion_nets", "msfd_heads, num_fusion_nets"),
    "model.brunch=1": (None, "attention_dropout, cmfd"),
    "model.branch.d_modle=3": ("d_model", "d_model, dropout"),
    "recipe.brnch.lr=1": ("branch", "branch, fusion"),
    "recipe.fusion.epoch=1": ("epochs", "clip, epochs"),
    "features.rgb.widht=3": ("width", "extractor, width"),
    "protocol.slect=test": ("select", "holdout, refit, select"),
    "trainer.acelerator=cpu": ("accelerator", "accelerator, benchmark"),
    "logger.tag=[a]": ("tags", "entity, group"),
    "paths.data=here": ("data_dir", "data_dir, output_dir"),
}


@cache
def answers() -> dict[str, str]:
    """The sentences on all the misspelt keys together, by place."""
    return dict(problem.split(": ", 1) for problem in refused(*MISSPELT))


@pytest.mark.parametrize("argument", MISSPELT)
def test_a_misspelt_key_is_refused_with_what_is_allowed(argument: str):
    meant, allowed = MISSPELT[argument]
    place = argument.lstrip("+").partition("=")[0].replace("brnch.lr", "brnch")
    assert len(answers()) == len(MISSPELT)
    assert answers()[place].startswith("no such setting. " + (f"Did you mean {meant}? " if meant else "Allowed"))
    assert allowed in answers()[place].partition("Allowed here: ")[2]


@pytest.mark.parametrize(
    "argument",
    ["trainer.max_epochs=3", "trainer.logger=true", "data.seed=3", "model.branch.width=3", "model.branches=1"],
)
def test_what_the_pipeline_gives_itself_cannot_be_set(argument: str):
    (problem,) = refused(argument)
    assert problem.startswith(f"{argument.partition('=')[0]}: no such setting.")
    assert argument.partition("=")[0].rpartition(".")[2] not in problem.partition("Allowed here: ")[2].split(", ")


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("seed=zero", "seed: input should be a valid integer, found 'zero'."),
        ("seed=1.5", "seed: input should be a valid integer, found 1.5."),
        ("seed=true", "seed: input should be a valid integer, found True."),
        ("seed=-1", "seed: input should be greater than or equal to 0, found -1."),
        ("seed=5000000000", "seed: input should be less than 4294967296, found 5000000000."),
        ("seeds=[0,1]", "seeds: there is no such setting any more. Sweep them: -m seed=0,1,2, side by side with "),
        ("data.test_crop=centre", "data.test_crop: there is no such setting any more. Videos are scored whole. "),
        ("data.skip_first_line=true", "data.skip_first_line: there is no such setting any more. A header is found by"),
        ("data.test_batch_size=4", "data.test_batch_size: there is no such setting any more. A video's score does"),
        ("data.crop=twelve", "data.crop: input should be a valid integer, found 'twelve'."),
        ("model.branch.d_model=big", "model.branch.d_model: input should be a valid integer, found 'big'."),
        ("model.cmfd_heads=1.0", "model.cmfd_heads: input should be a valid integer, found 1.0."),
        ("model.frozen=maybe", "model.frozen: input should be 'eval' or 'train', found 'maybe'."),
        ("model.double_negation=1", "model.double_negation: input should be a valid boolean, found 1."),
        ("recipe.branch.clip=none", "recipe.branch.clip: input should be a valid number, found 'none'."),
        ("recipe.branch.clip=0", "recipe.branch.clip: input should be greater than 0, found 0."),
        ("recipe.branch.lr=nan", "recipe.branch.lr: input should be greater than 0, found nan."),
        ("recipe.fusion.optimizer=adam", "recipe.fusion.optimizer: input should be 'sgd' or 'adamw', found 'adam'."),
        ("recipe.fusion.batch_size=0", "recipe.fusion.batch_size: input should be greater than 0, found 0."),
        (
            "recipe.fusion.batch_size=1",
            "recipe.fusion.batch_size: 1 cannot be trained with BatchNorm over videos: choose 2 or more.",
        ),
        ("protocol.holdout=1.0", "protocol.holdout: input should be less than 1, found 1.0."),
        ("logger.mode=on", "logger.mode: input should be 'auto', 'online' or 'offline', found 'on'."),
        ("logger.tags=[1]", "logger.tags.0: input should be a valid string, found 1."),
        ("modalities=rgb", "modalities: input should be a valid list, found 'rgb'."),
        ("modalities=[]", "modalities: choose at least one of rgb, flow, audio."),
        ("features.touch.width=3", "features.touch.extractor: missing, and it has no default."),
        ("features.rgb.width=0", "features.rgb.width: input should be greater than 0, found 0."),
        ("threads=100000", "threads: input should be less than or equal to 1024, found 100000."),
        ("recipe.branch.lr=inf", "recipe.branch.lr: expected a finite number, found inf."),
        ("recipe.fusion.weight_decay=inf", "recipe.fusion.weight_decay: expected a finite number, found inf."),
        ("data.max_score=inf", "data.max_score: input should be a finite number, found inf."),
        ("model.initial_temperature=inf", "model.initial_temperature: "),
        ("data.name=../../x", "data.name: expected up to 100 letters, digits, blanks and . _ + - that begin with"),
        ("data.name=a/b", "data.name: expected up to 100 letters"),
        ("data.name='$x$'", "data.name: expected up to 100 letters"),
        ("features.rgb.extractor=../x", "features.rgb.extractor: expected up to 100 letters"),
        ("trainer.precision=64", "trainer.precision: found 64; networks here are trained in 32-true "),
        ("model._target_=torch.hub.load", "model._target_: 'torch.hub.load' is a function, and no subclass of pamfn."),
        (
            "model._target_=torch.nn.Linear",
            "model._target_: 'torch.nn.Linear' is a class, and no subclass of pamfn.models.Network.",
        ),
        ("data._target_=pamfn.models.PAMFN", "data._target_: 'pamfn.models.PAMFN' is a class, and no subclass of "),
        ("trainer._target_=pamfn.models.PAMFN", "trainer._target_: 'pamfn.models.PAMFN' is a class, and no "),
        ("threads=0", "threads: input should be greater than 0, found 0."),
        ("~data.score", "data.score: missing, and it has no default."),
        ("~recipe.fusion.lr", "recipe.fusion.lr: missing, and it has no default."),
        ("~protocol.select", "protocol.select: missing, and it has no default."),
        ("model._target_=pamfn.models.Nothing", "model._target_: cannot import 'pamfn.models.Nothing' "),
        ("model._target_=pamfn.models", "model._target_: 'pamfn.models' is a module, which builds nothing. "),
        ("~trainer._target_", "trainer: needs a _target_, the class to build, e.g. "),
        ("model._target_=3", "model: needs a _target_, the class to build, e.g. "),
        ("data.extra._target_=pamfn.models.PAMFN", "data.extra: no such setting; a class is not expected here."),
        ("~model.branch", "model.branch: needs a _target_, the class to build, e.g. pamfn.models.ModalityBranch."),
        ("model.finetune=[bass]", "model.finetune: bass not among the modalities: rgb, flow, audio."),
        ("trainer.precision=16-mixed", "trainer.precision: float16 would need scaled losses; "),
        ("available=[rgb,bass]", "available: bass not among the chosen modalities: rgb, flow, audio."),
        ("available=[]", "available: choose at least one of rgb, flow, audio; "),
        ("recipe.stages=1", "recipe.stages: 1 trains the branches with the rest; say so with model.finetune=null."),
        ("seed='${nothing}'", "seed: Interpolation key 'nothing' not found"),
        ("seed='???'", "seed: Missing mandatory value: seed"),
        ("trainer.devices=2", "trainer.devices: networks of this size train on one device; "),
        ("trainer.limit_train_batches=2", "trainer.limit_train_batches: no such setting. Allowed here: accelerator, "),
        ("trainer.precision=bf16-true", "trainer.precision: weights in bfloat16 would lose small steps; "),
        ("protocol.refit=1", "protocol.refit: input should be a valid boolean, found 1."),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_was_found(argument: str, sentence: str):
    (problem,) = refused(argument)
    assert problem.startswith(sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["modalities=[rgb,smell]"], "modalities: smell not among this data set's modalities: rgb, flow, audio."),
        (["protocol.holdout=0"], "protocol.holdout: 0 does not go with protocol.select=holdout; choose protocol=paper"),
        (["protocol=paper", "protocol.holdout=0.2"], "protocol.holdout: 0.2 does not go with protocol.select=test; "),
        (["protocol=paper", "protocol.refit=true"], "protocol.refit: only protocol=holdout has something to refit."),
        (
            ["+experiment=youtube_dog", "model=gdlt"],
            "recipe.baseline.crop: Interpolation key 'data.crop' not found, which methods that score whole videos need",
        ),
        (
            ["+experiment=youtube_dog", "compile=true"],
            "compile: youtube_dog is trained on whole videos, and nearly every step would be of a length that was not",
        ),
        (["data=youtube_dog", "model=umt_clips", "compile=true"], "compile: youtube_dog is trained on whole videos, "),
    ],
)
def test_choices_that_do_not_go_together_are_refused(arguments: list[str], sentence: str):
    (problem,) = refused(*arguments)
    assert problem.startswith(sentence)


def test_all_problems_are_told_together():
    wrong = [
        "sede=1",
        "seed=x",
        "data.crpo=1",
        "model.branch.d_modle=3",
        "trainer.acelerator=cpu",
        "recipe.fusion.lr=0",
    ]
    places = [problem.partition(":")[0] for problem in refused(*wrong)]
    assert sorted(places) == sorted(word.partition("=")[0] for word in wrong)
    places = [
        problem.partition(":")[0] for problem in refused("modalities=[rgb,bass]", "protocol.holdout=0", "data.crop=x")
    ]
    assert sorted(places) == ["data.crop", "modalities", "protocol.holdout"]


def test_numbers_may_be_written_without_a_point():
    settings = checked(composed("recipe.fusion.weight_decay=0", "recipe.fusion.clip=2", "model.head_dropout=0"))
    assert (settings.recipe.fusion.weight_decay, settings.recipe.fusion.clip) == (0.0, 2.0)


def test_values_reach_the_check_and_all_other_words_reach_hydra():
    values = ["seed=1", "+seed=1", "++seed=1", "modalities=[rgb]", "features.rgb.width=3", "dtaa.crop=3", "key="]
    assert let_checked_refuse(values) == [f"++{value.lstrip('+')}" for value in values]
    others = [
        *("-m", "--help", "--cfg", "job", "--config-dir=x", "+experiment=demo", "experiment=demo", "data=rg_ball"),
        *("recipe@other=paper", "~features.audio", "hydra.run.dir=x", "hydra/launcher=joblib", "words"),
    ]
    assert let_checked_refuse(others) == others


def test_a_choice_of_two_values_is_still_a_sweep():
    assert let_checked_refuse(["-m", "seed=0,1"]) == ["-m", "++seed=0,1"]


def test_every_experiment_is_listed_with_what_it_is():
    lines = listed("experiment").splitlines()
    assert [line.split()[0] for line in lines] == [f"+experiment={name}" for name in EXPERIMENTS]
    assert all(len(line.split()) > 3 for line in lines)


EITHER = {
    "seed": 1,
    "data.crop": 100,
    "data.score": "pcs",
    "data.max_score": 40.0,
    "features.rgb.extractor": "UNMT",
    "features.rgb.width": 512,
    "model.branch.d_model": 128,
    "model.branch.dropout": 0.1,
    "recipe.branch.lr": 0.02,
    "recipe.branch.clip": None,
    "protocol.holdout": 0.1,
    "protocol.refit": True,
    "trainer.precision": "bf16-mixed",
    "threads": 2,  # sums in another order
}
FUSION = {
    "features.audio.extractor": "MAST",
    "modalities": ["rgb", "flow"],
    "model.num_fusion_nets": 4,
    "model.finetune": [],
    "model.decoding": "argmax",
    "model.double_negation": False,
    "recipe.fusion.lr": 0.02,
    "recipe.fusion.epochs": 3,
}
NEITHER = {
    "paths.data_dir": "there",
    "paths.output_dir": "there",
    "logger.wandb": False,
    "logger.tags": ["mine"],
    "resume_seconds": 5.0,
    "trainer.accelerator": "cpu",
}


def test_what_decides_the_numbers_of_a_branch_names_it_and_the_fused_network():
    runs = [changed(), *(changed(place, value) for place, value in EITHER.items())]
    assert len({branch(run) for run in runs}) == len({fusion(run) for run in runs}) == len(runs)


def test_one_thread_is_not_said_and_any_other_number_is():
    names = [branch(changed()), *(branch(changed("threads", threads)) for threads in (2, 3, 4))]
    assert "threads" not in as_before(branch_identity(changed(), "rgb"))
    assert len(set(names)) == 4


def test_a_name_does_not_know_where_code_lives():
    for new, old in OLD_NAMES.items():
        assert fingerprint({"data": {"_target_": new}}) == fingerprint({"data": {"_target_": old}})
        place = "extractor" if new.startswith("pamfn.extraction.") else "data"
        assert target({"_target_": old}, place) is target({"_target_": new}, place)
    assert branch(changed()) == "f69b237531"  # as it was when conf/ named modules


def test_what_concerns_the_fusion_alone_leaves_the_branches_as_they_are():
    runs = [changed(), *(changed(place, value) for place, value in FUSION.items())]
    assert len({fusion(run) for run in runs}) == len(runs)
    assert len({branch(run) for run in runs}) == 1


def test_what_does_not_decide_numbers_names_nothing():
    runs = [changed(), *(changed(place, value) for place, value in NEITHER.items())]
    assert len({(branch(run), fusion(run)) for run in runs}) == 1


def test_every_modality_has_a_branch_of_its_own():
    assert len({branch(changed(), modality) for modality in ("rgb", "flow", "audio")}) == 3


def test_experiments_that_agree_on_a_branch_share_it():
    one, two = (checked(composed("+experiment=fisv_tes", f"model.num_fusion_nets={k}")) for k in (2, 6))
    assert branch(one) == branch(two)
    assert branch(one) != branch(checked(composed("+experiment=fisv_pcs")))


def test_the_order_of_settings_does_not_matter_and_the_order_of_modalities_does():
    settings = changed()
    raw = settings.model_dump()
    shuffled = shuffle(raw) | {"features": raw["features"]}
    assert list(shuffled) != list(raw)
    assert (branch(checked(shuffled)), fusion(checked(shuffled))) == (branch(settings), fusion(settings))
    turned = copy.deepcopy(raw)
    turned["features"] = dict(reversed(raw["features"].items()))
    assert fusion(checked(turned)) != fusion(settings)
    assert branch(checked(turned)) == branch(settings)
    assert fusion(changed("modalities", ["flow", "rgb"])) == fusion(changed("modalities", ["rgb", "flow"]))


def shuffle(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    keys = list(node)
    random.Random(1).shuffle(keys)
    return {key: shuffle(node[key]) for key in keys}


def test_a_fingerprint_is_the_same_in_every_process_and_version():
    identity = {"seed": 0, "recipe": {"lr": 5e-6, "clip": None}, "modalities": ["rgb", "flow"], "precision": "32-true"}
    assert fingerprint(identity) == "96633f09f2"


def test_archived_runs_still_bear_the_names_of_their_settings():
    runs = every_run(ARCHIVE / "nothing")
    assert runs
    for run in runs:
        result = run.result()
        assert result is not None
        settings = parsed({**result["config"], "modalities": result["modalities"]})
        assert locate(settings, result["kind"], result["modalities"]).path.name == run.path.name


def test_of_every_archived_run_a_table_can_say_what_it_is():
    """Of the first ones too, whose results hold less."""
    for run in every_run(ARCHIVE / "nothing"):
        result = run.result()
        assert result is not None
        assert provenance({run.path: result}, None)
