import pytest
import torch

from lightssl.errors import DataError
from lightssl.evaluation.held_out import accuracy, held_out_mask


@pytest.mark.parametrize("seed", range(3))
def test_a_fifth_of_every_class_is_held_out_whatever_its_size(seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([2, 10, 50, 101]))
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    mask = held_out_mask(shuffled, seed=seed)
    assert shuffled[mask].bincount().tolist() == [1, 2, 10, 20]
    assert torch.equal(mask, held_out_mask(shuffled, seed=seed))
    assert not torch.equal(mask, held_out_mask(shuffled, seed=seed + 1))


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 0, 0, 0], "All training images are of one class"), ([0, 0, 1, 2], "A class has a single training image")],
)
def test_too_few_images_of_a_class_are_an_error(labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        held_out_mask(torch.tensor(labels), seed=0)


def test_accuracy_is_in_percent() -> None:
    assert accuracy(torch.tensor([1, 2, 0, 1]), torch.tensor([1, 2, 1, 0])) == 50
