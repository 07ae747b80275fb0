"""The program as the DAG's container runs it: arguments, files, messages and exit statuses."""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from annotate import AnnotationError, write_picture
from PIL import Image

Run = Callable[..., "subprocess.CompletedProcess[str]"]
TEXTS = ("--title", "38th & Duval", "--timestamp", "05:33 AM CST")


@pytest.mark.parametrize(("name", "picture_format"), [("camera.jpg", "JPEG"), ("camera.png", "PNG")])
def test_writes_the_annotated_picture(run: Run, picture: Path, name: str, picture_format: str) -> None:
    output = picture.with_name(name)
    result = run(picture, output, *TEXTS)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{output}: 704x480 pixels, 05:33 AM CST\n"
    with Image.open(output) as annotated:
        assert (annotated.format, annotated.size) == (picture_format, (704, 480))


def test_replaces_the_last_picture_and_leaves_nothing_else(run: Run, picture: Path) -> None:
    output = picture.with_name("camera.jpg")
    output.write_bytes(b"the last picture")
    before = output.stat().st_ino
    assert run(picture, output, *TEXTS).returncode == 0
    assert output.stat().st_ino != before, "the file was written over, so a reader could see half of it"
    assert sorted(file.name for file in output.parent.iterdir()) == ["camera.jpg", "original.jpg"]


def test_result_is_readable_by_the_web_server(run: Run, picture: Path) -> None:
    output = picture.with_name("camera.jpg")
    assert run(picture, output, *TEXTS).returncode == 0
    assert stat.S_IMODE(output.stat().st_mode) == 0o644


def test_input_may_be_the_output(run: Run, picture: Path) -> None:
    assert run(picture, picture, *TEXTS).returncode == 0


def test_picture_stored_on_its_side_is_turned_upright(run: Run, picture: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90 degrees to view (Exif 2.3, 4.6.4 A).
    with Image.open(picture) as original:
        original.save(picture, exif=exif)
    output = picture.with_name("camera.jpg")
    assert run(picture, output, *TEXTS).returncode == 0
    with Image.open(output) as annotated:
        assert annotated.size == (480, 704)


def test_picture_that_would_fill_the_memory_is_not_loaded(run: Run, tmp_path: Path) -> None:
    """A file of eight kilobytes, and 700 MiB once it is loaded."""
    path = tmp_path / "original.png"
    Image.new("1", (8000, 8000)).save(path)
    assert path.stat().st_size < 20_000
    result = run(path, tmp_path / "camera.jpg", *TEXTS)
    assert (result.returncode, result.stdout) == (os.EX_DATAERR, "")
    assert "8000x8000 pixels" in result.stderr


def test_help_names_arguments_and_statuses(run: Run) -> None:
    result = run("--help")
    assert result.returncode == 0
    for word in ("INPUT", "OUTPUT", "--title", "--timestamp", "65", "66", "73"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["in.jpg", "out.jpg", "--title", "x"], "--timestamp"),
        (["in.jpg", "out.gif", *TEXTS], "must end in one of .jpg, .jpeg, .png"),
        (["in.jpg", "out.jpg", "--title", "two\nlines", "--timestamp", "x"], "one line of printable text"),
        (["in.jpg", "out.jpg", "--title", " ", "--timestamp", "x"], "one line of printable text"),
    ],
)
def test_wrong_arguments(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (None, os.EX_NOINPUT, "cannot be read"),
        (b"", os.EX_DATAERR, "not in a picture format"),
        (b"<html>Service Unavailable</html>", os.EX_DATAERR, "not in a picture format"),
        ("truncated", os.EX_DATAERR, "cannot be read"),
    ],
    ids=["absent", "empty", "page", "truncated"],
)
def test_input_that_is_no_picture(
    run: Run, picture: Path, content: bytes | str | None, status: int, message: str
) -> None:
    if content is None:
        picture.unlink()
    elif isinstance(content, str):
        picture.write_bytes(picture.read_bytes()[:-200])
    else:
        picture.write_bytes(content)
    output = picture.with_name("camera.jpg")
    output.write_bytes(b"the last picture")
    result = run(picture, output, *TEXTS)
    assert result.returncode == status
    assert result.stderr.startswith(f"annotate: {picture} ")
    assert message in result.stderr
    assert output.read_bytes() == b"the last picture"


def test_output_that_cannot_be_written(run: Run, picture: Path) -> None:
    result = run(picture, picture.parent / "absent" / "camera.jpg", *TEXTS)
    assert result.returncode == os.EX_CANTCREAT
    assert "cannot be written" in result.stderr


def test_failed_write_leaves_the_last_picture_and_no_temporary_file(tmp_path: Path) -> None:
    output = tmp_path / "camera.jpg"
    output.mkdir()  # A directory cannot be replaced by a file: the rename fails, the last step of all.
    with pytest.raises(AnnotationError, match="cannot be written"):
        write_picture(Image.new("RGB", (320, 180)), output)
    assert [file.name for file in tmp_path.iterdir()] == ["camera.jpg"]
