"""What the studies share: cases that are measured once each and kept in a file, and groups."""

import concurrent.futures
import pathlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from jnnk.runs.folder import read_json, write_json
from jnnk.runs.progress import Progress

Case = TypeVar("Case")
Record = TypeVar("Record")
Key = TypeVar("Key", bound=Hashable)


def kept(path: pathlib.Path, measure: Callable[[], Record], *, kind: Any) -> Record:
    """What a part's file holds; measured first where there is none.

    The file is whole or missing whenever the process dies, and what was just measured is read
    back from it, so that a command gives the same results in one go and in many.

    Args:
        path: the part's JSON file.
        measure: makes its content.
        kind: form of the content.
    """
    if not path.exists():
        write_json(path, measure())
    return read_json(path, kind=kind)


def run_cases(
    description: str,
    cases: Sequence[Case],
    measure: Callable[[Case], Record],
    *,
    unit: str,
    progress: Progress,
    show: Callable[[Record], dict[str, float]],
    streams: int = 1,
) -> list[Record]:
    """What every case measures, in their order.

    Args:
        description: names the bar.
        cases: of the study.
        measure: measures a case, or reads what was measured; see `kept`.
        unit: what a case is, in a word.
        progress: shows how far it is.
        show: numbers of a record that stand beside the bar.
        streams: cases measured side by side; Ctrl-C waits for these alone.
    """
    records = []
    with progress.task(description, total=len(cases), unit=unit) as task:
        for start in range(0, len(cases), streams):
            some = cases[start : start + streams]
            if streams == 1:
                found = [measure(case) for case in some]
            else:
                with concurrent.futures.ThreadPoolExecutor(streams) as pool:
                    found = list(pool.map(measure, some))
            records += found
            task.advance(len(found), **show(found[-1]))
    return records


def grouped(records: Iterable[Record], key: Callable[[Record], Key]) -> dict[Key, list[Record]]:
    """The records by what a function tells of them, in the order in which groups appear.

    Args:
        records: of a study.
        key: tells the group.
    """
    groups: dict[Key, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups
