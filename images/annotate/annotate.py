#!/usr/bin/env python3
"""Annotate a camera picture: icon at the upper left, title at the upper centre, time stamp at the lower left.

The annotated picture replaces OUTPUT in one step: a web server which reads it never sees half of it.

Exit status: 0 done, 2 wrong arguments, 65 INPUT is not a picture that can be annotated,
66 INPUT cannot be read, 73 OUTPUT cannot be written.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from icon import SIZE as ICON_SIZE
from icon import draw_icon
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

MARGIN = 8
"""Distance in pixels of the icon and of the texts from the picture's edges."""

FONT = "DejaVuSans-Bold.ttf"
MIN_WIDTH, MIN_HEIGHT = 320, 180
"""Below this, the three annotations would cover each other."""

MAX_PIXELS = 40_000_000
"""A larger picture is not loaded, however small its file: a pixel takes about twelve bytes of memory."""

MIN_FONT_SIZE = 10
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


class AnnotationError(Exception):
    """The picture cannot be annotated; `status` is the exit status that says why (see `sysexits.h`)."""

    def __init__(self, status: int, message: str) -> None:
        """Keep what to tell the operator and the status to exit with."""
        super().__init__(message)
        self.status = status


def read_picture(path: Path) -> Image.Image:
    """Return the picture in `path`, upright and in RGB. Raises AnnotationError when there is none."""
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise AnnotationError(
                    os.EX_DATAERR,
                    f"{path} has {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are loaded",
                )
            upright = ImageOps.exif_transpose(picture)
            if upright is None:
                raise AnnotationError(os.EX_DATAERR, f"{path} holds no picture")
            return upright.convert("RGB")
    except UnidentifiedImageError:
        raise AnnotationError(os.EX_DATAERR, f"{path} is not in a picture format that Pillow knows") from None
    except Image.DecompressionBombError as error:
        raise AnnotationError(os.EX_DATAERR, f"{path} is too large: {error}") from error
    except OSError as error:
        # Pillow raises OSError for a damaged file too; only the system's own errors carry a number.
        status = os.EX_DATAERR if error.errno is None else os.EX_NOINPUT
        raise AnnotationError(status, f"{path} cannot be read: {error}") from error


def annotate(picture: Image.Image, title: str, timestamp: str) -> Image.Image:
    """Return a copy of an RGB `picture` with the icon, `title` and `timestamp` on it.

    Raises AnnotationError when the picture is too small, or a text too long for it.
    """
    width, height = picture.size
    if width < MIN_WIDTH or height < MIN_HEIGHT:
        raise AnnotationError(
            os.EX_DATAERR,
            f"the picture is {width}x{height} pixels; at least {MIN_WIDTH}x{MIN_HEIGHT} are needed",
        )
    annotated = picture.convert("RGBA")
    icon = draw_icon()
    annotated.alpha_composite(icon, (MARGIN, MARGIN))

    size = max(16, width // 28)
    # The title stays clear of the icon, and of as much on the other side because it is centred.
    title_font = _fitting_font(title, size, width - 2 * (ICON_SIZE + 3 * MARGIN))
    _draw_label(annotated, title, title_font, (width / 2, MARGIN + ICON_SIZE / 2), "mm")
    timestamp_font = _fitting_font(timestamp, round(size * 0.7), width - 4 * MARGIN)
    _draw_label(annotated, timestamp, timestamp_font, (2 * MARGIN, height - 2 * MARGIN), "ld")
    return annotated.convert("RGB")


def write_picture(picture: Image.Image, path: Path) -> None:
    """Put `picture` at `path` in the format that the suffix names, readable by everyone, in one step.

    Raises AnnotationError when the directory does not allow it.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            picture.save(file, FORMATS[path.suffix.lower()], quality=90)
        temporary.chmod(0o644)  # A temporary file is private, but the web server is another user.
        temporary.replace(path)
    except OSError as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        raise AnnotationError(os.EX_CANTCREAT, f"{path} cannot be written: {error}") from error


def _fitting_font(text: str, size: int, width: int) -> ImageFont.FreeTypeFont:
    """Return the font in the largest size, up to `size` pixels, that draws `text` within `width` pixels.

    Raises AnnotationError when that would be too small to read.
    """
    font = ImageFont.truetype(FONT, size)
    length = font.getlength(text)
    if length <= width:
        return font
    size = int(size * width / length)
    if size < MIN_FONT_SIZE:
        raise AnnotationError(os.EX_DATAERR, f"{text!r} is too long for a picture of this width")
    return ImageFont.truetype(FONT, size)


def _draw_label(
    image: Image.Image, text: str, font: ImageFont.FreeTypeFont, position: tuple[float, float], anchor: str
) -> None:
    """Draw `text` white, outlined in black, on a dark veil: readable on snow, on night and on all else."""
    stroke = max(1, round(font.size / 16))
    left, top, right, bottom = ImageDraw.Draw(image).textbbox(
        position, text, font=font, anchor=anchor, stroke_width=stroke
    )
    padding = MARGIN // 2
    veil = Image.new("RGBA", image.size, (0, 0, 0, 0))
    ImageDraw.Draw(veil).rounded_rectangle(
        (left - padding, top - padding, right + padding, bottom + padding), padding, fill=(0, 0, 0, 150)
    )
    image.alpha_composite(veil)
    ImageDraw.Draw(image).text(
        position, text, font=font, anchor=anchor, fill="white", stroke_width=stroke, stroke_fill="black"
    )


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError("must be one line of printable text")
    return text


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in FORMATS:
        raise argparse.ArgumentTypeError(f"must end in one of {', '.join(FORMATS)}")
    return path


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="annotate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="INPUT", type=Path, help="the picture to read, in any common format")
    parser.add_argument(
        "output", metavar="OUTPUT", type=_output, help="where to put the result, .jpg or .png"
    )
    parser.add_argument(
        "--title", required=True, type=_one_line, help="for the upper centre, e.g. '38th & Duval'"
    )
    parser.add_argument(
        "--timestamp", required=True, type=_one_line, help="for the lower left, printed as given"
    )
    options = parser.parse_args(arguments)
    try:
        annotated = annotate(read_picture(options.input), options.title, options.timestamp)
        write_picture(annotated, options.output)
    except AnnotationError as error:
        print(f"annotate: {error}", file=sys.stderr)
        return error.status
    print(f"{options.output}: {annotated.width}x{annotated.height} pixels, {options.timestamp}")
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
