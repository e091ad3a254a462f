"""``imfbench import`` and ``imfbench export``: the original software's checkpoints in, students out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from imfbench.cli_base import user_errors
from imfbench.cli_speak import Counts

IN = ("f5", "cosyvoice2", "chatterbox")
OUT = (*IN, "onnx", "torch")


@click.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(IN), required=True, help="Whose file it is.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The artefact's folder.")
@click.option("--model", help="F5-TTS: its layout, such as F5TTS_v1_Base.")
@click.option("--vocab", "vocabulary", type=click.Path(path_type=Path), help="F5-TTS: its vocab.txt, which goes along.")
@click.option("--weights", type=click.Choice(["ema", "raw"]), help="F5-TTS: where a training's file holds both [ema].")
@click.option("--guidance", type=float, help="w of a teacher's sampling [F5-TTS 2, CosyVoice 2 and Chatterbox 0.7].")
@click.option("--licence", help="Of the weights [that of the published ones: CC-BY-NC-4.0, Apache-2.0, MIT].")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Of the network, such as streaming=true.")
def import_command(checkpoint: Path, form: str, out: Path, settings: tuple[str, ...], **options: Any) -> None:
    """Make an artefact of a checkpoint of F5-TTS, of CosyVoice 2's flow, or of Chatterbox's s3gen.

    An experiment names it as its teacher (teacher: {artefact: OUT}); Chatterbox's two-step decoder becomes a student.

    \b
    Example:
      imfbench import model_1250000.safetensors --format f5 --model F5TTS_v1_Base --vocab vocab.txt --out teachers/f5
      imfbench import CosyVoice2-0.5B/flow.pt --format cosyvoice2 --out teachers/cosyvoice2
      imfbench import s3gen_meanflow.safetensors --format chatterbox --out students/chatterbox
    """
    with user_errors():
        from imfbench.config_file import options_of
        from imfbench.importing import import_checkpoint

        card = import_checkpoint(checkpoint, form, out, settings=options_of(settings), **options)
    click.echo(
        f"wrote {out}: a {card['method']} of {card['parameters'] / 1e6:.1f} M parameters for {card['task']}, "
        f"licence {card['licence']}, sha256 {card['sha256'][:12]}…"
    )


@click.command("export")
@click.argument("student")
@click.option("--format", "form", type=click.Choice(OUT), required=True, help="For which software.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@click.option(
    "--run", type=click.Path(path_type=Path), help="Run folder with its grids and scores [the one in which it lies]."
)
@click.option(
    "--grid", metavar="NAME|[0,…,1]",
    help="Time grid [the one searched in the run, else uniform for students and sway for teachers].",
)  # fmt: skip
@click.option("--nfe", type=Counts(), help="Steps that the card has grids for: 1,2,3 [a teacher: 16,32].")
@click.option(
    "--beside",
    type=click.Path(path_type=Path),
    help="Chatterbox: a published s3gen file, for the parts besides the flow.",
)
@click.option("--licence", help="Of the weights [the teacher's].")
def export_command(student: str, form: str, out: Path, **options: Any) -> None:
    """Write what other software can run of the artefact STUDENT: weights or graphs, the patch that they need, card, README.

    f5, cosyvoice2 and chatterbox are files in the layout of the original software; onnx runs under onnxruntime, torch (programs
    of torch.export) under torch. A teacher can be exported too. A patch that is needed is shown.

    \b
    Example:
      imfbench export runs/paper_text2mel/artefacts/intmeanflow-k4 --format f5 --out exports/f5
      imfbench export embedded:token2mel-intmeanflow --format onnx --out exports/onnx
    """
    with user_errors():
        from imfbench.exporting.export import export, shown

        card, told = export(student, form, out, **options)
        patch = shown(out, card)
    if patch is not None:
        click.echo(f"{card['patch']}:\n\n{patch}")
    click.echo(told)
    click.echo(f"wrote {', '.join(sorted({*card['files'], 'card.json', 'README.md'}))} to {out}")
