"""Checks of a quantizer in a session: calibrate, compress, train, save and finalize."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from tersely.contracts.abilities import Penalizes
from tersely.contracts.quantized_forward import RoundsAtRandom
from tersely.contracts.quantized_grids import UsesFloatZeroPoints, UsesLevels
from tersely.contracts.quantized_weights import Equalizes
from tersely.json_value import Json
from tersely.registry.registry import registry
from tersely.session.attaching import attach
from tersely.session.session import Session
from tersely.testing.contract import expect
from tersely.testing.models import (
    DTYPES,
    ContractNet,
    NarrowNet,
    contract_batches,
    contract_net,
    narrow_net,
    net_with_zeros,
    other_layout,
)
from tersely.testing.sessions import SessionChecks, expect_plain, restored
from tersely.testing.training import batches_for, train
from tersely.testing.untouched.modules import expect_same_compiled
from tersely.testing.untouched.random_state import untouched_random_state

_MODULES = ("conv", "linear")


@attrs.define(eq=False)
class QuantizerSessionChecks(SessionChecks):
    """Checks that quantize a small net the way a user does."""

    def use(self) -> None:
        """Quantize a small net."""
        self.compressed()

    def check_outputs(self) -> None:
        """A quantized model computes finite values of its own dtype."""
        for dtype in DTYPES:
            session = self.compressed(contract_net(dtype))
            outputs = _outputs(session)
            expect(outputs.dtype == dtype, f"{dtype}: outputs have dtype {outputs.dtype}")
            expect(bool(outputs.isfinite().all()), f"{dtype}: outputs are not all finite")

    def check_layout(self) -> None:
        """The memory layout of a weight does not change its scales."""
        turned = contract_net()
        turned.conv.weight.data = other_layout(turned.conv.weight.data)
        turned.linear.weight.data = other_layout(turned.linear.weight.data)
        one, other = self.compressed().qparams(), self.compressed(turned).qparams()
        for module, targets in one.items():
            for target, qparams in targets.items():
                found = other[module][target].scale
                same = torch.allclose(found.double(), qparams.scale.double(), rtol=1e-3)
                expect(same, f"{module}.{target}: its scales change with its memory layout")

    def check_narrow(self) -> None:
        """A convolution with one filter and a linear layer with one input are quantized."""
        outputs = _outputs(self.compressed(narrow_net()))
        expect(bool(outputs.isfinite().all()), "outputs are not all finite")

    def check_all_targets(self) -> None:
        """Every kind of target that the descriptor declares is quantized."""
        session = self._calibrated(contract_net(), is_whole=True)
        session.compress()
        expect(bool(_outputs(session).isfinite().all()), "outputs are not all finite")
        for module, targets in session.qparams().items():
            for target, qparams in targets.items():
                is_usable = bool((qparams.scale.isfinite() & (qparams.scale > 0)).all())
                expect(is_usable, f"{module}.{target}: its scale is not finite and positive")
        _expect_same(session, restored(session))

    def check_rows_of_zeros(self) -> None:
        """A row of zeros and a weight of all zeros are quantized."""
        session = self.compressed(net_with_zeros())
        expect(bool(_outputs(session).isfinite().all()), "outputs are not all finite")

    def check_integer_weights(self) -> None:
        """The integers of a weight represent the values that forward uses."""
        session = self.compressed()
        for module, targets in session.integer_weights().items():
            for target, integers in targets.items():
                with torch.no_grad():  # which switches random rounding off
                    computed = getattr(session.model.get_submodule(module), target)
                read = integers.dequantize()
                same = torch.allclose(read, computed, rtol=1e-5, atol=1e-7)
                expect(
                    same,
                    f"{module}.{target}: the integers do not represent the values that forward "
                    "uses",
                )

    def check_random_state(self) -> None:
        """Quantizing leaves the global random state unchanged and is reproducible."""
        net = contract_net()
        with untouched_random_state():
            first = _outputs(self.compressed(net))
        expect(
            torch.equal(first, _outputs(self.compressed())),
            "a second model quantized the same way computes different outputs",
        )

    def check_training(self) -> None:
        """Gradients reach the weights of a quantized model, and training changes it."""
        session = self.compressed()
        before = session.model.get_parameter("linear.bias").detach().clone()
        train(session)
        for name, parameter in session.model.named_parameters():
            gradient = parameter.grad
            expect(gradient is not None, f"{name} gets no gradient")
            is_finite = gradient is None or bool(gradient.isfinite().all())
            expect(is_finite, f"the gradient of {name} is not finite")
        after = session.model.get_parameter("linear.bias")
        expect(not torch.equal(before, after), "training does not change the bias")

    def check_penalty(self) -> None:
        """The penalty is a finite 0-dim tensor."""
        if not isinstance(self.make(), Penalizes):
            return
        session = self.compressed()
        (run,) = session._engines.quantization.runs
        found: object = run.penalty(0)
        is_one = found is None or (isinstance(found, Tensor) and found.ndim == 0)
        expect(is_one, f"penalty() returned {found!r}, expected a 0-dim tensor")
        is_finite = bool(session.loss().isfinite())
        expect(is_finite, "the penalty is not finite")

    def check_rounding_at_random(self) -> None:
        """Random rounding is reproducible from its seed and happens only in training mode."""
        if not isinstance(self.make(), RoundsAtRandom):
            return
        batch = contract_batches()[0]
        nets = [self.compressed().model.train() for _ in range(2)]
        with untouched_random_state():
            one, other = (net(batch) for net in nets)
        expect(torch.equal(one, other), "the same seed gives different outputs in a second session")
        expect(bool(one.isfinite().all()), "training outputs are not all finite")
        session = self.compressed()
        session.model.train()(batch)
        same = torch.equal(_outputs(session), _outputs(session))
        expect(same, "outputs in evaluation mode are random")

    def check_save_and_restore(self) -> None:
        """A session restored from disk has the same scales."""
        session = self.compressed()
        other = restored(session)
        _expect_same(session, other)
        expect(
            torch.equal(_outputs(session), _outputs(other)),
            "the restored model computes different outputs",
        )

    def check_resume(self) -> None:
        """A session saved after calibration continues bit for bit: no state lies outside of it."""
        session = self._calibrated(contract_net())
        other = restored(session)
        (run,) = session._engines.quantization.runs
        for one in (session, other):
            if run.is_looking_again:  # it needs the batches themselves, which are not saved
                one.calibrate(contract_batches())
            one.compress()
        _expect_same(session, other)

    def check_deepcopy(self) -> None:
        """A deep copy of the quantized model computes the same."""
        net = self.compressed().model.eval()
        batch = contract_batches()[0]
        with torch.no_grad():
            expect(
                torch.equal(copy.deepcopy(net)(batch), net(batch)),
                "the copy computes different outputs",
            )

    def check_compile(self) -> None:
        """torch.compile captures the quantized model as one graph that computes the same."""
        net = self.compressed().model.eval()
        with torch.no_grad():
            expect_same_compiled(net, contract_batches()[0])

    def check_finalize(self) -> None:
        """The finished model has no instruments, and its weights are the simulated ones."""
        session = self.compressed(is_plain=True)
        with torch.no_grad():  # which switches random rounding off
            weights = {
                (module, target): getattr(session.model.get_submodule(module), target).clone()
                for module, targets in session.integer_weights().items()
                for target in targets
            }
        finished = session.finalize()
        for (module, target), weight in weights.items():
            found = getattr(finished.get_submodule(module), target)
            same = torch.allclose(found, weight, rtol=1e-4, atol=1e-6)
            expect(
                same or self._moves_factors(),
                f"{module}.{target} differs from the simulated weight",
            )
        expect_plain(finished, "finished")

    def prepared(self) -> Session:
        """Return a calibrated session over a contract net, whose inputs stay as they are."""
        return self._calibrated(contract_net(), is_plain=True)

    def put_in_force(self, session: Session) -> None:
        """Choose scales.

        Args:
            session: a prepared session.
        """
        session.compress()

    def compressed(
        self, net: ContractNet | NarrowNet | None = None, *, is_plain: bool = False
    ) -> Session:
        """Return a compressed session over a contract net.

        Args:
            net: the net; by default a new one.
            is_plain: whether inputs stay as they are, so that the finished model is plain.
        """
        session = self._calibrated(contract_net() if net is None else net, is_plain=is_plain)
        session.compress()
        return session

    def recipe(self, *, is_plain: bool = False, is_whole: bool = False) -> dict[str, Json]:
        """Return a recipe with one quantization stage for a convolution and a linear layer.

        Args:
            is_plain: whether inputs stay as they are.
            is_whole: whether biases and outputs are quantized too.
        """
        info = registry().quantizers.info(self.name)
        kinds = {"weight": "parameter"} if is_plain else {"weight": "parameter", "_input_": "input"}
        if is_whole:
            kinds |= {"bias": "parameter", "_output_": "output"}
        targets = [target for target, kind in kinds.items() if kind in info.target_kinds]
        entry: dict[str, Json] = {"op_names": list(_MODULES), "target_names": targets}
        if isinstance(self.make(), UsesLevels):
            entry["quant_dtype"] = "uint8"  # levels are indexed from 0
        if isinstance(self.make(), UsesFloatZeroPoints):
            entry["quant_scheme"] = "affine"  # symmetric targets have no zero point to choose
        stage: Mapping[str, Json] = {
            "algorithm": self.name,
            "options": dict(self.arguments),
            "config_list": [entry],
        }
        return {"quantization": stage}

    def _calibrated(
        self, net: ContractNet | NarrowNet, *, is_plain: bool = False, is_whole: bool = False
    ) -> Session:
        session = attach(net, self.recipe(is_plain=is_plain, is_whole=is_whole))
        session.calibrate(batches_for(net))
        return session

    def _moves_factors(self) -> bool:
        return isinstance(self.make(), Equalizes)


def _outputs(session: Session) -> Tensor:
    net = session.model.eval()
    with torch.no_grad():
        found: Tensor = net(batches_for(net)[0])
    return found


def _expect_same(session: Session, other: Session) -> None:
    restored = other.qparams()
    for module, targets in session.qparams().items():
        for target, qparams in targets.items():
            found = restored[module][target]
            same = torch.equal(qparams.scale, found.scale)
            same = same and torch.equal(qparams.zero_point, found.zero_point)
            expect(same, f"{module}.{target}: the restored scale or zero point differs")
