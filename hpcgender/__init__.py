"""Shards to a model to answers: training, evaluation, prediction and heat maps of face-gender classifiers.

In Python, for notebooks and other programs:

    model = hpcgender.load("runs/mine")                    # predict/model.py
    model.predict(["face.jpg", pixels], heat_maps=True)
    images = hpcgender.open("data/shards", "test")         # data/dataset.py
    found = hpcgender.evaluation("runs/mine/evaluations/shards-test")     # evaluate/finished.py

Each is imported, with torch if it needs that, when it is first named.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hpcgender.version import __version__ as __version__

if TYPE_CHECKING:
    from hpcgender.data.dataset import open as open
    from hpcgender.evaluate.finished import evaluation as evaluation
    from hpcgender.predict.model import load as load

_MODULES = {
    "evaluation": "hpcgender.evaluate.finished",
    "load": "hpcgender.predict.model",
    "open": "hpcgender.data.dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
