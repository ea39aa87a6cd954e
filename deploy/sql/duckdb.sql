-- The lines of any number of hosts in DuckDB: one table, and the views that join.sql and the questions read.
-- Column names are those of docs/events.md; `node` is the host, as the feed names it. docs/fleet.md explains all.
CREATE TABLE lines (
    node VARCHAR NOT NULL, type VARCHAR NOT NULL, time TIMESTAMP NOT NULL, mono_ns BIGINT,
    id BIGINT, role VARCHAR, local_addr VARCHAR, local_port INTEGER, peer_addr VARCHAR, peer_port INTEGER,
    netns BIGINT, pid BIGINT, comm VARCHAR, unit VARCHAR, pod VARCHAR, namespace VARCHAR,
    outcome VARCHAR, open_reason VARCHAR, dwell_us BIGINT, dwell_error_us BIGINT,
    retransmits BIGINT, retransmits_by_peer BIGINT, error VARCHAR, verdict VARCHAR, confidence VARCHAR,
    evidence VARCHAR, syn_seq BIGINT, syn_ack_seq BIGINT, community_id VARCHAR,
    kind VARCHAR, "trigger" VARCHAR, failed BOOLEAN, old VARCHAR, new VARCHAR,
    events BIGINT, reason VARCHAR, what VARCHAR, "count" BIGINT, since VARCHAR, handshakes BIGINT,
    host VARCHAR, version VARCHAR, filters VARCHAR, handshake_lines VARCHAR, listen_drops BIGINT, syn_cookies BIGINT
);

-- Where hosts are: for questions about zones. Filled by the user; may stay empty.
CREATE TABLE zones (node VARCHAR, zone VARCHAR);

-- The time that the views look at. Replace it to look at less: docs/fleet.md, "The period".
CREATE VIEW period AS SELECT 0::BIGINT AS since_us, 9000000000000000::BIGINT AS until_us;

CREATE VIEW timed AS
SELECT *, epoch_us(time) AS at_us FROM lines
WHERE time >= (SELECT make_timestamp(since_us) FROM period) AND time < (SELECT make_timestamp(until_us) FROM period);

CREATE VIEW handshakes AS
SELECT node, time, at_us, id, role, local_addr, local_port, peer_addr, peer_port, pid, comm, outcome, open_reason,
    dwell_us, retransmits, coalesce(retransmits_by_peer, 0) AS by_peer, error, verdict, confidence, syn_seq,
    syn_ack_seq, coalesce(dwell_error_us, 0) AS error_us, at_us - dwell_us AS began_us,
    at_us - coalesce(dwell_us, 0)
        - CASE WHEN outcome IN ('expired', 'dropped', 'reset') THEN 0 ELSE coalesce(dwell_error_us, 0) END
        AS earliest_us,
    CASE WHEN outcome = 'established' THEN 1 ELSE 0 END AS established,
    CASE WHEN outcome = 'established' AND retransmits = 0 AND verdict IS NULL THEN 1 ELSE 0 END AS clean
FROM timed WHERE type = 'handshake';

-- Failed connects. `caller` is a number for who called what: sorting four texts takes several times as long. Two of a
-- million callers have one number once in 30 million times.
CREATE VIEW failures AS
SELECT hash(node, comm, peer_addr, peer_port) AS caller, node, comm, peer_addr, peer_port, at_us, began_us
FROM handshakes
WHERE role = 'client' AND outcome IN ('refused', 'timed_out', 'unreachable') AND began_us IS NOT NULL;

CREATE VIEW repeats AS
SELECT node, id, at_us, CASE WHEN "trigger" = 'peer' THEN 1 ELSE 0 END AS by_peer,
    CASE WHEN failed THEN 1 ELSE 0 END AS failed
FROM timed WHERE type = 'retransmit' AND kind IN ('syn', 'synack');

-- Active opens that met the SYN of the host that they called (simultaneous open).
CREATE VIEW crossings AS
SELECT node, id, at_us FROM timed WHERE type = 'state' AND old = 'SYN_SENT' AND new = 'SYN_RECV';

-- Each run with its beginning and how far its lines go. Up to the beginning of the next one on that host. A run is
-- longer than the period: its `start` and `end` count wherever they are.
CREATE VIEW run_lines AS
SELECT node, type, epoch_us(time) AS at_us, host, handshake_lines, filters, listen_drops, syn_cookies FROM lines
WHERE type IN ('start', 'end')
UNION ALL
SELECT node, type, at_us, NULL, NULL, NULL, listen_drops, syn_cookies FROM timed
WHERE type NOT IN ('start', 'end', 'state', 'peer', 'listener', 'completed', 'connect');

CREATE VIEW runs AS
WITH starts AS (
    SELECT node, at_us AS since_us, json_extract_string(host, '$.hostname') AS hostname,
        CASE handshake_lines WHEN 'all' THEN 1 ELSE 0 END AS reports_all,
        coalesce(filters, '{}') AS filters,
        lead(at_us, 1, 9000000000000000) OVER (PARTITION BY node ORDER BY at_us) AS next_us
    FROM run_lines WHERE type = 'start'
)
SELECT s.node, s.since_us, max(l.at_us) AS until_us, max(CASE WHEN l.type = 'end' THEN 1 ELSE 0 END) AS ended,
    max(l.listen_drops) AS listen_drops, max(l.syn_cookies) AS syn_cookies, s.hostname, s.reports_all, s.filters,
    json_extract_string(s.filters, '$.role') AS only_role,
    CASE WHEN len(json_keys(s.filters)) > json_exists(s.filters, '$.netns')::INTEGER
        + json_exists(s.filters, '$.role')::INTEGER THEN 1 ELSE 0 END AS filtered
FROM starts s JOIN run_lines l ON l.node = s.node AND l.at_us >= s.since_us AND l.at_us < s.next_us
GROUP BY ALL;

-- A loss may have happened 10 s before it was noticed. What is lost of data or evicted concerns no handshake.
CREATE VIEW gaps AS
SELECT node, at_us - 10000000 AS from_us, at_us AS to_us FROM timed
WHERE type = 'lost' AND reason NOT LIKE 'segments retransmitted%' AND reason NOT LIKE 'handshakes evicted%';

CREATE VIEW refusals AS
SELECT node, peer_addr, local_addr, local_port, what, max("count") AS "count",
    min(at_us - (mono_ns - since::BIGINT) // 1000) AS first_us, max(at_us) AS last_us
FROM timed WHERE type = 'syn_refused' GROUP BY ALL
UNION ALL
SELECT node, NULL, NULL, local_port, 'its problem ' || verdict, max(handshakes), 0, max(at_us)
FROM timed WHERE type = 'problem' AND role = 'server'
    AND verdict IN ('dropped-here', 'accept-queue-full', 'syn-queue-full', 'existing-connection')
GROUP BY ALL;

-- Addresses that a host's own lines show to be its own.
CREATE VIEW addresses AS
SELECT node, local_addr AS addr, max(CASE WHEN type = 'handshake' AND role = 'client' THEN 1 ELSE 0 END) AS calls_from
FROM timed WHERE type IN ('handshake', 'syn_refused') AND local_addr NOT IN ('0.0.0.0', '::') GROUP BY ALL;
