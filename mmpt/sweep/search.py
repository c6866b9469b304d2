"""A search by Optuna whose study is stored on disk: the same command resumes it, and poor trials are pruned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Transformer

from mmpt.errors import ConfigError, RunError
from mmpt.sweep.outcomes import ELSEWHERE, Outcome, TrialPruned
from mmpt.utils.locks import acquire_lock, release_lock

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

LOCK_SECONDS = 10.0  # until a database that another program uses counts as locked
INTERRUPTED = "interrupted"  # mark of a trial that was running when its command ended
Space = dict[str, "BaseDistribution"]  # by key


def search_space(words: list[str]) -> tuple[Space, dict[str, str]]:
    """Split ``key=value`` words into what is searched and what is fixed; later words win."""
    space: Space = {}
    fixed: dict[str, str] = {}
    for override in OverridesParser.create().parse_overrides(words):
        key = override.get_key_element()
        space.pop(key, None)
        fixed.pop(key, None)
        if override.is_sweep_override():
            space[key] = _distribution(override)
        else:
            fixed[key] = override.get_value_element_as_str()
    if not space:
        raise ConfigError(
            "the search has no dimension: give a key an interval(…), range(…) or choice(…), or choose sweep=tune"
        )
    return space, fixed


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if not isinstance(value, IntervalSweep):
        choices: list[Any] = list(override.sweep_iterator(transformer=Transformer.encode))
        if override.is_range_sweep() and all(isinstance(choice, int) for choice in choices):
            low, *rest = sorted(choices)
            return IntDistribution(low, rest[-1], step=rest[0] - low) if rest else IntDistribution(low, low)
        return CategoricalDistribution(choices)
    start, end, log = value.start, value.end, "log" in value.tags
    assert start is not None and end is not None
    if isinstance(start, int) and isinstance(end, int):
        return IntDistribution(start, end, log=log)
    return FloatDistribution(start, end, log=log)


class Search:
    """One study, used by one command at a time; see :func:`open_search`."""

    def __init__(self, study: Study, space: Space, fixed: dict[str, str], settings: dict[str, Any]) -> None:
        """Resume a study: settings that were running when an earlier command ended are tried first."""
        from optuna.trial import TrialState

        self.study, self.space, self.fixed, self.settings = study, space, fixed, settings
        self.launched = 0
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.set_user_attr(f"{INTERRUPTED} {trial.number}", True)
            study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                study.enqueue_trial(trial.params)

    def finished(self) -> list[Any]:
        """Trials that are over, in the order asked; without those that were interrupted."""
        marks = self.study.user_attrs
        return [t for t in self.study.trials if t.state.is_finished() and f"{INTERRUPTED} {t.number}" not in marks]

    def batches(self, total: int, at_once: int) -> Iterator[Sequence[Any]]:
        """Yield what to launch: first all that is finished, to be shown, then new trials up to ``total``."""
        from optuna.samplers import TPESampler

        done = self.finished()
        yield from (done[start : start + at_once] for start in range(0, len(done), at_once))
        for count in range(len(done), total, at_once):
            # seeded by what is done, so that an interrupted search asks for the same as one that was not interrupted
            seed, startup = self.settings["seed"] + count, self.settings["startup_trials"]
            self.study.sampler = TPESampler(seed=seed, n_startup_trials=startup, constant_liar=at_once > 1)
            yield [self.study.ask(self.space) for _ in range(min(at_once, total - count))]

    def words(self, trial: Any) -> list[str]:
        """The overrides of a trial; numbers have four digits, which can be read."""
        chosen = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in trial.params.items()}
        words = [f"{key}={value}" for key, value in {**self.fixed, **chosen}.items()]
        if self.settings["prune"]:
            study = self.settings["study_name"]
            words += [f"hydra.sweeper.trial={trial.number}", f"hydra.sweeper.study_name='{study}'"]
        return words

    def tell(self, trial: Any, outcome: Outcome | None) -> None:
        """Report to the study how a trial ended; one that was finished before stays as it is."""
        from optuna.trial import FrozenTrial, TrialState

        if isinstance(trial, FrozenTrial):
            return
        if (score := None if outcome is None else outcome.score()) is not None:
            self.study.tell(trial, score)
        else:
            pruned = outcome is not None and outcome.state == "pruned"
            self.study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)


@contextmanager
def open_search(space: Space, fixed: dict[str, str], **settings: Any) -> Iterator[Search]:
    """Create a study, or resume the one that is stored; RunError where its storage is locked, or cannot be used.

    ``space`` and ``fixed`` are those of :func:`search_space`; ``settings`` are ``storage``, ``study_name``, ``seed``,
    ``startup_trials`` and ``prune``.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url, name = settings["storage"], settings["study_name"] or _study_name(space, fixed)
    with _locked(url, name):
        try:
            study = optuna.create_study(
                storage=_storage(url), study_name=name, direction="maximize", load_if_exists=True
            )
            yield Search(study, space, fixed, {**settings, "study_name": name})
        except Exception as error:
            if not type(error).__module__.startswith(("optuna", "sqlalchemy", "sqlite3")):
                raise
            text = " ".join(str(error.__cause__ or error).split())[:200]
            raise RunError(
                f"Optuna's storage {url} cannot be used ({text}); end the program that uses it, or name another one "
                "with hydra.sweeper.storage=sqlite:///FILE"
            ) from error


def reporter(sweeper: Any) -> Callable[[int, float], None] | None:
    """What a trial of a search calls with step and validation score; it raises :class:`TrialPruned`.

    ``sweeper`` is Hydra's configuration of it. None for a trial that is shown or tried again.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=sweeper.startup_trials, n_min_trials=4)
    storage = _storage(sweeper.storage)
    study = optuna.load_study(study_name=sweeper.study_name, storage=storage, pruner=pruner)
    if study.trials[sweeper.trial].state.is_finished():
        return None
    study_id = storage.get_study_id_from_name(sweeper.study_name)
    trial = optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, sweeper.trial))

    def report(step: int, score: float) -> None:
        trial.report(score, step)
        if trial.should_prune():
            raise TrialPruned(f"stopped at step {step}: validation {score:.3f} is below the median of the other trials")

    return report


def _study_name(space: Space, fixed: dict[str, str]) -> str:
    """A name that changes with what is searched, and not with where runs are stored."""
    parts = [f"{key}={value}" for key, value in sorted(fixed.items()) if not key.startswith(ELSEWHERE)]
    parts += [f"{key}={value}" for key, value in sorted(space.items())]
    return f"mmpt-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}"


def _storage(url: str) -> Any:
    """Optuna's storage: a database, or a journal file, which network disks can hold too."""
    if url.endswith(".journal"):
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        return JournalStorage(JournalFileBackend(url))
    from optuna.storages import RDBStorage

    wait = {"connect_args": {"timeout": LOCK_SECONDS}} if url.startswith("sqlite") else None
    return RDBStorage(url, engine_kwargs=wait)


@contextmanager
def _locked(url: str, name: str) -> Iterator[None]:
    """Lock a study on disk: two commands would take each other's running trials for interrupted ones."""
    path = Path(url.removeprefix("sqlite:///")).expanduser()
    if "://" in str(path):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    remedy = "name another hydra.sweeper.study_name"
    lock = acquire_lock(path.parent / f".{name}.lock", f"the search {name} in {url}", remedy)
    try:
        yield
    finally:
        release_lock(lock)
