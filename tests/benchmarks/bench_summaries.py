"""Summaries a second against transformers' ``generate`` with an encoder-decoder of the same size."""

import statistics
import time

import torch
from transformers import BartConfig, BartForConditionalGeneration

from models.summarize_feedback.decoding import draw, uniforms
from models.summarize_feedback.network import Encoder, Policy, Shape
from tests.benchmarks.report import Report

TOKENS, SOURCE = 24, 96
FORBIDDEN = [0, 1, 2, 3]  # no end is drawn, so that both write TOKENS tokens each time


def run(*, quick):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_report(quick)]
    finally:
        torch.set_num_threads(threads)


def _ours(shape):
    torch.manual_seed(0)
    encoder, policy = Encoder(shape).eval(), Policy(shape).eval()
    policy.bias.data[2] = -1e9
    text = [str(number) for number in range(1000)]

    def write(sources, n):
        with torch.inference_mode():
            drawn = draw(
                encoder, policy, encoder(sources), uniforms(0, text[: len(sources)], n), temperature=1.0,
                max_tokens=TOKENS,
            )  # fmt: skip
        assert drawn.tokens.shape == (len(sources), n, TOKENS)
        assert (drawn.tokens > 3).all()

    count = sum(p.numel() for module in (encoder, policy) for p in module.parameters())
    return write, count


def _theirs(shape):
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=shape.vocabulary, d_model=shape.width, encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers, encoder_attention_heads=shape.heads, decoder_attention_heads=shape.heads,
        encoder_ffn_dim=4 * shape.width, decoder_ffn_dim=4 * shape.width, max_position_embeddings=128,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    model = BartForConditionalGeneration(config).eval()

    def write(sources, n):
        with torch.inference_mode():
            tokens = model.generate(
                sources, attention_mask=torch.ones_like(sources), do_sample=True, num_beams=1, top_k=0, temperature=1.0,
                num_return_sequences=n, max_new_tokens=TOKENS, min_new_tokens=TOKENS, suppress_tokens=FORBIDDEN,
            )  # fmt: skip
        assert tokens.shape == (len(sources) * n, TOKENS + 1)

    return write, sum(p.numel() for p in model.parameters())


def _report(quick):
    shape = Shape()
    (ours, own_size), (theirs, their_size) = _ours(shape), _theirs(shape)
    report = Report(
        f"Sampling summaries: {SOURCE} tokens in, {TOKENS} out, keys and values kept, one thread (summaries a second)",
        ["texts x candidates", "Deepnight", "transformers generate", "median of paired ratios"],
    )
    for texts, n in [(1, 1), (8, 4)] if quick else [(1, 1), (1, 16), (8, 16), (32, 16)]:
        sources = torch.randint(4, shape.vocabulary, (texts, SOURCE), generator=torch.Generator().manual_seed(1))
        pairs = []
        for repeat in range(3 if quick else 8):
            seconds = []
            for write in (ours, theirs):
                begin = time.perf_counter()
                write(sources, n)
                seconds.append(time.perf_counter() - begin)
            if repeat:  # the first round warms up
                pairs.append(seconds)
        mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        report.add(f"{texts} x {n}", f"{texts * n / mine:.0f}", f"{texts * n / other:.0f}", f"{ratio:.2f}x")
    report.notes.append(
        f"random weights of {own_size / 1e6:.2f} M parameters, with a copy head; BART has {their_size / 1e6:.2f} M "
        "and none; both sample at temperature 1 and write every summary to its full length"
    )
    return report
