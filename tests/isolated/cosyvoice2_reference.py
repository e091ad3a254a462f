"""What CosyVoice 2's own flow writes and samples. Runs where ours is not installed: ``python cosyvoice2_reference.py FOLDER``.

``FOLDER/asked.json`` says what to do: ``teach`` writes a ``flow.pt`` and the mels that the package makes of it; ``play`` loads an
export into the package and samples that.
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from cosyvoice.cli.model import CosyVoice2Model  # first: modules of the package import each other in a circle
from cosyvoice.flow.decoder import CausalConditionalDecoder
from cosyvoice.flow.flow import CausalMaskedDiffWithXvec
from cosyvoice.flow.flow_matching import CausalConditionalCFM
from cosyvoice.transformer.upsample_encoder import UpsampleConformerEncoder
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file

TRUE = {
    "vocab_size": 6561, "encoder_heads": 8, "encoder_units": 2048, "encoder_blocks": 6, "channels": 256,
    "attention_head_dim": 64, "heads": 8, "n_blocks": 4, "num_mid_blocks": 12, "chunk": 25,
}  # fmt: skip
"""``cosyvoice2.yaml`` of CosyVoice2-0.5B."""
CFM = {
    "sigma_min": 1e-06, "solver": "euler", "t_scheduler": "cosine", "training_cfg_rate": 0.2, "inference_cfg_rate": 0.7,
    "reg_loss_type": "l1",
}  # fmt: skip


def main(folder: Path) -> None:
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    flow = built(asked["seed"] + (asked["do"] == "play"), {**TRUE, **asked["size"]})
    found = (teach if asked["do"] == "teach" else play)(folder, flow, asked)
    save_file({name: value.contiguous() for name, value in found.items()}, folder / f"{asked['do']}.safetensors")


def built(seed, size):
    torch.manual_seed(seed)
    encoder = UpsampleConformerEncoder(
        input_size=512, output_size=512, attention_heads=size["encoder_heads"], linear_units=size["encoder_units"],
        num_blocks=size["encoder_blocks"], dropout_rate=0.1, positional_dropout_rate=0.1, attention_dropout_rate=0.1,
        normalize_before=True, input_layer="linear", pos_enc_layer_type="rel_pos_espnet",
        selfattention_layer_type="rel_selfattn", use_cnn_module=False, macaron_style=False, static_chunk_size=size["chunk"],
    )  # fmt: skip
    estimator = CausalConditionalDecoder(
        in_channels=320, out_channels=80, channels=[size["channels"]], dropout=0.0, n_blocks=size["n_blocks"],
        attention_head_dim=size["attention_head_dim"], num_mid_blocks=size["num_mid_blocks"], num_heads=size["heads"],
        act_fn="gelu", static_chunk_size=2 * size["chunk"], num_decoding_left_chunks=-1,
    )  # fmt: skip
    decoder = CausalConditionalCFM(
        in_channels=240, n_spks=1, spk_emb_dim=80, cfm_params=DictConfig(content=CFM), estimator=estimator
    )
    flow = CausalMaskedDiffWithXvec(
        input_size=512, output_size=80, spk_embed_dim=192, output_type="mel", vocab_size=size["vocab_size"],
        input_frame_rate=25, only_mask_loss=True, token_mel_ratio=2, pre_lookahead_len=3, encoder=encoder, decoder=decoder,
    )  # fmt: skip
    torch.manual_seed(seed)  # the sampler's constructor has seeded all randomness with 0
    with torch.no_grad():
        for parameter in flow.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn(parameter.shape))
            else:
                parameter.add_(0.1 * parameter.std() * torch.randn(parameter.shape))
    return flow.eval()


def teach(folder, flow, asked):
    torch.save(flow.state_dict(), folder / "flow.pt")
    torch.manual_seed(1)
    heard = {"prompt": torch.randn(2 * len(asked["prompt_tokens"]), 80), "speaker": torch.randn(192)}
    found = {**heard, "noise": flow.decoder.rand_noise[0, :, :400].T}
    for streaming in (False, True):
        found[f"inference {streaming}"] = inference(flow, asked, heard, streaming)
        for steps in asked["steps"]:
            found[f"{steps} {streaming}"] = whole(flow, asked, heard, streaming, steps)
    return found


def play(folder, flow, asked):
    """The export's file in a flow of other weights: what is heard is the file's."""
    heard, export, found = load_file(folder / "teach.safetensors"), Path(asked["export"]), {}
    if asked["patch"] is None:
        flow.load_state_dict(torch.load(export / "flow.pt", weights_only=True), strict=True)
        return {"inference": inference(flow, asked, heard, asked["streaming"])}
    spec = importlib.util.spec_from_file_location("patch", export / asked["patch"])
    patch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(patch)
    for grid in asked["grids"]:
        patch.few_step(flow, str(export / "flow.pt"), grid)
        found[str(len(grid) - 1)] = inference(flow, asked, heard, asked["streaming"])
    return found


def whole(flow, asked, heard, streaming, steps):
    """The sampler's own mel, prompt included, where ``inference`` has 10 written into its code."""
    sampler, kept = flow.decoder.forward, []

    def asked_for_steps(**given):
        kept.append(sampler(**{**given, "n_timesteps": steps}))
        return kept[-1]

    flow.decoder.forward = asked_for_steps
    try:
        inference(flow, asked, heard, streaming)
    finally:
        flow.decoder.forward = sampler
    return kept[0][0][0].T.clone()


def inference(flow, asked, heard, streaming):
    prompt, target = (torch.tensor([asked[name]]) for name in ("prompt_tokens", "tokens"))
    found, _ = flow.inference(
        token=target, token_len=torch.tensor([target.shape[1]]), prompt_token=prompt,
        prompt_token_len=torch.tensor([prompt.shape[1]]), prompt_feat=heard["prompt"][None],
        prompt_feat_len=torch.tensor([len(heard["prompt"])]), embedding=heard["speaker"][None], streaming=streaming,
        finalize=True,
    )  # fmt: skip
    return found[0].T.clone()


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert CosyVoice2Model.__module__ == "cosyvoice.cli.model"
    main(Path(sys.argv[1]))
