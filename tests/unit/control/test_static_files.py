"""Files of the live page: named after their bytes, one build, the encoding that was asked for."""

import hashlib
import json
import re

import pytest

from control.core.static_files import StaticFilesBroken, choose_encoding, make_files

APP = b"console.log(1)"
APP_PATH = f"/assets/app.{hashlib.sha256(APP).hexdigest()[:16]}.js"


def build(**changes: bytes | None) -> dict[str, bytes]:
    """Return a build; `changes` replace a file after its manifest was made, None removes it."""
    files = {"/index.html": b"<!doctype html>", APP_PATH: APP, "/sw.js": b"self"}
    named = {path: {"sha256": hashlib.sha256(body).hexdigest()} for path, body in files.items()}
    files["/manifest.json"] = json.dumps({"files": named}).encode()
    files |= {f"{APP_PATH}.br": b"br", f"{APP_PATH}.gz": b"gz"}
    for path, body in changes.items():
        if body is None:
            del files[path]
        else:
            files[path] = body
    return files


def test_hashed_files_are_kept_for_ever_and_others_asked_for_again() -> None:
    """A year and immutable below /assets/; no-cache for page, manifest and worker."""
    files = make_files(build())
    assert {path: file.cache_control for path, file in files.items()} == {
        APP_PATH: "public, max-age=31536000, immutable",
        "/index.html": "no-cache",
        "/manifest.json": "no-cache",
        "/sw.js": "no-cache",
    }


def test_compressed_files_are_bodies_and_no_paths() -> None:
    """A compressed file is another body of its plain one; by its own name it does not exist."""
    file = make_files(build())[APP_PATH]
    assert dict(file.bodies) == {"identity": APP, "br": b"br", "gzip": b"gz"}
    assert len({file.tag_of(encoding) for encoding in file.bodies}) == 3
    assert f"{APP_PATH}.br" not in make_files(build())


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ({}, "identity"),
        ({"gzip": 1, "br": 1}, "br"),
        ({"gzip": 1, "br": 0}, "gzip"),
        ({"gzip": 0.5}, "gzip"),
        ({"*": 1}, "br"),
        ({"*": 1, "br": 0}, "gzip"),
        ({"*": 0}, "identity"),
        ({"zstd": 1, "deflate": 1}, "identity"),
        ({"identity": 0}, "identity"),
    ],
)
def test_the_smallest_encoding_that_is_accepted(accepted: dict[str, float], chosen: str) -> None:
    """Brotli before gzip before plain; quality 0 refuses."""
    assert choose_encoding(make_files(build())[APP_PATH], accepted) == chosen


def test_a_file_without_compressed_form_is_sent_as_it_is() -> None:
    """Whatever is accepted."""
    assert choose_encoding(make_files(build())["/sw.js"], {"br": 1}) == "identity"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({APP_PATH: APP + b" "}, "not of the build"),
        ({"/index.html": b"another build"}, "not of the build"),
        ({"/sw.js": None}, "not of the build"),
        ({"/stranger.js": b""}, "not of the build"),
        ({"/manifest.json": b"{}"}, "does not name"),
        ({"/manifest.json": b"["}, "does not name"),
        ({"/manifest.json": None}, "missing"),
        ({"/index.html": None}, "missing"),
    ],
)
def test_files_of_two_builds_are_refused(changes: dict[str, bytes | None], said: str) -> None:
    """A page that is not whole is not served in part."""
    with pytest.raises(StaticFilesBroken, match=said):
        make_files(build(**changes))


@pytest.mark.parametrize("path", ["/assets/app.0123456789abcdef.js", "/assets/app.js", "/page.exe"])
def test_names_without_hash_or_type_are_refused(path: str) -> None:
    """Kept for ever under a name that is not its bytes, or sent without a type: neither."""
    files = build()
    files[path] = b"x"
    named = json.loads(files["/manifest.json"])
    named["files"][path] = {"sha256": hashlib.sha256(b"x").hexdigest()}
    files["/manifest.json"] = json.dumps(named).encode()
    with pytest.raises(StaticFilesBroken, match=re.escape(path)):
        make_files(files)


def test_no_build_at_all() -> None:
    """Said as what it is."""
    with pytest.raises(StaticFilesBroken, match=r"index\.html is missing"):
        make_files({})
