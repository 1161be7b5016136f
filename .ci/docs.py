# SPDX-License-Identifier: MIT
"""Write the part of README.md that is made of the code: the table of all families and their metrics.

python .ci/docs.py            writes it
python .ci/docs.py --check    exit code 1 if it is not as it would be written
"""

import argparse
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
sys.path.insert(0, str(README.parent))

from agents.cli.catalog import OURS, known_agents  # noqa: E402
from agents.host import HostSource, Metric  # noqa: E402

BEGIN = "<!-- made by `make docs` from the code: do not edit -->"
END = "<!-- end of what `make docs` makes -->"


def families() -> dict[str, type[HostSource]]:
    """Every family of this distribution, by the name of its agent."""
    loaded = {name: known.load() for name, known in sorted(known_agents().items()) if known.package == OURS}
    return {name: agent for name, agent in loaded.items() if issubclass(agent, HostSource)}


def full_name(family: type[HostSource], metric: Metric) -> str:
    """As on the bus, without the host: families of one host carry their name, others the host's."""
    prefix = family.prefix_of(family.Config(prefix="HOST"))
    return f"{prefix}.{metric.name}"


def table(agents: Mapping[str, type[HostSource]]) -> Iterator[str]:
    """The lines between the marks."""
    yield "| family | agent | what it measures | metrics | platform |"
    yield "|---|---|---|---|---|"
    for name, family in agents.items():
        about = first_paragraph(family).rstrip(".")
        yield f"| {family.family} | `{name}` | {cell(about)} | {len(family.metrics)} | {cell(family.platform)} |"
    for name, family in agents.items():
        yield ""
        yield f"<details><summary><b>{family.family}</b> ({name}): {len(family.metrics)} metrics</summary>"
        yield ""
        yield "| metric | unit | what it is | platform |"
        yield "|---|---|---|---|"
        for metric in family.metrics:
            platform = metric.platform or family.platform
            yield f"| `{full_name(family, metric)}` | {metric.unit} | {cell(metric.description)} | {cell(platform)} |"
        yield ""
        yield "</details>"


def first_paragraph(family: type[HostSource]) -> str:
    """What the class says of itself, on one line."""
    return (inspect.getdoc(family) or "").split("\n\n")[0].replace("\n", " ")


def cell(text: str) -> str:
    """Text that does not end its cell."""
    return text.replace("|", r"\|")


def with_table(readme: str) -> str:
    """The README with its table as it should be. Raises ValueError without the two marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md has lost its marks {BEGIN!r} and {END!r}")
    return "\n".join([before + BEGIN, "", *table(families()), "", END + after])


def main() -> None:
    """Write the table, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it is stale")
    arguments = parser.parse_args()
    now = README.read_text(encoding="utf-8")
    wanted = with_table(now)
    if arguments.check and now != wanted:
        sys.exit("README.md is stale: its table of metrics differs from the code; run 'make docs'")
    if not arguments.check:
        README.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
