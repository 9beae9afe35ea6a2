"""A granularity that keeps its contract, and one for every way to break it."""

import torch

import tersely


class Good:
    def blocks(self, shape, target):
        return tersely.Blocks((1,) * len(shape))


class Pairs:
    def blocks(self, shape, target):
        return tersely.Blocks((2, *(-1,) * (len(shape) - 1)))


class Valued(Good):
    def __init__(self, *, value):
        self.value = value


class Indivisible:
    def blocks(self, shape, target):
        return tersely.Blocks((7,) * len(shape))


class Refusing:
    def blocks(self, shape, target):
        raise ValueError("never")


class Silent:
    def blocks(self, shape, target):
        raise ValueError


class Failing:
    def blocks(self, shape, target):
        return shape["rows"]


class Tupled:
    def blocks(self, shape, target):
        return (1,) * len(shape)


class Flat:
    def blocks(self, shape, target):
        return tersely.Blocks((1,))


class Zero:
    def blocks(self, shape, target):
        return tersely.Blocks((0,) * len(shape))


class Changing:
    calls = 0

    def blocks(self, shape, target):
        Changing.calls += 1
        return tersely.Blocks((1 + Changing.calls % 2, *(1,) * (len(shape) - 1)))


class Halved:
    def blocks(self, shape, target):
        rest = (1,) * (len(shape) - 1)
        return tersely.Blocks((1, *rest), scope=(4, *rest), keep=2)


class KeepingWithoutScope:
    def blocks(self, shape, target):
        return tersely.Blocks((1,) * len(shape), keep=2)


class KeepingTooMuch:
    def blocks(self, shape, target):
        rest = (1,) * (len(shape) - 1)
        return tersely.Blocks((1, *rest), scope=(4, *rest), keep=5)


class Cutting:
    def blocks(self, shape, target):
        rest = (1,) * (len(shape) - 1)
        return tersely.Blocks((4, *rest), scope=(2, *rest))


class Diagonal:
    def blocks(self, shape, target):
        if len(shape) != 2:
            raise ValueError("it numbers matrices")
        rows, columns = torch.arange(shape[0])[:, None], torch.arange(shape[1])
        return tersely.Blocks(index=(columns - rows) % shape[1])


class Turned:
    def blocks(self, shape, target):
        return tersely.Blocks(index=torch.zeros(shape[::-1], dtype=torch.int64).unsqueeze(0))


class Gapped:
    def blocks(self, shape, target):
        return tersely.Blocks(index=torch.ones(shape, dtype=torch.int64))


class Fractional:
    def blocks(self, shape, target):
        return tersely.Blocks(index=torch.zeros(shape))


class Negative:
    def blocks(self, shape, target):
        return tersely.Blocks(index=torch.full(shape, -1))


class Ragged:
    def blocks(self, shape, target):
        return tersely.Blocks(index=[[0, 1], [0]])


class Random:
    def blocks(self, shape, target):
        numbers = torch.arange(shape[0]) // 2
        numbers = numbers.reshape(-1, *(1,) * (len(shape) - 1)).expand(shape)
        Random.calls = getattr(Random, "calls", 0) + 1
        return tersely.Blocks(index=(numbers + Random.calls) % (shape[0] // 2))


class NumberedInScopes:
    def blocks(self, shape, target):
        numbers = torch.zeros(shape, dtype=torch.int64)
        return tersely.Blocks(index=numbers, scope=(-1,) * len(shape))
