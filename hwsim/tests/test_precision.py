import pytest

from hwsim import spec
from hwsim.precision import CATALOG, WidthSet, check_bits


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((), "a width set must name at least one width"),
        ((8, 4, 8), "a width set must name each width once, not 8 2 times"),
        ((0,), "a width must be 1 .. 8 bits, not 0"),
        ((4, 9), "a width must be 1 .. 8 bits, not 9"),
        ((-2,), "a width must be 1 .. 8 bits, not -2"),
    ],
)
def test_bad_sets_are_refused(widths, message):
    with pytest.raises(ValueError) as error:
        WidthSet(widths)
    assert str(error.value) == message


@pytest.mark.parametrize("bits", [4.0, "4", None, True])
def test_a_width_must_be_an_integer(bits):
    with pytest.raises(TypeError, match="must be an integer number of bits"):
        check_bits(bits, "a width")


@pytest.mark.parametrize("text", ["", "8,", "8;4", "eight"])
def test_text_that_is_no_list_is_refused(text):
    with pytest.raises(ValueError, match="widths must be written like 8,6,4,2, not"):
        WidthSet.parse(text)


def test_parse_orders_the_widths():
    assert WidthSet.parse("2, 8,4") == WidthSet((8, 4, 2))
    assert str(WidthSet.parse("2,8,4")) == "{8, 4, 2}"


@pytest.mark.parametrize(("name", "widths"), CATALOG.items())
def test_catalog(name, widths):
    assert name == "-".join(str(bits) for bits in widths)
    assert list(widths) == sorted(widths, reverse=True)
    assert widths.highest == max(widths) and len(widths) == len(set(widths))
    assert widths.smallest_slot_bits == spec.slot_bits(min(widths))
    for bits in range(1, 9):
        assert (bits in widths) == (bits in tuple(widths))
        if bits not in widths:
            with pytest.raises(ValueError, match=f"the weight width must be one of .*, not {bits}"):
                widths.require(bits, "the weight width")
        else:
            widths.require(bits, "the weight width")


def test_one_width_alone_is_no_set():
    with pytest.raises(TypeError, match="a width set must be made of several widths, not 5"):
        WidthSet(5)  # type: ignore[arg-type]
