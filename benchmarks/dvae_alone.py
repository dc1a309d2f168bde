"""The dVAE by itself on photographs: how well it reconstructs held-out ones, against the tokens it uses.

    python benchmarks/dvae_alone.py PACKED [--vocabularies 16 64 256] [--steps 4000] [--picture FILE.png]

Trains one dVAE for each vocabulary on the split `train` of a packed folder, scores it on `val` and `test` together, and
prints the squared error (mean over pixels and channels, images in [0, 1]) of the soft sample and of hard tokens, the
number of different tokens and the perplexity of their use. Two references stand in the same table: each image painted
in its mean colour, and each 4x4 patch in its mean colour (an unlimited vocabulary of flat tokens would reach that).
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from boqsa.data import PackedDataset
from boqsa.metrics import mse
from boqsa.models.dvae import DVAE, PATCH, hard_sample, soft_sample
from boqsa.reports import save_png
from boqsa.training.draws import batch_indices, draw_gumbel
from boqsa.training.machine import keep_freed_memory
from boqsa.training.schedules import gumbel_tau, learning_rate_factor

TAU = {"tau_start": 1.0, "tau_end": 0.5}


def train(images: Tensor, arguments: argparse.Namespace, vocabulary: int) -> DVAE:
    """A dVAE after some steps on uint8 images (N, 3, H, W)."""
    torch.manual_seed(arguments.seed)
    dvae = DVAE(vocabulary, channels=arguments.channels).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(dvae.parameters(), fused=True)
    size = images.shape[-1] // PATCH
    for step in range(arguments.steps):
        indices = batch_indices(arguments.seed, step, arguments.batch_size, len(images))
        image = images[torch.from_numpy(indices)].float().div(255).contiguous(memory_format=torch.channels_last)
        gumbel, _ = draw_gumbel(
            (vocabulary, size, size), seed=arguments.seed, step=step, positions=range(arguments.batch_size)
        )
        tau = gumbel_tau(step, tau_steps=arguments.steps // 2, **TAU)
        loss = (dvae.decode(soft_sample(dvae(image), tau, gumbel)) - image).square().sum() / len(image)
        optimizer.zero_grad()
        loss.backward()
        factor = learning_rate_factor(step, warmup_steps=0, half_life_steps=max(arguments.steps // 2, 1))
        optimizer.param_groups[0]["lr"] = arguments.learning_rate * factor
        optimizer.step()
    return dvae.eval()


def main() -> None:
    """Train, score, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packed", type=Path)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()

    def split(name: str) -> Tensor:
        data = PackedDataset(arguments.packed, name)
        return data.batch(range(len(data)))["image"]

    images, held_out = split("train"), torch.cat([split("val"), split("test")])
    image = held_out.float() / 255
    patches = interpolate(avg_pool2d(image, PATCH), scale_factor=PATCH)
    print(
        f"{len(images)} training images, {len(held_out)} held out, {tuple(image.shape[-2:])}, {arguments.steps} steps"
    )
    flat = image.mean((2, 3), keepdim=True).expand_as(image)
    print(f"mean colour of the image   mse {float(mse(flat, image).mean()):.4f}")
    print(f"mean colour of each patch  mse {float(mse(patches, image).mean()):.4f}")
    rows = [image, patches]
    for vocabulary in arguments.vocabularies:
        dvae = train(images, arguments, vocabulary)
        with torch.inference_mode():
            log_probs = dvae(image)
            tokens = hard_sample(log_probs, None)
            soft, hard = dvae.decode(soft_sample(log_probs, TAU["tau_end"], None)), dvae.decode_tokens(tokens)
        use = tokens.flatten().bincount(minlength=vocabulary).double() / tokens.numel()
        print(
            f"vocabulary {vocabulary:5d}  mse soft {float(mse(soft, image).mean()):.4f}  "
            f"hard {float(mse(hard, image).mean()):.4f}  tokens used {int((use > 0).sum())}  "
            f"perplexity {float(torch.special.entr(use).sum().exp()):.1f}",
            flush=True,
        )
        rows.append(hard)
    if arguments.picture:
        sheet = torch.stack([row[:12].clamp(0, 1) for row in rows])  # (R, 12, 3, H, W)
        sheet = sheet.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)  # (R H, 12 W, 3)
        save_png(arguments.picture, (sheet * 255).round().byte().numpy())


if __name__ == "__main__":
    main()
