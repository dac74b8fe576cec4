"""What reading a long text in more windows gains."""

from __future__ import annotations

from collections.abc import Sequence

from models.core.inputs import Float64
from models.summarize_feedback.bundle import Bundle
from models.summarize_feedback.candidates import summarise
from models.summarize_feedback.examples import encode_texts
from models.summarize_feedback.measure import interval, quality, rouges
from models.summarize_feedback.schema import Params

WINDOWS = (1, 2, 4, 8)
Row = dict[str, float | int | str | None]


def long_text_rows(bundle: Bundle, pairs: Sequence[tuple[str, str]], seed: int) -> list[Row]:
    """The best of 16 draws in all, shared out among 1, 2, 4 and 8 windows, on the texts beyond the context."""
    texts = [text for text, _ in pairs]
    counts = map(len, encode_texts(bundle.tokenizer, texts))
    long = [pair for pair, count in zip(pairs, counts, strict=True) if count > bundle.shape.source_tokens]
    if len(long) < 2:
        return []
    rows: list[Row] = []
    values: list[Float64] = []
    for windows in WINDOWS:
        found = summarise(bundle, [text for text, _ in long], Params(windows=windows, seed=seed))
        summaries = [each.candidates[0].text for each in found]
        value = quality(long, summaries)
        values.append(value)
        gain = value - values[0]
        rows.append(
            {
                "windows": windows,
                "texts": len(long),
                "read whole": sum(not each.truncated_input for each in found) / len(long),
                **rouges(summaries, [reference for _, reference in long]),
                "quality G": float(value.mean()),
                "±": interval(value),
                "gain over one window": float(gain.mean()),
                "gain ±": interval(gain),
            }
        )
    return rows
