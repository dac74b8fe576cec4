"""What ``Method.predict`` takes and gives, by capability. NumPy only; these objects cross process borders.

=============  ==========================  =================================================
capability     input item                  output item
=============  ==========================  =================================================
``embed``      picture, vector or text     float32 ``(D,)`` (a row of one ``(N, D)`` array)
``classify``   picture, vector or text     float32 ``(C,)`` probabilities, in ``class_names`` order
``distance``   :class:`Sides`              :class:`Distance`
``generate``   :class:`Draw`               :class:`Generated`
``summarise``  text                        :class:`Summary`
=============  ==========================  =================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a distance.

    Attributes:
        points: float64 ``(n, d)``.
        weights: float64 ``(n,)``, positive, summing to one; None means uniform.
        labels: int64 ``(n,)`` in ``0..C-1``, or None.
        class_names: names of the labels.
    """

    points: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64] | None = None
    labels: npt.NDArray[np.int64] | None = None
    class_names: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Sides:
    """The two sides of one distance; ``cost`` overrides the metric when given, float64 ``(n, m)``."""

    a: Side
    b: Side
    return_coupling: bool = False
    cost: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Distance:
    """A computed distance.

    Attributes:
        distance: the value, in units of the ground metric.
        details: JSON-serialisable facts: bounds, convergence, label distances, outlier weights, ...
        coupling: ``(rows int64, columns int64, mass float64)`` of the non-zero entries, or None.
    """

    distance: float
    details: dict[str, Any]
    coupling: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]] | None = None


@dataclass(frozen=True, eq=False)
class Draw:
    """One picture to generate.

    Attributes:
        class_index: position in the checkpoint's ``class_names``; None asks for no class in particular.
        seed: in ``[0, 2**63)``; with the parameters it determines the picture, whatever batch it is drawn in.
    """

    class_index: int | None
    seed: int


@dataclass(frozen=True, eq=False)
class Generated:
    """A generated picture.

    Attributes:
        image: uint8 ``(H, W, C)``.
        seed: gives the same picture again.
        class_index: position in the checkpoint's ``class_names``, or None.
        details: JSON-serialisable facts: class probability, steps, ...; ``fraction`` in (0, 1) in a preview.
    """

    image: npt.NDArray[np.uint8]
    seed: int
    class_index: int | None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One summary of a text.

    Attributes:
        reward: of the reward model; comparable within one version only.
        logprob: natural logarithm of its probability under the policy that wrote it.
        finish_reason: ``stop`` where the policy ended it, ``length`` where ``max_tokens`` did.
        details: JSON-serialisable facts.
    """

    text: str
    reward: float
    logprob: float
    finish_reason: Literal["stop", "length"]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Summary:
    """Summaries of one text.

    Attributes:
        candidates: the best first.
        prompt_tokens: that were read.
        completion_tokens: that were written, over all candidates that were drawn.
        truncated_input: whether the text was longer than what was read of it.
    """

    candidates: list[Candidate]
    prompt_tokens: int
    completion_tokens: int
    truncated_input: bool
