"""The command line: each command a few lines over the library.

Heavy modules are imported inside the commands, so that ``--help`` and wrong names answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from imfbench import interruption
from imfbench.cli_base import Commands, UserError, print_findings, user_errors
from imfbench.cli_cache import cache
from imfbench.cli_claims import claims_command
from imfbench.cli_compare import compare_command
from imfbench.cli_export import export_command, import_command
from imfbench.cli_leaderboard import leaderboard_command
from imfbench.cli_list import list_command
from imfbench.cli_other_tasks import other_tasks
from imfbench.cli_plan import plan_command
from imfbench.cli_profile import profile_command
from imfbench.cli_protocols import protocols
from imfbench.cli_publish import publish_command, verify_command
from imfbench.cli_report import OWN as OF_PAGES
from imfbench.cli_report import is_run, page_options, report_of_folder, with_page
from imfbench.cli_run import (
    INTERRUPTED,
    command_line,
    config_argument,
    needed,
    reuse_option,
    run_experiment,
    run_options,
)
from imfbench.cli_score import METRICS, recordings_options
from imfbench.cli_speak import OWN, own_text_options, say

STAGE_HELP = {
    "train": "Train the artefacts of an experiment: a killed training goes on where its last checkpoint stands.",
    "search": "Search the time grids of an experiment; its artefacts must be trained.",
    "synthesise": "Make the audio of an experiment's rows; its artefacts must be trained and its grids searched.",
    "score": "Score the audio of an experiment; known scores come from the cache.",
    "report": "Write the leaderboard of an experiment from its scores.",
}
COMMANDS = {"train": "train", "search": "search", "synthesise": "synthesize", "score": "score", "report": "report"}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="imfbench")
def main() -> None:
    """The laboratory and measuring stick of few-step text-to-speech.

    \b
    Example:
      imfbench run quickstart
      imfbench list configs
    """


@main.command("run")
@config_argument
@run_options
@reuse_option
def run_command(**options: Any) -> None:
    """Run an experiment from its beginning, or from where it stopped, to its leaderboard.

    CONFIG is a YAML file or the name of an experiment that ships (imfbench list configs).

    \b
    Example:
      imfbench run quickstart
      imfbench run quickstart --limit 4 --set training.minutes=1 --out runs/try
      imfbench run my.yaml --dry-run
      imfbench run quickstart --set 'systems.intmeanflow.config.teacher_nfe=[1, 2, 4, 8]' --out runs/sweep
      imfbench run full --reuse runs/claims-cpu
    """
    run_experiment(None, **options)


def _stage_command(stage: str) -> None:
    def command(**options: Any) -> None:
        run_experiment(stage, **options)

    name = COMMANDS[stage]
    command.__doc__ = f"{STAGE_HELP[stage]}\n\n\b\nExample:\n  imfbench {name} quickstart"
    main.command(name)(config_argument(run_options(command)))


for _stage in COMMANDS:
    if _stage not in ("synthesise", "score", "report"):
        _stage_command(_stage)


@main.command("report")
@page_options
@config_argument
@run_options
@click.pass_context
def report_command(context: click.Context, config: str | None, **options: Any) -> None:
    """Write leaderboard and page of an experiment from its scores, or of the run folder CONFIG as it stands, also while it runs.

    
    Example:
      imfbench report quickstart
      imfbench report runs/quickstart --no-embed
    """
    own = {name: value for name in OF_PAGES if (value := options.pop(name)) is not None}
    with user_errors():
        if config is not None and is_run(Path(config)):
            if given := [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]:
                raise click.UsageError(
                    f"{config} is a run folder, which is reported as it stands: --{given[0].replace('_', '-')} belongs "
                    "to an experiment"
                )
            report_of_folder(Path(config), own)
            return
    named = needed(config)
    run_experiment("report", (lambda settings: with_page(named, settings, own)) if own else named, **options)


@main.command("synthesize")
@own_text_options
@config_argument
@run_options
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
        run_experiment("synthesise", **options)
        return
    if options["config"] is not None:
        raise click.UsageError(
            f"{options['config']!r} and --text exclude each other: an experiment, or a text of your own"
        )
    if alone := given & {"settings", "limit", "workers", "max_cells", "dry_run", "no_measuring", "memory"}:
        raise click.UsageError(f"{', '.join(map(_option, sorted(alone)))}: only with an experiment, not with --text")
    interruption.listen()
    try:
        with user_errors():
            say(text, out=options["out"], device=options["device"], threads=options["threads"], **own)
    except KeyboardInterrupt:
        click.echo("\nstopped; the files that were made are kept. The same command makes all of them:", err=True)
        click.echo(f"  {command_line()}", err=True)
        sys.exit(INTERRUPTED)


def _option(name: str) -> str:
    """How an option of ``synthesize`` is written."""
    return next(option.opts[0] for option in synthesize_command.params if option.name == name)


@main.command("score")
@recordings_options
@click.argument("what", nargs=-1, metavar="[CONFIG | DIR...]")
@run_options
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
        run_experiment("score", what[0] if what else None, **options)
        return
    if not what:
        raise click.UsageError("name the folders of audio files that are to be scored")
    folders = tuple(map(Path, what))
    run_experiment(
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


main.add_command(list_command)
main.add_command(protocols)
main.add_command(cache)
main.add_command(compare_command)
main.add_command(leaderboard_command)
main.add_command(import_command)
main.add_command(export_command)
main.add_command(publish_command)
main.add_command(verify_command)
main.add_command(claims_command)
main.add_command(other_tasks)
main.add_command(profile_command)
main.add_command(plan_command)


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
        sys.exit(1 if print_findings(examine()) else 0)
    if path and data:
        raise click.UsageError(f"{path} and --data {data} name a folder each; leave out one")
    with user_errors():
        from imfbench.config_file import options_of
        from imfbench.dataset_check import examine_dataset

        wrong = print_findings(examine_dataset(dataset, path or data, options_of(settings)))
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
        wrong = sum(print_findings(check(plugin, chosen)) for plugin in found)
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


def _quiet() -> None:
    """What the trial's jobs log stands in the findings."""
    import logging

    import torch

    from imfbench.devices import available_threads
    from imfbench.progress import Reporting, log

    Reporting().set_up_logging()
    log.setLevel(logging.CRITICAL)
    torch.set_num_threads(available_threads())
