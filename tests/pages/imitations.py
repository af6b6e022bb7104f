"""Drawn faces under the names, in the directories and with the lists of labels of the data sets that the pages name."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import webdataset
from PIL import Image

from tests.shard_tools.pictures import picture, save
from tests.shard_tools.record_file import write_ms1mv2

ADIENCE = "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\ttilt_ang\tfiducial_yaw_angle\tfiducial_score\n"
MORPH = "ID_num,picture_num,DOB,doa,race,gender,facial_hair,age,age_diff,glasses,photo"
WRITTEN_ONCE = (".pt", ".tar", ".jpg", ".JPG", ".rec")
"""Files that no command changes where they are, so that copies may share them."""


class Face(NamedTuple):
    """A drawn face, by what its name says."""

    path: Path
    number: int
    subject: int
    male: bool
    age: int

    @property
    def word(self) -> str:
        return "male" if self.male else "female"

    @property
    def letter(self) -> str:
        return "M" if self.male else "F"


def faces(directory: Path) -> list[Face]:
    """The faces that `shard-tools synthetic` drew into a directory, such as `000114_01M46.JPG`."""
    found = []
    for number, path in enumerate(sorted(directory.glob("*.JPG")), start=1):
        subject, _, rest = path.stem.partition("_")
        found.append(Face(path, number, int(subject), rest[2] == "M", int(rest[3:])))
    return found


def copy(source: Path, target: Path) -> None:
    """Copies a directory; it shares with the other what is written once."""
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=copy_file)


def copy_file(source: str | Path, target: str | Path) -> None:
    if str(source).endswith(WRITTEN_ONCE):
        Path(target).unlink(missing_ok=True)
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def make_data_sets(ours: list[Face], others: list[Face]) -> None:
    """Images and labels as data sets have them, in the working directory."""
    for face in ours:
        for name in names(face):
            put(face, name)
    for face in others:
        put(face, f"gender_dataset_face/{'man' if face.male else 'woman'}/{face.number}.jpg")
    put(others[0], "face.jpg")
    for face in others[:3]:
        put(face, f"web/{face.number}.jpg")
        Path("more/of").mkdir(parents=True, exist_ok=True)
        with Image.open(face.path) as image:
            image.save(f"more/of/{face.number}.png")
    make_lists(ours)
    make_adience()
    make_tars()
    make_ms1mv2()


def names(face: Face) -> tuple[str, ...]:
    """Where a face stands in each of the data sets."""
    number, subject = face.number, face.subject
    validated, fairface = subject % 5 == 0, "val" if subject % 4 == 0 else "train"
    return (
        f"UTKFace/{face.age}_{int(not face.male)}_{subject % 5}_20170109{number:09d}.jpg.chip.jpg",
        f"photos/{face.word}/{number}.jpg",
        f"numbered/{int(face.male)}/{number}.jpg",
        f"{'Validation' if validated else 'Training'}/{face.word}/{number}.jpg",
        f"kaggle/{'Validation' if validated else 'Training'}/{face.word}/{number}.jpg",
        f"fairface/{fairface}/{number}.jpg",
        f"img_align_celeba/{number:06d}.jpg",
        f"AFAD/{face.age}/{111 if face.male else 112}/{number}.jpg",
        f"lfw/Face_{subject}/Face_{subject}_{number:04d}.jpg",
    )


def put(face: Face, name: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    copy_file(face.path, name)


def make_lists(ours: list[Face]) -> None:
    """Labels in lists and tables."""
    labels = (f"{f.word}/{f.number}.jpg,{f.letter},{f.age},{f.subject}" for f in ours)
    write("labels.csv", "file,sex,years,person", *labels)
    pictures = (f"{f.subject},{int(f.path.stem[7:9])},,,W,{f.letter},,{f.age},0,0,{f.path.name}" for f in ours)
    write("morph.csv", MORPH, *pictures)
    for split in ("train", "val"):
        mine = (f for f in ours if (f.subject % 4 == 0) == (split == "val"))
        rows = (f"{split}/{f.number}.jpg,{bin_of(f.age)},{f.word.title()},White,True" for f in mine)
        write(f"fairface_label_{split}.csv", "file,age,gender,race,service_test", *rows)
    attributes = (f"{f.number:06d}.jpg -1 {1 if f.male else -1}" for f in ours)
    write("list_attr_celeba.txt", str(len(ours)), "Bald Male", *attributes)
    write("identity_CelebA.txt", *(f"{f.number:06d}.jpg {f.subject}" for f in ours))
    write("list_eval_partition.txt", *(f"{f.number:06d}.jpg {f.subject % 3}" for f in ours))
    for word in ("male", "female"):
        write(f"{word}_names.txt", *(f"Face_{f.subject}_{f.number:04d}.jpg" for f in ours if f.word == word))


def bin_of(age: int) -> str:
    """FairFace's word for an age."""
    return "more than 70" if age >= 70 else f"{age // 10 * 10}-{age // 10 * 10 + 9}"


def write(path: str, *lines: str) -> None:
    Path(path).write_text("\n".join([*lines, ""]))


def make_adience() -> None:
    """Adience's five lists and its faces: in each list one of unknown gender."""
    number = 0
    for fold in range(5):
        lines = [ADIENCE]
        for age, gender in (("(25, 32)", "f"), ("(0, 2)", "m"), ("35", "m"), ("None", "u"), ("None", "f")):
            user, name = f"{fold}{number}@N03", f"{number}_o.jpg"
            save(Path("faces", user, f"coarse_tilt_aligned_face.{fold}.{name}"), picture(number))
            lines.append(f"{user}\t{name}\t{fold}\t{age}\t{gender}\t0\t400\t1000\t1000\t115\t30\t17\n")
            number += 1
        Path(f"fold_{fold}_data.txt").write_text("".join(lines))


def make_tars() -> None:
    """The tars a-000.tar to a-012.tar, with genders in JSON."""
    for number in range(13):
        with webdataset.TarWriter(f"a-{number:03d}.tar") as tar:
            for sample in range(4 * number, 4 * number + 4):
                image = io.BytesIO()
                picture(sample).save(image, "JPEG")
                labels = json.dumps({"gender": sample % 2}).encode()
                tar.write({"__key__": f"{sample:05d}", "jpg": image.getvalue(), "json": labels})


def make_ms1mv2() -> None:
    """MS1MV2 in its directory and beside it, with a list of the known genders."""
    write_ms1mv2(Path("faces_emore"))
    copy_file("faces_emore/train.rec", "train.rec")
    listed = Path("faces_emore/genders.txt").read_text().splitlines()
    write("genders.txt", *(line for line in listed if not line.endswith(" -1")))
