"""One generic registry for everything that has a name: methods, datasets, metrics, backbones, vocoders, reports.

An entry is an object, or a lazy ``"module:attribute"`` target that is imported when it is first asked for, so that listing
names imports nothing heavy of ours. Other people add entries by plug-ins (:mod:`imfbench.plugins`).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from imfbench import plugins

T = TypeVar("T")
Entry = TypeVar("Entry", bound=Callable[..., Any])


class UnknownNameError(KeyError):
    """A name that is not registered; the message holds the nearest registered names."""

    def __str__(self) -> str:
        return str(self.args[0])


def nearest(name: str, known: list[str]) -> str:
    """A sentence that helps with an unknown ``name``: the closest of ``known``, else all of them."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"known: {', '.join(sorted(known)) or 'none'}"


class BrokenEntryError(ImportError):
    """A name that is registered, but what it stands for cannot be imported; the message says why."""


class Registry(Generic[T]):
    """Names → objects of one kind.

    Args:
        kind: What the entries are, in words ("method"); used in messages.
        package: A package whose modules register one entry each, under the module's name ("_" may stand for "-"). A new
            file there is known by existing: no list needs a line.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator that registers a class or function under ``name``; a name that is taken is an error."""

        def decorate(entry: Entry) -> Entry:
            self.add(name, entry)
            return entry

        return decorate

    def add(self, name: str, target: Any) -> None:
        """Register an object or a lazy ``"module:attribute"`` target.

        Raises:
            ValueError: The name is taken by something else, or what is given is no name, or no class or function.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"the name of a {self.kind} is a text, not {name!r}")
        if not isinstance(target, str) and not (hasattr(target, "__module__") and hasattr(target, "__qualname__")):
            raise ValueError(f"{self.kind} {name!r} is a class or a function, not {target!r}")
        present = self._entries.get(name)
        if present is None and (home := self._modules().get(name)) and not _path(target).startswith(f"{home}:"):
            present = home  # not imported yet, but the name is its own
        if present is not None and _path(present) != _path(target):
            raise ValueError(
                f"{self.kind} {name!r} is already registered {_origin(present)}, and now again {_origin(target)}: give one of "
                "them another name"
            )
        if present is None or isinstance(present, str):
            self._entries[name] = target
        if present is None and not _path(target).startswith("imfbench."):
            plugins.note(self, name)

    def remove(self, name: str) -> None:
        """Take an entry back: what registered it failed later on."""
        self._entries.pop(name, None)

    def get(self, name: str) -> T:
        """The entry called ``name``, imported if it is lazy.

        Raises:
            UnknownNameError: No such name; the message suggests the nearest ones.
            BrokenEntryError: What it stands for cannot be imported.
        """
        if name not in self._entries and name in (modules := self._modules()):
            self._import(name, modules[name])  # its decorator registers the entry
        if name not in self._entries:
            plugins.load_installed()
        if name not in self._entries:
            raise UnknownNameError(self.unknown(name))
        target = self._entries[name]
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            target = self._entries[name] = self._import(name, module, attribute)
        found: T = target
        return found

    def unknown(self, name: str) -> str:
        """A sentence for a name that is not registered: a plug-in that was left out and names it, or the nearest names."""
        return f"unknown {self.kind} {name!r}: {plugins.left_out(name, nearest(name, self.names()))}"

    def name_of(self, entry: Any) -> str | None:
        """The name under which a class or function is registered; imports nothing, so that no broken entry is met."""
        return next((name for name, known in self._entries.items() if known is entry or known == _path(entry)), None)

    def names(self) -> list[str]:
        """All registered names, sorted; those of plug-ins too."""
        plugins.load_installed()
        return sorted({*self._entries, *self._modules()})

    def _import(self, name: str, module: str, attribute: str | None = None) -> Any:
        try:
            found = importlib.import_module(module)
            return found if attribute is None else getattr(found, attribute)
        except Exception as error:
            told = f"{module}{'' if attribute is None else f':{attribute}'}"
            raise BrokenEntryError(
                f"{self.kind} {name!r} ({told}) cannot be imported: {type(error).__name__}: {error}; install what it "
                "needs, or leave it out"
            ) from error

    def _modules(self) -> dict[str, str]:
        if self._package is None:
            return {}
        folder = importlib.import_module(self._package).__path__
        found = [module.name for module in pkgutil.iter_modules(folder)]
        return {name.replace("_", "-"): f"{self._package}.{name}" for name in found}

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._modules() or name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())


def _origin(target: Any) -> str:
    """Where an entry comes from, as a message says it: a plug-in's by its file, for its module has a made-up name."""
    file = None if isinstance(target, str) else getattr(sys.modules.get(target.__module__), "__file__", None)
    if file is not None and target.__module__.startswith(plugins.MODULE):
        return f"by {file} ({target.__qualname__})"
    return f"as {_path(target)}"


