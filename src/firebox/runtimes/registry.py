"""Registry of runtimes: selection by name and version range."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from firebox.domain.errors import UnknownRuntime
from firebox.runtimes.runtime import Runtime
from firebox.runtimes.tool_version import parts_of

ANY = "*"
_LONGEST_RANGE = 256
_EXAMPLES = "a version range looks like *, 3.x, ^3.11, >=3.9 <4 or 3.11.7"


class Registry:
    """A set of runtimes. The first of several with the same language, version and package wins."""

    def __init__(self, runtimes: Iterable[Runtime]) -> None:
        self.renew(runtimes)

    def renew(self, runtimes: Iterable[Runtime]) -> None:
        """Replace all runtimes, after a package was installed or removed."""
        unique: dict[tuple[str, str, str | None], Runtime] = {}
        self._by_installed: dict[str, list[Runtime]] = {}
        for runtime in runtimes:
            if runtime.installed:
                self._by_installed.setdefault(runtime.installed, []).append(runtime)
            unique.setdefault((runtime.language, runtime.version, runtime.package), runtime)
        self._runtimes = sorted(unique.values(), key=lambda runtime: (runtime.language, *_descending(runtime)))
        self._by_name: dict[str, list[Runtime]] = {}
        self._by_extension: dict[str, Runtime] = {}
        for runtime in sorted(self._runtimes, key=_descending):
            for name in dict.fromkeys(name.lower() for name in runtime.names):
                self._by_name.setdefault(name, []).append(runtime)
            for extension in runtime.extensions:
                self._by_extension.setdefault(extension, runtime)
        for name, candidates in self._by_name.items():
            own = [runtime for runtime in candidates if runtime.language.lower() == name]
            # A language's own name wins over another one's alias.
            candidates[:] = own + [runtime for runtime in candidates if runtime.language.lower() != name]
        self._resolve = lru_cache(maxsize=1024)(self._find)

    def all(self) -> list[Runtime]:
        """Return every runtime, ordered by language; within a language the preferred and latest first."""
        return list(self._runtimes)

    def of_package(self, installed: str) -> list[Runtime]:
        """Return the runtimes of an installed package, including those hidden by another one."""
        return list(self._by_installed.get(installed, ()))

    def resolve(self, selector: str, version_range: str = "*", *, installed: str = "") -> Runtime:
        """Return the runtime for a request: the latest whose language or alias is `selector` and whose version matches.

        version_range: in npm's syntax. installed: consider the runtimes of this installed package only.
        Raises: UnknownRuntime, with a hint on how to install the language, similar names, or the available versions.
        Source: node-semver, "Ranges".
        """
        return self._resolve(selector, version_range, installed)

    def by_extension(self, extension: str) -> Runtime | None:
        """Return the runtime for a file extension (".py"), or None."""
        return self._by_extension.get(extension) or self._by_extension.get(extension.lower())

    def _find(self, selector: str, version_range: str, installed: str) -> Runtime:
        candidates = self._candidates(selector.strip().lower(), installed)
        if not candidates:
            raise UnknownRuntime(selector, version_range, hint=self._names_hint(selector))
        # The two usual ranges need no library: importing it takes longer than running a small program.
        if version_range.strip() == ANY:
            released = (runtime for runtime in candidates if not parts_of(runtime.version)[1])
            return next(released, candidates[0])
        if exact := next((runtime for runtime in candidates if runtime.version == version_range), None):
            return exact
        import semantic_version

        try:
            if len(version_range) > _LONGEST_RANGE:
                raise ValueError(version_range)
            wanted: Any = semantic_version.NpmSpec(version_range.strip())
        except ValueError:
            raise UnknownRuntime(selector, version_range, hint=_EXAMPLES) from None
        # npm's ranges exclude pre-releases unless they name one: these match as releases where nothing else matches.
        for as_release in (False, True):
            for runtime in candidates:
                version: Any = semantic_version.Version(runtime.version)
                if wanted.match(version.truncate("patch") if as_release else version):
                    return runtime
        versions = ", ".join(dict.fromkeys(runtime.version for runtime in candidates))
        raise UnknownRuntime(selector, version_range, hint=f"versions of {selector} here: {versions}")

    def _candidates(self, name: str, installed: str) -> list[Runtime]:
        if not installed:
            return self._by_name.get(name, [])
        own = self._by_installed.get(installed, [])
        found = [runtime for runtime in own if name in {each.lower() for each in runtime.names}]
        return sorted(found, key=lambda runtime: runtime.language.lower() != name)

    def _names_hint(self, selector: str) -> str:
        # Imported late: rarely needed.
        from firebox.runtimes.install_hints import installing_hint

        if words := installing_hint(selector):
            return words
        import difflib

        near = difflib.get_close_matches(selector.lower()[:64], self._by_name, n=3, cutoff=0.6)
        if near:
            return f"did you mean {' or '.join(near)}?"
        return "languages here: " + ", ".join(dict.fromkeys(runtime.language for runtime in self._runtimes))


def _descending(runtime: Runtime) -> tuple[int, tuple[int, int, int], bool, list[Any], str]:
    """Return the sort key of a runtime: highest rank, latest version; a pre-release after its release."""
    (major, minor, patch), prerelease = parts_of(runtime.version)
    numbers = (-major, -minor, -patch)
    return -runtime.rank, numbers, bool(prerelease), _descending_text(prerelease), runtime.package or ""


def _descending_text(parts: Iterable[str]) -> list[Any]:
    """Return a list for pre-release identifiers ("rc", "2") that sorts in descending order."""
    return [(-int(part), ()) if part.isdigit() else (-(1 << 60), [-ord(letter) for letter in part]) for part in parts]
