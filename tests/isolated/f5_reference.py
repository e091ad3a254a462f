"""What F5-TTS itself writes and samples. Runs where ours is not installed: ``python f5_reference.py FOLDER``.

``FOLDER/asked.json`` says what to do: ``teach`` writes a checkpoint as the package's trainer does, and the mels that the package
samples of it; ``play`` loads an export into the package and samples that.
"""

import importlib.util
import json
import sys
from importlib.resources import files
from pathlib import Path

import torch
from ema_pytorch import EMA
from f5_tts.infer.utils_infer import load_checkpoint
from f5_tts.model import CFM, DiT
from f5_tts.model.utils import convert_char_to_pinyin, get_tokenizer
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

SEED = 5


def main(folder: Path) -> None:
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    config = OmegaConf.load(str(files("f5_tts").joinpath(f"configs/{asked['model']}.yaml"))).model
    numbers, characters = get_tokenizer(str(folder / "vocab.txt"), "custom")
    spectrum = {name: value for name, value in config.mel_spec.items() if name != "mel_spec_type"}
    arch = {**config.arch, **asked["size"]}

    def built(seed: int) -> CFM:
        torch.manual_seed(seed)
        network = DiT(**arch, text_num_embeds=characters, mel_dim=config.mel_spec.n_mel_channels)
        return filled(CFM(network, mel_spec_kwargs=dict(spectrum), vocab_char_map=numbers)).eval()

    text = convert_char_to_pinyin([asked["prompt_text"] + asked["text"]])
    if asked["do"] == "teach":
        found = teach(folder, built(asked["seed"]), asked, text)
    else:
        found = play(folder, built(asked["seed"] + 1), asked, text)
    save_file({name: value.contiguous() for name, value in found.items()}, folder / f"{asked['do']}.safetensors")


def teach(folder, cfm, asked, text):
    torch.manual_seed(1)
    # Two tones that rise, in noise: a mel in which no frame is like another.
    time = torch.arange(asked["samples"]) / 24_000
    wave = sum(torch.sin(2 * torch.pi * (hertz + 400 * time) * time) for hertz in (180.0, 950.0))
    wave = 0.1 * (wave + 0.3 * torch.randn(len(time)))
    prompt = cfm.mel_spec(wave[None])[0].T
    # As the trainer keeps it and checkpoints are published.
    save_file(EMA(cfm, include_online_model=False).state_dict(), folder / "model_7.safetensors")
    found = {"wave": wave, "prompt": prompt}
    for steps, guidance, sway in asked["samplings"]:
        found[f"{steps} {guidance} {sway}"] = sampled(
            cfm, prompt, asked, text, steps=steps, cfg_strength=guidance, sway_sampling_coef=sway
        )
    return found


def play(folder, cfm, asked, text):
    """The export's file in a model of other weights: what is heard is the file's."""
    prompt = load_file(folder / "teach.safetensors")["prompt"]
    export = Path(asked["export"])
    if asked["patch"] is None:
        load_checkpoint(cfm, str(export / "model.safetensors"), "cpu")
        return {
            str(steps): sampled(cfm, prompt, asked, text, steps=steps, cfg_strength=2.0, sway_sampling_coef=-1.0)
            for steps in asked["steps"]
        }
    patch, found = module_of(export / asked["patch"]), {}
    for grid in asked["grids"]:
        patch.few_step(cfm, str(export / "model.safetensors"), grid)
        # As the package's inference asks; the patch leaves it aside.
        found[str(len(grid) - 1)] = sampled(
            cfm, prompt, asked, text, steps=32, cfg_strength=2.0, sway_sampling_coef=-1.0
        )
    return found


def sampled(cfm, prompt, asked, text, **options):
    return cfm.sample(cond=prompt[None], text=text, duration=asked["frames"], seed=SEED, **options)[0][0]


def filled(module):
    """Random numbers in what starts at zero or one: an untrained network answers zero, which hides every mistake."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn(parameter.shape))
            elif not parameter.any():
                parameter.normal_(0.0, parameter.shape[1] ** -0.5)
    return module


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