def _path(target: Any) -> str:
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"


METHODS: Registry[Any] = Registry("method", package="imfbench.methods")
DATASETS: Registry[Any] = Registry("dataset")
METRICS: Registry[Any] = Registry("metric")
BACKBONES: Registry[Any] = Registry("backbone")
VOCODERS: Registry[Any] = Registry("vocoder")
REPORTS: Registry[Any] = Registry("report")

# What ships, by lazy targets; methods are found by their files.
DATASETS.add("demo", "imfbench.datasets.demo.corpus:DemoCorpus")
DATASETS.add("seed-tts-eval", "imfbench.datasets.seed_tts_eval:SeedTTSEval")
DATASETS.add("librispeech-pc", "imfbench.datasets.librispeech_pc:LibriSpeechPC")
DATASETS.add("librispeech", "imfbench.datasets.librispeech:LibriSpeech")
DATASETS.add("zipvoice", "imfbench.datasets.zipvoice_tsv:ZipVoiceList")
DATASETS.add("folder", "imfbench.datasets.folder:CsvFolder")
DATASETS.add("manifest", "imfbench.datasets.manifest:Manifest")
METRICS.add("wer", "imfbench.metrics.wer:WordErrorRate")
METRICS.add("sim", "imfbench.metrics.sim:SpeakerSimilarity")
METRICS.add("mos", "imfbench.metrics.mos:DistillMOS")
METRICS.add("utmos", "imfbench.metrics.mos:UTMOS")
METRICS.add("dnsmos", "imfbench.metrics.dnsmos:DNSMOS")
METRICS.add("f0cv", "imfbench.metrics.prosody:PitchVariation")
BACKBONES.add("dit", "imfbench.backbones.dit:DiT")
BACKBONES.add("aligning-dit", "imfbench.backbones.aligning_dit:AligningDiT")
BACKBONES.add("f5tts", "imfbench.backbones.f5tts:F5DiT")
BACKBONES.add("cosyvoice2", "imfbench.backbones.cosyvoice2:CosyVoice2Flow")
VOCODERS.add("hifigan", "imfbench.features.hifigan:HiFiGAN")
VOCODERS.add("hifigan-bf16", "imfbench.features.hifigan:MixedHiFiGAN")
VOCODERS.add("hifigan-auto", "imfbench.features.hifigan:FastestHiFiGAN")
VOCODERS.add("hift", "imfbench.features.hift:HiFT")
VOCODERS.add("vocos", "imfbench.features.vocos:Vocos")
VOCODERS.add("bigvgan", "imfbench.features.bigvgan:BigVGAN")
VOCODERS.add("auto", "imfbench.features.auto_vocoder:AutoVocoder")
VOCODERS.add("griffin-lim", "imfbench.features.griffin_lim:GriffinLim")
REPORTS.add("leaderboard", "imfbench.reports.leaderboard:Leaderboard")
REPORTS.add("page", "imfbench.reports.page:Page")
REPORTS.add("tensorboard", "imfbench.reports.tensorboard_log:TensorBoardLog")
