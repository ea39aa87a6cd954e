"""Makes clickhouse-join.sql from join.sql: each materialized part of the view becomes a view that refreshes itself.

ClickHouse (26.9) inlines the parts of a view wherever they are used, materialized or not. join.sql uses some of them
many times, so as one view it cannot be planned there. `stages.py` prints the file, `stages.py --check` compares it.
"""

import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
HEAD = """-- Made from join.sql by stages.py: the same join for ClickHouse, in stages. Each stage is a table that refreshes itself
-- every ten minutes, after those that it reads. `pairs` is a view of the last one. docs/fleet.md has more.
"""
# What each stage reads of another refresh.
STAGE = "CREATE MATERIALIZED VIEW {name} REFRESH {when} ENGINE = MergeTree ORDER BY tuple() EMPTY AS\n{body}\n" \
    "{settings};\n"
# Also while it refreshes: a missing row is NULL, and the least of a number and NULL is the number.
SETTINGS = "SETTINGS join_use_nulls = 1, least_greatest_legacy_null_behavior = 0"


def parts(text):
    """The parts of the WITH clause in their order (name, whether materialized, body), and what follows."""
    text = text[text.index("CREATE VIEW pairs AS\nWITH\n") + len("CREATE VIEW pairs AS\nWITH\n"):]
    found = []
    while True:
        text = re.sub(r"\A(\s|--[^\n]*\n)*", "", text)
        head = re.match(r"(\w+) AS (MATERIALIZED )?\(", text)
        if not head:
            return found, text.rstrip().rstrip(";")
        depth, end = 1, head.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        found.append((head[1], bool(head[2]), text[head.end():end - 1].strip("\n")))
        text = text[end:].lstrip(",")


def needed(body, plain):
    """The plain parts that a body reads, with those that they read, in their order."""
    wanted, bodies = set(), [body]
    while bodies:
        words = set(re.findall(r"\w+", bodies.pop()))
        for name, text in plain.items():
            if name in words and name not in wanted:
                wanted.add(name)
                bodies.append(text)
    return [name for name in plain if name in wanted]


def with_parts(body, plain):
    names = needed(body, plain)
    head = ",\n".join(f"{name} AS (\n{plain[name]}\n)" for name in names)
    return f"WITH\n{head}\n{body.strip()}" if names else body.strip()


def stages():
    found, last = parts(open(os.path.join(HERE, "join.sql"), encoding="utf-8").read())
    plain, made, out = {}, [], [HEAD]
    for name, materialized, body in found:
        if not materialized:
            plain[name] = body
            continue
        whole = with_parts(body, plain)
        reads = [stage for stage in made if re.search(rf"\b{stage}\b", whole)]
        when = "EVERY 10 MINUTE" + (f" DEPENDS ON {', '.join(reads)}" if reads else "")
        out.append(STAGE.format(name=name, when=when, body=whole, settings=SETTINGS))
        made.append(name)
    out.append(f"CREATE VIEW pairs AS\n{with_parts(last, plain)}\n{SETTINGS};\n")
    return "\n".join(out), made


def main():
    text, _ = stages()
    if sys.argv[1:] == ["--check"]:
        if text != open(os.path.join(HERE, "clickhouse-join.sql"), encoding="utf-8").read():
            sys.exit("clickhouse-join.sql is not what join.sql gives: deploy/sql/stages.py > deploy/sql/clickhouse-join.sql")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
