"""Measures both engines with a made fleet: ingest rate, bytes a row, the time of the join and of each question.

scale.py SYNPROBE RECORDINGS FOLDER --rows N [--engine NAME]: needs about 1 GB for a file of a million lines, beside the tables.
"""

import argparse
import itertools
import json
import os
import shutil
import time

import engines
from generate import BEGAN_US, Fleet
from questions import EXPECTED, question

CHUNK = 1_000_000


def timed(what, *args):
    began = time.monotonic()
    result = what(*args)
    return round(time.monotonic() - began, 2), result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("synprobe")
    parser.add_argument("recordings")
    parser.add_argument("folder")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=100_000, help="lines a second of the whole fleet")
    parser.add_argument("--engine", choices=["DuckDB", "ClickHouse"], action="append")
    args = parser.parse_args()
    wanted = args.engine or ["DuckDB", "ClickHouse"]
    paths = {name: os.path.join(args.folder, name) for name in wanted}
    for path in paths.values():
        shutil.rmtree(path, ignore_errors=True)
    made = {}
    if "DuckDB" in wanted:
        os.makedirs(paths["DuckDB"])
        made["DuckDB"] = engines.DuckDb(os.path.join(paths["DuckDB"], "fleet.duckdb"))
        made["DuckDB"].run("SET memory_limit = '6GB'")
    if "ClickHouse" in wanted:
        made["ClickHouse"] = engines.ClickHouse(paths["ClickHouse"])
        made["ClickHouse"].run("SET max_bytes_before_external_group_by = 2000000000")
    fleet = Fleet(args.synprobe, args.recordings, args.hosts, 1, False)
    lines = fleet.lines(args.rows, args.rows // args.rate)
    chunk, rows, text_bytes, ingest = os.path.join(args.folder, "chunk.ndjson"), 0, 0, dict.fromkeys(made, 0.0)
    while part := list(itertools.islice(lines, CHUNK)):
        with open(chunk, "w", encoding="utf-8") as file:
            file.writelines(part)
        rows += len(part)
        text_bytes += os.path.getsize(chunk)
        for name, engine in made.items():
            ingest[name] += timed(engine.load, chunk)[0]
        os.remove(chunk)
    for name, engine in made.items():
        engine.run("INSERT INTO zones VALUES " + ", ".join(f"('{n}', '{z}')" for n, z in fleet.zones()))
        if name == "DuckDB":
            engine.run("CHECKPOINT")
            stored = os.path.getsize(os.path.join(paths[name], "fleet.duckdb"))
        else:
            engine.run("OPTIMIZE TABLE lines FINAL")
            ((stored,),) = engine.rows("SELECT sum(toInt64(bytes_on_disk)) FROM system.parts WHERE active AND table = 'lines'")
            stored = int(stored)
        told = {"engine": name, "rows": rows, "json_bytes_a_row": round(text_bytes / rows, 1),
                "rows_a_second": round(rows / ingest[name]), "bytes_a_row": round(stored / rows, 1)}
        print(json.dumps(told), flush=True)
        print(json.dumps({"refresh": timed(engine.refresh)[0]}), flush=True)
        checks = {
            "pairs": "SELECT verdict, confidence, count(*) FROM pairs GROUP BY 1, 2 ORDER BY 3 DESC",
            # The ids of both ends of a made connect are in one group of eight. The first half-open tells.
            "wrong pairs": "SELECT count(*) FROM pairs WHERE client_id IS NOT NULL AND server_ids IS NOT NULL AND "
                           "floor(client_id / 8) <> floor(CAST(split_part(server_ids, ',', 1) AS BIGINT) / 8)",
        }
        for what, sql in checks.items():
            print(json.dumps([what, *timed(engine.rows, sql)]), flush=True)
        for file in EXPECTED:
            # The moment of the last one is put into the middle.
            sql = question(file).replace("1795961100000000", str(BEGAN_US + args.rows * 500_000 // args.rate))
            seconds, answer = timed(engine.rows, sql)
            print(json.dumps({"question": file, "seconds": seconds, "first": answer[:1]}), flush=True)
        engine.close()


if __name__ == "__main__":
    main()
