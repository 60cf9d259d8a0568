"""What every backbone keeps, as tests that a subclass for each backbone inherits.

A test class of a backbone says how it is built, and where it differs from the usual:

    class TestMobileNetV2(BackboneContract):
        def build(self, **arguments: Any) -> Backbone:
            return MobileNetV2(width_mult=0.35, **arguments)
"""

import copy
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from backbones import Backbone, Tap
from backbones.base import Offer
from backbones.spec import describe, rebuild
from heads import ClassifierHead, DeepLabV3, SSDLite
from heads.base import Targets
from heads.cross_entropy import CrossEntropyLoss

# Too fine for a head, and offered by few.
OPTIONAL_STRIDE = 2


def outputs(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return backbone.eval()(images)


def randomise(module: nn.Module) -> None:
    """Gives batch norms and biases values of their own, so that equal outputs are no accident of the initialisation."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith("running_var"):
            tensor.data.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.data.normal_(0, 0.1)


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name in expected:
        scale = max(1.0, expected[name].abs().max().item())  # untrained networks may give huge values
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4 * scale)


class BackboneContract:
    """The tests; `build` and, where they differ, the attributes are the subclass's.

    Attributes:
        sizes: heights and widths of images that it must take; odd ones are among them.
        output_strides: those below 32 that it can do; others must be refused in one sentence.
        drops_layers: whether `keep` drops the layers behind the last tap.
    """

    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((64, 64), (65, 65), (97, 130), (224, 160))
    output_strides: ClassVar[tuple[int, ...]] = (8, 16)
    drops_layers: ClassVar[bool] = True

    def build(self, **arguments: Any) -> Backbone:
        """Builds a small network with these arguments: `taps`, `output_stride`, `freeze_bn`, or none of them."""
        raise NotImplementedError

    def test_offers_taps_of_all_strides_finest_first(self) -> None:
        backbone = self.build()
        assert isinstance(backbone.taps, Offer)
        strides = [tap.stride for tap in backbone.taps.values()]
        assert strides == sorted(strides)
        assert set(strides) - {OPTIONAL_STRIDE} == {4, 8, 16, 32}
        assert {tap.stride for tap in backbone.taps.values() if tap.block} >= {4, 8, 16, 32}

    def test_returns_what_it_declares(self) -> None:
        backbone = self.build()
        for height, width in self.sizes:
            found = outputs(backbone, torch.randn(1, 3, height, width))
            assert list(found) == list(backbone.taps)
            for name, (channels, stride, _) in backbone.taps.items():
                assert found[name].shape == (1, channels, -(-height // stride), -(-width // stride)), name

    def test_every_parameter_gets_a_gradient_through_the_taps(self) -> None:
        backbone = self.build().train()
        found = backbone(torch.randn(2, 3, 64, 64))
        torch.stack([features.square().mean() for features in found.values()]).sum().backward()
        assert_all_have_gradients(backbone)

    def test_repeats_itself_in_evaluation(self) -> None:
        backbone, images = self.build(), torch.randn(2, 3, 64, 64)
        first, second = outputs(backbone, images), outputs(backbone, images)
        assert all(torch.equal(first[name], second[name]) for name in first)
        alone = outputs(backbone, images[1:])
        assert_equal(alone, {name: features[1:] for name, features in first.items()})

    def test_is_rebuilt_from_its_description(self) -> None:
        for arguments in ({}, {"taps": list(self.build().taps)[-2:]}):
            built = self.build(**arguments)
            randomise(built)
            spec = json.loads(json.dumps(describe(built)))
            twin = rebuild(spec, Backbone)
            assert type(twin) is type(built)
            assert describe(twin) == spec
            assert twin.taps == built.taps
            twin.load_state_dict(built.state_dict())
            images = torch.randn(1, 3, 65, 65)
            found, expected = outputs(twin, images), outputs(built, images)
            assert all(torch.equal(found[name], expected[name]) for name in built.taps)

    def test_copies_are_independent_and_equal(self) -> None:
        built, images = self.build(), torch.randn(1, 3, 64, 64)
        twin = copy.deepcopy(built)
        expected = outputs(built, images)
        assert_equal(outputs(twin, images), expected)
        for parameter in twin.parameters():
            parameter.data.zero_()
        assert_equal(outputs(built, images), expected)

    def test_taps_are_chosen_by_name(self) -> None:
        offered, images = self.build(), torch.randn(1, 3, 64, 64)
        randomise(offered)
        expected = outputs(offered, images)
        for name in one_tap_of_each_stride(offered.taps):
            kept, chosen = copy.deepcopy(offered), self.build(taps=[name])
            kept.keep([name])
            assert chosen.taps == kept.taps == {name: offered.taps[name]}
            assert not isinstance(kept.taps, Offer)
            assert_equal(outputs(kept, images), {name: expected[name]})
            chosen.load_state_dict(kept.state_dict())
            assert_equal(outputs(chosen, images), {name: expected[name]})
            if self.drops_layers:
                kept.train()(torch.randn(2, 3, 64, 64))[name].square().mean().backward()
                assert_all_have_gradients(kept)

    def test_taps_come_in_network_order(self) -> None:
        names = list(self.build().taps)
        assert list(self.build(taps=names[::-1]).taps) == names

    @pytest.mark.parametrize("taps", [["nowhere"], []])
    def test_unknown_taps_are_refused(self, taps: list[str]) -> None:
        with pytest.raises(ValueError, match=r"taps \[.*\] cannot be had; accepted: "):
            self.build(taps=taps)
        with pytest.raises(ValueError, match=r"taps \[.*\] cannot be had; accepted: "):
            self.build().keep(taps)

    def test_one_step_of_detection(self) -> None:
        backbone = self.build().train()
        head = SSDLite(backbone.taps, 3, extra_channels=(32, 32))
        backbone.keep(head.taps)
        predictions = head(backbone(torch.rand(2, 3, 96, 96)), (96, 96))
        boxes = torch.tensor([[[10.0, 10.0, 60.0, 60.0]], [[30.0, 5.0, 90.0, 80.0]]])
        losses = head.loss(predictions, Targets(boxes, torch.tensor([[1], [3]])))
        step(nn.ModuleList([backbone, head]), sum(losses.values(), torch.zeros(())))

    def test_one_step_of_segmentation(self) -> None:
        backbone = self.build().train()
        head = DeepLabV3(backbone.taps, 4, decoder=True, channels=16)
        backbone.keep(head.taps)
        logits = head.upsample(head(backbone(torch.rand(2, 3, 65, 65)), (65, 65)), (65, 65))
        step(nn.ModuleList([backbone, head]), CrossEntropyLoss()(logits, torch.randint(4, (2, 65, 65))))

    def test_one_step_of_classification(self) -> None:
        backbone = self.build().train()
        head = ClassifierHead(backbone.taps, 5)
        backbone.keep(head.taps)
        logits = head(backbone(torch.rand(2, 3, 64, 64)))
        step(nn.ModuleList([backbone, head]), nn.functional.cross_entropy(logits, torch.tensor([0, 4])))

    def test_bfloat16_and_channels_last_stay_near(self) -> None:
        backbone = self.build()
        images = torch.rand(2, 3, 64, 64)
        expected = outputs(backbone, images)
        backbone, images = backbone.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
        assert_equal(outputs(backbone, images), expected)
        with torch.autocast("cpu", torch.bfloat16):
            found = outputs(backbone, images)
        for name, features in expected.items():
            assert (found[name].float() - features).abs().mean() <= 0.1 * features.abs().mean(), name

    def test_is_built_without_memory(self) -> None:
        with torch.device("meta"):
            backbone = self.build()
            features = backbone(torch.empty(1, 3, 97, 130))
        assert all(tensor.is_meta for tensor in backbone.state_dict().values())
        assert backbone.taps == self.build().taps
        assert [f.shape[1] for f in features.values()] == [tap.channels for tap in backbone.taps.values()]

    @pytest.mark.parametrize("output_stride", [8, 16])
    def test_output_stride(self, output_stride: int) -> None:
        if output_stride not in self.output_strides:
            with pytest.raises(ValueError, match=f"output_stride {output_stride} is not possible.*; accepted: "):
                self.build(output_stride=output_stride)
            return
        usual, dense = self.build().taps, self.build(output_stride=output_stride)
        assert max(tap.stride for tap in dense.taps.values()) == output_stride
        shared = [name for name in usual if name in dense.taps]
        assert {min(usual[name].stride, output_stride) for name in shared} == {tap.stride for tap in dense.taps.values()}
        for name in shared:
            assert dense.taps[name] == usual[name]._replace(stride=min(usual[name].stride, output_stride))
        for height, width in ((65, 65), (97, 130)):
            for name, features in outputs(dense, torch.randn(1, 3, height, width)).items():
                channels, stride, _ = dense.taps[name]
                assert features.shape == (1, channels, -(-height // stride), -(-width // stride)), name

    def test_other_output_strides_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"output_stride 12 is not possible; accepted: .*32"):
            self.build(output_stride=12)

    def test_frozen_batch_norms_do_not_change(self) -> None:
        backbone = self.build(freeze_bn=True)
        backbone.keep(one_tap_of_each_stride(backbone.taps)[:-1])
        backbone.train()
        norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        before = [copy.deepcopy(norm.state_dict()) for norm in norms]
        optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, weight_decay=0.1)
        torch.stack([f.square().mean() for f in backbone(torch.randn(2, 3, 64, 64)).values()]).sum().backward()
        optimizer.step()
        for norm, old in zip(norms, before, strict=True):
            assert all(torch.equal(tensor, old[name]) for name, tensor in norm.state_dict().items())


def one_tap_of_each_stride(taps: Mapping[str, Tap]) -> list[str]:
    return list({tap.stride: name for name, tap in taps.items() if tap.block}.values())


def assert_all_have_gradients(module: nn.Module) -> None:
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def step(model: nn.Module, loss: Tensor) -> None:
    """One step of training, in which every parameter takes part and the batch norms' statistics move."""
    assert loss.isfinite()
    loss.backward()
    assert_all_have_gradients(model)
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
