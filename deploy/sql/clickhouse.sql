-- The lines of any number of hosts in ClickHouse: one table, and the views that join.sql and the questions read.
-- Column names are those of docs/events.md; `node` is the host, as the feed names it. docs/fleet.md explains all.
CREATE TABLE lines (
    node LowCardinality(String), type LowCardinality(String),
    time DateTime64(6, 'UTC') CODEC(Delta, ZSTD), mono_ns Nullable(Int64) CODEC(Delta, ZSTD),
    id Nullable(Int64) CODEC(ZSTD), role LowCardinality(Nullable(String)),
    local_addr Nullable(String) CODEC(ZSTD), local_port Nullable(Int32) CODEC(ZSTD),
    peer_addr Nullable(String) CODEC(ZSTD), peer_port Nullable(Int32) CODEC(ZSTD),
    netns Nullable(Int64) CODEC(ZSTD), pid Nullable(Int64) CODEC(ZSTD), comm LowCardinality(Nullable(String)),
    unit LowCardinality(Nullable(String)), pod LowCardinality(Nullable(String)),
    namespace LowCardinality(Nullable(String)),
    outcome LowCardinality(Nullable(String)), open_reason LowCardinality(Nullable(String)),
    dwell_us Nullable(Int64) CODEC(ZSTD), dwell_error_us Nullable(Int64) CODEC(ZSTD),
    retransmits Nullable(Int64) CODEC(ZSTD), retransmits_by_peer Nullable(Int64) CODEC(ZSTD),
    error LowCardinality(Nullable(String)), verdict LowCardinality(Nullable(String)),
    confidence LowCardinality(Nullable(String)), evidence Nullable(String) CODEC(ZSTD),
    syn_seq Nullable(Int64) CODEC(ZSTD), syn_ack_seq Nullable(Int64) CODEC(ZSTD),
    community_id Nullable(String) CODEC(ZSTD),
    kind LowCardinality(Nullable(String)), trigger LowCardinality(Nullable(String)), failed Nullable(Bool),
    old LowCardinality(Nullable(String)), new LowCardinality(Nullable(String)),
    events Nullable(Int64), reason LowCardinality(Nullable(String)), what LowCardinality(Nullable(String)),
    count Nullable(Int64), since Nullable(String), handshakes Nullable(Int64),
    host Nullable(String), version LowCardinality(Nullable(String)), filters Nullable(String),
    handshake_lines LowCardinality(Nullable(String)), listen_drops Nullable(Int64), syn_cookies Nullable(Int64)
) ENGINE = MergeTree PARTITION BY toDate(time) ORDER BY (type, time)
-- TTL toDateTime(time) + INTERVAL 30 DAY
;

-- Where hosts are: for questions about zones. Filled by the user; may stay empty.
CREATE TABLE zones (node String, zone String) ENGINE = MergeTree ORDER BY node;

-- The time that the views look at. Replace it to look at less: docs/fleet.md, "The period".
CREATE VIEW period AS SELECT toInt64(0) AS since_us, toInt64(9000000000000000) AS until_us;

CREATE VIEW timed AS
-- What is stored as a dictionary is read as plain text.
SELECT * REPLACE (toString(node) AS node,
    CAST(role AS Nullable(String)) AS role,
    CAST(comm AS Nullable(String)) AS comm,
    CAST(outcome AS Nullable(String)) AS outcome,
    CAST(open_reason AS Nullable(String)) AS open_reason,
    CAST(error AS Nullable(String)) AS error,
    CAST(verdict AS Nullable(String)) AS verdict,
    CAST(confidence AS Nullable(String)) AS confidence,
    CAST(kind AS Nullable(String)) AS kind,
    CAST(trigger AS Nullable(String)) AS trigger,
    CAST(old AS Nullable(String)) AS old,
    CAST(new AS Nullable(String)) AS new,
    CAST(reason AS Nullable(String)) AS reason,
    CAST(what AS Nullable(String)) AS what,
    CAST(handshake_lines AS Nullable(String)) AS handshake_lines),
    toUnixTimestamp64Micro(time) AS at_us
FROM lines
WHERE time >= (SELECT fromUnixTimestamp64Micro(since_us, 'UTC') FROM period)
    AND time < (SELECT fromUnixTimestamp64Micro(until_us, 'UTC') FROM period);

CREATE VIEW handshakes AS
SELECT node, time, at_us, id, role, local_addr, local_port, peer_addr, peer_port, pid,
    comm, outcome,
    open_reason, dwell_us, retransmits, coalesce(retransmits_by_peer, 0) AS by_peer, error,
    verdict, confidence,
    syn_seq, syn_ack_seq, coalesce(dwell_error_us, 0) AS error_us, at_us - dwell_us AS began_us,
    at_us - coalesce(dwell_us, 0)
        - CASE WHEN outcome IN ('expired', 'dropped', 'reset') THEN 0 ELSE coalesce(dwell_error_us, 0) END
        AS earliest_us,
    CASE WHEN outcome = 'established' THEN 1 ELSE 0 END AS established,
    CASE WHEN outcome = 'established' AND retransmits = 0 AND verdict IS NULL THEN 1 ELSE 0 END AS clean
