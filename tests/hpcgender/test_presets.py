from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgender.commands.train import COMMANDS, MAY_CHANGE, TrainConfig
from hpcgender.option_layers import PRESETS, preset_names
from hpcgender.train.config import ComputeConfig
from shard_tools.base.commands import parse_options
from shard_tools.base.errors import UserError
from tests.conftest import Run


def parsed(*arguments: object) -> TrainConfig:
    config = parse_options(TrainConfig, "hpcgender train", [str(argument) for argument in arguments])
    assert isinstance(config, TrainConfig)
    return config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.toml"


def test_each_layer_overrules_those_before(file: Path) -> None:
    file.write_text('lr = 0.3\nepochs = 7\nruns = "elsewhere"\n')
    config = parsed("--preset", "vgg16", "--config", file, "--epochs", 8)
    assert config.momentum == TrainConfig().momentum
    assert (config.model, config.weight_decay) == ("vgg16", 5e-4)
    assert (config.lr, config.runs) == (0.3, Path("elsewhere"))
    assert config.epochs == 8
    assert parsed("--epochs", 8, "--config", file, "--preset", "vgg16") == config


@pytest.mark.parametrize("preset", preset_names())
def test_options_spelled_out_need_no_file(preset: str, file: Path) -> None:
    file.write_text(
        f'preset = "{preset}"\nlr = 1e-7\ntf32 = false\ndeterministic = true\ntasks = ["gender", "age"]\n'
        'freeze = 2\nclass_weights = [1, 2.5]\nstage_to = "/a b"\nwarmup_epochs = 0.5\n'
    )
    config = parsed("--config", file, "--name", "mine", "--resume")
    name, *words = COMMANDS[0].settled(config, ("train", "--config", str(file)))
    file.unlink()
    assert name == "train"
    assert parsed(*words) == replace(config, config=None, preset="")
    assert COMMANDS[0].settled(TrainConfig(), ("train", "--preset", preset)) == ("train", "--preset", preset)


def test_a_file_may_begin_with_a_preset(file: Path) -> None:
    file.write_text('preset = "vgg16"\nlr = 0.3\n')
    assert (parsed("--config", file).model, parsed("--config", file).lr) == ("vgg16", 0.3)
    assert parsed("--config", file, "--preset=resnet50").model == "resnet50"


def test_a_flag_of_a_file_can_be_taken_back(file: Path) -> None:
    file.write_text("sync_bn = true\ntf32 = false\n")
    assert parsed("--config", file).sync_bn
    config = parsed("--config", file, "--no-sync-bn", "--tf32")
    assert not config.sync_bn
    assert config.tf32


