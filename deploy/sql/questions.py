"""Asks each question of questions/ in both engines, of a made fleet with faults at known places.

questions.py FLEET.ndjson: from `generate.py --faults --hosts 16`.
"""

import os
import sys

from engines import HERE, ClickHouse, DuckDb, statements

# What the first row of each answer must begin with, and what no row may have. generate.py has the faults.
EXPECTED = {
    "1-which-link-loses.sql": (("z1", "z2"), None),
    "2-who-refuses-whom.sql": (("10.0.0.9", 6379, "10.0.0.5", "RST", 200), None),
    "3-retries-without-backoff.sql": (("h00005", "eager", "10.0.0.9", 6379, 200, 20, 20), "patient"),
    "4-worst-pairs-of-the-last-hour.sql": (("h00012", "h00011", 9090), None),
    "5-what-changed.sql": (("10.0.0.11", 9090, "client", "server-queue-full", 0), None),
}


def number(value):
    return float(value) if isinstance(value, (int, float)) else value


def answers(engine, fleet):
    engine.load(fleet)
    engine.run("INSERT INTO zones VALUES " + ", ".join(f"('h{host:05}', 'z{host % 8}')" for host in range(16)))
    engine.refresh()
    return {file: [tuple(map(number, row)) for row in engine.rows(question(file))] for file in EXPECTED}


def question(file):
    (one,) = statements(os.path.join("questions", file))
    return one


def main():
    if sorted(os.listdir(os.path.join(HERE, "questions"))) != sorted(EXPECTED):
        sys.exit("a question has no expected answer, or an answer no question")
    failed = []
    by_engine = {}
    for engine in (DuckDb(), ClickHouse()):
        by_engine[engine.name] = answers(engine, sys.argv[1])
        engine.close()
    for file, (first, never) in EXPECTED.items():
        rows = by_engine["DuckDB"][file]
        if rows != by_engine["ClickHouse"][file]:
            failed.append(f"{file}: {rows[:3]} and {by_engine['ClickHouse'][file][:3]}")
        if not rows or rows[0][:len(first)] != tuple(map(number, first)):
            failed.append(f"{file}: {rows[:3]}, not {first} first")
        if never and any(never in row for row in rows):
            failed.append(f"{file}: {never} is in it")
    # Of the link that loses in one direction, no loss in the other is claimed beyond what all links have.
    link = by_engine["DuckDB"]["1-which-link-loses.sql"][0]
    if not (link[3] >= 20 and link[4] <= link[3] / 10):
        failed.append(f"the link loses toward the server, not {link}")
    if failed:
        sys.exit("\n".join(failed))
    print(f"{len(EXPECTED)} questions: both engines give the same answers, and find the faults that were made")


if __name__ == "__main__":
    main()
