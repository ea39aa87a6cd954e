"""Asks each question of questions/ in both engines, of a made fleet with faults at known places.

questions.py FLEET.ndjson: from `generate.py --faults --hosts 16`.
"""

import json
import os
import sys

from engines import HERE, ClickHouse, DuckDb, statements
from generate import BEGAN_US

# What the first row of each answer must begin with, and what no row may have. generate.py has the faults.
EXPECTED = {
    "1-which-link-loses.sql": (("z1", "z2"), None),
    "2-who-refuses-whom.sql": (("10.0.0.9", 6379, "10.0.0.5", "RST", 200), None),
    "3-retries-without-backoff.sql": (("h00005", "eager", "10.0.0.9", 6379, 199, 20, 20), "patient"),
    "4-worst-pairs-of-the-last-hour.sql": (("h00012", "h00011", 9090), None),
    "5-what-changed.sql": (("10.0.0.11", 9090, "server", "accept-queue-full", 0), None),
}


# The longest connect (tcp_syn_retries 6), and the longest half-open after it (tcp_synack_retries 5).
BEFORE_US, AFTER_US = 130_000_000, 70_000_000
# A period whose pairs are stored.
WINDOW_US = 1_800_000_000


def number(value):
    return float(value) if isinstance(value, (int, float)) else value


# The columns of otel_logs that the exporter of the OpenTelemetry Collector makes, as far as they are read.
OTEL_LOGS = ("CREATE TABLE otel_logs (Timestamp DateTime64(9), ServiceName LowCardinality(String), "
             "ResourceAttributes Map(LowCardinality(String), String), LogAttributes Map(LowCardinality(String), String)) "
             "ENGINE = MergeTree ORDER BY Timestamp")


def by_otlp(clickhouse, fleet, folder):
    """The handshakes as log records: how many come out as they went in, and how many there are."""
    clickhouse.run(OTEL_LOGS)
    for statement in statements("clickhouse-otel.sql"):
        clickhouse.run(statement)
    path = os.path.join(folder, "otel_logs.ndjson")
    with open(fleet, encoding="utf-8") as lines, open(path, "w", encoding="utf-8") as out:
        for line in map(json.loads, lines):
            if line["type"] != "handshake":
                continue
            attributes = {k: v if isinstance(v, str) else json.dumps(v) for k, v in line.items() if v is not None}
            attributes["event.name"] = line["type"]
            row = {"Timestamp": line["time"], "ServiceName": "synprobe", "LogAttributes": attributes,
                   "ResourceAttributes": {"host.name": line["node"]}}
            out.write(json.dumps(row) + "\n")
    same = "node, time, id, role, local_addr, local_port, peer_addr, peer_port, outcome, dwell_us, verdict, syn_seq"
    as_lines = clickhouse.rows(f"SELECT {same} FROM lines WHERE type = 'handshake' ORDER BY ALL")
    clickhouse.empty()
    clickhouse.run(f"INSERT INTO otel_logs SELECT * FROM file('{path}', JSONEachRow)")
    return as_lines, clickhouse.rows(f"SELECT {same} FROM lines WHERE type = 'handshake' ORDER BY ALL")


def answers(engine, load, fleet):
    load(fleet)
    engine.run("INSERT INTO zones VALUES " + ", ".join(f"('h{host:05}', 'z{host % 8}')" for host in range(16)))
    engine.refresh()
    return {file: [tuple(map(number, row)) for row in engine.rows(question(file))] for file in EXPECTED}


def by_windows(engine):
    """The pairs of the whole time, and those stored window by window: which are not in both."""
    columns = "client_node, server_node, client_id, server_ids, lost_toward_server, lost_toward_client, verdict, confidence"
    whole = sorted(engine.rows(f"SELECT {columns} FROM pairs"), key=str)
    ((until_us,),) = engine.rows("SELECT max(at_us) FROM pairs")
    for from_us in range(BEGAN_US, int(until_us) + 1, WINDOW_US):
        engine.store(from_us, from_us + WINDOW_US, BEFORE_US, AFTER_US)
    stored = sorted(engine.rows(f"SELECT {columns} FROM stored_pairs"), key=str)
    # A window knows less of the clocks and of who has an address: it may claim less, and must not claim more.
    known = {row[:4]: row for row in whole}
    wrong = []
    for row in stored:
        other = known.get(row[:4], row[:4] + (-1,) * 4)
        less = row[6:] == other[6:] and all(a == b or None not in (a, b) and int(a) <= int(b)
                                            for a, b in zip(row[4:6], other[4:6]))
        if not less and row[7] != "insufficient":
            wrong.append((row, other))
    if len(stored) != len(whole) or len(known) != len(whole) or wrong:
        return [f"{engine.name}: {len(stored)} pairs by windows of {len(whole)}, more than in the whole: {wrong[:3]}"]
    return []


def question(file):
    (one,) = statements(os.path.join("questions", file))
    return one


def main():
    if sorted(os.listdir(os.path.join(HERE, "questions"))) != sorted(EXPECTED):
        sys.exit("a question has no expected answer, or an answer no question")
    fleet = sys.argv[1]
    folder = os.path.dirname(fleet)
    failed = []
    by_engine = {}
    duckdb, clickhouse = DuckDb(), ClickHouse()
    if list(duckdb.columns) != list(clickhouse.columns):
        failed.append(f"other columns: {set(duckdb.columns) ^ set(clickhouse.columns)}, or another order")
    by_engine["DuckDB"] = answers(duckdb, duckdb.load, fleet)
    # The other engine gets the lines as Parquet.
    parquet = os.path.join(folder, "fleet.parquet")
    duckdb.run(f"COPY lines TO '{parquet}' (FORMAT parquet)")
    by_engine["ClickHouse"] = answers(clickhouse, clickhouse.load_parquet, parquet)
    for engine in (duckdb, clickhouse):
        failed += by_windows(engine)
    as_lines, as_records = by_otlp(clickhouse, fleet, folder)
    if as_lines != as_records or not as_lines:
        failed.append(f"by OTLP: {len(as_records)} handshakes of {len(as_lines)}, or others")
    count = duckdb.rows("SELECT count(*) FROM lines")
    duckdb.empty()
    duckdb.load_parquet(parquet)
    if duckdb.rows("SELECT count(*) FROM lines") != count:
        failed.append("by Parquet: other lines")
    duckdb.close()
    clickhouse.close()
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
