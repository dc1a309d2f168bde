"""Generating the tokens of an image with the keys and values of earlier positions kept, against each prefix anew.

The decoder has the paper's sizes (V = 1024, width 256, 4 blocks, 3 slots of 256) and an image of 128x128, so 1,024
tokens; its weights are random, which changes no time. First both ways must give the same tokens on a short sequence.
Then the cached way runs whole, before and after the uncached one. That one costs L(L + 1) / 2 positions: it runs whole
where its estimate is below `--whole-below` seconds. Otherwise its time is the estimate: the sum over all prefix
lengths, interpolated between measured ones.
    python benchmarks/generation_cache.py
    python benchmarks/generation_cache.py --tokens 64 --whole-below 0      # a quick look
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch import Tensor

from boqsa.models.token_decoder import TokenDecoder

GOAL = 5.0
"""Promise of the project: cached at least 5x as fast at 1,024 tokens on a CPU."""
SAMPLED_PREFIXES = 17


def build(tokens: int) -> tuple[TokenDecoder, Tensor]:
    """A decoder of the paper's sizes, and the slots of one image."""
    torch.manual_seed(0)
    decoder = TokenDecoder(1024, tokens, 256, width=256, blocks=4, heads=4, dropout=0.1).eval()
    return decoder, torch.randn(1, 3, 256)


def require_same_tokens(length: int) -> int:
    """How many different tokens both ways agree on; float64, so that rounding decides no arg max."""
    decoder, slots = build(length)
    decoder, slots = decoder.double(), slots.double()
    cached, uncached = (decoder.generate(slots, cached=cached) for cached in (True, False))
    if not torch.equal(cached, uncached):
        raise SystemExit(f"{int((cached != uncached).sum())} of {length} tokens differ: the cache is wrong")
    return len(cached.unique())


def seconds_of(decoder: TokenDecoder, slots: Tensor, *, cached: bool) -> float:
    """One whole sequence."""
    began = time.perf_counter()
    decoder.generate(slots, cached=cached)
    return time.perf_counter() - began


@torch.no_grad()
def seconds_by_prefix(decoder: TokenDecoder, slots: Tensor) -> tuple[float, int]:
    """Estimate of an uncached sequence, and how many prefix lengths were measured (three times each, the median)."""
    lengths = np.unique(np.linspace(1, decoder.length, SAMPLED_PREFIXES).round().astype(int))
    measured = []
    for length in lengths:
        rounds = []
        for _ in range(3):
            began = time.perf_counter()
            memory = decoder.project_slots(slots)
            inputs = decoder.dictionary(torch.ones(1, int(length), dtype=torch.long)) + decoder.positions[:, :length]
            decoder.head(decoder.transformer(inputs, memory)[:, -1]).argmax(dim=-1)
            rounds.append(time.perf_counter() - began)
        measured.append(statistics.median(rounds))
    return float(np.interp(np.arange(1, decoder.length + 1), lengths, measured).sum()), len(lengths)


def main() -> None:
    """Check, measure and print."""
    parser = argparse.ArgumentParser(description="Generation with and without a key-value cache.")
    parser.add_argument("--tokens", type=int, default=1024, help="of a sequence")
    parser.add_argument("--checked-tokens", type=int, default=100, help="of the sequence that both ways must agree on")
    parser.add_argument("--whole-below", type=float, default=240.0, help="seconds that the uncached way may take")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 keeps its choice")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    kinds = require_same_tokens(options.checked_tokens)
    print(f"the same {options.checked_tokens} tokens, {kinds} different ones among them (float64)")
    decoder, slots = build(options.tokens)
    seconds_of(build(32)[0], slots, cached=True)  # the first call of each kernel is slow
    cached = [seconds_of(decoder, slots, cached=True)]
    uncached, sampled = seconds_by_prefix(decoder, slots)
    how = f"estimated from {sampled} prefix lengths"
    if uncached < options.whole_below:
        estimate, uncached = uncached, seconds_of(decoder, slots, cached=False)
        how = f"whole; the estimate from {sampled} prefix lengths was {estimate:.1f} s"
    cached.append(seconds_of(decoder, slots, cached=True))
    both = statistics.mean(cached)
    print(f"{options.tokens} tokens, batch 1, fp32, {torch.get_num_threads()} threads")
    print(f"cached    {both:8.2f} s  ({cached[0]:.2f} before, {cached[1]:.2f} after)")
    print(f"uncached  {uncached:8.2f} s  ({how})")
    print(f"ratio     {uncached / both:8.1f}   (goal: at least {GOAL:g} at 1,024 tokens)")


if __name__ == "__main__":
    main()
