"""The file of a study: which runs it means, and what is said of one that cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcgender.study.file import read_study
from shard_tools.base.errors import UserError


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return file


def test_every_combination_is_a_run_with_the_options_of_preset_base_and_grid(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'name = "table"\n[base]\npreset = "utkface_multitask"\nepochs = 3\n'
        '[grid]\nmodel = ["resnet18", "vgg11"]\nseed = [0, 1]\ncompile = [false]\ntasks = [["gender", "age"]]\n'
        '[evaluate]\ndata = ["data/a", "data/b"]\nsplits = ["val", "test"]\nflip = true\n[compare]\non = ["b-test"]\n',
    )
    study = read_study(file)
    assert list(study.trials) == [
        "resnet18-seed0-no_compile-gender+age",
        "resnet18-seed1-no_compile-gender+age",
        "vgg11-seed0-no_compile-gender+age",
        "vgg11-seed1-no_compile-gender+age",
    ]
    last = study.training("vgg11-seed1-no_compile-gender+age")
    options = last.options
    assert (options.model, options.seed, options.epochs, options.lr) == ("vgg11", 1, 3, 0.05)
    assert last.results == Path("runs/table/vgg11-seed1-no_compile-gender+age")
    assert last.words[:1] == ("train",)
    assert "--resume" in last.words
    evaluated = study.evaluated_on("resnet18-seed0-no_compile-gender+age")
    assert [call.results.name for call in evaluated] == ["a-val", "a-test", "b-val", "b-test"]
    assert all({"--flip", "--finished"} <= set(call.words) for call in evaluated)
    assert study.compared == ("b-test",)


def test_a_search_draws_values_that_further_trials_and_ranges_do_not_change(tmp_path: Path) -> None:
    def drawn(trials: int, more: str = "") -> dict[str, tuple[float, int, str, float]]:
        ranges = "lr = { low = 1e-4, high = 0.1, log = true }\nbatch_size = { low = 8, high = 11 }\n"
        ranges += 'model = ["compact", "vgg11"]\n'
        file = write(tmp_path, f"[search]\ntrials = {trials}\n[search.ranges]\n{ranges}{more}")
        found = read_study(file).trials
        return {name: (one.lr, one.batch_size, one.model, one.weight_decay) for name, one in found.items()}

    few, many = drawn(10), drawn(400, "weight_decay = { low = 0, high = 1e-3 }")
    assert list(few) == [f"trial-{number:04d}" for number in range(10)]
    assert [one[:3] for one in few.values()] == [one[:3] for one in many.values()][:10]
    assert all(1e-4 <= lr <= 0.1 and 0 <= decay <= 1e-3 for lr, _, _, decay in many.values())
    for decade in (1e-4, 1e-3, 1e-2):  # the logarithm is spread evenly
        assert 100 <= sum(decade <= lr < 10 * decade for lr, *_ in many.values()) <= 170
    for size in (8, 9, 10, 11):
        assert 70 <= sum(found == size for _, found, *_ in many.values()) <= 130
    assert 160 <= sum(model == "vgg11" for _, _, model, _ in many.values()) <= 240


def test_a_file_without_a_name_or_a_grid_is_one_run(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, '[base]\npreset = "vgg16"\n'))
    assert (study.name, list(study.trials), study.evaluations, study.compared) == ("mine", ["run"], None, ())


def test_mixtures_are_named_by_their_data_sets_and_weights(tmp_path: Path) -> None:
    values = ["data/a=1,data/b=1", "data/a=2,data/b=1", "data/a=1,data/b=0.5", "data/a=1,data/b=0.25", "data/v1.2"]
    found = read_study(write(tmp_path, f"[grid]\ndata = {[values[0], values[1], *values[3:]]}")).trials
    assert list(found) == ["a1+b1", "a2+b1", "a4+b1", "v1.2"]
    with pytest.raises(UserError, match=r"two trials would be called a2\+b1"):
        read_study(write(tmp_path, f"[grid]\ndata = {values}"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("names = 3", "line 1: names is unknown: did you mean name?"),
        ('name = "a/b"', "name 'a/b': a name has letters"),
        ("base = 3", "line 1: base must be a table: begin it with [base]"),
        ("[base]\nepocs = 3", "line 2: base.epocs is unknown: did you mean epochs?"),
        ('[base]\nepochs = "3"', "line 2: base.epochs must be a whole number, not '3'"),
        ('[base]\nname = "x"', "line 2: base.name is unknown: a study names its runs itself"),
        (
            '[base]\nval_split = "none"',
            'line 1: base has val_split = "none", and trials are chosen by validation: give a split',
        ),
        ("[grid]\nseed = 3", "line 2: grid.seed must be a list of values in [ ]"),
        (
            '[grid]\ndata = ["data/a", ["data/a=2", "data/b=1"]]',
            'line 2: grid.data[1] must be text in quotes; a mixture is one text, such as "data/a=2,data/b=1"',
        ),
        ("[grid]\nseed = []", "line 2: grid.seed must be a list of values in [ ]"),
        ("[base]\nlr = 1\n[grid]\nlr = [1, true]", "line 4: grid.lr[1] must be a number, not true"),
        ("[grid]\nseed = [1, 1]", "two trials would be called seed1"),
        ('[base]\npreset = "vgg61"', "unknown preset 'vgg61': did you mean vgg16?"),
        ("[evaluate]\n", "line 1: evaluate needs data"),
        ("[search]\ntrials = 3", "search.ranges must be a table of options"),
        ("[search]\n[search.ranges]\nlr = [1.0]", "line 1: search.trials is missing: it must be a whole number"),
        ("[search]\ntrials = 0\n[search.ranges]\nlr = [1.0]", "line 2: search.trials must be at least 1"),
        ("[search]\ntrials = 3\n[search.ranges]\nlr = 3", "line 4: search.ranges.lr must be { low = 1e-4"),
        ("[search]\ntrials = 3\n[search.ranges]\nlr = { low = 1 }", "line 4: search.ranges.lr.high is missing"),
        ("[search]\ntrials = 3\n[search.ranges]\nlr = { low = 0, high = 1, log = true }", "and above 0 with log"),
        ("[search]\ntrials = 3\n[search.ranges]\nseed = { low = 0.5, high = 1 }", "seed.low must be a whole number"),
        ("[search]\ntrials = 3\n[search.ranges]\nlrr = [1.0]", "line 4: search.lrr is unknown: did you mean lr?"),
        ("[grid]\n[search]\ntrials = 3\n[search.ranges]\nlr = [1.0]", "line 2: search cannot stand beside [grid]"),
        ('[evaluate]\ndata = "a"', "line 2: evaluate.data must be a list in [ ]"),
        ('[evaluate]\ndata = ["a"]\ntrials = "some"', "evaluate.trials must be 'all' or 'best'"),
        ('[evaluate]\ndata = ["a/x", "b/x"]', "line 2: evaluate.data has two called x"),
        ('[evaluate]\ndata = ["a"]\nsplits = ["val", "val"]', "line 3: evaluate.splits has val twice"),
        (
            '[evaluate]\ndata = ["a", "b"]\ntemperature_from = "val"\nkeep_temperature = true',
            "line 4: evaluate.keep_temperature needs one data set and one split",
        ),
        ('[grid]\ntasks = [["gender"], ["age"]]', "line 1: grid has trials with and without gender"),
        (
            '[search]\ntrials = 2\nsampler = "tpe"\n[search.ranges]\ntasks = [["gender"], ["age"]]',
            "line 1: search has trials with and without gender",
        ),
        ('[evaluate]\ndata = ["a"]\ncheckpoint = "b"', "line 3: evaluate.checkpoint is unknown"),
        ('[evaluate]\ndata = ["a"]\n[compare]\non = ["a-val"]', "line 4: compare.on has 'a-val': known: a-test"),
        (
            '[evaluate]\ndata = ["a"]\ntrials = "best"\n[compare]',
            'line 4: compare needs [evaluate] with trials = "all"',
        ),
    ],
)
def test_what_cannot_be_meant_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_study(file)
    assert str(file) in str(caught.value) or "preset" in says
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
