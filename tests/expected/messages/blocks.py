"""Shapes, blocks and numbers of tensors."""

ONE_PER_BLOCK = "expected one value per block"
NO_BLOCK_SIZE = "is neither positive nor -1"
NUMBERS_FROM_0 = "expected numbers from 0 on: every element belongs to a block"
INDEX_ALONE = "leave out scope and keep when you give index"
IN_THAT_ORDER = "number them in that order"


def bytes_of_bools(count: int) -> str:
    """Packed masks of another length."""
    return f"expected {count} bytes for a bool tensor of shape"


def empty_block(last: int, empty: int) -> str:
    """Numbers of blocks with a gap."""
    return f"the index of blocks goes up to {last}, but no element is in block {empty}"


def levels_from_0(count: int, dtype: str) -> str:
    """A table of levels for a signed type."""
    return f"{count} levels have indices from 0; write quant_dtype: {dtype}"


def wrong_mask(shape: str, expected: str) -> str:
    """A mask of another shape."""
    return f"the mask has shape {shape}, expected {expected} or a shape that broadcasts to it"


def not_finite(first: str) -> str:
    """Values among which some are not finite."""
    return f"are not finite (the first is {first}"
