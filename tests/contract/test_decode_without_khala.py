"""PR-19: the wire is what its description says, not what our code does."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.fixture_files import FIXTURES_DIR, load

SCRIPT = Path(__file__).with_name("decode_without_khala.py")


def decode(directory: Path) -> str:
    """Return what the script says about a directory of fixtures."""
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), str(directory)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("directory", [FIXTURES_DIR, FIXTURES_DIR / "0.1"], ids=lambda path: path.name)
def test_a_script_that_uses_nothing_of_khala_reads_every_frame_and_chain(directory: Path) -> None:
    """Isolated interpreter, standard library only; now and as released."""
    frames = load("frames.json", directory)["frames"]
    assert isinstance(frames, list)
    assert decode(directory).startswith(f"{len(frames)} frames, ")


def test_the_script_imports_the_standard_library_only() -> None:
    """Nothing of the product, nothing that was installed."""
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names <= set(sys.stdlib_module_names)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


def test_it_notices_a_wrong_byte(tmp_path: Path) -> None:
    """The script can fail."""
    for name in ("frames.json", "chain.json"):
        text = (FIXTURES_DIR / name).read_text(encoding="ascii")
        (tmp_path / name).write_text(
            text.replace('"schema_version": 1,', '"schema_version": 3,', 1), encoding="ascii"
        )
    with pytest.raises(subprocess.CalledProcessError):
        decode(tmp_path)
