"""Measures one engine with a made fleet: ingest rate, bytes a row, the time of the join and of each question.

scale.py ENGINE FOLDER --load FILE adds lines of generate.py to the table in FOLDER, and makes it first. With
`--again N` it reads the file N times, each time as the same connects so many `--seconds` later: other times, ids,
ports and sequence numbers. `--copy N` makes them in SQL from the lines that are there, which is quicker.
scale.py ENGINE FOLDER --ask SECONDS asks each question of what is there, of so many seconds, and joins it: all, or
`--measured` of `--windows`.

Seconds are of the clock and of the CPU: where other work runs on the machine, only the latter tell. For docs/fleet.md:

    generate.py synprobe tests/recordings --rows 9980000 --seconds 100 --runs-end 1000 >lines.ndjson
    for engine in DuckDB ClickHouse; do
        scale.py $engine . --load lines.ndjson
        scale.py $engine . --ask 100
    done
    scale.py DuckDB . --load lines.ndjson --first 1 --again 9
    scale.py ClickHouse . --copy 9 --first 1
    scale.py $engine . --ask 1000 --memory 12 --windows 10 --measured 1
"""

import argparse
import json
import os
import resource
import time

import engines
import stages
from generate import BEGAN_US
from questions import AFTER_US, BEFORE_US, EXPECTED, question

COUNTS = "SELECT verdict, confidence, count(*) FROM stored_pairs GROUP BY 1, 2 ORDER BY 3 DESC, 1"
STORED = ("1-which-link-loses.sql", "4-worst-pairs-of-the-last-hour.sql")
# Connects end later than they begin, and some do not end: what is stored of all lines.
MARGIN_US = 600_000_000


def told(what, **more):
    print(json.dumps({"what": what, **more}, default=str), flush=True)


def timed(name, what, *args, **more):
    wall, cpu = time.monotonic(), time.process_time()
    result = what(*args)
    told(name, seconds=round(time.monotonic() - wall, 2), cpu_seconds=round(time.process_time() - cpu, 2),
         load=os.getloadavg()[0], **more)
    return result


def opened(name, folder, memory):
    """One thread, and so much memory."""
    path = os.path.join(folder, name)
    new = not os.path.exists(path)
    if name == "DuckDB":
        os.makedirs(path, exist_ok=True)
        engine = engines.DuckDb(os.path.join(path, "fleet.duckdb"), ("duckdb.sql",) if new else ())
        for setting in (f"memory_limit = '{memory}GB'", "threads = 1", "preserve_insertion_order = false",
                        f"temp_directory = '{path}/tmp'", "max_temp_directory_size = '12GB'"):
            engine.run(f"SET {setting}")
        return engine
    spill = memory * 10 ** 9 // 4
    return engines.ClickHouse(path, f", max_threads = 1, max_memory_usage = {memory * 10 ** 9}, "
                                    f"max_bytes_before_external_group_by = {spill}, max_bytes_before_external_sort = {spill}",
                              ("clickhouse.sql",) if new else (), "1 YEAR")


def stored_bytes(engine):
    if engine.name == "DuckDB":
        engine.run("CHECKPOINT")
        ((size,),) = engine.rows("SELECT used_blocks * block_size FROM pragma_database_size()")
    else:
        ((size,),) = engine.rows("SELECT sum(toInt64(bytes_on_disk)) FROM system.parts WHERE active AND "
                                 "database = 'fleet' AND table = 'lines'")
    return int(size)


def moved(engine, number, seconds):
    """The same connects `number` times `seconds` later: no id, number or port of the others."""
    us = number * seconds * 1_000_000
    port = "CASE WHEN {0} >= 32768 THEN 32768 + ({0} - 32768 + %d) %% 28000 ELSE {0} END" % (number * 200)
    later = f"time + INTERVAL {us} MICROSECOND" if engine.name == "DuckDB" else f"addMicroseconds(time, {us})"
    return {
        "time": later, "mono_ns": f"mono_ns + {us * 1000}", "id": f"id + {number * 1_000_000_000}",
        "local_port": port.format("local_port"), "peer_port": port.format("peer_port"),
        "syn_seq": f"(syn_seq + {number * 982_451_653}) % 4294967296",
        "syn_ack_seq": f"(syn_ack_seq + {number * 961_748_941}) % 4294967296",
    }


def load(engine, file, numbers, seconds):
    for number in numbers:
        # The runs go on: only their first beginning and their end are lines.
        more = (moved(engine, number, seconds), "type NOT IN ('start', 'end')") if number else ()
        timed("ingest", engine.load, os.path.abspath(file), *more)
        told("stored", rows=engine.rows("SELECT count(*) FROM lines")[0][0], bytes=stored_bytes(engine))


