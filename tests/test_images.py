import torch

from lightssl.images import normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_normalise_equals_the_formula_in_float64():
    images = torch.randint(0, 256, (2, 3, 5, 4, 3), dtype=torch.uint8)
    reference = (images.double() / 255 - torch.tensor(MEAN).double()) / torch.tensor(STD).double()
    normalised = normalise(images, MEAN, STD)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised.double(), reference.permute(0, 1, 4, 2, 3), atol=1e-6, rtol=1e-5)


def test_normalise_gives_channels_last_without_a_copy():
    normalised = normalise(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), MEAN, STD)
    assert normalised.shape == (2, 3, 8, 8)
    assert normalised.is_contiguous(memory_format=torch.channels_last)


def test_normalise_leaves_its_input_alone():
    images = torch.full((1, 2, 2, 3), 7, dtype=torch.uint8)
    normalise(images, MEAN, STD)
    assert (images == 7).all()
