"""What the rows of an experiment come to, known before anything is trained: which of them are the same cell."""

from __future__ import annotations

from typing import Any

from imfbench.config import TEACHER_DISTANCE, ExperimentConfig
from imfbench.config_file import ConfigError
from imfbench.features.mel import HIFIGAN
from imfbench.inputs import vocoder_mel
from imfbench.pipeline.networks import inputs_of_experiment
from imfbench.pipeline.plan import (
    Artefact,
    GridSearch,
    Plan,
    Row,
    grid_for,
    make_plan,
    teacher_artefact,
    training_content,
)
from imfbench.registry import METHODS
from imfbench.store import content_hash


def parts_of(config: ExperimentConfig) -> list[ExperimentConfig]:
    """All experiments of a run, the run's own first."""
    return [config, *config.then]


def row_content(config: ExperimentConfig, plan: Plan, row: Row) -> str:
    """Hash of what decides the audio of a row, and how it is timed: rows of equal content are one cell."""
    decides: dict[str, Any] = {
        "task": config.task,
        "system": row.system,
        "kind": row.kind,
        "dataset": config.dataset[row.test_set[0]].model_dump(mode="json"),
        "vocoder": None if row.kind in ("ground-truth", "recordings") else config.vocoder,
        "recordings": [r.model_dump() for r in config.recordings if r.name == row.system and row.kind == "recordings"],
        "timed": [config.device, config.threads, config.workers],
    }
    if (
        row.kind == "vocoded-ground-truth" and vocoder_mel(config.vocoder) is None
    ):  # by the mel of the networks beside it
        mel = inputs_of_experiment(config, plan, lambda artefact: str(artefact.ready)).mel
        decides |= {} if mel == HIFIGAN else {"mel": mel.name}
    if row.artefact is not None:
        decides |= {
            "artefact": _artefact_content(config, plan.artefacts[row.artefact]),
            "solver": row.solver,
            "nfe": row.nfe,
            "guidance": row.guidance,
            "grid": _grid_content(config, plan, row),
            "noise_seed": row.noise_seed,
            "precision": config.precision,
        }
    return content_hash(decides)


def search_content(config: ExperimentConfig, plan: Plan, search: GridSearch) -> str:
    """Hash of what decides which grid a search finds: searches of equal content are one, whatever they are called."""
    score = search.search.score
    metrics = {name: str(config.metrics.get(name, {})) for name in score if name != TEACHER_DISTANCE}
    teacher: list[Any] | None = None
    if TEACHER_DISTANCE in score and config.teacher is not None:
        rows = config.teacher
        reference = _artefact_content(config, teacher_artefact(config, plan.artefacts))
        grid = rows.grid[0] if isinstance(rows.grid[0], str) else list(rows.grid[0])
        teacher = [reference, max(rows.nfe), grid, rows.guidance, rows.solver]
    decides = {
        "task": config.task,
        "artefact": _artefact_content(config, plan.artefacts[search.artefact]),
        "search": search.search.method,
        "config": METHODS.get(search.search.method).Config(**search.search.config).model_dump(mode="json"),
        "solver": search.solver,
        "nfe": search.nfe,
        "score": dict(score),
        "metrics": metrics,
        "vocoder": config.vocoder if metrics else None,
        "teacher": teacher,
        "dev": config.dev.model_dump(mode="json"),
        "noise_seed": config.noise_seeds[0],
        "dtype": [config.device, config.precision],
    }
    return content_hash(decides)


def cells_of(config: ExperimentConfig) -> tuple[int, int]:
    """How many rows a run has, over all of its experiments, and how many different cells they are, scoring included."""
    rows, cells = 0, set()
    for part in parts_of(config):
        plan = make_plan(part)
        scoring = [part.metrics, part.protocol, part.cluster]
        rows += len(plan.rows)
        cells |= {content_hash([row_content(part, plan, row), scoring]) for row in plan.rows.values()}
    return rows, len(cells)


def check_size(config: ExperimentConfig, most: int) -> None:
    """Refuse a run of more cells than it may have.

    Raises:
        ConfigError: It has more; the message says how many.
    """
    _, cells = cells_of(config)
    if cells > most:
        trained = {
            taught_content(p, a) for p in parts_of(config) for a in make_plan(p).artefacts.values() if not a.ready
        }
        among = f", with {len(trained)} trainings" if trained else ""
        raise ConfigError(
            f"{config.name} has {cells} cells{among}, and --max-cells allows {most}: nothing was begun. Sweep over fewer values "
            f"or nfe, or say --max-cells {cells}, which --dry-run too needs to show them with their cost"
        )


def taught_by(config: ExperimentConfig, artefact: Artefact) -> Artefact | None:
    """The teacher of an artefact, if it is trained in the same experiment."""
    assert artefact.system is not None
    if config.teacher is None or not METHODS.get(config.systems[artefact.system].method).needs.teacher:
        return None
    for i, system in enumerate(config.systems):
        if system.label == config.teacher.artefact and system.artefact is None and i != artefact.system:
            return Artefact(system.label, i)
    return None


def taught_content(config: ExperimentConfig, artefact: Artefact) -> str:
    """Hash of what decides a training, that of a teacher which is trained in the same experiment included."""
    teacher = taught_by(config, artefact)
    own = training_content(config, artefact)
    return own if teacher is None else content_hash([own, taught_content(config, teacher)])


def _artefact_content(config: ExperimentConfig, artefact: Artefact) -> str:
    return artefact.ready if artefact.ready is not None else taught_content(config, artefact)


def _grid_content(config: ExperimentConfig, plan: Plan, row: Row) -> Any:
    assert row.nfe is not None
    assert row.solver is not None
    if row.search is None:
        spec = list(row.grid) if isinstance(row.grid, tuple) else row.grid
        assert spec is not None
        return [round(value, 9) for value in grid_for(spec, row.nfe, row.solver).tolist()]
    return search_content(config, plan, plan.searches[row.search])
