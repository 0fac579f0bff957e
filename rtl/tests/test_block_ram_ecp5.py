# amaranth: UnusedElaboratable=no
"""How memories are cut into ECP5 block RAMs."""

import itertools

import pytest

from rtl.leaves.block_ram_ecp5 import DEPTH_MIN, SHAPES, block_count, split, stack
from rtl.leaves.memory import TwoCycleMemory
from rtl.targets import ECP5, PORTABLE

MEMORIES = [(72, 30208, 72), (64, 2304, 64), (24, 3072, 8), (3, 9000, 1), (5, 20000, 5), (104, 3548, 104), (8, 64, 8)]


@pytest.mark.parametrize(("width", "depth", "granularity"), MEMORIES)
def test_segments_hold_every_word_once(width, depth, granularity):
    segments = stack(width, depth, granularity)
    assert [segment.start for segment in segments] == [
        sum(segment.words for segment in segments[:index]) for index in range(len(segments))
    ]
    assert segments[-1].start < depth <= segments[-1].start + segments[-1].words
    assert all(segment.words in SHAPES and segment.start % segment.words == 0 for segment in segments)


@pytest.mark.parametrize(
    ("width", "depth", "granularity", "blocks", "segments"),
    [
        (36, 512, 9, 1, 1),
        (32, 512, 8, 1, 1),
        (64, 4096, 64, 16, 1),
        (32, 1120, 32, 3, 2),
        (72, 30720, 72, 120, 15),
        (72, 30208, 72, 118, 16),
        (3, 9000, 1, 3, 1),
        (72, DEPTH_MIN - 1, 72, 0, 1),
    ],
)
def test_blocks_of_known_memories(width, depth, granularity, blocks, segments):
    assert block_count(width, depth, granularity) == blocks
    assert len(stack(width, depth, granularity)) == segments


def test_no_other_stack_has_fewer_blocks_or_as_many_and_fewer_segments():
    compared = 0
    for width, granularity in ((1, 1), (9, 9), (10, 5), (16, 8), (20, 20), (72, 72)):
        cost = {words: len(split(width, granularity, bits)) for words, bits in SHAPES.items()}
        stacks = [
            stacked
            for count in range(1, 5)
            for stacked in itertools.combinations_with_replacement(SHAPES, count)
            if sum(stacked[1:]) < 8192
        ]
        for depth in range(512, 8192, 384):
            chosen = [segment.words for segment in stack(width, depth, granularity)]
            found = (sum(cost[words] for words in chosen), len(chosen))
            best = min(
                (sum(cost[words] for words in stacked), len(stacked)) for stacked in stacks if sum(stacked) >= depth
            )
            assert found <= best
            compared += found == best
    assert compared > 50


def test_only_deep_and_empty_memories_are_block_ram():
    assert TwoCycleMemory(8, 50000).uses_block_ram(ECP5)
    assert not TwoCycleMemory(8, 50000).uses_block_ram(PORTABLE)
    assert not TwoCycleMemory(8, DEPTH_MIN - 1).uses_block_ram(ECP5)
    assert not TwoCycleMemory(8, 512, init=[1]).uses_block_ram(ECP5)
