"""Trains the example model on the handwritten digits that scikit-learn carries, and writes ``examples/digits``.

    pip install -e '.[train]' && python examples/train_digits.py        # a few seconds of training

The digits are 1797 images of 8x8 pixels, 17 levels of grey (UCI Optical Recognition of Handwritten Digits, CC BY 4.0).
The network is small, but has what real ones have: batch norms, channel counts that no vector length divides, depthwise
layers, residual adds, a stride, a global average and a classifier. Nothing else in the project needs torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from torch import nn

SEED = 3
TEST, CALIBRATION = 500, 200  # images; calibration images are training images
EPOCHS = 60
SHIFTS = (-1, 0, 1)  # pixels, drawn anew for each image and epoch


class Layer(nn.Module):
    """Convolution, batch norm and, if wanted, relu."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, relu: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """relu(x + pointwise(depthwise(x)))"""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = Layer(channels, channels, groups=channels)
        self.pointwise = Layer(channels, channels, kernel=1, relu=False)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(x + self.pointwise(self.depthwise(x)))


class Digits(nn.Module):
    """image: float32 [n, 1, 8, 8] in 0..1 -> scores: float32 [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Layer(1, 20)
        self.block1 = Residual(20)
        self.down = Layer(20, 52, stride=2)
        self.block2 = Residual(52)
        self.mix = Layer(52, 52)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classify = nn.Linear(52, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.mix(self.block2(self.down(self.block1(self.stem(image)))))
        return self.classify(self.flatten(self.pool(x)))


def shifted(images: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """Each image moved by up to a pixel each way, zeros moved in."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    rows, columns = (1 + random.choice(SHIFTS, len(images)) for _ in range(2))
    return torch.stack([p[:, r : r + 8, c : c + 8] for p, r, c in zip(padded, rows, columns, strict=True)])


def train(images: torch.Tensor, labels: torch.Tensor, random: np.random.Generator) -> Digits:
    model = Digits()
    steps = EPOCHS * (len(images) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for epoch in range(EPOCHS):
        for batch in np.split(random.permutation(len(images))[: len(images) // 64 * 64], len(images) // 64):
            loss = nn.functional.cross_entropy(model(shifted(images[batch], random)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3}: loss {loss.item():.4f}")
    return model.eval()


def export(model: Digits, path: Path) -> None:
    """Writes ONNX with the batch norms kept and tensors named after the modules that make them."""
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, 8, 8),),
        path,
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,  # of a model in eval mode: EVAL would fold the batch norms
        do_constant_folding=False,
        dynamo=False,
    )
    proto = onnx.load(path)
    modules = dict(model.named_modules())
    readable = {}
    for node in proto.graph.node:  # "/stem/conv/Conv" -> "stem.conv", but "/block1/Add" -> "block1.Add"
        *module, operator = node.name.strip("/").split("/")
        leaf = not any(modules[".".join(module)].children())
        node.name = ".".join(module if leaf else [*module, operator])
        readable |= {output: node.name for output in node.output if output != "scores"}
    for node in proto.graph.node:
        node.input[:] = [readable.get(name, name) for name in node.input]
        node.output[:] = [readable.get(name, name) for name in node.output]
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent / "digits")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order: the same weights each time on one machine
    random = np.random.default_rng(SEED)

    data = load_digits()
    order = random.permutation(len(data.target))
    images = (data.images[order, None] / 16).astype(np.float32)
    labels = data.target[order]
    model = train(torch.from_numpy(images[TEST:]), torch.from_numpy(labels[TEST:]), random)
    with torch.no_grad():
        found = model(torch.from_numpy(images[:TEST])).argmax(1).numpy()
    print(f"accuracy on {TEST} test images: {100 * np.mean(found == labels[:TEST]):.1f} %")

    export(model, out / "model.onnx")
    np.savez_compressed(out / "calib.npz", image=images[TEST : TEST + CALIBRATION])
    np.savez_compressed(out / "test.npz", image=images[:TEST], labels=labels[:TEST])
    np.savez_compressed(out / "sample.npz", image=images[:1])
    for file in sorted(out.iterdir()):
        print(f"{file}: {file.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
