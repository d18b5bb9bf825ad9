"""The page about sign-in says whose word counts: WorkOS for who somebody is, and ours only by derivation."""

import re
from typing import Final

from tests.ci.checks import CheckContext, Problems
from tests.ci.markdown import section

PAGE: Final = "runbooks/sign-in.md"
# What a section must say, as a pattern over its words.
REQUIRED: Final = {
    "Who says who somebody is": r"workos is the authority for who somebody is\b.*\bkeeps no password",
    "What our own records are": r"\bis derivative\b.*\bmade again by the next sign-in",
}


def find_authority_problems(context: CheckContext) -> Problems:
    """Two sections state the authority of the provider and the derivative nature of our own records."""
    text = (context.root / PAGE).read_text(encoding="utf-8")
    problems = []
    for title, pattern in REQUIRED.items():
        said = section(text, title)
        if said is None:
            problems.append(f"{PAGE}:1: has no section {title}")
        elif re.search(pattern, " ".join(said.lower().split())) is None:
            problems.append(f"{PAGE}:1: section {title} no longer says whose word counts")
    return problems
