"""The probabilities of choices follow the loss and the cost; the weights follow the probabilities."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count, product
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Adam

from lightssl.deploy.profile import load_profile
from lightssl.search.budget import budget_shares, sample_within
from lightssl.search.cost import CostTable
from lightssl.search.differentiable import (
    choose,
    expected_costs,
    figures,
    most_probable_within,
    one_candidate,
    penalised,
)
from lightssl.search.distribution import Distribution
from lightssl.search.latency import device_of
from lightssl.search.spaces import SPACES, Space, StageChoices
from lightssl.search.supernet import Supernet
from lightssl.train.architecture import ArchitectureSteps
from lightssl.train.loop import Trainer
from lightssl.types import Batch, Clock
from tests.train.conftest import draw_batch, host, make_trainer

__all__ = ["draw_batch", "host", "make_trainer"]

CPU = torch.device("cpu")


def random_logits(space: Space, seed: int = 0) -> Distribution:
    distribution = Distribution(space, CPU)
    generator = torch.Generator().manual_seed(seed)
    for logits in distribution.logits:
        logits.data = torch.randn(len(logits), generator=generator)
    return distribution


# ---------------------------------------------------------------------------------------------------- the distribution


def test_candidates_are_drawn_as_often_as_they_are_probable(small: tuple[Space, dict[str, Any]]) -> None:
    space, _ = small
    distribution = random_logits(space)
    drawn = distribution.draw(np.random.default_rng(0), 5000)
    for gene, probabilities in enumerate(distribution.probabilities()):
        shares = np.bincount(drawn[:, gene], minlength=len(probabilities)) / len(drawn)
        np.testing.assert_allclose(shares, probabilities.detach().numpy(), atol=0.05)
    best = distribution.most_probable()
    assert best.tolist() == [int(logits.argmax()) for logits in distribution.logits]


def test_gates_choose_exactly_and_pass_gradients_on_to_the_probabilities() -> None:
    space = SPACES["mobilenetv2"]
    distribution = random_logits(space)
    (genes,) = distribution.draw(np.random.default_rng(0), 1)
    gates = distribution.gates(genes)
    for gate, gene in zip(gates, genes, strict=True):
        assert gate.tolist() == [float(choice == gene) for choice in range(len(gate))]
    slopes = [torch.arange(len(gate)).float() for gate in gates]
    sum((gate * slope).sum() for gate, slope in zip(gates, slopes, strict=True)).backward()  # type: ignore[union-attr]
    for logits, slope in zip(distribution.logits, slopes, strict=True):
        p = logits.detach().softmax(0)
        torch.testing.assert_close(logits.grad, p * (slope - (p * slope).sum()), rtol=1e-5, atol=1e-6)


def test_the_probability_of_a_candidate_is_the_geometric_mean_over_its_choices() -> None:
    space = replace(SPACES["mobilenetv2"], image_sizes=(224,))
    distribution = random_logits(space)
    p = [probabilities.tolist() for probabilities in distribution.probabilities()]
    genes = space.encode(space.smallest)  # one block a stage
    expected = []
    for stage, at in zip(space.stages, space.columns, strict=True):
        expected += [p[at.width][0], p[at.blocks.start][0]]
        expected += [p[at.depth][0]] if len(stage.depths) > 1 else []
    likely, of_genes = distribution.probability(np.stack([distribution.most_probable(), genes]))
    assert of_genes == pytest.approx(float(np.exp(np.mean(np.log(expected)))))
    assert Distribution(space, CPU).probability(genes[None])[0] < 0.3
    assert likely > of_genes


def test_the_candidate_that_is_chosen_is_the_most_probable_within_the_budget() -> None:
    space = replace(SPACES["mobilenetv2"], image_sizes=(224,))
    table, limits, distribution = CostTable(space), {"flops": 300e6}, random_logits(space)
    generator = np.random.default_rng(0)
    chosen = most_probable_within(distribution, table, limits, generator)
    assert 0.95 <= budget_shares(table, limits, chosen)[0] <= 1.0
    others = sample_within(table, limits, generator, 2000)
    assert distribution.probability(chosen)[0] > distribution.probability(others).max()


# ------------------------------------------------------------------------------------------------------------ the cost


@pytest.mark.parametrize("name", SPACES)
def test_expected_costs_are_means_over_what_is_drawn(name: str) -> None:
    space = SPACES[name]
    table, distribution = CostTable(space), random_logits(space)
    prices = table.prices(distribution.draw(np.random.default_rng(0), 20_000))
    expected = expected_costs(distribution, table, {"flops": 1.0, "parameters": 1.0})
    error = prices.std(axis=0) / np.sqrt(len(prices))
    for column, cost in enumerate(table.names):
        assert abs(expected[cost].item() - prices[:, column].mean()) < 4 * error[column]


def test_expected_costs_are_exact() -> None:
    """Over every candidate of a space that is small enough."""
    stages = (
        StageChoices((8, 16), (1,), ((3, 1),)),
        StageChoices((8, 16), (1, 2), ((3, 3), (5, 6))),
        *(StageChoices((8,), (1,), ((3, 6),)) for _ in range(5)),
    )
    space = replace(SPACES["mobilenetv2"], stages=stages, image_sizes=(32, 64))
    table, distribution = CostTable(space), random_logits(space)
    p = [probabilities.double().detach().numpy() for probabilities in distribution.probabilities()]
    every = np.array(list(product(*map(range, space.gene_sizes))))
    weights = np.prod([p[gene][every[:, gene]] for gene in range(len(p))], axis=0)
    expected = table.expected(distribution.probabilities())
    np.testing.assert_allclose(expected.detach().numpy(), weights @ table.prices(every), rtol=1e-6)


def test_the_penalty_is_that_of_the_formula() -> None:
    space = SPACES["mobilenetv2"]
    table, distribution = CostTable(space), random_logits(space)
    flops, parameters = (cost.item() for cost in table.expected(distribution.probabilities()))

    def value(loss: float, **limits: float) -> float:
        return penalised(torch.tensor(loss), distribution, table, limits, weight=0.2, power=0.3).item()

    of_flops = 0.2 * (log(flops) / log(300e6)) ** 0.3
    of_parameters = 0.2 * (log(parameters) / log(2e6)) ** 0.3
    assert value(5.0, flops=300e6) == pytest.approx(5.0 * (1 + of_flops))
    assert value(5.0, flops=300e6, parameters=2e6) == pytest.approx(5.0 * (1 + of_flops + of_parameters))
    assert value(-0.5, flops=300e6) == pytest.approx(-0.5 + 0.5 * of_flops)  # SimSiam's: a cost is still one


def test_a_latency_of_less_than_a_millisecond_has_a_penalty_with_gradients() -> None:
    space = replace(SPACES["mobilenetv2"], image_sizes=(224,))
    profile = load_profile("predict:snapdragon-8-gen-2")
    table, distribution = CostTable(space, fit=device_of(profile, None).fit), random_logits(space)
    loss = penalised(torch.tensor(2.0), distribution, table, {"latency_ms": 0.5}, weight=0.2, power=0.3)
    loss.backward()
    assert 2.0 < float(loss.detach()) < 3.0
    gradients = [logits.grad for logits in distribution.logits if len(logits) > 1]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("loss", [5.0, -0.5])
def test_the_penalty_makes_cheap_candidates_probable(loss: float) -> None:
    space = replace(SPACES["mobilenetv2"], image_sizes=(224,))
    table, distribution = CostTable(space), Distribution(space, CPU)
    optimizer = Adam(distribution.logits, lr=0.1, betas=(0.0, 0.999))
    for _ in range(50):
        optimizer.zero_grad()
        penalised(torch.tensor(loss), distribution, table, {"flops": 300e6}, weight=0.2, power=0.3).backward()
        optimizer.step()
    assert space.decode(distribution.most_probable()) == space.smallest
    row = figures(distribution, table, {"flops": 300e6})
    assert row["expected_flops"] < 1.1 * table.cost(space.smallest).flops
    assert 0 < row["entropy"] < 0.5  # settings of blocks that are not there stay open


def test_what_is_logged_tells_open_choices_from_decided_ones() -> None:
    space = replace(SPACES["resnet_basic"], image_sizes=(224,))
    table, distribution = CostTable(space), Distribution(space, CPU)
    distribution.logits[space.columns[1].width].data[2] = 100.0
    row = figures(distribution, table, {"flops": 1e9})
    assert row["entropy_stage1"] == pytest.approx(1.0)
    assert row["entropy_stage2"] == pytest.approx(0.5)
    assert row["entropy"] == pytest.approx(7 / 8)
    assert row["expected_flops"] == pytest.approx(table.expected(distribution.probabilities())[0].item())


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture
def make(
    make_trainer: Callable[..., Trainer], host: Fabric, draw_batch: Callable[[int], Batch]
) -> Callable[..., tuple[Trainer, Distribution]]:
    """Build a trainer of a method around a supernet, and of its probabilities."""

    def build(name: str, space: Space, options: dict[str, Any], **changes: Any) -> tuple[Trainer, Distribution]:
        torch.manual_seed(0)
        distribution = Distribution(space, CPU)

        def batches(done: int) -> Iterator[Batch]:
            return (draw_batch(100 + number) for number in count(done))

        steps = ArchitectureSteps(
            distribution.logits,
            Adam(distribution.logits, lr=0.1, betas=(0.0, 0.999)),
            batches,
            **{"prepare": partial(choose, distribution, 0), **changes},
        )
        passes = one_candidate(distribution, 0)
        backbone = Supernet(space, **options)
        return make_trainer(name, host, backbone=backbone, architecture=steps, passes=passes), distribution

    return build


@pytest.mark.parametrize("name", ["dino", "swav", "mocov2", "simsiam", "simclr"])
def test_steps_of_the_architecture_see_the_loss_of_the_candidate(
    name: str,
    make: Callable[..., tuple[Trainer, Distribution]],
    small: tuple[Space, dict[str, Any]],
    draw_batch: Callable[[int], Batch],
) -> None:
    """Beside a step of the weights on the same candidate and images; nothing but the logits changes."""
    space, options = small
    trainer, distribution = make(name, space, options)
    clock = trainer.plan.clock(0)
    trainer.method.train()
    trainer.schedule.apply(trainer.optimizer, clock)
    before = {key: value.clone() for key, value in trainer.method.named_parameters()}
    (genes,) = distribution.draw(np.random.default_rng((0, 0, 1)), 1)
    found = trainer.architecture_step(draw_batch(0), clock).loss.item()
    changed = {key for key, value in trainer.method.named_parameters() if not torch.equal(value, before[key])}
    assert changed <= {"prototypes.weight"}  # SwAV normalises them before every forward
    moved = [bool(logits.any()) for logits in distribution.logits]
    assert all(moved[at.width] for at in space.columns)

    trainer.passes = lambda method, clock: [partial(activate_genes, method, space, genes)]
    expected = trainer.train_step(draw_batch(0), clock).loss.item()
    assert found == pytest.approx(expected, rel=1e-4)


def activate_genes(method: Any, space: Space, genes: np.ndarray) -> None:
    for module in method.modules():
        if isinstance(module, Supernet):
            module.activate(space.decode(genes))


def test_a_choice_that_is_rewarded_becomes_the_most_probable(
    make: Callable[..., tuple[Trainer, Distribution]],
    small_spaces: dict[str, tuple[Space, dict[str, Any]]],
    draw_batch: Callable[[int], Batch],
) -> None:
    """The second of three widths, while weights and probabilities are trained in turns."""
    space, options = small_spaces["resnet_basic"]
    last = space.columns[-1]
    seen: list[Tensor] = []
    trainer, distribution = make("simclr", space, options, objective=lambda loss: 0.0 * loss + reward(seen))

    def reward(seen: list[Tensor]) -> Tensor:
        """Lowest with 16 channels: features 8 to 15 are asked for, those above count twice against it."""
        features = torch.cat(seen)
        return 2.0 * features[:, 16:].abs().mean() - features[:, 8:16].abs().mean()

    trainer.method.encoder.register_forward_hook(lambda _, __, features: seen.append(features))
    trainer.method.train()
    for step in range(10):
        seen.clear()
        clock = trainer.plan.clock(step)
        trainer.architecture_step(draw_batch(step), clock)
        trainer.schedule.apply(trainer.optimizer, clock)
        trainer.train_step(draw_batch(50 + step), clock)
    probabilities = distribution.probabilities()[last.width].tolist()
    assert max(probabilities) == probabilities[1] > 0.5


def test_until_the_warm_up_ends_nothing_is_more_probable(
    make: Callable[..., tuple[Trainer, Distribution]],
    small_spaces: dict[str, tuple[Space, dict[str, Any]]],
    draw_batch: Callable[[int], Batch],
    tmp_path: Path,
) -> None:
    from lightssl.runs import Run

    space, options = small_spaces["resnet_basic"]
    trainer, distribution = make("simclr", space, options, start=6, every=2)
    trainer.run = Run(tmp_path)
    trainer.labels = None
    changed = []

    def watch(clock: Clock, row: Any) -> None:
        changed.append(any(bool(logits.any()) for logits in distribution.logits))

    assert trainer.fit((draw_batch(step) for step in range(10)), watch)
    assert changed == [step >= 6 for step in range(10)]


def test_candidates_of_the_weights_are_drawn_anew_at_every_step(
    small_spaces: dict[str, tuple[Space, dict[str, Any]]],
) -> None:
    space, options = small_spaces["resnet_basic"]
    method = torch.nn.Sequential(Supernet(space, **options))
    passes = one_candidate(Distribution(space, CPU), 3)

    def turns(step: int) -> list[str]:
        seen = []
        for prepare in passes(method, Clock(step, 10, 2, 4)):  # type: ignore[arg-type]
            prepare()
            seen.append(str(method[0].active))
        return seen

    assert len(turns(0)) == 1
    assert turns(0) == turns(0) != turns(1)
