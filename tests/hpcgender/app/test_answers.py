"""What models say of photos, in words and pictures, and of files that are none."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcgender.app import fragments
from hpcgender.app.answers import MAX_MB, Answer, answers
from hpcgender.app.shown import ShownModel, names_of, opened
from hpcgender.app.words import age_words, right_words
from hpcgender.commands.app import AppConfig
from hpcgender.commands.export import ExportConfig
from hpcgender.evaluate.confidence import ConfidenceBin
from hpcgender.evaluate.errors import SHEET
from hpcgender.evaluate.results import Score, read_evaluation
from hpcgender.export.export import export
from hpcgender.predict.model import load
from shard_tools.base.errors import UserError
from tests.hpcgender.app.hostile import refused, taken


@pytest.fixture(scope="module")
def models(shown: Path) -> tuple[ShownModel, ...]:
    """`crops` and `whole`."""
    return opened(AppConfig(checkpoint=(shown / "runs" / "crops", shown / "runs" / "whole")))


def test_two_models_answer_with_their_evaluation_and_pictures(
    models: tuple[ShownModel, ...], shown: Path, photos: list[Path]
) -> None:
    encoded = photos[0].read_bytes()
    crops, whole = answers(models, encoded)
    evaluation = shown / "runs" / "crops" / "evaluations" / "shards-val"
    (found,) = load(shown / "runs" / "crops", evaluation=str(evaluation), backend="torchvision").predict([encoded])
    assert re.fullmatch(rf"{found.label}, \d\d %; about {found.age:.0f} years", crops.headline)
    assert f"{100 * found.confidence:.0f} %" in crops.headline
    gender, age = read_evaluation(evaluation).gender, read_evaluation(evaluation).age
    assert gender
    assert age
    right = (
        r"In the evaluation \(shards, val\), \d+ of \d+ faces with a confidence of \d+ to \d+ % \w+ right \(.* %\)\."
    )
    assert re.match(right, crops.sentences[0])
    assert sum(one.images for one in models[0].bins) == gender.images
    assert sum(one.right for one in models[0].bins) / gender.images == pytest.approx(gender.accuracy.value)
    assert f"ages were off by {age.mae.value:.1f} years on average" in crops.sentences[1]

    assert [picture.caption for picture in crops.pictures][:2] == [
        "the photo: one face was found",
        "what the network saw: 32 pixels",
    ]
    drawn = [Image.open(io.BytesIO(picture.jpeg)) for picture in crops.pictures]
    assert np.ptp(np.asarray(drawn[2]).astype(int), axis=2).max() > 30  # the heat map is in colour
    assert crops.notes == ()
    assert "No face was looked for" in whole.notes[0]
    assert whole.pictures[0].caption == "the photo"
    assert crops.pictures[1].jpeg != whole.pictures[1].jpeg  # one sees the crop, the other the whole


def test_an_exported_model_answers_as_its_checkpoint_but_has_no_heat_map(
    shown: Path, shards: Path, photos: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(shown / "runs" / "crops", tmp_path / "crops")
    exporting = ExportConfig(checkpoint=tmp_path / "crops", format="onnx", data=shards, split="val", images=2)
    export(exporting)
    of_checkpoint, exported = opened(AppConfig(checkpoint=(tmp_path / "crops", exporting.file)))
    assert (of_checkpoint.name, exported.name) == ("crops, best.pt", f"crops, {exporting.file.name}")
    assert [one.directory_name for one in exported.evaluated] == ["shards-val"]
    first, second = answers((of_checkpoint, exported), photos[0].read_bytes())
    assert (second.headline, second.sentences) == (first.headline, first.sentences)
    assert (len(first.pictures), len(second.pictures)) == (3, 1)
    assert second.notes == ("An exported model has no heat maps: its checkpoint has.",)
    assert "calibrated by" in fragments.card((exported,))


def test_a_photo_without_a_face_has_no_answer_of_a_model_that_crops(models: tuple[ShownModel, ...]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (90, 120, 90)).save(buffer, "JPEG")
    crops, whole = answers(models, buffer.getvalue())
    assert crops == Answer("crops", error="No face was found in it.")
    assert whole.headline


def test_files_that_are_no_photos_have_a_message(models: tuple[ShownModel, ...], photos: list[Path]) -> None:
    for name, encoded, message in refused(photos[0]):
        for answer in answers(models, encoded):
            assert answer.error.startswith(message), (name, answer)
            assert answer.headline == ""
        page = fragments.photo(name, answers(models, encoded))
        assert "<img" not in page
        assert 'role="alert"' in page
    too_large = answers(models, bytes((MAX_MB << 20) + 1))[0].error
    assert too_large == f"This file has 21.0 MB: more than the {MAX_MB} MB that are read here."


def test_odd_files_with_a_face_are_read(models: tuple[ShownModel, ...], photos: list[Path]) -> None:
    for name, encoded, note in taken(photos[0]):
        crops, whole = answers(models, encoded)
        assert crops.headline, (name, crops)
        assert whole.headline, (name, whole)
        assert not note or note in crops.notes, (name, crops)


def test_several_faces_are_counted(models: tuple[ShownModel, ...], photos: list[Path]) -> None:
    both = Image.new("RGB", (480, 200), (200, 200, 200))
    for place, path in enumerate(photos[:2]):
        with Image.open(path) as image:
            both.paste(image, (20 + 240 * place, 20))
    buffer = io.BytesIO()
    both.save(buffer, "JPEG", quality=95)
    (crops, _) = answers(models, buffer.getvalue())
    assert crops.pictures[0].caption == "the photo: 2 faces were found"
    assert crops.notes == ("The largest of 2 faces.",)


def test_sentences_about_few_and_no_images(models: tuple[ShownModel, ...]) -> None:
    def one(images: int, right: int, value: float) -> ConfidenceBin:
        score = Score(value=value, low=0.881, high=0.95, method="wilson")
        return ConfidenceBin(low=0.9, high=0.95, images=images, right=right, score=score)

    assert right_words(one(230, 212, 212 / 230), "morph, test") == (
        "In the evaluation (morph, test), 212 of 230 faces with a confidence of 90 to 95 % were right (92.2 %, 95 % "
        "interval 88.1 to 95.0 %)."
    )
    assert right_words(one(3, 1, 1 / 3), "d").endswith("So few faces tell little.")
    alone = right_words(one(1, 1, 1.0), "d")
    assert alone.startswith("In the evaluation (d), 1 of 1 face with a confidence of 90 to 95 % was right ")
    assert "no face had a confidence of 90 to 95 %" in right_words(one(0, 0, float("nan")), "d")
    bare = ShownModel("m", Path("m.pt"), models[0].model, (), (), ())
    assert age_words(bare).startswith("No evaluation tells how far")


def test_evaluations_of_other_checkpoints_are_refused_or_left_out(shown: Path, tmp_path: Path) -> None:
    runs = shown / "runs"
    of_whole = runs / "whole" / "evaluations" / "shards-val"
    with pytest.raises(UserError, match=r"is of another checkpoint, .*whole.*: name that, too"):
        opened(AppConfig(checkpoint=(runs / "crops",), evaluation=(of_whole,)))
    with pytest.raises(UserError, match="is of another checkpoint"):
        opened(AppConfig(checkpoint=(runs / "whole",), cam=(runs / "crops" / "cams" / "shards-val",)))
    (by_evaluation,) = opened(AppConfig(evaluation=(of_whole,)))
    assert by_evaluation.name == "whole"
    assert [one.directory for one in by_evaluation.evaluated] == [of_whole]
    moved = tmp_path / "moved" / "checkpoints" / "best.pt"
    moved.parent.mkdir(parents=True)
    moved.write_bytes((runs / "whole" / "checkpoints" / "best.pt").read_bytes())
    (alone,) = opened(AppConfig(checkpoint=(moved,)))
    assert (alone.evaluated, alone.bins, alone.cams) == ((), (), ())
    assert not alone.model.decision.calibrated_by


def test_every_model_has_a_name_of_its_own() -> None:
    paths = [Path("runs/a/checkpoints/best.pt"), Path("runs/a/checkpoints/step-00000001.pt"), Path("x/b.pt")]
    assert names_of(paths) == ["a, best.pt", "a, step-00000001.pt", "b"]
    assert names_of([Path("x/b.pt"), Path("y/b.pt")]) == ["x/b.pt", "y/b.pt"]


def test_charts_are_images_with_a_name_and_two_colour_schemes(models: tuple[ShownModel, ...]) -> None:
    page = fragments.groups(models[0].evaluated[0])
    assert "<svg" not in page
    names = re.findall(r'<img alt="([^"]*)" src="data:image/svg', page)
    assert names
    assert all(" by " in name for name in names)


def test_mistakes_without_their_data_are_a_sheet_or_a_list(models: tuple[ShownModel, ...], tmp_path: Path) -> None:
    evaluated = models[0].evaluated[0]
    wrong = fragments.chosen_mistakes(evaluated, fragments.KINDS[0], "")
    assert len(wrong)
    assert (np.diff(np.abs(wrong.logit)) <= 0).all()
    parts = [fragments.chosen_mistakes(evaluated, kind, "") for kind in fragments.KINDS[1:]]
    assert sum(map(len, parts)) == len(wrong)
    assert set(parts[0].label.tolist()) <= {0}
    assert fragments.faces(evaluated, fragments.KINDS[0], "", 0).count("taken for") == 2 * min(
        len(wrong), fragments.SHOWN
    )
    data = replace(evaluated.results.data, path=str(tmp_path / "gone"))
    gone = replace(evaluated, results=replace(evaluated.results, data=data))
    sheet = fragments.faces(gone, fragments.KINDS[0], "", 0)
    assert "gone is missing, or packed anew" in sheet
    assert 'alt="a sheet of the most confident mistakes"' in sheet
    alone = shutil.copytree(evaluated.directory, tmp_path / "alone", ignore=shutil.ignore_patterns(SHEET))
    keys = fragments.faces(replace(gone, directory=alone), fragments.KINDS[0], "", 0)
    assert re.findall("<li>(.*)</li>", keys) == wrong.key.tolist()[: fragments.SHOWN]
