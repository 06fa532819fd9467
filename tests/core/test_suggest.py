"""Messages for unknown words."""

from tightship.suggest import nearest, unknown


def test_a_slip_of_the_keyboard_is_named_with_the_word_that_was_meant():
    """Value, suggestion and valid words are in one sentence."""
    text = unknown("soket", ["socket", "task"], "kind")
    assert text == "unknown kind 'soket'; did you mean 'socket'? Valid: socket, task"


def test_a_word_like_no_other_gets_no_suggestion():
    """Only the valid words are listed."""
    assert unknown("zzz", ["socket", "task"], "kind") == "unknown kind 'zzz'. Valid: socket, task"


def test_a_value_that_is_no_word_is_shown_as_it_is():
    """Numbers have no neighbours."""
    assert unknown(3, ["a"], "kind") == "unknown kind 3. Valid: a"


def test_case_and_dashes_do_not_hide_the_nearest_word():
    """``Fail-On-Fault`` is near ``fail_on_fault``."""
    assert nearest("Fail-On-Fault", ["fail_on_fault", "known"]) == "fail_on_fault"
