"""A clause is a sentence and a check of it; a contract is a list of clauses about one registered part."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Check = TypeVar("Check", bound=Callable[[Any], None])
CONTRACTS = {
    "method": "imfbench.contracts.methods",
    "dataset": "imfbench.contracts.datasets",
    "metric": "imfbench.contracts.metrics",
    "backbone": "imfbench.contracts.backbones",
    "vocoder": "imfbench.contracts.vocoders",
    "report": "imfbench.contracts.reports",
}


class BrokenContract(AssertionError):
    """A clause does not hold.

    Args:
        expected: What should be, in words.
        found: What is.
    """

    def __init__(self, expected: str, found: object) -> None:
        super().__init__(f"expected {expected}; found {found}")
        self.expected, self.found = expected, str(found)


@dataclass(frozen=True)
class Clause:
    """One clause, about one part.

    Attributes:
        check: Takes the part; its docstring's first line is the clause.
        part: What is checked.
        name: Of the part, with the circumstances.
    """

    check: Callable[[Any], None]
    part: Any
    name: str

    @property
    def fundamental(self) -> bool:
        """Whether nothing can be said of the later clauses of the same part where this one does not hold."""
        return getattr(self.check, "fundamental", False)

    @property
    def sentence(self) -> str:
        """The clause in words."""
        return (inspect.getdoc(self.check) or self.check.__name__).partition("\n")[0]

    def __call__(self) -> None:
        """Check it.

        Raises:
            BrokenContract: It does not hold. What the part itself raises goes through.
        """
        self.check(self.part)

    def __str__(self) -> str:
        return f"{self.name}: {self.check.__name__.replace('_', ' ')}"


def fundamental(check: Check) -> Check:
    """Mark a check: without it the later ones would only repeat the fault in other words."""
    check.fundamental = True  # type: ignore[attr-defined]
    return check


def clauses(kind: str, name: str, options: dict[str, Any] | None = None) -> list[Clause]:
    """The contract of a registered part.

    Args:
        kind: "method", "dataset", "metric", "backbone", "vocoder" or "report".
        name: Its registered name.
        options: Settings of its ``Config``, or arguments of a dataset's class; its defaults without them.

    Raises:
        UnknownNameError: Nothing of this kind has the name.
        KeyError: No such kind.
    """
    found: list[Clause] = importlib.import_module(CONTRACTS[kind]).contract(name, options or {})
    return found


def about(part: Any, name: str, checks: Iterable[Callable[[Any], None]]) -> list[Clause]:
    """Clauses about one part."""
    return [Clause(check, part, name) for check in checks]


def expect(holds: bool, expected: str, found: object) -> None:
    """Raise ``BrokenContract`` unless ``holds``."""
    if not holds:
        raise BrokenContract(expected, found)


def expect_error(
    call: Callable[[], Any], kind: type[Exception] | tuple[type[Exception], ...], expected: str
) -> Exception:
    """The error of this kind that ``call`` raises; a broken contract if it raises none or another."""
    try:
        call()
    except kind as error:
        return error
    except Exception as error:
        raise BrokenContract(expected, f"{type(error).__name__}: {error}") from error
    raise BrokenContract(expected, "no error")


def expect_same(found: Tensor, expected: Tensor, what: str, rtol: float = 1.3e-6, atol: float = 1e-5) -> None:
    """Raise ``BrokenContract`` unless two tensors agree; ``what`` says what ``expected`` is."""
    shapes = tuple(found.shape), tuple(expected.shape)
    expect(shapes[0] == shapes[1], f"{what}, of shape {shapes[1]}", f"one of shape {shapes[0]}")
    close = bool(((found - expected).abs() <= atol + rtol * expected.abs()).all())
    expect(close, what, f"one that differs from it by up to {float((found - expected).abs().max()):.2g}")