FROM timed WHERE type = 'handshake';

-- Failed connects. `caller` is a number for who called what: sorting four texts takes several times as long. Two of a
-- million callers have one number once in 30 million times.
CREATE VIEW failures AS
SELECT cityHash64(node, coalesce(comm, ''), coalesce(peer_addr, ''), coalesce(peer_port, 0)) AS caller, node, comm,
    peer_addr, peer_port, at_us, began_us
FROM handshakes
WHERE role = 'client' AND outcome IN ('refused', 'timed_out', 'unreachable') AND began_us IS NOT NULL;

CREATE VIEW repeats AS
SELECT node, id, at_us, CASE WHEN trigger = 'peer' THEN 1 ELSE 0 END AS by_peer,
    CASE WHEN failed THEN 1 ELSE 0 END AS failed
FROM timed WHERE type = 'retransmit' AND kind IN ('syn', 'synack');

-- Active opens that met the SYN of the host that they called (simultaneous open).
CREATE VIEW crossings AS
SELECT node, id, at_us FROM timed WHERE type = 'state' AND old = 'SYN_SENT' AND new = 'SYN_RECV';

-- Each run with its beginning and how far its lines go. Up to the beginning of the next one on that host. A run is
-- longer than the period: its `start` and `end` count wherever they are.
CREATE VIEW run_lines AS
SELECT toString(node) AS node, toString(type) AS type, toUnixTimestamp64Micro(time) AS at_us, host,
    CAST(handshake_lines AS Nullable(String)) AS handshake_lines, filters, listen_drops, syn_cookies
FROM lines WHERE type IN ('start', 'end')
UNION ALL
SELECT node, toString(type), at_us, NULL, NULL, NULL, listen_drops, syn_cookies FROM timed
WHERE type NOT IN ('start', 'end', 'state', 'peer', 'listener', 'completed', 'connect');

CREATE VIEW runs AS
WITH starts AS (
    SELECT node, at_us AS since_us, JSONExtractString(host, 'hostname') AS hostname,
        CASE handshake_lines WHEN 'all' THEN 1 ELSE 0 END AS reports_all,
        coalesce(filters, '{}') AS filters,
        lead(at_us, 1, 9000000000000000) OVER (PARTITION BY node ORDER BY at_us) AS next_us
    FROM run_lines WHERE type = 'start'
)
SELECT s.node AS node, s.since_us AS since_us, max(l.at_us) AS until_us,
    max(CASE WHEN l.type = 'end' THEN 1 ELSE 0 END) AS ended,
    max(l.listen_drops) AS listen_drops, max(l.syn_cookies) AS syn_cookies, s.hostname AS hostname,
    s.reports_all AS reports_all, s.filters AS filters,
    nullIf(JSONExtractString(s.filters, 'role'), '') AS only_role,
    arrayExists(k -> k NOT IN ('netns', 'role'), JSONExtractKeys(s.filters)) AS filtered
FROM run_lines l
JOIN starts s ON l.node = s.node
WHERE l.at_us >= s.since_us AND l.at_us < s.next_us
GROUP BY s.node, s.since_us, s.hostname, s.reports_all, s.filters;

-- A loss may have happened 10 s before it was noticed. What is lost of data or evicted concerns no handshake.
CREATE VIEW gaps AS
SELECT node, at_us - 10000000 AS from_us, at_us AS to_us FROM timed
WHERE type = 'lost' AND reason NOT LIKE 'segments retransmitted%' AND reason NOT LIKE 'handshakes evicted%';

CREATE VIEW refusals AS
SELECT node, peer_addr, local_addr, local_port, what, max(lines.count) AS count,
    min(at_us - intDiv(mono_ns - toInt64OrNull(since), 1000)) AS first_us, max(at_us) AS last_us
FROM timed AS lines WHERE type = 'syn_refused' GROUP BY node, peer_addr, local_addr, local_port, what
UNION ALL
SELECT node, NULL, NULL, local_port, concat('its problem ', verdict), max(handshakes), 0, max(at_us)
FROM timed WHERE type = 'problem' AND role = 'server'
    AND verdict IN ('dropped-here', 'accept-queue-full', 'syn-queue-full', 'existing-connection')
GROUP BY node, local_port, verdict;

-- Addresses that a host's own lines show to be its own.
CREATE VIEW addresses AS
SELECT node, local_addr AS addr,
    max(CASE WHEN type = 'handshake' AND role = 'client' THEN 1 ELSE 0 END) AS calls_from
FROM timed WHERE type IN ('handshake', 'syn_refused') AND local_addr NOT IN ('0.0.0.0', '::')
GROUP BY node, local_addr;
