from tests.ci import markdown

TEXT = """# Top
[a](one.md) `[b](two.md)`
```sh
[c](three.md)
echo hi
```
## A `code` heading
| head | other |
|---|---|
| x | y \\| z |

## A `code` heading
last
"""


def test_links_outside_code_only() -> None:
    """A link is found with its line; one in a code span or a fenced block is not a link."""
    assert list(markdown.links(TEXT)) == [(2, "one.md")]


def test_fenced_blocks_have_language_line_and_text() -> None:
    """A block is its language, the line of its fence and its body."""
    assert markdown.fenced_blocks(TEXT) == [markdown.Block("sh", 3, "[c](three.md)\necho hi")]


def test_unclosed_block_ends_with_text() -> None:
    """An unclosed fence loses nothing."""
    assert markdown.fenced_blocks("```\na\nb") == [markdown.Block("", 1, "a\nb")]


def test_anchors_follow_headings_and_repeat_with_a_number() -> None:
    """Slugs drop punctuation; a repeated heading gets -1; explicit anchors count."""
    assert markdown.anchors(TEXT + '<a id="own"></a>') == {"top", "a-code-heading", "a-code-heading-1", "own"}


def test_section_ends_at_the_next_heading_of_its_level() -> None:
    """A section holds everything below its heading, deeper headings included, and None means no heading."""
    text = "## A\none\n### B\ntwo\n## C\nthree"
    assert markdown.section(text, "A") == "one\n### B\ntwo"
    assert markdown.section(text, "C") == "three"
    assert markdown.section(text, "D") is None


def test_table_rows_are_bodies_only() -> None:
    """Heads and rulers are no rows; an escaped bar stays in its cell."""
    assert markdown.table_rows(TEXT) == [(10, ["x", "y \\| z"])]
