"""Samples that depend on one another in ways their author did not declare."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from evals.metrics.answers import normalise_answer
from evals.samples import Sample, clusters

_SMALL = frozenset(
    """of to in on at for from by with and or is are was were be am do does did have has had it its
    this that these those there i you we they my your our their me us please hi hello thanks can
    could would will shall may just also so then""".split()  # noqa: SIM905
)


def link_samples(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Give the samples with `cluster` set so that every dependence counts.

    Connected are samples that share a gold id, a declared cluster, the opening turn of their
    conversation, or a near-equal question. Order and all other fields stay. Only samples that
    these last two connect get another cluster; linking again changes nothing.

    """
    parent = list(range(len(samples)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str | int], int] = {}
    numbers = clusters(samples)
    for i, (sample, number) in enumerate(zip(samples, numbers, strict=True)):
        keys: list[tuple[str, str | int]] = [("declared", number)]
        if sample.history:
            keys.append(("conversation", normalise_answer(sample.history[0].content)))
        for key in keys:
            parent[root(i)] = root(first.setdefault(key, i))
    for a, b in near_equal_pairs([sample.question for sample in samples]):
        # A follow-up such as "And for students?" says nothing without its conversation.
        if not samples[a].history and not samples[b].history:
            parent[root(a)] = root(b)
    joined: dict[int, set[int]] = {}
    for i, number in enumerate(numbers):
        joined.setdefault(root(i), set()).add(number)
    names: dict[int, str] = {}
    linked = []
    for i, sample in enumerate(samples):
        name = names.setdefault(root(i), _name(sample))
        linked.append(sample if len(joined[root(i)]) == 1 else replace(sample, cluster=name))
    return tuple(linked)


def _name(sample: Sample) -> str:
    return f"linked:{sample.id}" if sample.cluster is None else sample.cluster


def near_equal_pairs(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Give index pairs (a < b) of texts that say the same, b with the first one that does.

    They hold the same words but for small ones, endings and order; another number, name or noun
    makes another question, however long the template around it. Texts with fewer than two words
    that count are alike only if they are equal.
    """
    first: dict[frozenset[str] | str, int] = {}
    for b, text in enumerate(texts):
        plain = normalise_answer(text)
        content = frozenset(_stem(word) for word in plain.split() if word not in _SMALL)
        a = first.setdefault(content if len(content) > 1 else plain, b)
        if a != b and plain:
            yield a, b


def _stem(word: str) -> str:
    """Cut an ending off: "costs" and "cost" are one word here. Crude, and equal for both sides."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word.removesuffix(ending).removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word
