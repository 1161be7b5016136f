# SPDX-License-Identifier: MIT
"""Write the parts of README.md that are made of the code: the tables of all families and of their metrics.

python .ci/docs.py            writes it
python .ci/docs.py --check    exit code 1 if it is not as it would be written
"""

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
sys.path.insert(0, str(README.parent))

from agents.cli.catalog import OURS, known_agents  # noqa: E402
from agents.host import HostSource, Metric  # noqa: E402

BEGIN = "<!-- {}: made by `make docs` from the code, do not edit -->"
END = "<!-- end of {} -->"


def families() -> dict[str, type[HostSource]]:
    """Every family of this distribution, by the name of its agent."""
    loaded = {name: known.load() for name, known in sorted(known_agents().items()) if known.package == OURS}
    return {name: agent for name, agent in loaded.items() if issubclass(agent, HostSource)}


def full_name(family: type[HostSource], metric: Metric) -> str:
    """As on the bus. The names of a family that speaks for several hosts begin with the host of each."""
    prefix = family.prefix_of(family.Config(prefix="HOST"))
    return metric.name.replace("{host}", "HOST") if prefix == "HOST" else f"{prefix}.{metric.name}"


def overview(agents: Mapping[str, type[HostSource]]) -> Iterator[str]:
    """A line for each family."""
    yield "| family | agent | what it measures | metrics | platform |"
    yield "|---|---|---|---|---|"
    for name, family in agents.items():
        about = first_paragraph(family).rstrip(".")
        yield f"| {family.family} | `{name}` | {cell(about)} | {len(family.metrics)} | {cell(family.platform)} |"


def all_metrics(agents: Mapping[str, type[HostSource]]) -> Iterator[str]:
    """A table for each family, folded up."""
    for name, family in agents.items():
        yield f"<details><summary><b>{family.family}</b> ({name}): {len(family.metrics)} metrics</summary>"
        yield ""
        yield "| metric | unit | what it is | platform |"
        yield "|---|---|---|---|"
        for metric in family.metrics:
            platform = metric.platform or family.platform
            unit = metric.unit or "its own"
            yield f"| `{full_name(family, metric)}` | {unit} | {cell(metric.description)} | {cell(platform)} |"
        yield ""
        yield "</details>"
        yield ""


def first_paragraph(family: type[HostSource]) -> str:
    """What the class says of itself, on one line."""
    return (inspect.getdoc(family) or "").split("\n\n")[0].replace("\n", " ")


def cell(text: str) -> str:
    """Text that does not end its cell."""
    return text.replace("|", r"\|")


def with_tables(readme: str) -> str:
    """The README with its tables as they should be. Raises ValueError without their marks."""
    agents = families()
    readme = with_part(readme, "table of families", overview(agents))
    return with_part(readme, "tables of metrics", all_metrics(agents))


def with_part(readme: str, name: str, lines: Iterable[str]) -> str:
    """The README with other lines between the marks of a part."""
    before, begin, rest = readme.partition(BEGIN.format(name))
    _, end, after = rest.partition(END.format(name))
    if not (begin and end):
        raise ValueError(f"README.md has lost its marks {BEGIN.format(name)!r} and {END.format(name)!r}")
    return before + begin + "\n" + "\n".join(lines).strip() + "\n" + end + after


def main() -> None:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it is stale")
    arguments = parser.parse_args()
    now = README.read_text(encoding="utf-8")
    wanted = with_tables(now)
    if arguments.check and now != wanted:
        sys.exit("README.md is stale: its tables of metrics differ from the code; run 'make docs'")
    if not arguments.check:
        README.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
