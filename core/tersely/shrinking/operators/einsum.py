"""The rule of ``einsum``: each pair of operands becomes a product of rearranged matrices.

An operand pair in the layout of ``matmul``, and the letters of its dimensions:

| tensor | dimensions |
| --- | --- |
| first | letters that both have and that stay, one by one; its own letters as one; what is summed |
| second | the same letters one by one; what is summed as one; its own letters as one |
| product | the same letters one by one; the first's own letters; the second's own letters |
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence

import attrs
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace, aligned, settle
from tersely.shrinking.graph.labels import reduced
from tersely.shrinking.graph.program import given, operator_name, shape_of
from tersely.shrinking.operators.linear import multiply
from tersely.shrinking.operators.mixing import summed

Letters = tuple[str, ...]
Move = Callable[[Tensor], Tensor]


def trace_einsum(trace: Trace, node: Node) -> Flow:
    """Multiply the operands two by two, from the left."""
    flows, inputs, output = _written_out(trace, node)
    sizes = _sizes(flows, inputs)
    if sizes is None:
        for flow in flows:
            trace.doubt(flow, f"there is no rule for {operator_name(node)} of these operands")
        return Flow(shape_of(node))
    total, letters = flows[0], inputs[0]
    for place in range(1, len(flows) + 1):
        needed = {*output, *(one for rest in inputs[place:] for one in rest)}
        if place == len(flows):
            total, letters = _sum_alone(trace, total, letters, needed)
        else:
            later = {*output, *(one for rest in inputs[place + 1 :] for one in rest)}
            pair = (total, flows[place]), (letters, inputs[place])
            total, letters = _product(trace, node, *pair, sizes, later, is_first=place == 1)
    return _in_order(total, letters, [(one,) for one in output], sizes)


def _written_out(trace: Trace, node: Node) -> tuple[list[Flow], list[Letters], Letters]:
    """Return the operands, the letters of each, and those of the result, of einsum or tensordot."""
    if operator_name(node) == "tensordot":
        first, second = (trace.tensor(one) for one in given(node)[:2])
        letters = string.ascii_letters
        ours = list(letters[: first.ndim])
        theirs = list(letters[first.ndim : first.ndim + second.ndim])
        for left, right in zip(given(node)[2], given(node)[3], strict=True):
            theirs[right % second.ndim] = ours[left % first.ndim]
        output = tuple(one for one in ours + theirs if (ours + theirs).count(one) == 1)
        return [first, second], [tuple(ours), tuple(theirs)], output
    flows = [trace.tensor(one) for one in given(node)[1]]
    equation = given(node)[0].replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    inputs = [_spelled(term, flow.ndim) for term, flow in zip(terms, flows, strict=True)]
    if not arrow:
        once = sorted(one for one in left if one.isalpha() and left.count(one) == 1)
        right = "..." * ("..." in left) + "".join(once)
    dots = max((sum(len(one) > 1 for one in letters) for letters in inputs), default=0)
    return flows, inputs, _spelled(right, dots + len(right.replace("...", "")))


def _spelled(term: str, ndim: int) -> Letters:
    """A name for each dimension; those of an ellipsis are numbered from the right."""
    before, dots, after = term.partition("...")
    count = ndim - len(before) - len(after) if dots else 0
    return (*before, *(f"...{number}" for number in range(count, 0, -1)), *after)


def _sizes(flows: Sequence[Flow], inputs: Sequence[Letters]) -> dict[str, int] | None:
    """Return the size of each letter; None if one is repeated in a term or broadcasts."""
    sizes: dict[str, int] = {}
    for flow, letters in zip(flows, inputs, strict=True):
        if len(set(letters)) < len(letters):
            return None
        for one, size in zip(letters, flow.shape, strict=True):
            if sizes.setdefault(one, size) != size:
                return None
    return sizes


def _product(
    trace: Trace,
    node: Node,
    flows: tuple[Flow, Flow],
    terms: tuple[Letters, Letters],
    sizes: dict[str, int],
    needed: set[str],
    *,
    is_first: bool,
) -> tuple[Flow, Letters]:
    """Multiply two operands in the layout of ``matmul``."""
    both = [one for one in terms[0] if one in terms[1]]
    first, ours = _sum_alone(trace, flows[0], terms[0], {*needed, *both})
    second, theirs = _sum_alone(trace, flows[1], terms[1], {*needed, *both})
    kept = tuple(one for one in both if one in needed)
    over = tuple(one for one in both if one not in needed)
    left = tuple(one for one in ours if one not in both)
    right = tuple(one for one in theirs if one not in both)
    batch = [(one,) for one in kept]
    x = _in_order(first, ours, [*batch, left, over], sizes)
    y = _in_order(second, theirs, [*batch, over, right], sizes)
    shape = (*(sizes[one] for one in kept), _size(left, sizes), _size(right, sizes))
    is_plain = is_first and ours == terms[0] and over == ours[-1:]
    result = multiply(trace, node, x, y, shape, is_plain=is_plain)
    # Positions that were put into one dimension get their own dimensions back.
    return _unfolded(result, kept, left, right, sizes), (*kept, *left, *right)


def _sum_alone(
    trace: Trace, flow: Flow, letters: Letters, needed: set[str]
) -> tuple[Flow, Letters]:
    """Sum over the letters that no other term has."""
    dims = [dim for dim, one in enumerate(letters) if one not in needed]
    if not dims:
        return flow, letters
    return summed(trace, flow, dims, "einsum"), tuple(one for one in letters if one in needed)


def _size(letters: Sequence[str], sizes: dict[str, int]) -> int:
    return math.prod(sizes[one] for one in letters)


def _in_order(
    flow: Flow, letters: Letters, groups: Sequence[Sequence[str]], sizes: dict[str, int]
) -> Flow:
    """A tensor with its dimensions in another order, those of a group as one."""
    order = [letters.index(one) for group in groups for one in group]
    after = [_size(group, sizes) for group in groups]

    def put(tensor: Tensor) -> Tensor:
        tensor = aligned(tensor, flow.ndim)
        singles = [
            _size(group, sizes) if any(tensor.shape[letters.index(one)] > 1 for one in group) else 1
            for group in groups
        ]
        full = [
            sizes[one] if size > 1 else 1
            for group, size in zip(groups, singles, strict=True)
            for one in group
        ]
        return tensor.permute(order).expand(full).reshape(singles)

    return _put(flow, put, tuple(after), lambda tensor: tensor.permute(order).reshape(after))


def _unfolded(
    flow: Flow, kept: Letters, left: Letters, right: Letters, sizes: dict[str, int]
) -> Flow:
    """The product with one dimension for each letter."""
    after = [sizes[one] for one in (*kept, *left, *right)]

    def put(tensor: Tensor) -> Tensor:
        tensor = aligned(tensor, flow.ndim)
        outer = [
            (sizes[one] if tensor.shape[place] > 1 else 1)
            for place, group in ((len(kept), left), (len(kept) + 1, right))
            for one in group
        ]
        return tensor.reshape([*tensor.shape[: len(kept)], *outer])

    return _put(flow, put, tuple(after), lambda tensor: tensor.reshape(after))


def _put(flow: Flow, put: Move, shape: tuple[int, ...], whole: Move) -> Flow:
    """A tensor whose labels, constants and values are moved."""
    read = flow.read
    constant = None if flow.constant is None else settle(put(flow.constant))
    layers = tuple(reduced(put(layer)) for layer in flow.layers)
    moved = None if read is None else lambda: whole(read())
    # Rows of the parameter itself are not rows of what is moved.
    return attrs.evolve(
        flow, shape=shape, layers=layers, constant=constant, read=moved, read_rows=None
    )
