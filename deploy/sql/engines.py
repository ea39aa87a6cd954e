"""The two engines behind one door: DuckDB, and ClickHouse as a library (chdb). Both from PyPI."""

import glob
import json
import os
import re
import shutil
import tempfile

import stages

HERE = os.path.dirname(os.path.abspath(__file__))


def statements(name):
    """The statements of an SQL file. No semicolon in it is within a text, but at the end of one."""
    text = re.sub(r"--.*", "", open(os.path.join(HERE, name), encoding="utf-8").read())
    parts = re.split(r";\s*\n", text + "\n")
    return [part.strip() for part in parts if part.strip()]


class DuckDb:
    name = "DuckDB"

    def __init__(self, path=":memory:", files=("duckdb.sql", "join.sql")):
        import duckdb

        self.db = duckdb.connect(path)
        self.db.execute("SET enable_progress_bar = false")
        for file in files:
            self.make(file)
        self.columns = {
            row[0]: row[1] for row in self.rows("SELECT column_name, column_type FROM (DESCRIBE lines)")
        }

    def make(self, file):
        for statement in statements(file):
            self.db.execute(statement)

    def rows(self, sql):
        return self.db.execute(sql).fetchall()

    def run(self, sql):
        self.db.execute(sql)

    def load(self, pattern, moved=None, where="true"):
        """NDJSON files as synprobe wrote them. The node is what a shipper has added, else the file's name. `moved`:
        what some columns get in place of what the lines have."""
        types = ", ".join(f"'{n}': '{'JSON' if n in ('host', 'filters', 'evidence') else t}'"
                          for n, t in self.columns.items())
        replaced = ", ".join(f'{expression} AS "{name}"' for name, expression in (moved or {}).items())
        self.db.execute(
            "INSERT INTO lines BY NAME "
            f"SELECT * EXCLUDE (filename, node) {f'REPLACE ({replaced})' if moved else ''}, "
            "coalesce(node, parse_filename(filename, true)) AS node "
            f"FROM read_json('{pattern}', format = 'newline_delimited', columns = {{{types}}}, filename = true, "
            f"ignore_errors = true) WHERE type IS NOT NULL AND time IS NOT NULL AND {where}"
        )

    def load_parquet(self, file):
        self.db.execute(f"INSERT INTO lines BY NAME SELECT * FROM read_parquet('{file}')")

    def refresh(self):
        """Nothing: the views are never behind."""

    def period(self, since_us, until_us):
        self.db.execute(f"CREATE OR REPLACE VIEW period AS SELECT {since_us}::BIGINT AS since_us, "
                        f"{until_us}::BIGINT AS until_us")

    def store(self, from_us, until_us, before_us, after_us):
        """Stores the pairs of connects that ended in this time. Their lines may be earlier or later by so much."""
        self.period(from_us - before_us, until_us + after_us)
        self.db.execute("CREATE TABLE IF NOT EXISTS stored_pairs AS SELECT * FROM pairs LIMIT 0")
        self.db.execute(f"INSERT INTO stored_pairs SELECT * FROM pairs WHERE at_us >= {from_us} AND at_us < {until_us}")

    def empty(self):
        self.db.execute("DELETE FROM lines")

    def close(self):
        self.db.close()


# What the views need to be made with, and the lines to be read with.
SETTINGS = ("join_use_nulls = 1", "least_greatest_legacy_null_behavior = 0", "date_time_input_format = 'best_effort'",
            "input_format_skip_unknown_fields = 1")


class ClickHouse:
    name = "ClickHouse"

    def __init__(self, path=None, more_settings="", files=("clickhouse.sql", "clickhouse-join.sql"), every="10 MINUTE"):
        """`more_settings` are for the stages too: they do not have those of the session. `every`: when they refresh
        themselves."""
        from chdb import session

        self.made = None if path else tempfile.mkdtemp()
        self.session = session.Session(path or self.made)
        self.session.query("CREATE DATABASE IF NOT EXISTS fleet")
        self.session.query("USE fleet")
        for setting in [*SETTINGS, *more_settings.split(", ")[1:]]:
            self.session.query(f"SET {setting}")
        self.more_settings, self.every = more_settings, every
        for file in files:
            self.make(file)
        self.columns = dict(self.rows("SELECT name, type FROM system.columns WHERE database = 'fleet' AND table = 'lines'"))

    def make(self, file):
        for statement in statements(file):
            statement = statement.replace("REFRESH EVERY 10 MINUTE", f"REFRESH EVERY {self.every}")
            self.session.query(statement.replace(stages.SETTINGS, stages.SETTINGS + self.more_settings))

    def rows(self, sql):
        text = str(self.session.query(sql, "JSONCompactEachRow"))
        return [tuple(json.loads(line)) for line in text.splitlines() if line]

    def run(self, sql):
        self.session.query(sql)

    def load(self, pattern, moved=None, where="true"):
        """As in DuckDB."""
        types = ", ".join(f"{n} {'Nullable(String)' if n == 'node' else t}" for n, t in self.columns.items())
        names = ", ".join(n for n in self.columns if n != "node")
        types = types.replace("'", "\\'")
        values = ", ".join((moved or {}).get(n, n) for n in self.columns if n != "node")
        for file in sorted(glob.glob(pattern)):
            self.session.query(
                f"INSERT INTO lines (node, {names}) "
                f"SELECT coalesce(node, replaceRegexpOne(_file, '\\\\.ndjson$', '')), {values} "
                f"FROM file('{file}', JSONEachRow, '{types}') WHERE {where} "
                f"SETTINGS input_format_allow_errors_num = 1000000"
            )

    def load_parquet(self, file):
        names = ", ".join(self.columns)
        self.session.query(f"INSERT INTO lines ({names}) SELECT {names} FROM file('{file}', Parquet)")

    def refresh(self):
        for view in stages.stages()[1]:
            self.session.query(f"SYSTEM REFRESH VIEW {view}")
            self.session.query(f"SYSTEM WAIT VIEW {view}")

    def period(self, since_us, until_us):
        self.session.query(f"CREATE OR REPLACE VIEW period AS SELECT toInt64({since_us}) AS since_us, "
                           f"toInt64({until_us}) AS until_us")

    def store(self, from_us, until_us, before_us, after_us):
        """Stores the pairs of connects that ended in this time. Their lines may be earlier or later by so much."""
        self.period(from_us - before_us, until_us + after_us)
        self.refresh()
        self.session.query("CREATE TABLE IF NOT EXISTS stored_pairs ENGINE = MergeTree ORDER BY tuple() EMPTY AS "
                           "SELECT * FROM pairs")
        self.session.query(f"INSERT INTO stored_pairs SELECT * FROM pairs WHERE at_us >= {from_us} AND at_us < {until_us}")

    def empty(self):
        self.session.query("TRUNCATE TABLE lines")

    def close(self):
        self.session.close()
        if self.made:
            shutil.rmtree(self.made, ignore_errors=True)
