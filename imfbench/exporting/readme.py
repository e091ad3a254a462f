"""README.md of an export: what it is, how the original software plays it, and what is known of how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from imfbench.features.mel import BIGVGAN

_NOT_KNOWN = "not known"
_F5 = """\
    from f5_tts.api import F5TTS
    {imports}
    f5 = F5TTS(model="{model}", ckpt_file="{checkpoint}", vocab_file="vocab.txt")
    {patch}f5.infer("prompt.wav", "what the prompt says", "what is to be said", file_wave="said.wav"{how})
"""
_BIGVGAN = (
    ". It makes BigVGAN's mels: first write `mel_spec_type: bigvgan` into `configs/{model}.yaml` of the package f5_tts, and put "
    "BigVGAN where F5-TTS's own README says"
)
_COSYVOICE2 = """\
    from cosyvoice.cli.cosyvoice import CosyVoice2
    {imports}
    cosyvoice = CosyVoice2("pretrained_models/CosyVoice2-0.5B")
    {patch}
"""
_CHATTERBOX = """\
    from chatterbox.models.s3gen import S3Gen
    from safetensors.torch import load_file

    s3gen = S3Gen(meanflow={meanflow})
    s3gen.load_state_dict(load_file("{file}"), strict={strict})
"""
_INPUTS = {
    "z": "noise, then the state, (rows, frames, bands), float32: prompt and target; standard normal at the start",
    "t": "start of the step, (rows,), float32",
    "r": "its end, (rows,), float32",
    "tokens": "content of each frame, (rows, frames), int64; 0 behind a row's end",
    "encoded": "what the encode graph gives, once for all steps",
    "prompt_mel": "the prompt's mel on its frames, 0 elsewhere, (rows, frames, bands), float32, normalised as below",
    "prompt": "True on the prompt's frames, (rows, frames), bool",
    "valid": "True on all frames but padding, (rows, frames), bool",
    "speaker": "CAM++'s vector, (rows, dims), float32",
}
_CONTENT = {
    "f5tts": "numbers of the characters of prompt and text in vocab.txt, + 1, from the first frame on; 0 behind the text",
    "cosyvoice2": "S3 tokens of prompt and text, + 1, each on its two frames; 0 behind a row's end",
}


def readme(card: Mapping[str, Any]) -> str:
    """The text for a card."""
    parts = [
        f"# {card['name']}: {card['method']}, for {_software(card)}",
        _kind(card),
        "## How to run it",
        _how(card),
        "## Time grids",
        _grids(card),
        "## How it was made",
        _origin(card),
    ]
    if card["scores"]:
        parts += ["## Scores", _scores(card)]
    return "\n\n".join(parts) + "\n"


def _software(card: Mapping[str, Any]) -> str:
    names = {
        "f5": "F5-TTS", "cosyvoice2": "CosyVoice 2", "chatterbox": "Chatterbox", "onnx": "onnxruntime", "torch": "torch",
    }  # fmt: skip
    return names[card["format"]]


def _kind(card: Mapping[str, Any]) -> str:
    if card["two_times"]:
        return (
            "A network of two times: it gives the average velocity from t to r, so that one evaluation makes a whole step. "
            + ("Guidance is inside: sample it without." if card["guidance_baked_in"] else "")
        ).strip()
    return "A network of one time, as the original software has it."


def _grid(card: Mapping[str, Any]) -> list[float]:
    """The grid of the examples: a searched one, else of two steps, else the first."""
    grids = card["grids"]
    chosen = next((grid for grid in grids.values() if grid["from"] not in ("--grid", "the default")), None)
    found: list[float] = (chosen or grids.get("2") or next(iter(grids.values())))["values"]
    return [round(float(value), 6) for value in found]


def _how(card: Mapping[str, Any]) -> str:
    return {"f5": _f5, "cosyvoice2": _cosyvoice2, "chatterbox": _chatterbox}.get(card["format"], _graphs)(card)


def _patched(card: Mapping[str, Any], what: str, file: str) -> tuple[str, str]:
    module = str(card["patch"]).removesuffix(".py")
    return f"from {module} import few_step\n", f'few_step({what}, "{file}", {_grid(card)})\n    '


def _f5(card: Mapping[str, Any]) -> str:
    source = card["imported"] or card["teacher"].get("imported") or {}
    model = str(source.get("layout") or "F5TTS_v1_Base").removesuffix("_bigvgan")
    mel = "" if card["mel"]["format"] != BIGVGAN.name else _BIGVGAN.format(model=model)
    if card["patch"] is None:
        how = f", nfe_step={len(_grid(card)) - 1}" + (", cfg_strength=0" if card["guidance_baked_in"] else "")
        code = _F5.format(imports="", model=model, checkpoint="model.safetensors", patch="", how=how)
        return f"F5-TTS (package f5-tts) plays `model.safetensors` as it is{mel}:\n\n{code}".rstrip()
    imports, patch = _patched(card, "f5.ema_model", "model.safetensors")
    code = _F5.format(
        imports=imports, model=model, checkpoint=source.get("file", "TEACHER.safetensors"), patch=patch, how=""
    )
    return (
        f"F5-TTS (package f5-tts) plays `model.safetensors` with `{card['patch']}`, which lies beside it{mel}. `F5TTS` opens the "
        "teacher's file (or any of this layout and vocabulary), the patch puts these weights into it. Without the patch the "
        f"original refuses the file: it does not know the mixer of the second time.\n\n{code}"
    ).rstrip()


def _cosyvoice2(card: Mapping[str, Any]) -> str:
    if card["patch"] is None:
        code = _COSYVOICE2.format(imports="", patch="").rstrip()
        more = ", with `cosyvoice.model.flow.decoder.inference_cfg_rate = 0`" if card["guidance_baked_in"] else ""
        return (
            f"Put `flow.pt` in place of the one in the model's folder; CosyVoice 2 plays it as it is{more}:\n\n{code}"
        )
    imports, patch = _patched(card, "cosyvoice.model.flow", "flow.pt")
    if card["streaming"]:
        patch = patch.replace("])", "], streaming=True)")
        mask = "Its frames see chunks up to their own, in streams and in whole utterances: the patch sees to it in every call."
    else:
        mask = (
            "Its frames see all others: play it with `stream=False`. A stream takes a student of attention over chunks."
        )
    code = _COSYVOICE2.format(imports=imports, patch=patch).rstrip()
    return (
        f"CosyVoice 2 plays `flow.pt` with `{card['patch']}`, which lies beside it: it opens its own model, and the patch puts "
        f"these weights into its flow (without load_jit and load_trt).\n\n{code}\n\n{mask}"
    )


def _chatterbox(card: Mapping[str, Any]) -> str:
    file = next(name for name in card["files"] if name.startswith("s3gen"))
    whole = len(card["parts"]) > 1
    code = _CHATTERBOX.format(meanflow=card["two_times"], file=file, strict=whole)
    uniform = _grid(card) == [round(i / (len(_grid(card)) - 1), 6) for i in range(len(_grid(card)))]
    told = [f"Chatterbox (package chatterbox-tts) plays `{file}` without a patch:\n\n{code}".rstrip()]
    if whole:
        told.append(
            f"It takes the place of the file of this name in the model's folder; it holds {', '.join(card['parts'])}."
        )
    else:
        told.append(
            "The file holds the flow alone, so it is put into a model that has its other parts; `imfbench export --beside "
            "s3gen.safetensors` makes one of them all."
        )
    if card["two_times"] and not uniform:
        told.append(f"Chatterbox samples on uniform grids; the grid {_grid(card)} is for software that takes one.")
    return "\n\n".join(told)


def _graphs(card: Mapping[str, Any]) -> str:
    form, mel = card["format"], card["mel"]
    ending = "onnx" if form == "onnx" else "pt2"
    needs = "onnxruntime and numpy" if form == "onnx" else f"torch (made by {card['torch']})"
    lines = [f"`{card['patch']}`, which lies beside the graphs, samples them with {needs} alone:", ""]
    names = [
        name for name in dict.fromkeys(n for i in card["graphs"].values() for n in i) if name not in ("z", "t", "r")
    ]
    given = ", ".join(f"{name}={name}" for name in names if name != "encoded")
    lines += [
        f"    from {str(card['patch']).removesuffix('.py')} import sample",
        f'    mel = sample(".", noise, {_grid(card)}, {given})',
        "",
    ]
    for name, inputs in card["graphs"].items():
        lines.append(f"- `{name}.{ending}`: {', '.join(inputs)} → {'encoded' if name == 'encode' else 'velocity'}")
    lines.append("")
    for name in ("z", "t", "r", *names):
        if any(name in inputs for inputs in card["graphs"].values()):
            lines.append(f"- `{name}`: {_INPUTS[name]}")
    lines += [
        "",
        f"`tokens` here: {_CONTENT.get(card['backbone'], 'the numbers of the dataset that it was trained on')}.",
        "",
    ]
    lines.append(
        f"Rows and frames are free. Mels are {mel['format']} ({mel['sample_rate'] / 1000:g} kHz, {mel['bands']} bands, a frame "
        f"every {mel['hop']} samples), normalised: log-mel = value · {mel['deviation']:g} + {mel['mean']:g}. Cut the prompt's "
        "frames off."
    )
    if not card["guidance_baked_in"]:
        lines.append(
            f"\nGuidance w = {card['guidance']} is a part of the graph, which evaluates the network for twice the rows."
        )
    return "\n".join(lines)


def _grids(card: Mapping[str, Any]) -> str:
    lines = ["| steps | times | from |", "| --- | --- | --- |"]
    for steps, grid in card["grids"].items():
        points = ", ".join(f"{value:.4g}" for value in grid["values"])
        score = f", by {json.dumps(grid['score'])}" if grid.get("score") else ""
        lines.append(f"| {steps} | {points} | {grid['from']} ({grid['name']}{score}) |")
    return "\n".join(lines)


def _origin(card: Mapping[str, Any]) -> str:
    teacher, data, imported = card["teacher"], card["train_data"], card["imported"]
    told = {
        "licence": card["licence"] or f"{_NOT_KNOWN}: that of the teacher's weights",
        "method": f"{card['method']} {json.dumps(card['method_config'])}",
        "teacher": _teacher(teacher) if teacher else _NOT_KNOWN if card["two_times"] else "none",
        "K, the teacher's steps": card["teacher_nfe"] if card["teacher_nfe"] is not None else _k(card),
        "guidance w": _guidance(card),
        "training data": json.dumps(data) if data else _NOT_KNOWN,
        "training": json.dumps(card["training"]) if card["training"] else _NOT_KNOWN,
        "weights": f"artefact of sha256 `{card['artefact_sha256']}`",
    }
    if imported:
        told["imported from"] = f"`{imported['file']}`, sha256 `{imported['sha256']}`"
    if card["run"]:
        told["run"] = card["run"]
    return "\n".join(f"- {key}: {value}" for key, value in told.items())


def _teacher(teacher: Mapping[str, Any]) -> str:
    source = teacher.get("imported") or {}
    file = f", from `{source['file']}` of sha256 `{source['sha256']}`" if source else ""
    return f"{teacher.get('name', 'weights')} of sha256 `{teacher['sha256']}`{file}"


def _k(card: Mapping[str, Any]) -> str:
    return _NOT_KNOWN if "teacher_nfe" in card["unknown"] else "does not apply"


def _guidance(card: Mapping[str, Any]) -> str:
    if "guidance" in card["unknown"]:
        return f"{_NOT_KNOWN}; it is in the weights"
    value = card["guidance"]
    return "none" if value is None else f"{value:g}, {'in the weights' if card['guidance_baked_in'] else 'of sampling'}"


def _scores(card: Mapping[str, Any]) -> str:
    """Percentages are for reading; the card has fractions, intervals and signatures."""
    figures = [
        name for name in ("wer", "sim", "mos_distillmos", "mos_utmos") if any(row.get(name) for row in card["scores"])
    ]
    lines = [
        "| " + " | ".join(["steps", "grid", "test set", "n", *figures]) + " |",
        "| --- " * (4 + len(figures)) + "|",
    ]
    for row in card["scores"]:
        about = [str(row[key]) for key in ("nfe", "grid", "dataset", "n_scored")]
        lines.append("| " + " | ".join([*about, *(_figure(name, row) for name in figures)]) + " |")
    lines += ["", "With 95 % intervals, by imfbench; how each was measured stands in card.json."]
    return "\n".join(lines)


def _figure(name: str, row: Mapping[str, Any]) -> str:
    value, low, high = (row.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return ""
    scale, unit = (100, " %") if name == "wer" else (1, "")
    between = "" if low is None or high is None else f" ({low * scale:.3g} to {high * scale:.3g})"
    return f"{value * scale:.3g}{unit}{between}"