def copy(engine, numbers, seconds):
    """As `load`, but from the lines that are there: much quicker than to read them."""
    until = f"make_timestamp({BEGAN_US} + {seconds + 400} * 1000000)" if engine.name == "DuckDB" else \
        f"fromUnixTimestamp64Micro({BEGAN_US} + {seconds + 400} * 1000000, 'UTC')"
    names = [f'"{name}"' for name in engine.columns]
    for number in numbers:
        new = moved(engine, number, seconds)
        values = ", ".join(new.get(name, f'"{name}"') for name in engine.columns)
        timed("copy", engine.run, f"INSERT INTO lines ({', '.join(names)}) SELECT {values} FROM lines "
              f"WHERE type NOT IN ('start', 'end') AND id < 1000000000 AND time < {until}")
    told("stored", rows=engine.rows("SELECT count(*) FROM lines")[0][0], bytes=stored_bytes(engine))


def views(engine):
    return ["pairs", *(reversed(stages.stages()[1]) if engine.name == "ClickHouse" else ())]


def answer(engine, file, seconds):
    # The moment of the last one is put into the middle.
    sql = question(file).replace("1795961100000000", str(BEGAN_US + seconds * 500_000))
    answer = timed(file, engine.rows, sql.replace("FROM pairs", "FROM stored_pairs") if file in STORED else sql)
    told("answer", file=file, rows=len(answer), first=answer[:1])


def ask(engine, seconds, windows, measured):
    """The stages are there only for this time. They are refreshed when they are asked to, and not meanwhile."""
    engine.run("DROP TABLE IF EXISTS stored_pairs")
    for view in views(engine):
        engine.run(f"DROP VIEW IF EXISTS {view}")
    engine.make("join.sql" if engine.name == "DuckDB" else "clickhouse-join.sql")
    if not engine.rows("SELECT 1 FROM zones LIMIT 1"):
        engine.run("INSERT INTO zones SELECT DISTINCT node, 'z' || (CAST(substr(node, 2) AS INTEGER) % 8) FROM lines")
    told("rows", rows=engine.rows("SELECT count(*), count(DISTINCT node) FROM lines")[0])
    engine.period(0, 9_000_000_000_000_000)
    for file in EXPECTED:
        if file not in STORED:
            answer(engine, file, seconds)
    edges = [BEGAN_US + seconds * 1_000_000 * n // windows for n in range(windows + 1)]
    edges[0], edges[-1] = edges[0] - MARGIN_US, edges[-1] + MARGIN_US
    first = (windows - measured) // 2
    for from_us, until_us in list(zip(edges, edges[1:]))[first:first + measured]:
        timed("join", engine.store, from_us, until_us, BEFORE_US, AFTER_US, window=[from_us, until_us])
    told("pairs", rows=engine.rows(COUNTS))
    if measured < windows:
        # The lines of each window are those of the others, moved: so are the pairs.
        engine.run("CREATE TABLE measured_pairs " + ("" if engine.name == "DuckDB" else "ENGINE = MergeTree ORDER BY tuple() ")
                   + "AS SELECT * FROM stored_pairs")
        for _ in range(windows // measured - 1):
            engine.run("INSERT INTO stored_pairs SELECT * FROM measured_pairs")
        engine.run("DROP TABLE measured_pairs")
    for file in STORED:
        answer(engine, file, seconds)
    for view in views(engine):
        engine.run(f"DROP VIEW {view}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=["DuckDB", "ClickHouse"])
    parser.add_argument("folder")
    parser.add_argument("--load", metavar="FILE")
    parser.add_argument("--first", type=int, default=0, help="0: begin with the lines as they are")
    parser.add_argument("--again", type=int, default=1, help="how many times the file is read")
    parser.add_argument("--copy", type=int, default=0, metavar="N", help="make N copies in the engine")
    parser.add_argument("--seconds", type=int, default=100, help="time of the lines of the file")
    parser.add_argument("--ask", type=int, metavar="SECONDS", help="time of the lines that are there")
    parser.add_argument("--windows", type=int, default=1, help="join so many windows of that time one after the other")
    parser.add_argument("--measured", type=int, help="join only so many of them, in the middle")
    parser.add_argument("--memory", type=int, default=6, help="in GB")
    args = parser.parse_args()
    engine = opened(args.engine, args.folder, args.memory)
    if args.load:
        load(engine, args.load, range(args.first, args.first + args.again), args.seconds)
    if args.copy:
        copy(engine, range(args.first, args.first + args.copy), args.seconds)
    if args.ask:
        ask(engine, args.ask, args.windows, args.measured or args.windows)
    engine.close()
    told("process", engine=args.engine, cpu_seconds=round(time.process_time(), 2),
         peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main()
