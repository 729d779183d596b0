"""ResNet-50 in torch, fp16 and channels last: what the int8 one is compared with. Weights are random; time is not."""

from __future__ import annotations

import torch
from torch import nn


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """He et al., "Deep Residual Learning for Image Recognition", 2015, figure 5, with the stride in the 3x3 layer."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.reduce, self.filter = _conv(inputs, width, 1), _conv(width, width, 3, stride)
        self.expand = _conv(width, 4 * width, 1)
        same = inputs == 4 * width and stride == 1
        self.shortcut = nn.Identity() if same else _conv(inputs, 4 * width, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.filter(self.reduce(x).relu()).relu()
        return (self.expand(y) + self.shortcut(x)).relu()


def resnet50() -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(count):
            layers.append(Bottleneck(inputs, width, stride if i == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000), nn.Softmax(1))


def fp16_microseconds(batch: int, calls: int = 100) -> dict[str, float]:
    """The fastest call: eager in a CUDA graph, and by torch.compile where that works. ImportError without a GPU."""
    if not torch.cuda.is_available():
        raise ImportError("torch sees no GPU")
    model = resnet50().cuda().half().eval().to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, 224, 224, device="cuda", dtype=torch.float16).to(memory_format=torch.channels_last)
    torch.backends.cudnn.benchmark = True
    found = {}
    with torch.inference_mode():
        for _ in range(3):
            model(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            model(x)
        found["torch fp16, CUDA graph"] = fastest(graph.replay, calls)
        try:
            compiled = torch.compile(model, mode="max-autotune")
            for _ in range(3):
                compiled(x)
            found["torch fp16, torch.compile"] = fastest(lambda: compiled(x), calls)
        except Exception as error:  # of many kinds; the eager figure stands
            print(f"torch.compile is left out: {type(error).__name__}: {str(error).splitlines()[0]}")
    return found


def fastest(call, calls: int) -> float:
    """Microseconds by the GPU's clock."""
    times = []
    for _ in range(calls):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        call()
        last.record()
        last.synchronize()
        times.append(1000 * first.elapsed_time(last))
    return min(times)
