"""Rows of the table, printed as they are known and kept for the JSON file."""

import json
import time


class Report:
    """What was measured and checked.

    Attributes:
        small: whether sections take their small sizes.
        rates: measured rates of the device by name, from the section ``machine``.
    """

    def __init__(self, described: dict, *, small: bool, seconds: float, out: str | None):
        self.small, self.rates = small, {}
        self._end, self._out = time.perf_counter() + seconds, out
        self._content = {"machine": described, "small": small, "rows": []}
        self._content |= {"checks": [], "failures": {}, "notes": []}
        self._section = ""
        for name, value in described.items():
            print(f"{name}: {value}")
        print("sizes:", "small" if small else "full")

    def begin(self, section: str, share: float):
        """Starts a section, which may take that share of the time that is left."""
        self._section, now = section, time.perf_counter()
        self._section_end = now + share * (self._end - now)
        print(f"\n## {section}\n\n| case | contender | value | compiled in s | remarks |")
        print("|---|---|---|---|---|", flush=True)

    def has_time(self, case: str, seconds: float = 5) -> bool:
        """Whether the section has so many seconds left; names what is skipped otherwise."""
        left = self._section_end - time.perf_counter()
        if left < seconds:
            self.note(f"skipped for want of time: {case}")
        return left >= seconds

    def row(self, case, contender, value, unit, *, compiled=None, remarks="", **numbers):
        """One measurement; ``numbers`` go to the JSON file alone."""
        entry = {"section": self._section, "case": case, "contender": contender, "value": value}
        entry |= {"unit": unit, "compiled": compiled, "remarks": remarks} | numbers
        self._content["rows"].append(entry)
        shown = "" if compiled is None else f"{compiled:.1f}"
        self._print(f"| {case} | {contender} | {_number(value)} {unit} | {shown} | {remarks} |")

    def checks(self, case, results, *, seconds):
        """Numbers that must not be above their limits, ``(what, value, limit)``; NaN fails.

        One row for all of a case, and one for each that fails.
        """
        worst = ("nothing", 0.0, 1.0)
        for what, value, limit in results:
            passed = bool(value <= limit)
            entry = {"section": self._section, "case": case, "what": what, "value": float(value)}
            entry |= {"limit": float(limit), "passed": passed}
            self._content["checks"].append(entry)
            if not passed:
                self._print(f"| {case} | FAILED | {value:.2g} > {limit:.2g} | | {what} |")
            elif value * worst[2] > worst[1] * limit:
                worst = what, value, limit
        remarks = f"nearest to its limit: {worst[0]}, {worst[1]:.1g} <= {worst[2]:.1g}"
        self._print(f"| {case} | {len(results)} checks | {seconds:.1f} s | | {remarks} |")

    def note(self, text: str):
        self._content["notes"].append(f"{self._section}: {text}")
        self._print(f"({text})")

    def failure(self, traceback: str):
        """What stopped a section, or one of its parts."""
        self._content["failures"].setdefault(self._section, []).append(traceback)
        self._print(f"\nFAILED {self._section}\n{traceback}")

    def finish(self) -> int:
        """The exit code."""
        failed = [entry for entry in self._content["checks"] if not entry["passed"]]
        failures = self._content["failures"]
        self._section = "end"
        for entry in failed:
            self.note("check failed: {section}, {case}, {what}".format(**entry))
        passed = len(self._content["checks"]) - len(failed)
        self.note(f"{passed} checks passed, {len(failed)} failed; {len(failures)} sections failed")
        return int(bool(failed or failures))

    def _print(self, line: str):
        print(line, flush=True)
        if self._out:  # written anew each time: a run that is cut off leaves what it had
            with open(self._out, "w") as file:
                json.dump(self._content, file, indent=1)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
