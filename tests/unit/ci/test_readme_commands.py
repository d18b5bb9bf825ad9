from tests.ci import readme_commands
from tests.ci.readme_commands import ReadmeCommand
from tests.ci.tree import ROOT

TEXT = "```\nfigure\n```\n```sh\none\n```\n```sh\ntwo\n```\n```python\nx = 1\n```\n```sh\nthree\nfour\n```\n"


def test_blocks_of_sh_and_python_are_commands() -> None:
    """Figures are not; each block knows its line."""
    assert readme_commands.extract_commands(TEXT) == [
        ReadmeCommand(4, "sh", "one"),
        ReadmeCommand(7, "sh", "two"),
        ReadmeCommand(10, "python", "x = 1"),
        ReadmeCommand(13, "sh", "three\nfour"),
    ]


def test_session_is_all_but_the_first_two() -> None:
    """The session runs in one shell, in order, and stops at the first failure."""
    assert readme_commands.session_script(TEXT) == (
        "set -euo pipefail\n"
        "echo '--- README.md:10'\npython - <<'README_PROGRAM'\nx = 1\nREADME_PROGRAM\n"
        "echo '--- README.md:13'\nthree\nfour\n"
    )


def test_first_starts_and_second_tests() -> None:
    """README's first command starts the system and its second runs every lane."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_commands.start_command(text).text.endswith("khala up")
    assert readme_commands.all_tests_command(text).text.endswith("python -m tests.ci all")


def test_build_machine_runs_the_test_command_of_readme() -> None:
    """`.ci/run` ends with README's second command, word for word."""
    script = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script[-1] == readme_commands.all_tests_command(text).text
    assert "set -euo pipefail" in script
