"""Drawn faces, packed as they are drawn: a data set of any size without a person's photograph or a file of images."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from shard_tools.base.errors import UserError
from shard_tools.sources import Record, Source
from shard_tools.synthetic.drawing import draw_face
from shard_tools.synthetic.subjects import MAX_PICTURES, jobs, morph_name, sample_pictures, sample_subject

QUALITY = 90


@dataclass(kw_only=True)
class Synthetic(Source):
    """Packs faces drawn by a seed, the same that `shard-tools synthetic` draws into files."""

    costly: ClassVar[bool] = True

    count: int = 2400
    """Number of pictures. A smaller number draws the first ones of a larger number."""
    size: int = 112
    """Side of the square pictures in pixels, 32 to 4096."""

    @property
    def convention(self) -> str:
        return "drawn faces: 0 female, 1 male; groups are ranges of drawn skin tones, 0 to 4"

    @property
    def numbering(self) -> str:
        return f"synthetic, seed {self.seed}"

    def records(self) -> Iterator[Record]:
        if self.count < 1 or not 32 <= self.size <= 4096:
            raise UserError(f"--count {self.count} --size {self.size}: give 1 or more pictures of 32 to 4096 pixels")
        row = 0
        for job in jobs(self.seed, self.count):
            subject = sample_subject(self.seed, job.subject)
            for picture in sample_pictures(self.seed, subject)[: job.pictures]:
                yield Record(
                    row=row,
                    name=morph_name(subject, picture),
                    gender=int(subject.man),
                    age=float(picture.age),
                    subject=f"{subject.number:06d}",
                    group=f"tone {subject.tone_group}",
                    at=subject.number * MAX_PICTURES + picture.number,
                )
                row += 1

    def read(self, record: Record) -> bytes:
        number, place = divmod(record.at, MAX_PICTURES)
        subject = sample_subject(self.seed, number)
        buffer = io.BytesIO()
        picture = sample_pictures(self.seed, subject)[place]
        draw_face(subject, picture, self.size).save(buffer, "JPEG", quality=QUALITY)
        return buffer.getvalue()
