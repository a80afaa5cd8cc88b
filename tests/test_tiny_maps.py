import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d
from torchvision.models import resnet18

from pipeline.padding import pad_with
from pipeline.tiny_maps import TinyMapConv2d, quicken


def convolution(stride: int | tuple[int, int] = 1) -> TinyMapConv2d:
    torch.manual_seed(0)
    return TinyMapConv2d.like(nn.Conv2d(6, 5, kernel_size=3, stride=stride, padding=1, bias=False))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 2), (2, 1), (3, 3), (4, 4), (4, 2), (3, 5), (6, 4)])
def test_output_and_gradients_are_the_convolutions(height, width, stride, layout):
    ours = convolution(stride).to(memory_format=layout)
    x = torch.randn(4, 6, height, width).contiguous(memory_format=layout).requires_grad_()
    y, expected = ours(x), conv2d(x, ours.weight, stride=stride, padding=1)
    torch.testing.assert_close(y, expected)
    upstream = torch.randn_like(y)
    for got, wanted in zip(
        torch.autograd.grad(y, (x, ours.weight), upstream),
        torch.autograd.grad(expected, (x, ours.weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_those_of_finite_differences(stride):
    ours = convolution(stride).double()
    x = torch.randn(2, 6, 2 * stride, 2 * stride, dtype=torch.float64, requires_grad=True)

    def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(ours, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(convolve, (x, ours.weight))


def test_in_bf16_it_is_the_convolution_of_bf16():
    ours, x = convolution(), torch.randn(4, 6, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        y = ours(x.bfloat16())
        expected = conv2d(x.bfloat16(), ours.weight, padding=1)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, atol=0.02, rtol=0.02)
    y.sum().backward()
    assert ours.weight.grad.dtype == torch.float32


def test_a_network_keeps_its_weights_names_and_function():
    torch.manual_seed(0)
    network = resnet18(num_classes=2).eval()
    x = torch.rand(3, 3, 64, 64)
    expected, names = network(x), list(network.state_dict())
    quick = quicken(network)
    # every 3 x 3 convolution of ResNet-18: four a group, four groups
    assert sum(isinstance(module, TinyMapConv2d) for module in quick.modules()) == 16
    assert list(quick.state_dict()) == names
    torch.testing.assert_close(quick(x), expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():  # where there are no gradients, it is PyTorch's own
        assert torch.equal(quick(x), expected)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_maps_are_padded_as_asked(mode):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.MaxPool2d(2)).eval()
    x = torch.rand(2, 3, 2, 2)
    expected = pad_with(network, mode)(x)
    torch.testing.assert_close(quicken(network)(x), expected)
    torch.testing.assert_close(pad_with(quicken(network), mode)(x), expected)
