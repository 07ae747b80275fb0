"""Splits the SQL of `pg_dump` into statements just as psql does, and refuses what psql itself would obey.

It follows psql's own scanner (psqlscan.l of PostgreSQL 15). Where versions or settings of psql differ, and in
what `pg_dump` writes for no table, such as dollar quotes, it refuses instead of guessing. It needs the same
memory for any file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from airflow_release.core.errors import ReleaseError

CHUNK = 1 << 20
LOOK_AHEAD = 1024
"""Bytes that are in memory behind the place that is read; longer than any token but a string."""
TEXT_KEPT = 1 << 16
"""How much of a statement is kept."""
VOCABULARY_KEPT = 5_000

_TOKEN = re.compile(
    rb"""
    (?P<space>   [ \t\n\r\f]{1,256} )
  | (?P<comment> -- )
  | (?P<block>   /\* )
  | (?P<unicode> [uU]&['"] )
  | (?P<word>    [A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]{0,255} )
  | (?P<number>  [0-9][0-9A-Za-z_.]{0,255} )
  | (?P<cast>    :: )
  | (?P<mark>    . )
    """,
    re.VERBOSE | re.DOTALL,
)
_RESTRICT = re.compile(rb"\\(?:un)?restrict [A-Za-z0-9]{1,128}\r?\n")
"""The only commands that `pg_dump` writes into the dump of one database: they protect it from all others."""
_IDENTIFIER = rb'(?:[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*|"(?:[^"]|"")*")'
_COPY = re.compile(
    rb"COPY (?:(?P<schema>%(name)s)\.)?(?P<table>%(name)s)(?: \(%(name)s(?:, ?%(name)s)*\))? FROM stdin"
    % {b"name": _IDENTIFIER}
)
_END_OF_DATA = re.compile(rb"\n\\\.\r?\n")
_STRING_PREFIXES = (b"E", b"e", b"B", b"b", b"X", b"x", b"N", b"n")


class NotAccepted(ReleaseError):
    """What the file has in it that is not accepted, as the end of a sentence that begins with its name."""


@dataclass
class Statement:
    """One statement, or the data of a COPY."""

    text: bytes = b""
    """The statement without its semicolon; comments and line breaks are one space. Cut after `TEXT_KEPT`."""
    words: list[bytes] = field(default_factory=list)
    """The first words outside of strings, in upper case."""
    vocabulary: set[bytes] = field(default_factory=set)
    """All words and quoted names in it, in upper case."""
    values: set[bytes] = field(default_factory=set)
    """Those after the word VALUES."""
    rows: int = 0
    """The rows after VALUES, or in the data of a COPY."""
    table: str = ""
    """Of a COPY, with the schema in front unless that is `public`."""
    first_line: bytes = b""
    """Of the data of a COPY, cut."""
    first_string: bytes = b""
    """The first string after VALUES, cut."""

    @property
    def is_copy(self) -> bool:
        """Say whether data follow it in the file."""
        return self.words[:1] == [b"COPY"]


class Lexer:
    """Reads a file once; iterate over it for the statements."""

    def __init__(self, file: IO[bytes]) -> None:
        """Begin with a file that is open at its start."""
        self.size = 0
        self.first_comments: set[bytes] = set()
        """The comments on lines of their own that say what kind of file this is."""
        self._file = file
        self._text = b""
        self._at = 0
        self._over = False
        self._last = b"\n"
        self._depth = 0
        self._statement = Statement()
        self._kept = bytearray()

    def __iter__(self) -> Iterator[Statement]:
        """Return each statement, once it is complete.

        Raises:
            NotAccepted: psql would take something as a command to itself, or could.
        """
        after_escapes = False
        while self._look_ahead():
            token = _TOKEN.match(self._text, self._at)
            assert token  # noqa: S101  the last alternative matches any byte
            kind, text = token.lastgroup, token[0]
            before = self._last
            if kind == "space":
                self._take(len(text))
                self._keep_space()
                continue
            if kind == "comment":
                self._comment(before)
                continue
            if kind == "block":
                self._block_comment()
                continue
            if text == b"'":
                if after_escapes:
                    raise NotAccepted("a string with escapes that goes on after its end")
                after_escapes = self._string(b"")
                continue
            after_escapes = False
            if kind == "word":
                if text in _STRING_PREFIXES and self._text[token.end() : token.end() + 1] == b"'":
                    if re.fullmatch(rb"[A-Za-z0-9_$.\x80-\xff]", before):
                        raise NotAccepted("a string that stands right behind a word")
                    after_escapes = self._string(text)
                else:
                    self._word(text)
            elif kind == "number":
                self._take(len(text))
                self._keep(text)
                self._no_string_follows()
            elif text == b'"':
                self._name()
            elif text == b";":
                yield from self._end()
            else:
                self._mark(kind or "", text, before)
        if self._kept.strip() or self._statement.words or self._depth:
            raise NotAccepted("a statement without an end: it is cut off")

    def _look_ahead(self, wanted: int = LOOK_AHEAD) -> bool:
        """See to it that there is something to read, up to the file's end."""
        while not self._over and len(self._text) - self._at < wanted:
            chunk = self._file.read(CHUNK)
            if b"\0" in chunk:
                # psql reads lines as C strings: the rest of such a line is lost to it.
                raise NotAccepted("a byte 0")
            self._over = not chunk
            self.size += len(chunk)
            self._text = self._text[self._at :] + chunk
            self._at = 0
        return self._at < len(self._text)

    def _take(self, length: int) -> None:
        self._at += length
        self._last = self._text[self._at - 1 : self._at]

    def _keep(self, text: bytes) -> None:
        if len(self._kept) < TEXT_KEPT:
            self._kept += text[: TEXT_KEPT - len(self._kept)]

    def _keep_space(self) -> None:
        if self._kept and not self._kept.endswith(b" "):
            self._keep(b" ")

    def _comment(self, before: bytes) -> None:
        # To psql a carriage return ends it, too.
        kept = b""
        while self._look_ahead():
            end = re.compile(rb"[\n\r]").search(self._text, self._at)
            stop = end.start() if end else len(self._text)
            if len(kept) < 100:
                kept += self._text[self._at : stop][:100]
            if stop > self._at:
                self._take(stop - self._at)
            if end:
                break
        if before in (b"\n", b"\r") and kept.startswith(b"-- PostgreSQL database dump"):
            self.first_comments.add(kept.rstrip())
        self._keep_space()

    def _block_comment(self) -> None:
        depth = 0
        while self._look_ahead():
            found = re.compile(rb"/\*|\*/").search(self._text, self._at)
            if not found:
                if self._over:
                    break
                # The last byte may be the first half of a mark.
                self._take(len(self._text) - self._at - 1)
                continue
            self._take(found.end() - self._at)
            depth += 1 if found[0] == b"/*" else -1
            if not depth:
                self._keep_space()
                return
        raise NotAccepted("a comment without an end: it is cut off")

    def _string(self, prefix: bytes) -> bool:
        """Read a string; return whether a backslash in it, and in what continues it, is an escape."""
        escapes = prefix in (b"E", b"e")
        content = self._quoted(b"'", escapes, prefix)
        if self._statement.values and not self._statement.first_string:
            self._statement.first_string = content
        return escapes

    def _name(self) -> None:
        name = self._quoted(b'"', False, b"")
        self._note(name.replace(b'""', b'"').upper(), quoted=True)
        self._no_string_follows()

    def _quoted(self, quote: bytes, escapes: bool, prefix: bytes) -> bytes:
        self._take(len(prefix) + 1)
        self._keep(prefix + quote)
        special = re.compile(b"[%s\\\\]" % quote if escapes else quote)
        content = b""
        while self._look_ahead():
            found = special.search(self._text, self._at)
            stop = found.start() if found else len(self._text)
            part = self._text[self._at : stop]
            if found and stop + 1 == len(self._text) and not self._over:
                # The byte behind it decides.
                self._at = stop
                self._keep(part)
                content += part[: 256 - len(content)]
                self._look_ahead(2)
                continue
            length = stop - self._at
            ended = False
            if found:
                pair = self._text[stop : stop + 2]
                ended = found[0] == quote and pair != quote * 2
                part += quote if ended else pair
                length += 1 if ended else len(pair)
            self._take(length)
            self._keep(part)
            content += part[: 256 - len(content)]
            if ended:
                return content[:-1] if content.endswith(quote) else content
        raise NotAccepted("a string or name without an end: it is cut off")

    def _word(self, text: bytes) -> None:
        self._take(len(text))
        self._keep(text)
        if len(text) > 255:
            raise NotAccepted("a word of more than 255 letters")
        upper = text.upper()
        statement = self._statement
        if len(statement.words) < 8:
            statement.words.append(upper)
        self._note(upper)
        self._no_string_follows()

    def _note(self, upper: bytes, quoted: bool = False) -> None:
        statement = self._statement
        statement.vocabulary.add(upper)
        if statement.values or (upper == b"VALUES" and not self._depth and not quoted):
            statement.values.add(upper)
        if len(statement.vocabulary) > VOCABULARY_KEPT:
            raise NotAccepted(f"a statement of more than {VOCABULARY_KEPT} different words")

    def _no_string_follows(self) -> None:
        if self._look_ahead(1) and self._text[self._at : self._at + 1] == b"'":
            raise NotAccepted("a string that stands right behind a word")

    def _mark(self, kind: str, text: bytes, before: bytes) -> None:
        following = self._text[self._at + len(text) : self._at + len(text) + 1]
        if text == b"\\":
            restrict = _RESTRICT.match(self._text, self._at)
            if not restrict or before != b"\n" or self._statement.words:
                line = re.split(rb"[\r\n]", self._text[self._at : self._at + 60])[0]
                raise NotAccepted(f"the psql command {line.decode(errors='replace')!r}")
            self._take(restrict.end() - self._at)
            return
        if (
            kind == "unicode"
            or text == b"$"
            or (text == b":" and re.match(rb"[A-Za-z_'\"{\x80-\xff]", following))
        ):
            what = {b"$": "a dollar quote", b":": "a psql variable"}.get(text, "a string of Unicode escapes")
            raise NotAccepted(what)
        if text == b"(":
            if self._statement.values and not self._depth:
                self._statement.rows += 1
            self._depth += 1
        elif text == b")":
            self._depth -= 1
            if self._depth < 0:
                raise NotAccepted("a closing parenthesis without an opening one")
        self._take(len(text))
        self._keep(text)

    def _end(self) -> Iterator[Statement]:
        if self._depth:
            raise NotAccepted("a semicolon between parentheses")
        self._take(1)
        statement = self._statement
        statement.text = bytes(self._kept).strip()
        self._statement, self._kept = Statement(), bytearray()
        if statement.is_copy:
            self._read_data(statement)
        if statement.text:
            yield statement

    def _read_data(self, statement: Statement) -> None:
        """Read what follows a COPY, up to the line that ends it."""
        copy = _COPY.fullmatch(statement.text)
        if not copy:
            raise NotAccepted("a COPY that is not from the file itself")
        schema, table = (_plain(copy[part] or b"public") for part in ("schema", "table"))
        statement.table = table if schema == "public" else f"{schema}.{table}"
        self._look_ahead()
        rest = re.compile(rb"[ \t\r]*\n").match(self._text, self._at)
        if not rest:
            # psql goes on with the rest of this line when the data are over.
            raise NotAccepted("something behind a COPY on the same line")
        self._take(rest.end() - self._at)
        self._look_ahead()
        if empty := re.compile(rb"\\\.\r?\n").match(self._text, self._at):
            self._take(empty.end() - self._at)
            return
        statement.first_line = self._text[self._at : self._at + 256].split(b"\n")[0]
        while self._look_ahead():
            end = _END_OF_DATA.search(self._text, self._at)
            stop = end.start() + 1 if end else max(len(self._text) - 4, self._at)
            if end is None and self._over:
                break
            statement.rows += self._text.count(b"\n", self._at, stop)
            self._at = end.end() if end else stop
            if end:
                self._last = b"\n"
                return
            self._look_ahead(CHUNK)
        raise NotAccepted("data without an end: it is cut off")


def _plain(identifier: bytes) -> str:
    """Return the name that an identifier means."""
    if identifier.startswith(b'"'):
        return identifier[1:-1].replace(b'""', b'"').decode(errors="replace")
    return identifier.decode(errors="replace").lower()
