"""What a user of PyTorch would write: the same work, batched, with its own functions alone."""

import functools

from accelerator.measure import torch, torch_device

if torch is not None:
    from torch import nn
    from torch.nn import functional


def projected_gradient(gram, cross, *, tol=1e-5, max_steps=5_000, every=25):
    """Weights (B, K) by accelerated projected gradient with restarts.

    Until the optimality conditions hold to ``tol`` times the largest cross entry, asked every 25
    steps; problems that are done leave the batch once they are a quarter of it.
    """
    limit = tol * cross.abs().amax(1)
    step = 1 / gram.abs().sum(2).amax(1)[:, None]
    weights = torch.zeros_like(cross)
    left = torch.arange(len(cross), device=cross.device)
    ahead, now, age = weights, weights, torch.zeros_like(step)
    for number in range(1, max_steps + 1):
        gradient = cross - torch.bmm(gram, ahead[..., None])[..., 0]
        new = (ahead + step * gradient).clamp(min=0)
        goes_back = ((ahead - new) * (new - now)).sum(1, keepdim=True) > 0
        age = torch.where(goes_back, 0, age + 1)
        ahead, now = new + age / (age + 3) * (new - now), new
        if number % every and number < max_steps:
            continue
        gradient = cross - torch.bmm(gram, now[..., None])[..., 0]
        violation = torch.where(now > 0, gradient.abs(), gradient.clamp(min=0)).amax(1)
        weights[left] = now
        keep = violation > limit
        remaining = int(keep.sum())
        if remaining == 0:
            break
        if remaining <= 0.75 * len(left):
            gram, cross, limit, step, left, ahead, now, age = (
                x[keep] for x in (gram, cross, limit, step, left, ahead, now, age)
            )
    return weights


def nearest(points, *, num_neighbors, block=4096):
    """Squared distances and indices (N, K) of the nearest other points, by product and ``topk``."""
    norms = (points**2).sum(1)
    values, indices = [], []
    for start in range(0, len(points), block):
        queries = points[start : start + block]
        squares = torch.addmm(norms[None], queries, points.T, alpha=-2)
        squares.diagonal(start).fill_(torch.inf)
        value, index = squares.topk(num_neighbors, dim=1, largest=False)
        values.append(value + norms[start : start + block, None])
        indices.append(index)
    return torch.cat(values).clamp(min=0), torch.cat(indices)


def graph(points, *, num_neighbors):
    """Indices and weights (N, K) of the NNK graph of points, with the default similarity."""
    indices = nearest(points, num_neighbors=num_neighbors)[1]
    near = points[indices] - points[:, None]
    norms = (near**2).sum(2)
    between = norms[:, :, None] + norms[:, None] - 2 * torch.bmm(near, near.mT)
    rate = 4.5 / norms.amax(1)
    gram = torch.exp(-rate[:, None, None] * between.clamp(min=0))
    gram.diagonal(dim1=1, dim2=2).fill_(1)
    return indices, projected_gradient(gram, torch.exp(-rate[:, None] * norms))


def _conv(inputs, outputs, size, stride=1):
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def resnet(name, *, num_classes):
    """The networks of `jnnk.models` of these names, in channels last."""
    depth = int(name.removeprefix("resnet"))
    if depth == 50:
        return _ResNet((3, 4, 6, 3), (64, 128, 256, 512), num_classes, bottleneck=True)
    return _ResNet(((depth - 2) // 6,) * 3, (16, 32, 64), num_classes, bottleneck=False)


if torch is not None:

    class _Block(nn.Module):
        def __init__(self, inputs, width, stride, bottleneck):
            super().__init__()
            outputs = 4 * width if bottleneck else width
            specs = [(inputs, width, 3, stride), (width, width, 3, 1)]
            if bottleneck:
                specs = [
                    (inputs, width, 1, 1),
                    (width, width, 3, stride),
                    (width, outputs, 1, 1),
                ]
            self.convs = nn.ModuleList(_conv(*spec) for spec in specs)
            self.norms = nn.ModuleList(nn.BatchNorm2d(spec[1]) for spec in specs)
            self.stride, self.more = stride, outputs - inputs
            self.projection = None
            if bottleneck and (stride != 1 or self.more):
                projection = _conv(inputs, outputs, 1, stride)
                self.projection = nn.Sequential(projection, nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = x
            for conv, norm in zip(self.convs, self.norms, strict=True):
                y = norm(conv(y if y is x else functional.relu(y)))
            if self.projection is not None:
                x = self.projection(x)
            elif self.more:
                x = functional.pad(
                    x[:, :, :: self.stride, :: self.stride],
                    (0, 0, 0, 0, self.more // 2, self.more - self.more // 2),
                )
            return functional.relu(x + y)

    class _ResNet(nn.Module):
        def __init__(self, sizes, widths, num_classes, *, bottleneck):
            super().__init__()
            stem = [_conv(3, widths[0], 7, 2) if bottleneck else _conv(3, widths[0], 3)]
            stem += [nn.BatchNorm2d(widths[0]), nn.ReLU()]
            stem += [nn.MaxPool2d(3, 2, 1)] if bottleneck else []
            blocks, inputs = [], widths[0]
            for stage, (size, width) in enumerate(zip(sizes, widths, strict=True)):
                for number in range(size):
                    stride = 2 if stage and not number else 1
                    blocks.append(_Block(inputs, width, stride, bottleneck))
                    inputs = 4 * width if bottleneck else width
            self.features = nn.Sequential(*stem, *blocks)
            self.classify = nn.Linear(inputs, num_classes)

        def forward(self, x):
            return self.classify(self.features(x).mean((2, 3)))


def _augmented(images):
    """Random crops, padded by an eighth, and mirrored images of uint8 (N, C, H, W)."""
    count, channels, side, _ = images.shape
    padding, device = side // 8, images.device
    padded = functional.pad(images, (padding,) * 4)
    corners = torch.randint(2 * padding + 1, (2, count, 1), device=device)
    rows, columns = corners + torch.arange(side, device=device)
    columns = torch.where(torch.rand(count, 1, device=device) < 0.5, columns, columns.flip(1))
    number = torch.arange(count, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[number, channel, rows[:, None, :, None], columns[:, None, None, :]]


def stepper(name, images, labels, *, num_classes, half):
    """A training step like the library's: augmentation, SGD, accuracy; bfloat16 by autocast."""
    device = torch_device()
    network = resnet(name, num_classes=num_classes).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    cast = functools.partial(torch.autocast, device, torch.bfloat16, enabled=half)

    def step():
        batch = (_augmented(images).float() / 255 - 0.5) / 0.25
        batch = batch.to(memory_format=torch.channels_last)
        with cast():
            logits = network(batch).float()
            loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss, (logits.argmax(1) == labels).float().mean()

    return step
