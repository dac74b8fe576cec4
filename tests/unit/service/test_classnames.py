"""Names of classes in prompts."""

import pytest

from service.classnames import find_class

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Dress", "Dress"),
        ("dresses", "Dress"),
        ("a DRESS", "Dress"),
        ("the trousers", "Trouser"),
        ("An ankle boot.", "Ankle boot"),
        ("ankle boots", "Ankle boot"),
        ("ankle-boot", "Ankle boot"),
        ("a t-shirt", "T-shirt/top"),
        ("tops", "T-shirt/top"),
        ("t-shirt/top", "T-shirt/top"),
        ("shirts", "Shirt"),
        ("a photo of a bag", "Bag"),
        ("Pictures of sneakers", "Sneaker"),
    ],
)
def test_a_name_is_found(prompt, name):
    assert FASHION[find_class(prompt, FASHION)] == name


@pytest.mark.parametrize("prompt", ["", " ", "a", "a red dress", "boot", "dress and coat", "dragon", "\0", "d" * 4000])
def test_what_the_model_cannot_draw_is_no_class(prompt):
    assert find_class(prompt, FASHION) is None


def test_the_exact_name_wins_over_a_plural():
    assert find_class("glass", ["glas", "glass"]) == 1
    assert find_class("berries", ["berry"]) == 0


def test_without_classes_nothing_is_found():
    assert find_class("dress", []) is None
