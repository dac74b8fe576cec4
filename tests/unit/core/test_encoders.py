import pytest
import torch
from torch import nn

from models.core.encoders import ConvEncoder, encode, fold_batch_norms


def trained(channels=3):
    torch.manual_seed(0)
    encoder = ConvEncoder(channels, width=4)
    for _ in range(5):
        encoder(torch.rand(8, channels, 20, 20) * 3)
    return encoder.eval()


@pytest.mark.parametrize("shape", [(28, 28), (33, 20)])
def test_features_of_any_size(shape):
    encoder = trained(1)
    assert encoder(torch.rand(2, 1, *shape)).shape == (2, encoder.features) == (2, 16)


def test_folding_changes_no_output():
    encoder, images = trained(), torch.rand(4, 3, 20, 20)
    with torch.inference_mode():
        before = encoder(images)
        folded = fold_batch_norms(encoder)
        assert torch.allclose(folded(images), before, atol=1e-5)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]


def test_encode_takes_bytes_in_batches_and_restores_the_mode():
    encoder = trained().train()
    images = torch.randint(0, 256, (10, 3, 20, 20), dtype=torch.uint8)
    outputs = encode(encoder, images, device="cpu", batch_size=4)
    assert encoder.training
    assert torch.allclose(outputs, encode(encoder, images.float() / 255, device="cpu"), atol=1e-5)
