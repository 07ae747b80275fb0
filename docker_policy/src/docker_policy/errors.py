"""What the filter says no with."""

NO_SETTING = "no setting of the inventory allows it"


class RefusedError(Exception):
    """A request that does not reach Docker. Its text is a sentence for the log of the task that asked."""

    def __init__(self, reason: str, *, field: str = "", status: int = 403) -> None:
        """Refuse because of `field`, a path such as `HostConfig.Memory`; `status` is the answer's."""
        self.field = printable(field)
        self.status = status
        super().__init__(f"{self.field}: {reason}" if field else reason)


def malformed(reason: str, field: str = "") -> RefusedError:
    """Return the refusal of what is no well-formed request."""
    return RefusedError(reason, field=field, status=400)


def printable(text: str, longest: int = 200) -> str:
    """Return a client's text such that nothing in it can be taken for something else.

    >>> printable("a\tb")
    'a\\tb'
    """
    short = text if len(text) <= longest else f"{text[:longest]}…"
    return short if short.removesuffix("…").isascii() and short.isprintable() else ascii(short)[1:-1]
