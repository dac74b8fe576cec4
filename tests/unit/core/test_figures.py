import pytest

from models.core.figures import Figure


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [
        (0.94680, None, "0.9468"),
        (0.94680, 0.018847, "0.947 ± 0.019"),
        (0.0065843, 0.0012508, "0.0066 ± 0.0013"),
        (1234.5, 56.7, "1234 ± 57"),
        (0.8000000000000002, 1.36e-16, "0.8"),
        (1.0, 0.0, "1"),
    ],
)
def test_a_figure_is_as_exact_as_its_spread(value, spread, text):
    assert Figure(name="x", value=value, spread=spread).text == text


def test_mean_and_sample_deviation_over_seeds():
    figure = Figure.over_seeds("x", [1.0, 2.0, 3.0])
    assert (figure.value, figure.spread, figure.seeds) == (2.0, 1.0, 3)
    assert Figure.over_seeds("x", [1.0]).spread is None
