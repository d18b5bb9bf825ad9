"""Topic patterns of service keys: the registry's grammar in which an id may be ``*``.

A pattern is parsed into a topic class and its ids by the one grammar in `khala_contracts.topics`, and
is compared with parsed topics part by part. There is no prefix or glob matching anywhere:
``run:*:events`` covers every run's events, and nothing that only begins or ends like one.
"""

from collections.abc import Mapping
from typing import Final

import attrs

from khala_contracts.topics import TOPIC_CLASSES, ParsedTopic, TopicClass, TopicInvalid, parse_topic

ANY: Final = "*"
# A valid UUIDv7 (RFC 9562, appendix A.6), to stand where a pattern has `*` while it is parsed.
_SAMPLE_ID: Final = "01fwhe4yddfk4scvajq9ww84cz"
_SAMPLES: Final[Mapping[str, str]] = {
    "run_id": f"run_{_SAMPLE_ID}",
    "worker_id": f"wrk_{_SAMPLE_ID}",
    "user_id": f"usr_{_SAMPLE_ID}",
    "org_id": f"org_{_SAMPLE_ID}",
    "device_id": "dev_00000000",
    "name": "a",
}


class PatternInvalid(ValueError):
    """The text is no topic of the registry with some ids replaced by ``*``."""


@attrs.frozen
class TopicPattern:
    """A topic class with each of its ids given or any.

    Invariant: ``ids`` has exactly the ids of the class; None stands for any.
    """

    text: str
    topic_class: TopicClass
    ids: Mapping[str, str | None]

    def covers(self, topic: ParsedTopic) -> bool:
        """Return whether the topic is of this class and agrees in every given id."""
        return topic.topic_class.name == self.topic_class.name and all(
            wanted is None or topic.ids[name] == wanted for name, wanted in self.ids.items()
        )


def parse_pattern(text: str) -> TopicPattern:
    """Parse one pattern.

    Raises:
        PatternInvalid: No class of the registry has this form.
    """
    parts = text.split(":")
    for topic_class in TOPIC_CLASSES.values():
        pattern = _parse_as(topic_class, text, parts)
        if pattern is not None:
            return pattern
    raise PatternInvalid("not a topic of the registry with ids replaced by *")


def _parse_as(topic_class: TopicClass, text: str, parts: list[str]) -> TopicPattern | None:
    fields = topic_class.pattern.split(":")
    if len(fields) != len(parts):
        return None
    concrete: list[str] = []
    wildcards: set[str] = set()
    for field, part in zip(fields, parts, strict=True):
        id_name = field[1:-1] if field.startswith("{") else None
        if id_name is not None and part == ANY:
            wildcards.add(id_name)
            concrete.append(_SAMPLES[id_name])
        else:
            concrete.append(part)
    try:
        parsed = parse_topic(":".join(concrete))
    except TopicInvalid:
        return None
    if parsed.topic_class.name != topic_class.name:
        return None
    return TopicPattern(
        text=text,
        topic_class=topic_class,
        ids={name: None if name in wildcards else value for name, value in parsed.ids.items()},
    )
