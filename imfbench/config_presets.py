"""What a name in an experiment stands for: a method's preset, and the metrics' settings of a published protocol."""

from __future__ import annotations

from imfbench.config_file import Problem, Source
from imfbench.config_values import named_options
from imfbench.registry import METHODS, nearest


def apply_presets(source: Source) -> None:
    """Write into each system's ``config`` what its ``preset`` stands for; settings that stand there already are kept.

    Raises:
        ConfigError: The method has no such preset.
    """
    systems = source.values.get("systems")
    wrong = []
    for i, system in enumerate(systems if isinstance(systems, list) else ()):
        if not isinstance(system, dict) or not isinstance(system.get("preset"), str):
            continue  # what is no preset's name the validation tells
        method = system.get("method")
        if not isinstance(method, str) or method not in METHODS:
            continue
        known, name = getattr(METHODS.get(method), "presets", {}), system["preset"]
        if name not in known:
            told = nearest(name, list(known)) if known else "it has none."
            wrong.append(Problem(("systems", i, "preset"), f"{method!r} has no preset {name!r}: {told}"))
        elif isinstance(system.get("config", {}), dict):
            system["config"] = {**known[name], **system.get("config", {})}
    if wrong:
        raise source.error(wrong)


def apply_protocol(source: Source) -> None:
    """Write into ``metrics`` what the protocol decides; settings that stand there already are kept.

    ``mos`` becomes the protocol's own predictor, where it has one.

    Raises:
        ConfigError: No such protocol.
    """
    name = source.values.get("protocol")
    if name is None:
        return
    from imfbench.metrics.protocols import UnknownProtocolError, protocol_of

    try:
        protocol = protocol_of(str(name))
    except UnknownProtocolError as error:
        raise source.error([Problem(("protocol",), str(error))]) from None
    settings, predictor = protocol.metric_settings(), protocol.predictor
    given = source.values.get("metrics")
    chosen = named_options(["wer", "sim", "mos", "f0cv"] if given is None else given)
    if not isinstance(chosen, dict):
        return  # the validation tells
    found = {}
    for metric, options in chosen.items():
        known_as = predictor if metric == "mos" and predictor is not None and predictor not in chosen else metric
        found[known_as] = {**settings.get(known_as, {}), **options} if isinstance(options, dict) else options
    source.values["metrics"] = found
