"""What a face describes is copied as it is, however it makes it."""

from collections.abc import Iterator, Mapping

import tersely
from tersely.registry.copies import own_copy


class Titled(Mapping[str, object]):
    def __init__(self, title: str) -> None:
        self.title = title

    def __iter__(self) -> Iterator[str]:
        return iter(("title",))

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: str) -> object:
        return self.title


class MadeWhenRead(Mapping[str, object]):
    def __iter__(self) -> Iterator[str]:
        return iter("abcd")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: str) -> object:
        return Titled(key)


def test_values_that_a_mapping_makes_when_they_are_read_are_with_stages_in_labels() -> None:
    info = tersely.PrunerInfo(
        name="thin",
        implementation="json:loads",
        summary="Removes what is thin.",
        options={"properties": MadeWhenRead()},
    )

    copied = own_copy(info, tersely.PrunerInfo)

    assert copied.options["properties"] == {each: {"title": each} for each in "abcd"}
