"""Whole volumes: the folded network is the network, and batches change nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from chslib.inference import folded, predict_masks, segment_volume
from chslib.network import ARMS, CHSNet, RAIUNet, build_network

NARROW = (4, 6, 9, 13, 20)


def settled(network: nn.Module) -> nn.Module:
    """Normalisations as after training: means, variances, scales and shifts that are not 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -0.3), (module.running_var, 0.5), (module.weight, 0.7)):
                tensor.data.uniform_(low, low + 0.8, generator=generator)
            module.bias.data.uniform_(-0.3, 0.3, generator=generator)
    return network.eval()


def cascade(**changes) -> CHSNet:
    torch.manual_seed(0)
    channels = 2 if changes.get("cascade") == "concat" else 1
    stages = {
        "lungs": RAIUNet(widths=NARROW),
        "infection": RAIUNet(in_channels=channels, widths=NARROW),
    }
    network = settled(CHSNet(**stages, **changes))
    with torch.inference_mode():  # heads that mark about half of a slice of noise
        for stage in stages.values():
            noise = torch.rand(2, stage.in_channels, 32, 48)
            stage.head.bias -= stage(noise).median()
    return network


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("changes", [{}, {"gate": "relu"}, {"same_spectral": "identity"}])
@pytest.mark.parametrize("arm", ARMS)
def test_the_folded_network_is_the_network(arm, changes, memory_format):
    torch.manual_seed(0)
    network = settled(
        build_network(arm, **{"widths": NARROW, **changes} if arm == "full" else {"widths": NARROW})
    )
    network = network.double().to(memory_format=memory_format)
    x = torch.rand(2, 1, 64, 32, dtype=torch.float64).contiguous(memory_format=memory_format)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    copy = folded(network)
    with torch.inference_mode():
        torch.testing.assert_close(copy(x), network(x), atol=1e-10, rtol=0)
    assert not [m for m in copy.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())  # a copy, not the thing


@pytest.mark.parametrize("how", ["mask", "concat"])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_a_volume_is_its_slices_one_by_one(how, batch_size):
    network = cascade(cascade=how)
    volume = np.random.default_rng(0).integers(0, 256, (7, 32, 48), dtype=np.uint8)
    ours = segment_volume(network, volume, batch_size=batch_size)
    for i, ct in enumerate(volume):
        with torch.inference_mode():
            out = network(torch.from_numpy(ct)[None, None].float() / 255)
        assert np.array_equal(ours.lungs[i], (out.lungs > 0)[0, 0].numpy())
        assert np.array_equal(ours.infection[i], (out.infection > 0)[0, 0].numpy())
    assert 0 < ours.lungs.mean() < 1 and 0 < ours.infection.mean() < 1
    as_float = segment_volume(network, (volume / 255).astype(np.float32), batch_size=batch_size)
    assert np.array_equal(as_float.infection, ours.infection)


def test_slices_without_lungs_ask_the_second_network_once():
    network = cascade()
    network.lungs = nn.Sequential(nn.Conv2d(1, 1, 1, bias=True))  # lung is what is brighter than a half
    network.lungs[0].weight.data.fill_(1.0)
    network.lungs[0].bias.data.fill_(-0.5)
    seen = []
    network.infection.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    volume = np.zeros((9, 32, 32), np.uint8)
    volume[4, 8:20, 8:20] = 255
    result = segment_volume(network.eval(), volume, batch_size=3)
    assert sorted(seen) == [1, 1]  # the empty map, and the one slice with a lung
    with torch.inference_mode():
        nothing = network.infection(torch.zeros(1, 1, 32, 32)) > 0
    assert all(np.array_equal(result.infection[i], nothing[0, 0].numpy()) for i in range(9) if i != 4)


def test_no_batch_is_larger_than_asked_for():
    network, seen = cascade(), []
    network.lungs.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    segment_volume(network, np.zeros((10, 32, 32), np.uint8), batch_size=4)
    assert seen == [4, 4, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: segment_volume(cascade(), np.zeros((2, 3, 32, 32), np.uint8)),
            r"\(2, 3, 32, 32\).*\(S, H, W\)",
        ),
        (lambda: segment_volume(cascade(), np.zeros((2, 32, 32), np.int16)), "int16.*uint8 or floating"),
        (lambda: segment_volume(cascade().train(), np.zeros((2, 32, 32), np.uint8)), "training mode"),
        (lambda: segment_volume(cascade(), np.zeros((2, 32, 32), np.uint8), batch_size=0), "at least 1"),
        (
            lambda: predict_masks(cascade().lungs, np.zeros((2, 1, 32, 32), np.uint8), batch_size=-1),
            "at least 1",
        ),
        (lambda: segment_volume(cascade(), np.zeros((2, 30, 32), np.uint8)), "30x32.*divide by 16"),
    ],
)
def test_what_cannot_be_segmented_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
