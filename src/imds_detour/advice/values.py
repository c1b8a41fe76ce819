"""Why the value of a setting is not valid, and what its author meant. Loaded when a start has failed, and by doctor."""

from __future__ import annotations

from imds_detour.config.mock_address import BadValueError
from imds_detour.config.presets import PRESETS
from imds_detour.config.variables import BY_NAME
from imds_detour.errors import DetourError
from imds_detour.text import DIGITS, is_made_of, printable, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from imds_detour.config.variables import Variable

MEANT = {"iptables": "legacy", "iptables-nft": "nft", "verbose": "debug", "silent": "quiet", "none": "off", "all": "on"}
CLOUDS = {"amazon": "aws", "imds": "aws", "oracle": "oci", "linode": "akamai", "aliyun": "alibaba"}
"""Words that people write for a value whose name is not similar."""
SECONDS = {"ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0}
"""Units of time that people write after a number, in seconds."""


def refused(
    variable: Variable, environ: Mapping[str, str], detail: str, convert: Callable[[str], object]
) -> DetourError:
    """Return the error for a setting that is missing or not valid.

    ``detail`` is what the parser says of the value; ``convert`` is the parser, which tries other values.
    """
    name, value = variable.name, environ.get(variable.name)
    if value is None:
        remedy = f"set it to {variable.allowed}; in Compose: `environment: {{{name}: mock_metadata}}`"
        return DetourError("settings", f"{name} is not set{_misspelt(name, environ)}", remedy)
    causes, bare = _causes(name, value)
    meant = next((text for text in _readings(variable, bare) if text != value and _is_valid(convert, text)), "")
    why = ", ".join(causes) or detail
    hint = "; ".join(filter(None, (why, f"did you mean {meant}?" if 0 < len(meant) <= 80 else "")))
    reason = f"{name}={quoted(value)} is not valid{f' ({hint})' if hint else ''}"
    return DetourError("settings", reason, f"allowed: {variable.allowed}")


def _is_valid(convert: Callable[[str], object], text: str) -> bool:
    try:
        return convert(text) is not None
    except (BadValueError, DetourError):
        return False


def unknown(name: str) -> str:
    """Return a sentence on a MOCK_* variable that is no setting, with the setting that it resembles."""
    meant = did_you_mean(name, BY_NAME, 0.8)
    return f"{name} is not a setting of imds-detour{f' ({meant})' if meant else ''}"


def did_you_mean(word: str, words: Iterable[str], likeness: float = 0.6) -> str:
    """Return a question with the most similar of some words, or an empty string."""
    close = _closest(word, words, likeness)
    return f"did you mean {close}?" if close else ""


def _closest(word: str, words: Iterable[str], likeness: float = 0.6) -> str:
    import difflib  # noqa: PLC0415  (costly to import; only a mistake needs it)

    return next(iter(difflib.get_close_matches(word, list(words), n=1, cutoff=likeness)), "")


def _misspelt(name: str, environ: Mapping[str, str]) -> str:
    """Return the variable that was probably set in place of a missing one, within a sentence."""
    others = sorted(other for other in environ if other.upper().startswith("MOCK_") and other not in BY_NAME)
    other = next((other for other in others if _closest(other.upper(), BY_NAME, 0.8) == name), "")
    return f", but {printable(other)} is (did you mean {name}?)" if other else ""


def _causes(name: str, value: str) -> tuple[list[str], str]:
    """Return what is wrong with the form of a value, and the value without that."""
    if not value:
        return ["it is empty: has its `${...}` a value in Compose?"], value
    bare, causes = value.strip(), []
    if value.endswith("\r"):
        causes.append(r"it ends with \r, as lines in files of Windows do")
    elif bare != value:
        causes.append("it has blanks or line breaks around it")
    if (plain := bare.strip("'\"")) != bare:
        causes.append("its quotes are part of it")
    address = plain.replace("https://", "").replace("http://", "")
    if address != plain and not plain.startswith("/"):
        plain = ",".join(entry.partition("/")[0] for entry in address.split(","))
        causes.append("it is a URL")
    if name == "MOCK_HOSTNAME" and not {",", ";", " "}.isdisjoint(plain):
        causes.append("it is one host, perhaps with :port")
    elif name == "MOCK_HOSTNAME" and "/" in plain:
        plain = plain.partition("/")[0]
        causes.append("it has a path")
    elif name == "MOCK_HOSTNAME" and not plain.isascii():
        causes.append("names have the letters a to z, digits, - and _")
    return causes, plain


def _readings(variable: Variable, text: str) -> Iterator[str]:
    """Yield the values that a text may mean, the likeliest first."""
    yield text
    if variable.name == "MOCK_TIMEOUT":
        text = text.replace(",", ".")
        number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
        if is_made_of(DIGITS, number.replace(".", "", 1), 9):
            yield f"{float(number) * SECONDS.get(text[len(number) :].strip(), 1.0):g}"
    if variable.name == "MOCK_PORT":
        yield text.rpartition(":")[2].partition("/")[0]
    if variable.name == "MOCK_PROBE" and text:
        yield f"/{text}"
    words = _words(variable) if len(text) <= 200 else []
    entries = [entry.partition("=") for entry in text.replace(";", " ").replace(",", " ").split()] if words else []
    yield ",".join(_nearest(word.lower(), words) + equals + mock for word, equals, mock in entries)


def _nearest(word: str, words: list[str]) -> str:
    return word if word in words else (MEANT | CLOUDS).get(word) or _closest(word, words) or word


def _words(variable: Variable) -> list[str]:
    """Return the words of which a setting is made; none for names, numbers and paths."""
    if variable.name == "MOCK_ENDPOINTS":
        return list(PRESETS)
    words = [word for word in variable.allowed.split(", ") if word.isalnum()]
    return words if variable.name != "MOCK_USER" else []
