"""The command line: each command a few lines over the library.

Heavy modules are imported inside the commands, so that ``--help`` and wrong names answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from imfbench import interruption
from imfbench.cli_base import Commands, UserError, user_errors
from imfbench.cli_cache import cache
from imfbench.cli_compare import compare_command
from imfbench.cli_profile import profile_command
from imfbench.cli_protocols import protocols
from imfbench.cli_score import METRICS, recordings_options
from imfbench.cli_speak import OWN, own_text_options, say

if TYPE_CHECKING:
    from imfbench.config import ExperimentConfig
    from imfbench.doctor import Finding

STAGE_HELP = {
    "train": "Train the artefacts of an experiment: a killed training goes on where its last checkpoint stands.",
    "search": "Search the time grids of an experiment; its artefacts must be trained.",
    "synthesise": "Make the audio of an experiment's rows; its artefacts must be trained and its grids searched.",
    "score": "Score the audio of an experiment; known scores come from the cache.",
    "report": "Write the leaderboard of an experiment from its scores.",
}
COMMANDS = {"train": "train", "search": "search", "synthesise": "synthesize", "score": "score", "report": "report"}
INTERRUPTED = 130


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="imfbench")
def main() -> None:
    """The laboratory and measuring stick of few-step text-to-speech.

    \b
    Example:
      imfbench run quickstart
      imfbench list configs
    """


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--dry-run", is_flag=True, help="Show what would be done, do nothing."),
        click.option("--threads", type=click.IntRange(min=1), help="CPU threads; fewer is faster on a busy machine."),
        click.option(
            "--workers", type=click.IntRange(min=1), help="Processes that train, search, sample and score [1]."
        ),
        click.option("--device", help="auto, cpu, or an accelerator by torch's name for it."),
        click.option("--limit", type=click.IntRange(min=1), help="At most so many utterances of each set."),
        click.option("--out", type=click.Path(path_type=Path), help="Run folder [runs/NAME]."),
        click.option("--set", "settings", multiple=True, metavar="A.B=C", help="Change a setting; may be repeated."),
    ):
        command = option(command)
    return command


def _config(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("config", required=False)(command)


def _needed(config: str | None) -> str:
    if config is None:
        raise click.UsageError("name an experiment or its YAML file, for instance quickstart")
    return config


@main.command("run")
@_config
@_options
def run_command(**options: Any) -> None:
    """Run an experiment from its beginning, or from where it stopped, to its leaderboard.

    CONFIG is a YAML file or the name of an experiment that ships (imfbench list configs).

    \b
    Example:
      imfbench run quickstart
      imfbench run quickstart --limit 4 --set training.minutes=1 --out runs/try
      imfbench run my.yaml --dry-run
    """
    _run(None, **options)


def _stage_command(stage: str) -> None:
    def command(**options: Any) -> None:
        _run(stage, **options)

    name = COMMANDS[stage]
    command.__doc__ = f"{STAGE_HELP[stage]}\n\n\b\nExample:\n  imfbench {name} quickstart"
    main.command(name)(_config(_options(command)))


for _stage in COMMANDS:
    if _stage not in ("synthesise", "score"):
        _stage_command(_stage)


@main.command("synthesize")
@own_text_options
@_config
@_options
@click.pass_context
def synthesize_command(context: click.Context, **options: Any) -> None:
    """Make the audio of an experiment's rows, or (with --text) say a text of your own in a prompt's voice.

    With several methods or step counts, OUT is a folder, which also gets a small table that compares them.

    \b
    Example:
      imfbench synthesize quickstart
      imfbench synthesize --text "Good evening." --prompt me.wav --nfe 32 --out evening.wav
      imfbench synthesize --text "Good evening." --prompt me.wav --method teacher,intmeanflow --nfe 1,2,32 --out said
    """
    given = {name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    own = {name: options.pop(name) for name in OWN}
    text = options.pop("text")
    if text is None:
        if alone := given & {*OWN}:
            raise click.UsageError(f"{', '.join(map(_option, sorted(alone)))}: only with --text")
        _run("synthesise", **options)
        return
    if options["config"] is not None:
        raise click.UsageError(
            f"{options['config']!r} and --text exclude each other: an experiment, or a text of your own"
        )
    if alone := given & {"settings", "limit", "workers", "dry_run"}:
        raise click.UsageError(f"{', '.join(map(_option, sorted(alone)))}: only with an experiment, not with --text")
    interruption.listen()
    try:
        with user_errors():
            say(text, out=options["out"], device=options["device"], threads=options["threads"], **own)
    except KeyboardInterrupt:
        click.echo("\nstopped; the files that were made are kept. The same command makes all of them:", err=True)
        click.echo(f"  {_command()}", err=True)
        sys.exit(INTERRUPTED)


def _option(name: str) -> str:
    """How an option of ``synthesize`` is written."""
    return next(option.opts[0] for option in synthesize_command.params if option.name == name)


@main.command("score")
@recordings_options
@click.argument("what", nargs=-1, metavar="[CONFIG | DIR...]")
@_options
def score_command(what: tuple[str, ...], form: str, **options: Any) -> None:
    """Score the speech of any system against a test set, or (with CONFIG) the audio of an experiment.

    Each DIR is a system's folder of audio files, called by utterance: ID.wav or gen_ID.wav, in whatever folders below. Several
    are tested against each other, or against --baseline. Known scores come from the cache.

    \b
    Example:
      imfbench score outputs/mine outputs/theirs --dataset demo --metrics wer,sim
      imfbench score outputs/mine --baseline outputs/theirs --dataset demo --margin wer=0.01 --format md
      imfbench score outputs/mine --dataset seed-tts-eval/zh --data seedtts_testset --protocol seed-tts-eval
      imfbench score quickstart
    """
    from imfbench import cli_score

    own = {name: options.pop(name) for name in cli_score.OWN if name != "form"}
    if own["dataset"] is None:
        _no_folders(what, own)
        _run("score", what[0] if what else None, **options)
        return
    if not what:
        raise click.UsageError("name the folders of audio files that are to be scored")
    folders = tuple(map(Path, what))
    _run(
        None,
        lambda settings: cli_score.experiment_of(folders, own, settings),
        show=lambda run: cli_score.show(run, form),
        **options,
    )


def _no_folders(what: tuple[str, ...], own: dict[str, Any]) -> None:
    """Without --dataset it is an experiment that is to be scored."""
    folders = [name for name in what if Path(name).is_dir()]
    if folders or len(what) > 1:
        raise click.UsageError(
            f"which utterances are in {' '.join(folders or what)}? Name their test set with --dataset"
        )
    defaults = {"metrics": METRICS}
    given = [f"--{name.replace('_', '-')}" for name, value in own.items() if value and value != defaults.get(name)]
    if given:
        raise click.UsageError(f"{given[0]} is for folders of recordings, which need --dataset too")


def _run(
    stage: str | None, config: str | Callable[[tuple[str, ...]], ExperimentConfig] | None, settings: tuple[str, ...],
    out: Path | None, limit: int | None, device: str | None, threads: int | None, workers: int | None, dry_run: bool,
    show: Callable[[Path], None] | None = None,
) -> None:  # fmt: skip
    from imfbench.progress import Reporting

    if out is not None and out.is_file():
        raise click.BadParameter(f"{out} is a file; a run needs a folder", param_hint="--out")
    settings += tuple(
        f"{key}={value}"
        for key, value in (("device", device), ("threads", threads), ("workers", workers))
        if value is not None
    )
    reporting = Reporting()
    reporting.set_up_logging()
    interruption.listen()
    folder = out
    try:
        with user_errors():
            from imfbench.config import limited, load

            experiment = config(settings) if callable(config) else load(_needed(config), settings)
            if limit is not None:
                experiment = limited(experiment, limit)
            from imfbench import experiment as engine
            from imfbench.pipeline.overview import describe, outcome

            stages = tuple(name for name in engine.STAGES if stage in (None, name))
            folder = out or engine.default_folder(experiment)
            if dry_run:
                describe(experiment, folder, stages)
                return
            contexts = engine.run_all(experiment, folder, stages, reporting)
    except KeyboardInterrupt:
        kept = "nothing was begun" if folder is None else f"what is done is kept in {folder}"
        click.echo(f"\nstopped; {kept}. Go on with the same command:\n  {_command()}", err=True)
        sys.exit(INTERRUPTED)
    if show is None:
        outcome(contexts, stages)
    else:
        show(folder)
    if any(context.failures for context in contexts):
        sys.exit(1)


@main.command("list")
@click.argument(
    "what",
    type=click.Choice(
        ["methods", "datasets", "metrics", "grids", "solvers", "configs", "vocoders", "backbones", "reports"]
    ),
)
def list_command(what: str) -> None:
    """List what is registered, or the experiments that ship.

    \b
    Example:
      imfbench list methods
    """
    from imfbench.listing import listing

    for name, about in listing(what).items():
        click.echo(f"{name:<24} {about}".rstrip())


main.add_command(protocols)
main.add_command(cache)
main.add_command(compare_command)
main.add_command(profile_command)


@main.command("doctor")
@click.option(
    "--dataset", metavar="NAME[/SET]", help="Look at a dataset instead of the machine (imfbench list datasets)."
)
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), help="Its folder; the argument PATH means the same."
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A further option of the dataset.")
@click.option("--model-dir", type=click.Path(path_type=Path), help="Folder of models that no package carries.")
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
def doctor_command(
    dataset: str | None, data: Path | None, settings: tuple[str, ...], model_dir: Path | None, path: Path | None
) -> None:  # fmt: skip
    """Check this machine: Python, torch, models, corpus, disk, threads, devices. Exit code 1 if something is wrong.

    With --dataset check a dataset: size, recordings, sampling rates, lengths, texts.

    \b
    Example:
      imfbench doctor
      imfbench doctor --dataset seed-tts-eval data/seedtts_testset
      imfbench doctor --dataset seed-tts-eval/zh --data data/seedtts_testset
      imfbench doctor --dataset librispeech-pc data/LibriSpeech --set list_file=pairs.lst
    """
    if dataset is None:
        if path or data or settings:
            raise click.UsageError("name the dataset that is to be looked at: imfbench doctor --dataset NAME PATH")
        from imfbench.doctor import examine
        from imfbench.published import look_in

        look_in(model_dir)
        sys.exit(1 if _print(examine()) else 0)
    if path and data:
        raise click.UsageError(f"{path} and --data {data} name a folder each; leave out one")
    with user_errors():
        from imfbench.config_file import options_of
        from imfbench.dataset_check import examine_dataset

        wrong = _print(examine_dataset(dataset, path or data, options_of(settings)))
    sys.exit(1 if wrong else 0)


@main.command("check")
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="A setting of what is checked.")
def check_command(settings: tuple[str, ...]) -> None:
    """Check plug-ins: the contract of all that they register, and a run on two utterances. Exit code 1 if something is wrong.

    Checks the files given by --plugin; without one, the plug-ins of installed packages.

    \b
    Example:
      imfbench check --plugin my_method.py
      imfbench check --plugin my_corpus.py --set my-corpus.root=recordings
    """
    from imfbench import plugins

    with user_errors():
        from imfbench.check import check, settings_of

        if not plugins.plugins():
            plugins.load_installed()
        found = plugins.plugins()
        if not found:
            raise UserError("nothing to check: name a file, imfbench check --plugin FILE.py; no package has a plug-in")
        chosen = settings_of(settings, found)
        _quiet()
        wrong = sum(_print(check(plugin, chosen)) for plugin in found)
    outcome = "all is well" if not wrong else "1 thing is wrong" if wrong == 1 else f"{wrong} things are wrong"
    click.echo(f"{', '.join(plugin.name for plugin in found)}: {outcome}")
    sys.exit(1 if wrong else 0)


@main.command("new-method")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder of the files [this one].")
def new_method_command(name: str, out: Path) -> None:
    """Write a method to begin with, NAME.py, and its test: it trains and samples as it stands.

    \b
    Example:
      imfbench new-method my-method
    """
    with user_errors():
        from imfbench.new_method import write

        file, test = write(name, out)
    click.echo(f"wrote {file} and {test}; go on with")
    click.echo(f"  imfbench check --plugin {file}")
    click.echo(f"  pytest {test}")
    click.echo(
        f"  imfbench run quickstart --plugin {file} --set 'systems=[{{method: {name}, nfe: [1, 2]}}]' --out runs/{name}"
    )


def _print(findings: Iterable[Finding]) -> int:
    """Print findings as they come; how many are bad."""
    wrong = 0
    marks = {"ok": click.style("ok  ", fg="green"), "note": click.style("note", fg="yellow")}
    for finding in findings:
        mark = marks.get(finding.level, click.style("bad ", fg="red"))
        click.echo(f"{mark} {finding.subject}: {finding.message}")
        wrong += finding.level == "bad"
    return wrong


def _quiet() -> None:
    """What the trial's jobs log stands in the findings."""
    import logging

    import torch

    from imfbench.pipeline.context import available_cores
    from imfbench.progress import Reporting, log

    Reporting().set_up_logging()
    log.setLevel(logging.CRITICAL)
    torch.set_num_threads(available_cores())


def _command() -> str:
    import shlex

    return shlex.join(["imfbench", *sys.argv[1:]])
