"""Trials: whether a module's output channels can grow while what reads them shrinks.

Channels grow by powers of two in a module that may make the input of some weights, and shrink again
in these weights. Which powers differs from channel to channel, and channels that grow alike in one
trial grow apart in another, so that no module passes all that puts channels in another order. It
differs from weight to weight too, so that modules which make an input by their sum do not pass when
several are tried at once. Powers of two commute with every rounding, so where nothing else reads
the channels, every other module computes the same, bit for bit, whatever is in between: activations
that keep factors, products with a gate, the sums of attention. No graph is needed, and none can be
read wrongly.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Mapping, Sequence

import attrs
import torch
from torch import Tensor, nn

from tersely.calibration.observing import evaluating
from tersely.engine.observation.batches import Batches, first_sample, run_batch
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.scales.input_scales import along_inputs
from tersely.quantization.factors.output_forms import OutputForm
from tersely.quantization.factors.recording import Record, recording, tensors_in
from tersely.quantization.ranges import RangeObservers

ZERO = "their input was zero in the first batch of calibration"
NOT_ALONE = "no single module produces their input"
"""The least specific reason: no candidate came close."""


ALIKE = "their channels grow alike in a trial"
"""A reason that may hold only for candidates tried together; each is then tried alone."""

_HIGHEST, _HIGHEST_IN_HALF = 7, 2
"""The highest power of two; half precision has few exponents."""


@attrs.frozen(eq=False)
class Candidate:
    """A module that may take the factors of some weights.

    Attributes:
        targets: weights that read one and the same input.
        module: may have made that input.
        form: how its output channels are multiplied.
    """

    targets: tuple[BoundTarget, ...]
    module: nn.Module
    form: OutputForm

    def grown(self, place: int) -> Tensor:
        """Return the factors of a trial, as the form allows them.

        Args:
            place: which trial it is.
        """
        found, rows = growth(self.lone_channels, self.targets[0], place=place), self.form.rows
        found = found if rows is None else rows.repeated(found)
        return found.expand(len(self.targets[0].raw), -1) if self.is_of_experts else found

    @property
    def lone_channels(self) -> int:
        """How many channels have factors of their own."""
        channels, rows = channels_of(self.targets[0]), self.form.rows
        return channels if rows is None else channels // rows.repeats

    def needs(self, place: int) -> bool:
        """Tell whether channels that grew alike in all trials before grow apart in this one.

        Args:
            place: which trial it is.
        """
        alike: int = _powers(self.targets[0]) ** place
        return self.lone_channels > alike

    @property
    def is_of_experts(self) -> bool:
        """Whether the module is that of the weights, which are those of several experts."""
        return self.form.is_of_experts


@attrs.frozen(eq=False)
class Trials:
    """Tries candidates on the first batch of calibration, with nothing quantized.

    Attributes:
        model: the session's model; its parameters are changed and put back.
        batches: the batches of calibration.
        readers: module of a weight with factors -> the weight.
        firsts: the same -> the first of the weights that share its factors.
        bound_targets: all quantization targets.
        place: which trial it is; each tells other channels apart, the first one most of them.
    """

    model: nn.Module
    batches: Batches
    readers: Mapping[nn.Module, BoundTarget]
    firsts: Mapping[nn.Module, BoundTarget]
    bound_targets: Sequence[BoundTarget]
    place: int = 0

    def of_one_sample(self) -> Trials | None:
        """Return trials that cost less, on the first sample of the batch.

        Returns:
            None where nothing tells what a sample is, or the model does not take one alone.
        """
        batch, kept = self.batches.batches[0], self.batches
        sample = first_sample(batch) if kept.forward is None else None
        if sample is None or all(len(one) <= 1 for one in tensors_in(batch)):
            return None
        found = attrs.evolve(self, batches=attrs.evolve(kept, batches=(sample,)))
        try:
            found.reference()
        except Exception:  # foreign code: a model may insist on its batch size, and then gets it
            return None
        return found

    def reference(self, candidates: Sequence[Candidate] = ()) -> Record:
        """Return what modules compute as they are.

        Args:
            candidates: whose channels to double in what is recorded as doubled, where they are
                not those that are doubled if every output channel is an input channel.
        """
        channels = {
            module: growth(channels_of(one), self.firsts[module], place=self.place)
            for module, one in self.readers.items()
        }
        for one in candidates:
            channels.update((bound.module, one.grown(self.place)) for bound in one.targets)
        record = Record()
        modules = [module for bound in self.bound_targets for module, _ in bound.owners]
        kept = self.batches
        with (
            RangeObservers((), modules, {}).listening(),
            evaluating(self.model),
            recording(self.model, self.readers, self.bound_targets, channels, into=record),
        ):
            run_batch(self.model, kept.batches[0], forward=kept.forward, mask=kept.mask)
        return record

    def problem(self, candidates: Sequence[Candidate], reference: Record) -> str | None:
        """Return why some candidates cannot take factors, all together, or None.

        Args:
            candidates: of different modules and weights.
            reference: what modules compute as they are.
        """
        grown = [one.grown(self.place) for one in candidates]
        if len({tuple(one.flatten().tolist()) for one in grown}) < len(candidates):
            return ALIKE
        with _put_back(candidates):
            rounded = [one for one in candidates if one.form.make_exact(one.module)]
            rows = [one.form.rows for one in candidates if one.form.rows is not None]
            if rounded or any(one.repeats > 1 for one in rows):
                reference = self.reference(candidates)
            for one, factors in zip(candidates, grown, strict=True):
                one.form.multiply(one.module, factors)
            stacks = [one.module for one in candidates if one.is_of_experts]
            if stacks:
                outputs = self.reference().outputs
                if any(outputs.get(one) == reference.outputs.get(one) for one in stacks):
                    return ZERO
            for one, factors in zip(candidates, grown, strict=True):
                for bound in one.targets:
                    raw = bound.raw
                    with torch.no_grad():
                        raw.div_(along_inputs(factors.to(raw), raw, bound.plan.input_dim))
            found = self.reference(candidates)
        return self._difference(candidates, found, reference)

    def later_problems(self, candidates: Sequence[Candidate]) -> dict[Candidate, str]:
        """Return why some candidates that passed the first trial fail another one.

        Args:
            candidates: of different modules and weights.
        """
        found: dict[Candidate, str] = {}
        trials = self
        while True:
            trials = attrs.evolve(trials, place=trials.place + 1)
            left = [one for one in candidates if one not in found and one.needs(trials.place)]
            if not left:
                return found
            reference = trials.reference()
            if trials.problem(left, reference) is None:
                continue
            reasons = {one: trials.problem([one], reference) for one in left}
            found |= {one: reason for one, reason in reasons.items() if reason is not None}

    def _difference(
        self, candidates: Sequence[Candidate], found: Record, reference: Record
    ) -> str | None:
        apart = [one for one in candidates if not one.is_of_experts]
        scaled = {bound.module for one in apart for bound in one.targets}
        for module in scaled:
            inputs = found.inputs.get(module)
            if inputs is None or inputs != reference.doubled.get(module):
                return NOT_ALONE
            if inputs == reference.inputs[module]:
                return ZERO
        makers = {one.module for one in apart}
        for key, outputs in reference.outputs.items():
            if key not in makers and found.outputs.get(key) != outputs:
                return "something else reads their input as well"
        for (module, side), values in reference.quantized.items():
            if side == "input" and module in scaled:
                continue
            if found.quantized.get((module, side)) != values:
                return f"an {side} between them and what produces their input is quantized"
        return None


def growth(channels: int, bound: BoundTarget, *, place: int) -> Tensor:
    """Return the factors of a trial: powers of two, as different as so many channels allow.

    Args:
        channels: how many there are; one channel at least is multiplied.
        bound: the first weight with these factors; others have other factors.
        place: which trial it is: each adds another digit of a channel's number to the lowest one,
            so that no two channels grow alike in all.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(bound.plan.name.encode()))
    powers = _powers(bound)
    if channels == 1:
        exponents = torch.randint(1, powers, (1,), generator=generator)
    else:
        numbers = torch.randperm(channels, generator=generator)
        exponents = (numbers + (numbers // powers**place if place else 0)) % powers
    return torch.exp2(exponents.float())


def _powers(bound: BoundTarget) -> int:
    return 1 + (_HIGHEST_IN_HALF if bound.raw.dtype == torch.float16 else _HIGHEST)


@contextlib.contextmanager
def _put_back(candidates: Sequence[Candidate]) -> Iterator[None]:
    tensors = {
        id(tensor): tensor
        for one in candidates
        for tensor in (
            *(one.module._parameters.get(name) for name in (one.form.weight, one.form.bias)),
            *(bound.raw for bound in one.targets),
        )
        if tensor is not None
    }
    before = [(tensor, tensor.detach().clone()) for tensor in tensors.values()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, values in before:
                tensor.copy_(values)


def channels_of(bound: BoundTarget) -> int:
    """Return how many input channels a weight has, those of all groups of a convolution.

    Args:
        bound: the weight.
    """
    length, groups = int(bound.raw.shape[bound.plan.input_dim]), getattr(bound.module, "groups", 1)
    # The weight of a transposed convolution has the inputs of all groups.
    is_of_one_group = bound.plan.input_dim == 1 and isinstance(groups, int)
    return length * groups if is_of_one_group else length
