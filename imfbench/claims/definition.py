"""What a claim is: claims.yaml as documented, checked settings."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from imfbench.claims.measurements import Measurement
from imfbench.claims.verdicts import Rule
from imfbench.config import ExperimentConfig, check
from imfbench.config_file import CONFIGS, ConfigError, Source, override, read
from imfbench.registry import nearest

FILE = CONFIGS / "claims" / "claims.yaml"
TASKS = ["token2mel", "text2mel"]
BudgetName = Literal["small", "cpu", "full"]
Test = Literal[
    "non-inferior", "inferior", "better", "equivalent", "different", "faster", "less-memory", "convex", "unimodal", "steadier",
    "diverges-less",
]  # fmt: skip
ON_SPEECH = ("non-inferior", "inferior", "better", "equivalent", "different")
ON_LATTICE = ("convex", "unimodal")
ON_MEASUREMENTS = ("faster", "less-memory", *ON_LATTICE)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_or_more(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _lines(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_lines)]
Names = Annotated[list[str], BeforeValidator(_one_or_more)]
Numbers = Annotated[list[int], BeforeValidator(_one_or_more)]
Margin = Annotated[float, Field(gt=0)]


class Pick(_Strict):
    """Which rows of an experiment; a list stands for one test for each entry."""

    system: Names
    """Name in tables; ``+o3s`` behind it is its searched grid."""
    nfe: Numbers = []
    grid: Names = []
    """Name of the grid; any without it."""


class Part(_Strict):
    """One statement of a claim, tested on each of its figures."""

    name: str
    test: Test
    experiment: str | None = None
    """Whose rows or trainings are tested."""
    measurement: str | None = None
    """Of ``faster``, ``less-memory``, ``convex`` and ``unimodal``: one of the budget's measurements."""
    a: Pick | None = None
    """What the statement is about."""
    b: Pick | None = None
    """What it is compared with."""
    sets: Names = []
    """Sets of the experiment's dataset, a test each; its only one without it."""
    baseline_set: str | None = None
    """Of ``non-inferior``: a set whose a − b is taken off, so that the margin is one of a further loss, beyond the loss there."""
    figures: dict[str, Margin] = {}
    """Figure → margin in its own unit, set before any run."""
    margins_in: dict[BudgetName, dict[str, Margin]] = {}
    """Other margins in some budgets, where so few recordings could not decide by those of ``figures`` whatever they say."""
    margin: float | None = None
    """Of the tests without figures: least ratio, or largest share."""
    each: Rule = "all"
    """Whether all, or any, of the rows that ``a`` and ``sets`` list must show it."""
    of_figures: Rule = "all"
    """Whether all, or any, of the figures must show it."""
    counts: bool = True
    """False: shown beside the claim, without a say in its verdict."""
    budgets: list[BudgetName] | None = None
    """Where it is run; in the claim's budgets without it."""

    @model_validator(mode="after")
    def _complete(self) -> Part:
        needed: dict[str, object]
        if self.test in ON_MEASUREMENTS:
            needed = {"measurement": self.measurement, "margin": self.margin}
        else:
            needed = {"experiment": self.experiment}
        if self.test not in ON_LATTICE:
            needed |= {"a": self.a, "b": self.b}
        if self.test in ON_SPEECH or self.test == "steadier":
            needed["figures"] = self.figures
        missing = [name for name, value in needed.items() if value in (None, {})]
        if missing:
            raise ValueError(f"the test {self.test!r} needs {', '.join(missing)}")
        if self.baseline_set is not None and (self.test != "non-inferior" or not self.sets):
            raise ValueError("baseline_set is for the test 'non-inferior' on sets: name them in `sets`")
        if strange := {name for margins in self.margins_in.values() for name in margins} - set(self.figures):
            raise ValueError(f"margins_in has {', '.join(sorted(strange))}, which is none of the part's figures")
        return self

    def margins(self, budget: BudgetName) -> dict[str, float]:
        """Figure → margin in a budget."""
        return {**self.figures, **self.margins_in.get(budget, {})}

    def rows(self) -> Iterator[tuple[str, Pick, str | None]]:
        """Each row that is tested: what tells it from the part's others, its pick, and its set."""
        assert self.a is not None
        a = self.a
        lists: list[list[Any]] = [a.system, a.nfe or [None], a.grid or [None], self.sets or [None]]
        for system, nfe, grid, on in itertools.product(*lists):
            words = (system, f"{nfe} NFE", grid, on)
            told = [word for word, several in zip(words, lists, strict=True) if len(several) > 1]
            pick = Pick(system=[system], nfe=[] if nfe is None else [nfe], grid=[] if grid is None else [grid])
            yield " ".join(map(str, told)), pick, on


