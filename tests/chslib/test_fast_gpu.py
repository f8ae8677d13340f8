"""The GPU's kernels without a GPU: run by Triton's interpreter, against the plain forms of torch, and compiled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="no Triton for this platform")
ROOT = Path(__file__).resolve().parents[2]

KERNELS = """
import itertools, torch
from torch.nn import functional as F
from chslib.fast import gpu
assert gpu.INTERPRETED
torch.manual_seed(0)
FORMATS = (torch.contiguous_format, torch.channels_last)
SHAPES = [(1, 2, 5, 7), (2, 33, 6, 4), (1, 48, 8, 8), (3, 16, 1, 9)]
for shape, fmt, k in zip(SHAPES * 2, [FORMATS[0]] * 4 + [FORMATS[1]] * 4, (3, 5, 3, 5, 5, 3, 5, 3), strict=True):
    x = torch.randn(shape).contiguous(memory_format=fmt).requires_grad_()
    w = torch.randn(shape[1], 1, k, k, requires_grad=True)
    g = torch.randn(shape)
    mine = torch.autograd.grad(gpu.depthwise(x, w), (x, w), g)
    a, b = x.detach().double().requires_grad_(), w.detach().double().requires_grad_()
    y = F.conv2d(a, b, padding=k // 2, groups=shape[1])
    torch.testing.assert_close(gpu.depthwise(x, w).double(), y, atol=1e-5, rtol=1e-5)
    for one, other in zip(mine, torch.autograd.grad(y, (a, b), g.double())):
        torch.testing.assert_close(one.double(), other, atol=2e-5, rtol=2e-5)
for shape, fmt in itertools.product(SHAPES, FORMATS):
    x = torch.randint(0, 4, shape).float()  # many equal values: the first of them has the gradient
    x = x.contiguous(memory_format=fmt).requires_grad_()
    g = torch.randn(shape)
    y, z = gpu.max3(x), F.max_pool2d(x, 3, stride=1, padding=1)
    assert torch.equal(y, z) and y.is_contiguous(memory_format=torch.channels_last)
    mine, theirs = (torch.autograd.grad(out, x, g)[0] for out in (y, z))
    torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)
x, w = torch.randn(1, 3, 4, 5, requires_grad=True), torch.randn(3, 1, 3, 3, requires_grad=True)
for kind in (torch.bfloat16, torch.float16):
    y = gpu.depthwise(x.to(kind), w.to(kind))
    assert y.dtype == kind
    torch.testing.assert_close(y.float(), F.conv2d(x, w, padding=1, groups=3), atol=0.1, rtol=0.05)
checks = {"test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static"}
torch.library.opcheck(gpu.depthwise_op, (x, w), test_utils=sorted(checks))
torch.library.opcheck(gpu.max3_op, (x,), test_utils=sorted(checks))
g = torch.randn(1, 3, 4, 5)
torch.library.opcheck(gpu.weight_gradient_op, (x.detach(), g, 3), test_utils=["test_schema", "test_faketensor"])
torch.library.opcheck(gpu.max3_gradient_op, (g, gpu.max3_op(x)[1]), test_utils=["test_schema", "test_faketensor"])
"""

NETWORK = """
import torch
from chslib import segmentation_loss
from chslib.fast import gpu
from chslib.network import build_network
torch.manual_seed(0)
net = build_network("full", widths=(4, 6)).to(memory_format=torch.channels_last)
x, y = torch.rand(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.7).float()
found = []
for usable in (gpu.usable, lambda x: False):
    gpu.usable = usable
    net.zero_grad()
    loss = segmentation_loss(net(x), y)
    loss.backward()
    found.append([loss.detach(), *(p.grad.clone() for p in net.parameters())])
for mine, plain in zip(*found):
    torch.testing.assert_close(mine, plain, atol=3e-5, rtol=3e-4)
"""

# To a GPU's own code, which the interpreter never makes: it takes what the compiler does not.
COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from chslib.fast import gpu
maps = dict.fromkeys(("x", "y", "w", "g", "gx"), "*bf16") | {"out": "*fp32", "where": "*u8"}
for kernel, sizes in (
    (gpu._convolve, {"K": 3}), (gpu._weight_gradient, {"K": 3, "KK": 16}), (gpu._maximum, {}), (gpu._maximum_gradient, {}),
):
    sizes = sizes | {"BP": 64, "BC": 32}
    kinds = {name: "constexpr" if name in sizes else maps.get(name, "i32") for name in kernel.arg_names}
    made = triton.compile(ASTSource(kernel, kinds, constexprs=sizes), target=GPUTarget("cuda", 90, 32))
    assert made.asm["cubin"], kernel.__name__
"""


def works(code: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_kernels_are_the_plain_operations_with_their_gradients():
    works(KERNELS, TRITON_INTERPRET="1")


def test_a_network_of_kernels_is_the_plain_one():
    works(NETWORK, TRITON_INTERPRET="1")


def test_kernels_compile_for_an_h100(tmp_path):
    works(COMPILED, TRITON_CACHE_DIR=str(tmp_path))