def test_values_have_the_types_of_their_options(file: Path) -> None:
    file.write_text('lr = 1\nwarmup_epochs = 2\ntasks = ["gender", "age"]\nclass_weights = [1, 2.5]\nstage_to = "/tmp"')
    config = parsed("--config", file)
    assert repr((config.lr, config.warmup_epochs, config.class_weights)) == "(1.0, 2.0, (1.0, 2.5))"
    assert config.tasks == ("gender", "age")
    assert config.stage_to == Path("/tmp")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("lerning_rate = 1", "mine.toml, line 3: lerning_rate is unknown"),
        ("batch-size = 1", "mine.toml, line 3: batch-size is unknown: did you mean batch_size?"),
        ('"optimiser" = "sgd"', "mine.toml, line 3: optimiser is unknown: did you mean optimizer?"),
        ("zzz = 1", "mine.toml, line 3: zzz is unknown: hpcgender train --print-config lists"),
        ("epochs = 1.5", "mine.toml, line 3: epochs must be a whole number, not 1.5"),
        ("epochs = true", "mine.toml, line 3: epochs must be a whole number, not true"),
        ('lr = "0.1"', "mine.toml, line 3: lr must be a number, not '0.1'"),
        ("tf32 = 1", "mine.toml, line 3: tf32 must be true or false, not 1"),
        ("name = 3", "mine.toml, line 3: name must be text in quotes, not 3"),
        ('schedule = "cosin"', "mine.toml, line 3: schedule must be 'step' or 'cosine' or 'onecycle', not 'cosin'"),
        ('tasks = ["agee"]', "mine.toml, line 3: tasks[0] must be 'gender' or 'age', not 'agee'"),
        ('warmup_epochs = "a"', "mine.toml, line 3: warmup_epochs must be a number or 'auto', not 'a'"),
        ('tasks = "age"', "mine.toml, line 3: tasks must be a list in [ ], each 'gender' or 'age', not 'age'"),
        ("[model]\nlr = 1", "mine.toml, line 3: model must be text in quotes, not a table"),
        ("print_config = true", "mine.toml, line 3: print_config is unknown"),
        ('preset = "vgg17"', "unknown preset in {file} 'vgg17': did you mean vgg16?"),
        ("lr 1", "mine.toml: Expected '=' after a key in a key/value pair (at line 3"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(file: Path, line: str, says: str) -> None:
    file.write_text(f"# mine\nseed = 1\n{line}\n")
    with pytest.raises(UserError) as error:
        parsed("--config", file)
    assert says.format(file=file) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_and_presets_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.toml: .*No such file"):
        parsed("--config", tmp_path / "none.toml")
    with pytest.raises(UserError, match="unknown preset 'resnet55': did you mean resnet50"):
        parsed("--preset", "resnet55")


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_sets_what_its_file_says(name: str) -> None:
    config = parsed("--preset", name)
    stated = tomlkit.parse((PRESETS / f"{name}.toml").read_text(encoding="utf-8")).unwrap()
    base = parsed("--preset", stated.pop("preset")) if "preset" in stated else TrainConfig()
    expected = {key: tuple(value) if isinstance(value, list) else value for key, value in stated.items()}
    assert vars(config) == {**vars(base), **expected, "preset": name}
    assert config.name == name


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_trains_from_start_to_end(name: str, shards: Path, tmp_path: Path) -> None:
    from hpcgender.train.loop import train

    preset = parsed("--preset", name)
    side = 64 if preset.branch_layers else 32
    few = ("--batch-size", 8, "--limit", 16) if name.endswith(("101", "152")) else ("--batch-size", 64)
    small = ("--image-size", side, *few, "--epochs", 1)  # two steps, or four; the rest is as the preset says
    pretrained = ("--pretrained", imagenets(preset.model, tmp_path)) if preset.pretrained else ()
    config = parsed("--preset", name, "--data", shards, "--runs", tmp_path, *small, *pretrained)
    assert train(config) == 0
    epochs = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1]
    assert math.isfinite(epochs[0]["train"]["loss"])
    validated = epochs[0]["val"]["accuracy"]
    assert validated is None if preset.val_split == "none" else 0 < validated <= 1
    assert (tmp_path / name / "checkpoints" / "best.pt").exists()
    shutil.rmtree(tmp_path / name)  # of VGG-16 it is two gigabytes


def imagenets(model: str, directory: Path) -> Path:
    """A file of weights as torchvision's are, but random: nothing is downloaded."""
    import torch
    import torchvision

    path = directory / f"{model}.pth"
    torch.save(torchvision.models.get_model(model, weights=None).state_dict(), path)
    return path


def test_the_help_names_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    text = capsys.readouterr().out
    assert all(name in text for name in preset_names())
    assert all(f"{title} options" in text for title in ("run", "batch", "read", "model", "optimization", "compute"))


def test_the_help_shows_what_a_preset_sets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--preset", "vgg16", "--help")
    assert "(default: vgg16)" in capsys.readouterr().out


