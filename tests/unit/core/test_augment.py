import math

import pytest
import torch

from models.core.augment import ViewPolicy, augment, colour_jitter, random_resized_crop


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 40])
def test_views_have_the_asked_size_and_stay_in_range(channels, size):
    images = torch.randint(0, 256, (9, channels, 24, 31), dtype=torch.uint8, generator=generator())
    views = augment(images, ViewPolicy(size), generator())
    assert views.shape == (9, channels, size, size)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1


def test_a_seed_means_the_same_views():
    images = torch.rand(4, 3, 20, 20, generator=generator())
    first, again = (augment(images, ViewPolicy(20), generator(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(images, ViewPolicy(20), generator(8)))


def test_a_flip_mirrors_the_same_crop():
    images = torch.rand(6, 1, 17, 17, generator=generator())
    plain, mirrored = (random_resized_crop(images, ViewPolicy(17, flip=flip), generator()) for flip in (0.0, 1.0))
    assert torch.allclose(mirrored, plain.flip(3), atol=1e-5)
    assert not torch.allclose(mirrored, plain, atol=1e-2)


def test_crops_of_a_ramp_are_ramps_inside_it():
    ramp = torch.linspace(0, 1, 33).expand(64, 1, 33, 33)
    views = random_resized_crop(ramp, ViewPolicy(33, crop_scale=0.1, flip=0.0), generator())
    slopes = views[:, 0, 16, 20] - views[:, 0, 16, 12]
    assert (slopes > 0).all()
    assert slopes.max() <= 8 / 32 + 1e-5
    assert slopes.min() < 0.5 * 8 / 32
    flipped = random_resized_crop(ramp, ViewPolicy(33, crop_scale=0.1, flip=1.0), generator())
    assert (flipped[:, 0, 16, 20] < flipped[:, 0, 16, 12]).all()


def test_hue_and_saturation_keep_the_luma_of_soft_colours():
    images = 0.4 + 0.1 * torch.rand(50, 3, 4, 4, generator=generator())
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    drawn = ViewPolicy(4, jitter=0.4, jitter_probability=1.0)
    changed = colour_jitter(images, drawn, generator(1))
    grey = colour_jitter((images * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1), drawn, generator(1))
    assert torch.allclose((changed * weights).sum(1), (grey * weights).sum(1), atol=1e-4)
    assert torch.allclose(grey.amax(1), grey.amin(1), atol=1e-4)
    assert (changed.amax(1) - changed.amin(1)).mean() > 0.01


def test_grey_views_have_no_colour():
    images = torch.rand(8, 3, 12, 12, generator=generator())
    views = augment(images, ViewPolicy(12, jitter=0.0, grey=1.0), generator())
    assert torch.allclose(views[:, 0], views[:, 1])
    some = augment(images.repeat(40, 1, 1, 1), ViewPolicy(12, jitter=0.0, grey=0.2), generator())
    share = (some[:, 0] - some[:, 1]).abs().amax(dim=(1, 2)).lt(1e-6).float().mean().item()
    assert share == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 320))