class Claim(_Strict):
    """A sentence of the paper, and how it is decided."""

    number: int
    title: Text
    sentence: Text
    """What the paper says, in our own words."""
    published: Text
    """The figures it rests on (PEERS), the source's own."""
    budgets: list[BudgetName]
    """Where it is run; elsewhere it is "not testable here"."""
    rule: Rule = "all"
    """Whether all, or any, of its parts must hold."""
    note: Text = ""
    """What to know when reading the verdict."""
    parts: Annotated[list[Part], Field(min_length=1)]


class Budget(_Strict):
    """How much work may be spent."""

    about: Text
    estimate: Text
    """What it costs, measured or reckoned."""
    needs: Literal["accelerator"] | None = None
    """Without it nothing of the budget is run."""
    measurements: dict[str, Measurement] = {}
    """What is measured besides experiments, by name."""


class Claims(_Strict):
    """claims.yaml."""

    budgets: dict[BudgetName, Budget]
    claims: list[Claim]

    def chosen(self, numbers: tuple[int, ...]) -> list[Claim]:
        """The claims of these numbers, all without any.

        Raises:
            ConfigError: There is no such claim.
        """
        known = [claim.number for claim in self.claims]
        for number in numbers:
            if number not in known:
                near = min(known, key=lambda one: abs(one - number))
                title = next(claim.title for claim in self.claims if claim.number == near)
                raise ConfigError(
                    f"there is no claim {number}: the nearest is {near} ({title}); there are {_ranges(known)}, and "
                    "`imfbench claims --dry-run` shows them"
                )
        return [claim for claim in self.claims if not numbers or claim.number in numbers]


def load_claims(file: Path = FILE) -> Claims:
    """Read and check claims.yaml.

    Raises:
        ConfigError: All that is wrong, each with its file and line.
    """
    from imfbench.config_check import problems

    source = read(str(file))
    try:
        found = Claims.model_validate(source.values)
    except ValidationError as error:
        raise source.error(problems(error, (), source.values, Claims)) from None
    numbers = [claim.number for claim in found.claims]
    if twice := {number for number in numbers if numbers.count(number) > 1}:
        raise ConfigError(f"{source.name}: claims {sorted(twice)} stand twice; give each a number of its own")
    for claim in found.claims:
        for part in claim.parts:
            for name in part.budgets or claim.budgets:
                known = list(found.budgets[name].measurements) if name in found.budgets else []
                if part.measurement is not None and part.measurement not in known:
                    told = nearest(part.measurement, known)
                    raise ConfigError(
                        f"{source.name}: claim {claim.number}, {part.name}: budget {name} has no measurement "
                        f"{part.measurement!r}: {told}"
                    )
    return found


def load_experiment(
    name: str, budget: BudgetName, settings: tuple[str, ...] = (), folder: Path = FILE.parent
) -> ExperimentConfig | None:
    """An experiment of a budget; None where the budget has none of this name.

    Raises:
        ConfigError: The file is not a right experiment, or ``settings`` change nothing that it has, or make a sweep of it.
    """
    path = folder / budget / f"{name}.yaml"
    if not path.is_file():
        return None
    source: Source = read(str(path))
    source.values.setdefault("name", name)
    systems = _systems(check(copy.deepcopy(source)))
    override(source, of_task(settings, str(source.values.get("task"))))
    config = check(source)
    if config.then or _systems(config) != systems:
        raise ConfigError(
            f"a claim compares the systems of its experiment ({name}: {', '.join(systems)}), and --set makes others of them: a "
            "list or a range is a sweep, which `imfbench run` makes"
        )
    return config


def of_task(settings: tuple[str, ...], task: str) -> tuple[str, ...]:
    """The settings that an experiment is given: ``text2mel/training.steps=9`` is for those of text2mel, others are for all.

    Raises:
        ConfigError: There is no such task.
    """
    found = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        where, slash, own = key.rpartition("/")
        if slash and where.strip() not in TASKS:
            raise ConfigError(f"--set {setting}: {where.strip()!r} is no task: {nearest(where.strip(), TASKS)}")
        if where.strip() in ("", task):
            found.append(own + equals + value)
    return tuple(found)


def _systems(config: ExperimentConfig) -> list[str]:
    return [system.name or system.method for system in config.systems]


def of_budget(claim: Claim, part: Part, budget: BudgetName) -> bool:
    """Whether a part is run in a budget."""
    return budget in claim.budgets and budget in (part.budgets or claim.budgets)


def _ranges(numbers: list[int]) -> str:
    ordered = sorted(numbers)
    if ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))
