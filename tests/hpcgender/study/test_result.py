"""Which runs of a study are compared."""

from __future__ import annotations

from pathlib import Path

from hpcgender.study.file import read_study
from hpcgender.study.result import best_models, compare_all
from hpcgender.study.result_file import Trial


def test_of_many_models_the_best_by_validation_are_compared_with_all_of_their_seeds(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    rates = [number / 100 for number in range(1, 15)]
    evaluated = '[evaluate]\ndata = ["a"]\n[compare]\n'
    file.write_text(f"[grid]\nlr = {rates}\nseed = [0, 1]\n{evaluated}")
    study = read_study(file)

    def trial(name: str) -> Trial:
        options = study.trials[name]
        score = options.lr if options.seed else 0.5  # the same for all models: their means differ by the other one
        return Trial(
            name=name,
            finished=True,
            stopped_early=False,
            epochs=1,
            score=score,
            val_accuracy=score,
            val_age_mae=None,
            evaluations={},
        )

    trials = [trial(name) for name in study.trials]
    assert best_models(study, trials) == [f"lr{rate}-seed{seed}" for rate in rates[2:] for seed in (0, 1)]
    assert best_models(study, trials[4:]) == [trial.name for trial in trials[4:]]
    assert study.compared == ("a-test",)
    assert compare_all(study, trials[:1]) == []  # a run alone is compared with nothing
