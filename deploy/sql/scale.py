"""Measures one engine with a made fleet: ingest rate, bytes a row, the time of the join and of each question.

scale.py ENGINE FOLDER FILE...: FILEs are lines of generate.py. Its first rows are measured, then the table is filled with
copies of them (other times, ids, ports and sequence numbers) to `--copies` times as many, and measured again. Seconds are of the
clock and of the CPU: where other work runs on the machine, only the latter tell. FOLDER must have room for about
150 bytes for each row.
"""

import argparse
import json
import os
import shutil
import time

import engines
from generate import BEGAN_US
from questions import AFTER_US, BEFORE_US, EXPECTED, question

# Both engines: one thread, and this much memory.
MEMORY_BYTES = 6_000_000_000
FIRST_UNTIL = {"DuckDB": f"make_timestamp({BEGAN_US} + 300000000)",
               "ClickHouse": f"fromUnixTimestamp64Micro({BEGAN_US} + 300000000, 'UTC')"}
COUNTS = "SELECT verdict, confidence, count(*) FROM stored_pairs GROUP BY 1, 2 ORDER BY 3 DESC"
STORED = ("1-which-link-loses.sql", "4-worst-pairs-of-the-last-hour.sql")


def told(what, **more):
    print(json.dumps({"what": what, **more}, default=str), flush=True)


def timed(name, what, *args, **more):
    wall, cpu = time.monotonic(), time.process_time()
    result = what(*args)
    told(name, seconds=round(time.monotonic() - wall, 2), cpu_seconds=round(time.process_time() - cpu, 2),
         load=os.getloadavg()[0], **more)
    return result


def opened(name, folder):
    path = os.path.join(folder, name)
    shutil.rmtree(path, ignore_errors=True)
    if name == "DuckDB":
        os.makedirs(path)
        engine = engines.DuckDb(os.path.join(path, "fleet.duckdb"))
        for setting in (f"memory_limit = '{MEMORY_BYTES // 10 ** 9}GB'", "threads = 1", "preserve_insertion_order = false",
                        f"temp_directory = '{path}/tmp'", "max_temp_directory_size = '8GB'"):
            engine.run(f"SET {setting}")
        return engine
    spill = MEMORY_BYTES // 4
    return engines.ClickHouse(path, f", max_threads = 1, max_memory_usage = {MEMORY_BYTES}, "
                                    f"max_bytes_before_external_group_by = {spill}, max_bytes_before_external_sort = {spill}")


def stored_bytes(engine):
    if engine.name == "DuckDB":
        engine.run("CHECKPOINT")
        ((size,),) = engine.rows("SELECT used_blocks * block_size FROM pragma_database_size()")
    else:
        ((size,),) = engine.rows("SELECT sum(toInt64(bytes_on_disk)) FROM system.parts WHERE active AND "
                                 "database = 'fleet' AND table = 'lines'")
    return int(size)


def copy(engine, number, seconds):
    """The same connects `number` times `seconds` later: no id, number or port of the others."""
    moved_us = number * seconds * 1_000_000
    time_moved = f"time + INTERVAL {moved_us} MICROSECOND"
    port = "CASE WHEN {0} >= 32768 THEN 32768 + ({0} - 32768 + %d) %% 28000 ELSE {0} END" % (number * 200)
    new = {
        "time": time_moved, "mono_ns": f"mono_ns + {moved_us * 1000}", "id": f"id + {number * 1_000_000_000}",
        "local_port": port.format("local_port"), "peer_port": port.format("peer_port"),
        "syn_seq": f"(syn_seq + {number * 982_451_653}) % 4294967296",
        "syn_ack_seq": f"(syn_ack_seq + {number * 961_748_941}) % 4294967296",
    }
    if engine.name == "ClickHouse":
        new["time"] = f"addMicroseconds(time, {moved_us})"
    names = [n if n not in ("trigger", "count") else f'"{n}"' for n in engine.columns]
    engine.run(f"INSERT INTO lines ({', '.join(names)}) SELECT {', '.join(new.get(n, n) for n in names)} FROM lines "
               f"WHERE type NOT IN ('start', 'end') AND id < 1000000000 AND time < {FIRST_UNTIL[engine.name]}")


def ask(engine, seconds, of):
    rows = engine.rows("SELECT count(*), count(DISTINCT node) FROM lines")[0]
    told("rows", rows=rows)
    for file in EXPECTED:
        sql = question(file)
        # The moment of the last one is put into the middle.
        sql = sql.replace("1795961100000000", str(BEGAN_US + seconds * 500_000))
        if file in STORED:
            sql = sql.replace("FROM pairs", "FROM stored_pairs")
        answer = timed(file, engine.rows, sql, of=of)
        told("answer", file=file, rows=len(answer), first=answer[:1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=["DuckDB", "ClickHouse"])
    parser.add_argument("folder")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--seconds", type=int, default=100, help="time of the lines of the files")
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--hosts", type=int, default=10_000)
    args = parser.parse_args()
    engine = opened(args.engine, args.folder)
    engine.run("INSERT INTO zones VALUES " + ", ".join(f"('h{h:05}', 'z{h % 8}')" for h in range(args.hosts)))
    files, step_us = sorted(args.files), args.seconds * 1_000_000
    for file in files:
        timed("ingest", engine.load, file)
    rows = engine.rows("SELECT count(*) FROM lines")[0][0]
    told("stored", rows=rows, bytes=stored_bytes(engine))
    timed("window", engine.store, BEGAN_US, BEGAN_US + step_us, BEFORE_US, AFTER_US, of=1)
    told("pairs", rows=engine.rows(COUNTS))
    ask(engine, args.seconds, 1)
    engine.run("DROP TABLE stored_pairs")
    for number in range(1, args.copies):
        timed("copy", copy, engine, number, args.seconds)
    rows = engine.rows("SELECT count(*) FROM lines")[0][0]
    told("stored", rows=rows, bytes=stored_bytes(engine))
    # One window, in the middle. The table of pairs is filled with copies of its pairs.
    from_us = BEGAN_US + args.copies // 2 * step_us
    timed("window", engine.store, from_us, from_us + step_us, BEFORE_US, AFTER_US, of=args.copies)
    told("pairs", rows=engine.rows(COUNTS))
    engine.run("CREATE TABLE one_window " + ("" if args.engine == "DuckDB" else "ENGINE = MergeTree ORDER BY tuple() ")
               + "AS SELECT * FROM stored_pairs")
    for _ in range(1, args.copies):
        engine.run("INSERT INTO stored_pairs SELECT * FROM one_window")
    ask(engine, args.seconds * args.copies, args.copies)
    # The same lines again: only for the rate with a full table.
    timed("ingest", engine.load, files[len(files) // 2], of=args.copies)
    engine.close()


if __name__ == "__main__":
    main()
