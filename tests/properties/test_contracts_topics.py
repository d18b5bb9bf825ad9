"""The topic grammar: names that are made parse back; nothing near them does."""

import re

from hypothesis import given
from hypothesis import strategies as st

from khala_contracts.topics import TOPIC_CLASSES, TopicInvalid, TopicName, parse_topic
from tests.properties.contract_strategies import topic_names

# Written independently of the module: what every name consists of.
SHAPE = re.compile(
    r"(run:run_I:events|worker:wrk_I:events|user:usr_I:(runs|codex|notifications)|org:org_I:(runs|workers|ops)"
    r"|device:dev_[0-9a-z]{8,64}:inbox|app:org_I:[a-z0-9][a-z0-9-]{0,62})".replace(
        "I", "[0-7][0-9a-hjkmnp-tv-z]{25}"
    ),
    re.ASCII,
)
FORBIDDEN = "*>? \t\n\r\x00\x7f%/\\.,;#$\"'(){}[]|&=+~`!@^<\u00a0\u2028\u200b\ufeff\u0430\u0435\u043e\uff1a\u0660\u1d41"


def is_topic(text: str) -> bool:
    """Return whether the text parses."""
    try:
        return parse_topic(text).name == text
    except TopicInvalid:
        return False


@given(topic_names)
def test_names_that_are_made_parse_to_one_class_and_back(name: TopicName) -> None:
    """format(ids) and parse(name) are inverse, and the pattern of the class says the same."""
    parsed = parse_topic(name)
    assert parsed.topic_class.pattern.format(**parsed.ids) == name
    assert parsed.topic_class is TOPIC_CLASSES[parsed.topic_class.name]
    assert SHAPE.fullmatch(name)


@given(topic_names, st.data())
def test_no_name_holds_a_wildcard_space_or_look_alike(name: TopicName, data: st.DataObject) -> None:
    """One such character anywhere, inserted or in place of another, and it is no name."""
    place = data.draw(st.integers(0, len(name)))
    replaced = data.draw(st.integers(0, 1))
    character = data.draw(st.sampled_from(FORBIDDEN))
    assert not is_topic(name[:place] + character + name[place + replaced :])


@given(topic_names, st.data())
def test_segments_are_exactly_three(name: TopicName, data: st.DataObject) -> None:
    """One more, one less, or an empty one, and it is no name."""
    parts = name.split(":")
    extra = data.draw(st.sampled_from(["", "events", "runs", "x", *parts]))
    place = data.draw(st.integers(0, len(parts)))
    assert not is_topic(":".join([*parts[:place], extra, *parts[place:]]))
    assert not is_topic(":".join(parts[:place] + parts[place + 1 :])) or place == len(parts)


@given(topic_names)
def test_case_and_surroundings_count(name: TopicName) -> None:
    """Names compare as bytes."""
    for text in (
        name.upper(),
        name.title(),
        f" {name}",
        f"{name}\n",
        f"{name}:",
        f":{name}",
        name[:-1] + "\u017f",
    ):
        assert not is_topic(text)


@given(
    st.one_of(
        st.text(max_size=220), st.from_regex(SHAPE), topic_names.flatmap(lambda name: st.just(name + name))
    )
)
def test_the_grammar_is_the_written_one(text: str) -> None:
    """Whatever is offered: a name if and only if the independent pattern says so."""
    assert is_topic(text) == (SHAPE.fullmatch(text) is not None)
