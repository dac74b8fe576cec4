"""Summaries a second against transformers' ``generate`` with an encoder-decoder of the same size."""

import statistics
import time

import torch
from transformers import BartConfig, BartForConditionalGeneration

from models.summarize_feedback.decoding import draw, uniforms
from models.summarize_feedback.network import Encoder, Policy, Shape
from tests.benchmarks.report import Report

TOKENS, SHORTEST, LONGEST = 24, 24, 96
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

    def write(sources, n, temperature):
        with torch.inference_mode():
            uniform = uniforms(0, text[: len(sources)], n)
            drawn = draw(encoder, policy, encoder(sources), uniform, temperature=temperature, max_tokens=TOKENS)
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

    def write(sources, n, temperature):
        how = {"do_sample": True, "top_k": 0, "temperature": temperature} if temperature else {"do_sample": False}
        with torch.inference_mode():
            tokens = model.generate(
                sources, attention_mask=(sources != 0).long(), num_beams=1, num_return_sequences=n,
                max_new_tokens=TOKENS, min_new_tokens=TOKENS, suppress_tokens=FORBIDDEN, **how,
            )  # fmt: skip
        assert tokens.shape == (len(sources) * n, TOKENS + 1)

    return write, sum(p.numel() for p in model.parameters())


def _sources(texts, vocabulary):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, vocabulary, (texts, LONGEST), generator=generator)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (texts, 1), generator=generator)
    lengths[0] = LONGEST
    return tokens.masked_fill(torch.arange(LONGEST) >= lengths, 0)


def _report(quick):
    shape = Shape()
    (ours, own_size), (theirs, their_size) = _ours(shape), _theirs(shape)
    report = Report(
        f"Summaries of texts of {SHORTEST} to {LONGEST} tokens in one batch, {TOKENS} tokens each, one thread "
        "(summaries a second)",
        ["drawn", "texts x candidates", "Deepnight", "transformers generate", "median of paired ratios"],
    )
    cases = [(0.0, 1, 1), (0.0, 8, 1), (0.0, 32, 1), (1.0, 1, 16), (1.0, 8, 16), (1.0, 32, 16)]
    for temperature, texts, n in cases[1:5:3] if quick else cases:
        sources, pairs = _sources(texts, shape.vocabulary), []
        for repeat in range(3 if quick else 12):
            seconds = {}
            for write in (ours, theirs) if repeat % 2 else (theirs, ours):
                begin = time.perf_counter()
                write(sources, n, temperature)
                seconds[write] = time.perf_counter() - begin
            if repeat:  # the first round warms up
                pairs.append((seconds[ours], seconds[theirs]))
        mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        report.add(
            "sampled" if temperature else "greedy", f"{texts} x {n}", f"{texts * n / mine:.0f}",
            f"{texts * n / other:.0f}", f"{ratio:.2f}x",
        )  # fmt: skip
    report.notes.append(
        f"random weights of {own_size / 1e6:.2f} M parameters, with a copy head; BART has {their_size / 1e6:.2f} M "
        "and none; keys and values are kept by both, and both write every summary to its full length"
    )
    return report
