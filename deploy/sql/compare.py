"""Joins the same files by `synprobe join` and by the view in both engines, and compares pair by pair.

compare.py SYNPROBE FOLDER…: each has one folder for each run, with client.ndjson and server.ndjson. ClickHouse, which
plans the view for about a second, gets those with a pair in trouble, and of the lab's runs those of IPv4.
"""

import json
import os
import subprocess
import sys

from engines import ClickHouse, DuckDb

FIELDS = ("pair_key", "client_id", "server_ids", "lost_toward_server", "lost_toward_client", "verdict", "confidence",
          "simultaneous")


def by_join(synprobe, client, server):
    """What `synprobe join` says: the fields that the view has too, and the offset with its bound."""
    ran = subprocess.run([synprobe, "join", client, server, "--format", "json"], check=True, capture_output=True, text=True)
    pairs = []
    swapped = False
    for line in map(json.loads, ran.stdout.splitlines()):
        swapped = swapped or line.get("swapped", False)
        if line["type"] != "pair":
            continue
        lost = line["lost"]
        pairs.append((
            (line["key"], line["client"] and line["client"]["id"], ids(str(s["id"]) for s in line["server"]),
             lost["toward_server"], lost["toward_client"], line["verdict"], line["confidence"], int(line["simultaneous"])),
            (line["clock_offset_us"], line["clock_error_us"]),
        ))
    return pairs, swapped


def ids(all_of_them):
    return ",".join(sorted(all_of_them, key=int)) or None


def by_view(engine, swapped):
    client, server = ("server", "client") if swapped else ("client", "server")
    sql = (f"SELECT {', '.join(FIELDS)}, clock_offset_us, clock_error_us FROM pairs "
           f"WHERE coalesce(client_node, '{client}') = '{client}' AND coalesce(server_node, '{server}') = '{server}'")
    pairs = []
    for row in engine.rows(sql):
        row = [int(v) if f.startswith(("client_id", "lost", "simultaneous")) and v is not None else v
               for f, v in zip(FIELDS, row)] + [None if v is None else int(v) for v in row[len(FIELDS):]]
        row[2] = row[2] and ids(row[2].split(","))
        pairs.append((tuple(row[:len(FIELDS)]), tuple(row[len(FIELDS):])))
    return pairs


def differences(expected, got):
    """Pairs that only one of them has, and offsets that contradict each other."""
    order = lambda pair: tuple(str(v) for v in pair[0])
    expected, got = sorted(expected, key=order), sorted(got, key=order)
    left = [("synprobe join", p) for p, _ in expected]
    for pair, _ in got:
        if ("synprobe join", pair) in left:
            left.remove(("synprobe join", pair))
        else:
            left.append(("the view", pair))
    if not left:
        for (pair, (offset, error)), (_, (offset_2, error_2)) in zip(expected, got):
            if None not in (offset, offset_2) and abs(offset - offset_2) > error + error_2:
                left.append((f"offset {offset} ± {error} and {offset_2} ± {error_2}", pair))
    return left


def main():
    synprobe, *folders = sys.argv[1:]
    failed, pairs, troubled, joined = 0, 0, 0, {"DuckDB": 0, "ClickHouse": 0}
    engines = [DuckDb(), ClickHouse()]
    runs = [os.path.join(folder, run) for folder in folders for run in sorted(os.listdir(folder))]
    for run in runs:
        files = [os.path.join(run, f"{side}.ndjson") for side in ("client", "server")]
        expected, swapped = by_join(synprobe, *files)
        pairs += len(expected)
        in_trouble = sum(1 for pair, _ in expected if pair[5] is not None)
        troubled += in_trouble
        for engine in engines:
            if engine.name == "ClickHouse" and (not in_trouble or run.endswith("-true")):
                continue
            joined[engine.name] += len(expected)
            engine.empty()
            engine.load(os.path.join(run, "*.ndjson"))
            engine.refresh()
            for who, pair in differences(expected, by_view(engine, swapped)):
                print(f"{run}: {engine.name}: only {who}: {dict(zip(FIELDS, pair))}", file=sys.stderr)
                failed += 1
    for engine in engines:
        engine.close()
    if failed:
        sys.exit(f"{failed} differences")
    if len(runs) < 3 or troubled < 10 or min(joined.values()) < 50:
        sys.exit(f"{len(runs)} runs with {troubled} pairs in trouble, {joined}: too few to show anything")
    print(f"{len(runs)} runs, {pairs} pairs, {troubled} of them in trouble; compared: "
          + ", ".join(f"{count} in {name}" for name, count in joined.items()))


if __name__ == "__main__":
    main()
