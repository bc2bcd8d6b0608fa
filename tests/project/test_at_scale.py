"""What `make test` leaves out is there, and not all of what it names."""

from pathlib import Path

from at_scale import AT_SCALE, is_at_scale

TESTS = Path(__file__).parents[1]


def test_every_name_is_that_of_a_test():
    content = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    assert [name for name in AT_SCALE if f"def {name}(" not in content] == []


def test_cases_that_match_a_pattern_stay(request):
    assert is_at_scale("test_votes_equal_a_slow_loop", "dict-False")
    assert not is_at_scale("test_votes_equal_a_slow_loop", "dict-True")
    assert is_at_scale("test_kills_at_random_moments_change_nothing", "1")
    assert not is_at_scale(request.node.name, "")
