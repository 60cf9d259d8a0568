"""Parameter groups and schedules, by values worked out by hand."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from tasks.optim import Cosine, Exponential, Poly, Schedule, fused, parameter_groups

PEAK = 0.5


def rates(schedule: Schedule, total: int) -> list[float]:
    """The learning rate that each of `total` optimizer steps uses."""
    weight = nn.Parameter(torch.ones(1))
    optimizer = SGD([weight], lr=PEAK)
    scheduler = schedule.build(optimizer, total)
    used = []
    for _ in range(total):
        used.append(optimizer.param_groups[0]["lr"])
        weight.sum().backward()
        optimizer.step()
        scheduler.step()
    return used


def test_only_convolution_and_linear_weights_decay() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2), nn.PReLU())
    decayed, others = parameter_groups(module)
    assert [id(p) for p in decayed["params"]] == [id(module[0].weight), id(module[2].weight)]
    assert others["weight_decay"] == 0.0
    assert "weight_decay" not in decayed
    optimizer = SGD(parameter_groups(module), lr=0.1, weight_decay=0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


def test_every_trainable_parameter_is_in_one_group_and_no_frozen_one() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    module[0].requires_grad_(False)
    grouped = [id(p) for group in parameter_groups(module) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in module.parameters() if p.requires_grad)


def test_decay_only_moves_decayed_weights() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = SGD(parameter_groups(module), lr=0.1, weight_decay=0.5)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(module[0].weight, before["0.weight"] * 0.95)
    assert torch.equal(module[0].bias, before["0.bias"])
    assert torch.equal(module[1].weight, before["1.weight"])


def stepped(make: Callable[[Any], Optimizer], adapt: Callable[[Optimizer], Optimizer]) -> list[torch.Tensor]:
    """Weights after three steps."""
    torch.manual_seed(0)
    module = nn.Conv2d(3, 4, 3)
    optimizer = adapt(make(parameter_groups(module)))
    for _ in range(3):
        optimizer.zero_grad()
        module(torch.rand(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    return list(module.parameters())


@pytest.mark.parametrize(
    "make",
    [
        lambda groups: SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda groups: Adam(groups, lr=0.1, betas=(0.5, 0.9), weight_decay=0.1),
        lambda groups: AdamW(groups, lr=0.1, amsgrad=True, weight_decay=0.1),
    ],
)
def test_fused_optimizers_do_the_same(make: Callable[[Any], Optimizer]) -> None:
    optimizer = make(parameter_groups(nn.Conv2d(3, 4, 3)))
    same = fused(optimizer)
    assert type(same) is type(optimizer)
    assert all(group["fused"] is True for group in same.param_groups)
    assert [group["weight_decay"] for group in same.param_groups] == [0.1, 0.0]
    plain, other = stepped(make, lambda optimizer: optimizer), stepped(make, fused)
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(plain, other, strict=True))


def test_what_was_chosen_and_what_cannot_be_fused_stays() -> None:
    class Own(SGD):
        pass

    weights = [nn.Parameter(torch.zeros(3))]
    chosen = [
        SGD(weights, fused=False),
        AdamW(weights, foreach=True),
        Own(weights),
        RMSprop(weights),
        Adam([torch.zeros(3, device="meta")]),
    ]
    assert all(fused(optimizer) is optimizer for optimizer in chosen)


def test_cosine() -> None:
    used = rates(Cosine(), 8)
    assert used[0] == PEAK
    assert used[2] == pytest.approx(PEAK * (1 + math.sqrt(0.5)) / 2)
    assert used[4] == pytest.approx(PEAK / 2)
    assert used[7] == pytest.approx(PEAK * (1 + math.cos(math.pi * 7 / 8)) / 2)


def test_poly() -> None:
    used = rates(Poly(power=2.0), 10)
    assert used[0] == PEAK
    assert used[5] == pytest.approx(PEAK * 0.25)
    assert used[9] == pytest.approx(PEAK * 0.01)
    assert rates(Poly(), 4)[2] == pytest.approx(PEAK * 0.5**0.9)


def test_exponential_ends_at_its_end() -> None:
    used = rates(Exponential(end=0.01), 10)
    assert used[0] == PEAK
    assert used[5] == pytest.approx(0.1 * PEAK)
    ratios = [later / earlier for earlier, later in pairwise(used)]
    assert ratios == pytest.approx([ratios[0]] * 9)
    assert used[9] * ratios[0] == pytest.approx(0.01 * PEAK)


@pytest.mark.parametrize("kind", [Cosine, Exponential, Poly])
def test_warmup_rises_in_a_line_and_then_decays_from_the_peak(kind: type[Schedule]) -> None:
    used = rates(kind(warmup_steps=4, warmup_start=0.2), 12)
    assert used[:5] == pytest.approx([0.2 * PEAK, 0.4 * PEAK, 0.6 * PEAK, 0.8 * PEAK, PEAK])
    assert used[4:] == pytest.approx(rates(kind(), 8))


@pytest.mark.parametrize("kind", [Cosine, Exponential, Poly])
def test_warmup_longer_than_the_run_is_half_of_it(kind: type[Schedule]) -> None:
    used = rates(kind(warmup_steps=1000), 10)
    assert used[0] == pytest.approx(0.1 * PEAK)
    assert max(used) == pytest.approx(PEAK) == used[5]
    assert used[9] < used[6] < used[5]


@pytest.mark.parametrize("kind", [Cosine, Exponential, Poly])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_shortest_runs(kind: type[Schedule], total: int) -> None:
    used = rates(kind(warmup_steps=500), total)
    assert len(used) == total
    assert all(0 < rate <= PEAK for rate in used)
    assert max(used) == pytest.approx(PEAK)


def test_every_group_follows_from_its_own_peak() -> None:
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = SGD([{"params": [first]}, {"params": [second], "lr": 0.1}], lr=PEAK)
    scheduler = Cosine(warmup_steps=2).build(optimizer, 10)
    for _ in range(6):
        optimizer.step()
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([PEAK / 2, 0.05])


def test_schedule_goes_on_from_its_state() -> None:
    def start() -> tuple[SGD, object]:
        optimizer = SGD([nn.Parameter(torch.ones(1))], lr=PEAK)
        return optimizer, Cosine(warmup_steps=2).build(optimizer, 10)

    optimizer, scheduler = start()
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    resumed, other = start()
    resumed.load_state_dict(optimizer.state_dict())
    other.load_state_dict(scheduler.state_dict())
    for pair in ((optimizer, scheduler), (resumed, other)):
        for part in pair:
            part.step()
    assert resumed.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == pytest.approx(PEAK / 2)


@pytest.mark.parametrize("kind", [Cosine, Exponential, Poly])
def test_longer_continuation_follows_the_longer_schedule(kind: type[Schedule]) -> None:
    optimizer = SGD([nn.Parameter(torch.ones(1))], lr=PEAK)
    scheduler = kind().build(optimizer, 10)
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    resumed = SGD([nn.Parameter(torch.ones(1))], lr=PEAK)
    longer = kind().build(resumed, 20)
    resumed.load_state_dict(optimizer.state_dict())
    longer.load_state_dict(scheduler.state_dict())
    used = []
    for _ in range(10):
        resumed.step()
        longer.step()
        used.append(resumed.param_groups[0]["lr"])
    assert used[:-1] == pytest.approx(rates(kind(), 20)[11:])