def test_a_printed_configuration_can_be_given_back(run: Run, file: Path) -> None:
    options = (
        "--tasks",
        "gender",
        "age",
        "--stage-to",
        "/tmp/a b",
        "--weight-decay",
        "1e-5",
        "--pretrained",
        'é "x" \\',
    )
    printed = run("hpcgender", "train", "--preset", "transfer_resnet18", *options, "--print-config")
    assert printed.returncode == 0, printed.stderr
    assert printed.stderr == ""
    file.write_text(printed.stdout)
    expected = parsed("--preset", "transfer_resnet18", *options)
    assert parsed("--config", file).plain() == expected.plain()
    assert parsed("--config", file).toml() == printed.stdout
    assert "# Peak learning rate, reached after warm-up.\nlr = 0.0001\n" in printed.stdout


def test_launching_prints_the_configuration_too_and_starts_nothing(run: Run) -> None:
    printed = run("hpcgender.launch", "--nodes", 2, "--", "train", "--preset", "vgg16", "--print-config")
    assert printed.returncode == 0
    assert printed.stdout == parsed("--preset", "vgg16").toml()


NUMBERS = st.floats(allow_nan=False, width=64)


@settings(max_examples=15)
@given(
    pretrained=st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not text.startswith("~/")),
    lr=NUMBERS,
    epochs=st.integers(-(2**63), 2**63 - 1),
    class_weights=st.one_of(st.just("balanced"), st.lists(NUMBERS).map(tuple)),
    warmup_epochs=NUMBERS | st.just("auto"),
    compile=st.booleans(),
)
def test_any_values_survive_a_file(tmp_path_factory: pytest.TempPathFactory, **values: object) -> None:
    config = TrainConfig(**values)  # type: ignore[arg-type]
    path = tmp_path_factory.mktemp("any") / "x.toml"
    path.write_text(config.toml(), encoding="utf-8", newline="")
    assert parsed("--config", path).plain() == config.plain()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--lr 0", "--lr 0.0 must be positive"),
        ("--lr nan", "--lr nan must be positive"),
        ("--epochs -1", "--epochs -1 must be positive"),
        ("--ema 1", "--ema 1.0 must be at least 0 and below 1"),
        ("--momentum 1.5", "--momentum 1.5 must be at least 0 and below 1"),
        ("--mixup 2", "--mixup 2.0 must be at least 0 and at most 1"),
        ("--keep 0", "--keep 0 must be at least 1"),
        ("--accumulate 3 --batch-size 16", "--batch-size 16 does not divide by --accumulate 3"),
        ("--cuda-graphs", "--cuda-graphs needs --compile"),
        ("--cuda-graphs --compile --accumulate 2", "--cuda-graphs needs --accumulate 1"),
        ("--sync-bn --compile", "--compile needs --no-sync-bn"),
        ("--epochs 2 --warmup-epochs 3", "--warmup-epochs 3: give a number from 0 to --epochs 2, or auto"),
        ("--stop-after -1", "--stop-after -1.0 must be at least 0"),
        ("--model se_resnet51", "did you mean se_resnet50?"),
        ("--seed 1 --image-size 0", "--image-size 0 must be positive"),
        ("--workers 0", "--workers 0 must be positive"),
    ],
)
def test_values_that_cannot_work(arguments: str, says: str, shards: Path) -> None:
    with pytest.raises(UserError) as error:
        parsed("--data", shards, "--batch-size", 16, *arguments.split()).check()
    assert says in str(error.value)


def test_what_decides_the_results_may_not_change() -> None:
    assert {"data", "workers", "name", "resume", "precision", "keep", "stop_after", "accumulate"} <= MAY_CHANGE
    assert not {"lr", "seed", "batch_size", "model", "tasks", "epochs", "ema", "window_mb"} & MAY_CHANGE
    assert TrainConfig(resume=True).plain().keys() > MAY_CHANGE
    assert not {"preset", "config", "print_config"} & TrainConfig().plain().keys()
    assert all(name in MAY_CHANGE for name in ComputeConfig.__dataclass_fields__)
