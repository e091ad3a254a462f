"""What Chatterbox's own flow writes and samples. Runs where ours is not installed: ``python chatterbox_reference.py FOLDER``.

``FOLDER/asked.json`` says what to do: ``teach`` writes an ``s3gen`` file and the mels that the package makes of it; ``play``
loads an export into the package and samples that. ``whole`` is the package's ``S3Gen`` of the published size, with tokenizer,
speaker encoder and vocoder; otherwise a small flow stands alone.
"""

import json
import sys
from pathlib import Path

import torch
from chatterbox.models.s3gen import S3Gen
from chatterbox.models.s3gen.decoder import ConditionalDecoder
from chatterbox.models.s3gen.flow import CausalMaskedDiffWithXvec
from chatterbox.models.s3gen.flow_matching import CausalConditionalCFM
from chatterbox.models.s3gen.transformer.upsample_encoder import UpsampleConformerEncoder
from safetensors.torch import load_file, save_file


class Alone(torch.nn.Module):
    """A small flow under the name that it has in ``S3Gen``."""

    def __init__(self, size, meanflow):
        super().__init__()
        encoder = UpsampleConformerEncoder(
            output_size=512, attention_heads=size["encoder_heads"], linear_units=size["encoder_units"],
            num_blocks=size["encoder_blocks"], dropout_rate=0.1, positional_dropout_rate=0.1, attention_dropout_rate=0.1,
            normalize_before=True, input_layer="linear", pos_enc_layer_type="rel_pos_espnet",
            selfattention_layer_type="rel_selfattn", input_size=512, use_cnn_module=False, macaron_style=False,
        )  # fmt: skip
        estimator = ConditionalDecoder(
            in_channels=320, out_channels=80, causal=True, channels=[size["channels"]], dropout=0.0,
            attention_head_dim=size["attention_head_dim"], n_blocks=size["n_blocks"], num_mid_blocks=size["num_mid_blocks"],
            num_heads=size["heads"], act_fn="gelu", meanflow=meanflow,
        )  # fmt: skip
        decoder = CausalConditionalCFM(spk_emb_dim=80, estimator=estimator)
        self.flow = CausalMaskedDiffWithXvec(encoder=encoder, decoder=decoder, vocab_size=size["vocab_size"])


def main(folder: Path) -> None:
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    torch.manual_seed(asked["seed"] + (asked["do"] == "play"))
    model = S3Gen(meanflow=asked["meanflow"]) if asked["whole"] else Alone(asked["size"], asked["meanflow"])
    with torch.no_grad():
        for parameter in model.flow.parameters():
            scale = 0.1 if parameter.ndim < 2 else 0.1 * float(parameter.std())
            parameter.add_(scale * torch.randn(parameter.shape))
    model.eval()
    if asked["do"] == "teach":
        save_file(
            {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "s3gen.safetensors"
        )
        torch.manual_seed(1)
        heard = {"prompt": torch.randn(2 * len(asked["prompt_tokens"]), 80), "speaker": torch.randn(192)}
    else:
        heard = load_file(folder / "teach.safetensors")
        # As the package loads a published file.
        model.load_state_dict(load_file(asked["export"]), strict=True)
    found = {name: heard[name] for name in ("prompt", "speaker")}
    for steps in asked["steps"]:
        mel, noise = sampled(model, asked, heard, steps)
        found |= {str(steps): mel, f"noise {steps}": noise}
    save_file({name: value.contiguous() for name, value in found.items()}, folder / f"{asked['do']}.safetensors")


def sampled(model, asked, heard, steps):
    """The target's mel, and the noise of prompt and target that the sampler began with."""
    decoder, kept = model.flow.decoder, []
    solver = "basic_euler" if asked["meanflow"] else "solve_euler"
    solve = getattr(decoder, solver)

    def watched(x, **given):
        kept.append(x.clone())
        return solve(x, **given)

    setattr(decoder, solver, watched)
    prompt, target = (torch.tensor([asked[name]]) for name in ("prompt_tokens", "tokens"))
    voice = {
        "prompt_token": prompt, "prompt_token_len": torch.tensor([prompt.shape[1]]), "prompt_feat": heard["prompt"][None],
        "prompt_feat_len": None, "embedding": heard["speaker"][None],
    }  # fmt: skip
    torch.manual_seed(6)
    try:
        if asked["whole"]:
            mel = model.flow_inference(target, ref_dict=voice, n_cfm_timesteps=steps, finalize=True)
        else:
            mel, _ = model.flow.inference(
                token=target, token_len=torch.tensor([target.shape[1]]), finalize=True, n_timesteps=steps,
                meanflow=asked["meanflow"], **{**voice, "prompt_feat_len": torch.tensor([len(heard["prompt"])])},
            )  # fmt: skip
    finally:
        setattr(decoder, solver, solve)
    return mel[0].T.clone(), kept[0][0].T.clone()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
