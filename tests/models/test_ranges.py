"""Every number of every network, one at a time: built, or refused with a sentence, before anything is read."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from composed import composed
from pamfn.config.compose import CONF
from pamfn.config.targets import signature_schema, target
from pamfn.config.validation import checked, resolved
from pamfn.errors import InputError
from pamfn.pipeline.build import check_buildable
from pamfn.runs.lookup import wanted

MODELS = sorted(file.stem for file in (CONF / "model").glob("*.yaml"))
ENDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
SECONDS = 5


@cache
def of_model(model: str) -> dict[str, Any]:
    data = "youtube_dog" if model == "mini_net" or model.endswith("_clips") else "rg_ball"
    return resolved(composed(f"data={data}", f"model={model}", "trainer.accelerator=cpu"))


def plain(model: str) -> dict[str, Any]:
    """The configuration of a model with data that it reads."""
    return copy.deepcopy(of_model(model))


def numbers(node: dict[str, Any], place: str) -> dict[str, list[dict[str, Any]]]:
    """{argument: what a JSON schema says of each number it takes} of a `_target_`."""
    properties = signature_schema(target(node, place), place).model_json_schema()["properties"]
    found = {name: list(of_numbers(said)) for name, said in properties.items()}
    return {name: said for name, said in found.items() if said}


def of_numbers(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if said.get("type") in ("integer", "number") and "enum" not in said:
        yield said
    for inner in [*said.get("anyOf", []), *([said["items"]] if "items" in said else [])]:
        yield from of_numbers(inner)


def arguments(settings: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str, list[dict[str, Any]]]]:
    """Every number of a model and its branches: its place, its node, its name, its range."""
    nodes = {"model": settings["model"], "model.branch": settings["model"].get("branch")}
    for place, node in nodes.items():
        for name, said in (numbers(node, place) if node else {}).items():
            yield f"{place}.{name}", node, name, said


def ended(settings: dict[str, Any], asked: str) -> list[str]:
    """The sentences that refuse a configuration, none where its network can be built; and soon."""
    started = time.perf_counter()
    try:
        config = checked(settings)
        check_buildable(config, *wanted(config))  # type: ignore[arg-type]
        problems = []
    except InputError as error:
        problems = error.problems
    except Exception as error:
        pytest.fail(f"{asked} ends in {error!r}")
    assert time.perf_counter() - started < SECONDS, asked
    return problems


def with_values(
    settings: dict[str, Any], values: Callable[[list[dict[str, Any]]], list[Any]]
) -> Iterator[tuple[str, Any, list[str]]]:
    """Every number set to each value for its range, alone: its place, the value, the sentences that refuse it."""
    for place, node, name, said in arguments(settings):
        before = dict(node)
        for value in values(said):
            for given in (value, [value]) if isinstance(before.get(name), list) else (value,):
                node[name] = given
                yield place, given, ended(settings, f"{place}={given!r}")
        node.clear()
        node.update(before)


@pytest.mark.parametrize("model", MODELS)
def test_every_number_has_a_range_with_two_ends(model: str):
    settings = plain(model)
    assert ended(settings, model) == []
    found = list(arguments(settings))
    assert found
    for place, _, _, said in found:
        for number in said:
            assert len([end for end in ENDS if end in number]) == 2, f"{place}: {number}"


@pytest.mark.parametrize("model", MODELS)
def test_a_number_that_is_none_is_refused_with_a_sentence_about_it(model: str):
    values = [-1, math.nan, math.inf, 10**9, 1e300, "many", True]
    for place, value, problems in with_values(plain(model), lambda _: values):
        assert any(problem.startswith(place) for problem in problems), f"{place}={value!r}: {problems}"


@pytest.mark.parametrize("model", MODELS)
def test_zero_is_built_where_it_has_a_meaning(model: str):
    for place, value, problems in with_values(plain(model), lambda _: [0]):
        name = place.rpartition(".")[2]
        free = "dropout" in name or name in ("floor", "margin", "triplet", "penalty", "epsilon")
        may_lack = name == "encoder_layers" or (name == "decoder_layers" and model != "gdlt")
        assert (problems == []) is (free or may_lack), f"{place}={value!r}: {problems}"


@pytest.mark.parametrize("model", MODELS)
def test_at_both_ends_of_its_range_a_number_is_built_or_refused(model: str):
    """Where it does not go with the others, such as a width that the heads do not divide."""

    def ends(said: list[dict[str, Any]]) -> list[Any]:
        first = said[0]
        low = first.get("minimum", first.get("exclusiveMinimum", 0) + 1)
        high = first.get("maximum", math.nextafter(first.get("exclusiveMaximum", 0), 0))
        return [low, high] if first["type"] == "integer" else [float(low), high]

    for place, _, problems in with_values(plain(model), ends):
        refused_alone = [problem for problem in problems if problem.startswith(f"{place}:")]
        lists = place in ("model.costs", "model.fusion_stages")  # a number alone is no list
        assert refused_alone == [] or lists, problems


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model.branch.d_model=0"], "model.branch.d_model: input should be greater than 0, found 0."),
        (["model.branch.hidden=0"], "model.branch.hidden: input should be greater than 0, found 0."),
        (["model.msfd_heads=-1"], "model.msfd_heads: input should be greater than 0, found -1."),
        (["model.branch.dropout=2"], "model.branch.dropout: input should be less than 1, found 2."),
        (["model.head_dropout=nan"], "model.head_dropout: input should be a finite number, found nan."),
        (["model.head_reduction=257"], "head_reduction 257 leaves nothing of d_model 256."),
        (["model.cmfd_heads=3"], "d_model 256 is not divisible by 3 heads."),
        (["model=gdlt", "model.heads=3"], "d_model 256 is not divisible by 3 heads."),
        (["model=umt_paper", "model.d_model=4"], "d_model 4 is not divisible by 8 heads."),
        (["model=msaf", "model.reduction=512"], "d_model 256, block 256, reduction 512: each must divide the one"),
        (["data=youtube_dog", "model=mini_net", "model.d_model=1"], "MINI-Net halves d_model: it must be at least 2"),
        (["data=youtube_dog", "model=mini_net", "model.narrow=31"], "modules x narrow is added to d_model 128, and is"),
        (["model=svr", "model.costs=[]"], "model.costs: value should have at least 1 item after validation, not 0"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(words: list[str], sentence: str):
    settings = resolved(composed("data=rg_ball", "trainer.accelerator=cpu", *words))
    (told,) = ended(settings, " ".join(words))
    assert sentence in told
