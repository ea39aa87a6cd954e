-- Made from join.sql by stages.py: the same join for ClickHouse, in stages. Each stage is a table that refreshes itself
-- every ten minutes, after those that it reads. `pairs` is a view of the last one. docs/fleet.md has more.

CREATE MATERIALIZED VIEW clocks REFRESH EVERY 10 MINUTE ENGINE = MergeTree ORDER BY tuple() EMPTY AS
WITH
clients AS (
SELECT * FROM handshakes WHERE role = 'client'
),
halves AS (
SELECT * FROM handshakes WHERE role = 'server'
),
exchanges AS (
    SELECT c.node AS c_node, s.node AS s_node, c.at_us AS at_us,
        CASE WHEN c.established = 1 THEN s.began_us - s.error_us - c.at_us END AS lowest_us,
        least(s.began_us + s.error_us - c.began_us + c.error_us,
            CASE WHEN c.established = 1 AND s.established = 1 THEN s.at_us - c.at_us END) AS highest_us
    FROM clients c JOIN halves s ON c.syn_seq = s.syn_seq
    WHERE c.node <> s.node AND s.began_us IS NOT NULL AND c.began_us IS NOT NULL
        AND (c.syn_ack_seq = s.syn_ack_seq OR (c.local_addr = s.peer_addr AND c.local_port = s.peer_port
            AND c.peer_addr = s.local_addr AND c.peer_port = s.local_port
            AND coalesce(c.syn_ack_seq = s.syn_ack_seq, true)))
)
SELECT c_node AS client, s_node AS server, argMin(at_us, highest_us - lowest_us) AS sample_us,
        CAST(floor(argMin((lowest_us + highest_us) / 2, highest_us - lowest_us)) AS BIGINT) AS sample_offset_us,
        min(highest_us - lowest_us) / 2 + 5 AS sample_error_us
    FROM exchanges WHERE lowest_us <= highest_us
    GROUP BY c_node, s_node, floor(at_us / 60000000)
SETTINGS join_use_nulls = 1, least_greatest_legacy_null_behavior = 0;

CREATE MATERIALIZED VIEW joined REFRESH EVERY 10 MINUTE DEPENDS ON clocks ENGINE = MergeTree ORDER BY tuple() EMPTY AS
WITH
clients AS (
SELECT * FROM handshakes WHERE role = 'client'
),
halves AS (
SELECT * FROM handshakes WHERE role = 'server'
),
exchanges AS (
    SELECT c.node AS c_node, s.node AS s_node, c.at_us AS at_us,
        CASE WHEN c.established = 1 THEN s.began_us - s.error_us - c.at_us END AS lowest_us,
        least(s.began_us + s.error_us - c.began_us + c.error_us,
            CASE WHEN c.established = 1 AND s.established = 1 THEN s.at_us - c.at_us END) AS highest_us
    FROM clients c JOIN halves s ON c.syn_seq = s.syn_seq
    WHERE c.node <> s.node AND s.began_us IS NOT NULL AND c.began_us IS NOT NULL
        AND (c.syn_ack_seq = s.syn_ack_seq OR (c.local_addr = s.peer_addr AND c.local_port = s.peer_port
            AND c.peer_addr = s.local_addr AND c.peer_port = s.local_port
            AND coalesce(c.syn_ack_seq = s.syn_ack_seq, true)))
),
rough AS (
    SELECT c_node AS client, s_node AS server, min(highest_us) AS rough_us FROM exchanges GROUP BY c_node, s_node
),
by_seq AS (
    SELECT c.node AS c_node, c.id AS c_id, c.at_us AS c_at, s.node AS s_node, s.id AS s_id, s.at_us AS s_at,
        1 AS by_number,
        CASE WHEN c.local_addr = s.peer_addr AND c.local_port = s.peer_port AND c.peer_addr = s.local_addr
            AND c.peer_port = s.local_port THEN 1 ELSE 0 END AS same_ends,
        CASE WHEN c.syn_ack_seq = s.syn_ack_seq THEN 1 WHEN c.syn_ack_seq <> s.syn_ack_seq THEN -1 ELSE 0 END AS answer,
        CASE WHEN c.peer_port = s.local_port THEN 1 ELSE 0 END AS same_port,
        c.earliest_us AS c_earliest, s.earliest_us AS s_earliest
    FROM clients c JOIN halves s ON c.syn_seq = s.syn_seq
    WHERE c.node <> s.node
),
by_ends AS (
    SELECT c.node AS c_node, c.id AS c_id, c.at_us AS c_at, s.node AS s_node, s.id AS s_id, s.at_us AS s_at,
        0 AS by_number, 1 AS same_ends, 0 AS answer, 1 AS same_port,
        c.earliest_us AS c_earliest, s.earliest_us AS s_earliest
    FROM clients c JOIN (SELECT * FROM halves WHERE syn_seq IS NULL) s
        ON c.local_addr = s.peer_addr AND c.local_port = s.peer_port
        AND c.peer_addr = s.local_addr AND c.peer_port = s.local_port
    WHERE c.node <> s.node
    UNION ALL
    SELECT c.node, c.id, c.at_us, s.node, s.id, s.at_us, 0, 1, 0, 1, c.earliest_us, s.earliest_us
    FROM (SELECT * FROM halves WHERE syn_seq IS NOT NULL) s JOIN (SELECT * FROM clients WHERE syn_seq IS NULL) c
        ON c.local_addr = s.peer_addr AND c.local_port = s.peer_port
        AND c.peer_addr = s.local_addr AND c.peer_port = s.local_port
    WHERE c.node <> s.node
),
candidates AS (
SELECT * FROM by_seq UNION ALL SELECT * FROM by_ends
),
candidates_before AS (
    SELECT m.*, k.sample_offset_us AS offset_before,
        k.sample_error_us + (m.c_at - k.sample_us) * 0.0005 AS error_before
    FROM candidates m ASOF LEFT JOIN clocks k
        ON m.c_node = k.client AND m.s_node = k.server AND m.c_at >= k.sample_us
),
candidates_clock AS (
    SELECT m.*, k.sample_offset_us AS offset_after,
        k.sample_error_us + (k.sample_us - m.c_at) * 0.0005 AS error_after
    FROM candidates_before m ASOF LEFT JOIN clocks k
        ON m.c_node = k.client AND m.s_node = k.server AND m.c_at <= k.sample_us
),
fitting AS (
    SELECT c_node, c_id, c_at, s_node, s_id, s_at, by_number,
        CASE WHEN error_before <= coalesce(error_after, error_before) THEN offset_before ELSE offset_after END AS clock_us,
        least(error_before, error_after) AS clock_error,
        coalesce(CASE WHEN error_before <= coalesce(error_after, error_before) THEN offset_before ELSE offset_after END,
            rough_us) AS near_us,
        row_number() OVER (PARTITION BY s_node, s_id, s_at
            ORDER BY by_number DESC, answer DESC, same_ends DESC, c_at DESC) AS place
    FROM candidates_clock m LEFT JOIN rough k ON k.client = m.c_node AND k.server = m.s_node
    WHERE CASE WHEN coalesce(offset_before, offset_after, rough_us) IS NULL
        THEN by_number = 1 AND (same_ends = 1 OR answer = 1)
        ELSE (same_ends = 1 OR answer >= 0 OR same_port = 1)
            AND s_earliest - coalesce(offset_before, offset_after, rough_us)
                <= c_at + coalesce(5000000 + least(error_before, error_after), 20000000)
            AND s_at - coalesce(offset_before, offset_after, rough_us)
                >= c_earliest - coalesce(5000000 + least(error_before, error_after), 20000000)
        END
)
SELECT f.c_node AS c_node, f.c_id AS c_id, f.c_at AS c_at, f.s_node AS s_node, f.s_id AS s_id, f.s_at AS s_at,
        f.by_number AS by_number, f.clock_us AS clock_us, f.clock_error AS clock_error, f.near_us AS near_us,
        c.began_us AS c_began, c.earliest_us AS c_earliest, c.established AS c_established,
        c.retransmits AS c_retransmits, c.verdict AS c_verdict, c.confidence AS c_confidence,
        c.open_reason AS c_open, c.syn_ack_seq AS c_answer, c.local_addr AS c_local_addr,
        c.local_port AS c_local_port, c.peer_addr AS c_peer_addr, c.peer_port AS c_peer_port, c.outcome AS c_outcome,
        s.began_us AS s_began, s.earliest_us AS s_earliest, s.error_us AS s_error, s.established AS s_established,
        s.retransmits AS s_retransmits, s.by_peer AS s_by_peer, s.verdict AS s_verdict, s.confidence AS s_confidence,
        s.open_reason AS s_open, s.syn_ack_seq AS s_answer, s.local_addr AS s_local_addr, s.local_port AS s_local_port,
        s.peer_addr AS s_peer_addr, s.dwell_us AS s_dwell,
        row_number() OVER (PARTITION BY f.c_node, f.c_id, f.c_at, f.s_node ORDER BY s.earliest_us, f.s_id) AS place
    FROM fitting f
    JOIN clients c ON c.node = f.c_node AND c.id = f.c_id AND c.at_us = f.c_at
    JOIN halves s ON s.node = f.s_node AND s.id = f.s_id AND s.at_us = f.s_at
    WHERE f.place = 1
SETTINGS join_use_nulls = 1, least_greatest_legacy_null_behavior = 0;

CREATE MATERIALIZED VIEW met REFRESH EVERY 10 MINUTE ENGINE = MergeTree ORDER BY tuple() EMPTY AS
WITH
clients AS (
SELECT * FROM handshakes WHERE role = 'client'
)
SELECT c.node AS m_node, c.id AS m_id, c.at_us AS m_at, c.local_addr AS m_addr, c.local_port AS m_port,
        c.peer_addr AS m_peer_addr, c.peer_port AS m_peer_port, c.syn_seq AS m_syn_seq, c.syn_ack_seq AS m_answer
    FROM clients c JOIN crossings x ON x.node = c.node AND x.id = c.id
    WHERE x.at_us >= c.earliest_us - 1000 AND x.at_us <= c.at_us + 1000
        AND (c.local_addr <> c.peer_addr OR c.local_port <> c.peer_port)
SETTINGS join_use_nulls = 1, least_greatest_legacy_null_behavior = 0;

CREATE MATERIALIZED VIEW crossed REFRESH EVERY 10 MINUTE DEPENDS ON clocks, joined, met ENGINE = MergeTree ORDER BY tuple() EMPTY AS
WITH
clients AS (
SELECT * FROM handshakes WHERE role = 'client'
),
halves AS (
SELECT * FROM handshakes WHERE role = 'server'
),
exchanges AS (
    SELECT c.node AS c_node, s.node AS s_node, c.at_us AS at_us,
        CASE WHEN c.established = 1 THEN s.began_us - s.error_us - c.at_us END AS lowest_us,
        least(s.began_us + s.error_us - c.began_us + c.error_us,
            CASE WHEN c.established = 1 AND s.established = 1 THEN s.at_us - c.at_us END) AS highest_us
    FROM clients c JOIN halves s ON c.syn_seq = s.syn_seq
    WHERE c.node <> s.node AND s.began_us IS NOT NULL AND c.began_us IS NOT NULL
        AND (c.syn_ack_seq = s.syn_ack_seq OR (c.local_addr = s.peer_addr AND c.local_port = s.peer_port
            AND c.peer_addr = s.local_addr AND c.peer_port = s.local_port
            AND coalesce(c.syn_ack_seq = s.syn_ack_seq, true)))
),
rough AS (
    SELECT c_node AS client, s_node AS server, min(highest_us) AS rough_us FROM exchanges GROUP BY c_node, s_node
),
mirrored AS (
    SELECT m.m_node AS m_node, m.m_id AS m_id, m.m_at AS m_at, o.node AS o_node, o.id AS o_id, o.at_us AS o_at
    FROM clients o JOIN met m ON o.syn_ack_seq = m.m_syn_seq WHERE o.node <> m.m_node
    UNION ALL
    SELECT m.m_node, m.m_id, m.m_at, o.node, o.id, o.at_us
    FROM clients o JOIN met m ON o.syn_seq = m.m_answer WHERE o.node <> m.m_node
    UNION ALL
    SELECT m.m_node, m.m_id, m.m_at, o.node, o.id, o.at_us
    FROM clients o JOIN met m ON o.local_addr = m.m_peer_addr AND o.local_port = m.m_peer_port
        AND o.peer_addr = m.m_addr AND o.peer_port = m.m_port
    WHERE o.node <> m.m_node
),
turned AS (
    SELECT m.*, CASE WHEN r.client IS NOT NULL AND q.client IS NULL THEN 1
        WHEN r.client IS NULL AND q.client IS NOT NULL OR m.o_node < m.m_node THEN 0 ELSE 1 END AS m_calls
    FROM mirrored m
    LEFT JOIN rough r ON r.client = m.m_node AND r.server = m.o_node
    LEFT JOIN rough q ON q.client = m.o_node AND q.server = m.m_node
),
two_opens AS (
    SELECT DISTINCT
        CASE WHEN m_calls = 1 THEN m_node ELSE o_node END AS a_node,
        CASE WHEN m_calls = 1 THEN m_id ELSE o_id END AS a_id,
        CASE WHEN m_calls = 1 THEN m_at ELSE o_at END AS a_at,
        CASE WHEN m_calls = 1 THEN o_node ELSE m_node END AS b_node,
        CASE WHEN m_calls = 1 THEN o_id ELSE m_id END AS b_id,
        CASE WHEN m_calls = 1 THEN o_at ELSE m_at END AS b_at
    FROM turned
),
two_ends AS (
    SELECT t.a_node AS a_node, t.a_id AS a_id, t.a_at AS a_at, t.b_node AS b_node, t.b_id AS b_id, t.b_at AS b_at,
        a.earliest_us AS a_earliest, a.local_addr AS a_addr, a.local_port AS a_port, a.outcome AS a_outcome,
        a.verdict AS a_verdict, a.confidence AS a_confidence, a.clean AS a_clean,
        b.earliest_us AS b_earliest, b.local_addr AS b_addr, b.local_port AS b_port, b.outcome AS b_outcome,
        b.verdict AS b_verdict, b.confidence AS b_confidence, b.clean AS b_clean,
        coalesce(CASE WHEN a.syn_seq = b.syn_ack_seq THEN 1 WHEN a.syn_seq <> b.syn_ack_seq THEN -9 END, 0)
            + coalesce(CASE WHEN a.syn_ack_seq = b.syn_seq THEN 1 WHEN a.syn_ack_seq <> b.syn_seq THEN -9 END, 0)
            AS numbers,
        CASE WHEN a.local_addr = b.peer_addr AND a.local_port = b.peer_port AND a.peer_addr = b.local_addr
            AND a.peer_port = b.local_port THEN 1 ELSE 0 END AS same_ends
    FROM two_opens t
    JOIN clients a ON a.node = t.a_node AND a.id = t.a_id AND a.at_us = t.a_at
    JOIN clients b ON b.node = t.b_node AND b.id = t.b_id AND b.at_us = t.b_at
),
two_before AS (
    SELECT m.*, k.sample_offset_us AS offset_before,
        k.sample_error_us + (m.a_at - k.sample_us) * 0.0005 AS error_before
    FROM two_ends m ASOF LEFT JOIN clocks k
        ON m.a_node = k.client AND m.b_node = k.server AND m.a_at >= k.sample_us
),
two_clock AS (
    SELECT m.*, k.sample_offset_us AS offset_after,
        k.sample_error_us + (k.sample_us - m.a_at) * 0.0005 AS error_after
    FROM two_before m ASOF LEFT JOIN clocks k
        ON m.a_node = k.client AND m.b_node = k.server AND m.a_at <= k.sample_us
),
two_placed AS (
    SELECT m.*, k.rough_us AS rough_us,
        CASE WHEN m.error_before <= coalesce(m.error_after, m.error_before) THEN m.offset_before ELSE m.offset_after END
            AS clock_us,
        least(m.error_before, m.error_after) AS clock_error
    FROM two_clock m LEFT JOIN rough k ON k.client = m.a_node AND k.server = m.b_node
),
two_fitting AS (
    SELECT m.*,
        row_number() OVER (PARTITION BY a_node, a_id, a_at ORDER BY numbers DESC, same_ends DESC, b_at) AS a_place,
        row_number() OVER (PARTITION BY b_node, b_id, b_at ORDER BY numbers DESC, same_ends DESC, a_at) AS b_place
    FROM two_placed m
    WHERE m.numbers >= 0 AND CASE WHEN coalesce(m.clock_us, m.rough_us) IS NULL THEN m.numbers + m.same_ends >= 2
        ELSE m.b_earliest - coalesce(m.clock_us, m.rough_us) <= m.a_at + coalesce(5000000 + m.clock_error, 20000000)
            AND m.b_at - coalesce(m.clock_us, m.rough_us) >= m.a_earliest - coalesce(5000000 + m.clock_error, 20000000)
        END
)
SELECT f.*, CASE WHEN p.m_node IS NOT NULL AND q.m_node IS NOT NULL THEN 1 ELSE 0 END AS both_met
    FROM two_fitting f
    LEFT JOIN met p ON p.m_node = f.a_node AND p.m_id = f.a_id AND p.m_at = f.a_at
    LEFT JOIN met q ON q.m_node = f.b_node AND q.m_id = f.b_id AND q.m_at = f.b_at
    LEFT JOIN (SELECT DISTINCT c_node, c_id, c_at FROM joined) j
        ON j.c_node = f.a_node AND j.c_id = f.a_id AND j.c_at = f.a_at
    WHERE f.a_place = 1 AND f.b_place = 1 AND j.c_node IS NULL
SETTINGS join_use_nulls = 1, least_greatest_legacy_null_behavior = 0;

CREATE MATERIALIZED VIEW unjoined REFRESH EVERY 10 MINUTE DEPENDS ON joined, crossed ENGINE = MergeTree ORDER BY tuple() EMPTY AS
WITH
clients AS (
SELECT * FROM handshakes WHERE role = 'client'
)
SELECT c.node AS c_node, c.id AS c_id, c.at_us AS c_at, c.began_us AS c_began, c.earliest_us AS c_earliest,
        c.established AS c_established, c.retransmits AS c_retransmits, c.verdict AS c_verdict,
        c.confidence AS c_confidence, c.outcome AS c_outcome, c.local_addr AS c_local_addr,
        c.local_port AS c_local_port, c.peer_addr AS c_peer_addr, c.peer_port AS c_peer_port, c.clean AS c_clean,
        c.syn_seq AS c_syn_seq
    FROM clients c LEFT JOIN (
        SELECT DISTINCT c_node, c_id, c_at FROM joined
        UNION ALL SELECT a_node, a_id, a_at FROM crossed
        UNION ALL SELECT b_node, b_id, b_at FROM crossed
    ) j
        ON c.node = j.c_node AND c.id = j.c_id AND c.at_us = j.c_at
    WHERE j.c_node IS NULL
SETTINGS join_use_nulls = 1, least_greatest_legacy_null_behavior = 0;

CREATE MATERIALIZED VIEW syns REFRESH EVERY 10 MINUTE DEPENDS ON joined, unjoined ENGINE = MergeTree ORDER BY tuple() EMPTY AS
WITH
syn_times AS (
    SELECT k.c_node AS of_node, k.c_id AS of_id, k.c_at AS of_at, r.at_us AS syn_us, r.failed AS failed, 1 AS repeated
    FROM (
        SELECT DISTINCT c_node, c_id, c_at, c_earliest FROM joined WHERE c_retransmits > 0
        UNION ALL
        SELECT c_node, c_id, c_at, c_earliest FROM unjoined WHERE c_retransmits > 0
    ) k JOIN repeats r ON r.node = k.c_node AND r.id = k.c_id
    WHERE r.at_us >= k.c_earliest - 1000 AND r.at_us <= k.c_at + 1000
    UNION ALL
    SELECT DISTINCT c_node, c_id, c_at, c_began, 0, 0 FROM joined WHERE c_retransmits > 0 AND c_began IS NOT NULL
),
syn_gaps AS (
    SELECT of_node, of_id, of_at, syn_us, failed, repeated,
        syn_us - lag(syn_us) OVER (PARTITION BY of_node, of_id, of_at ORDER BY syn_us) AS gap_us,
        row_number() OVER (PARTITION BY of_node, of_id, of_at, repeated ORDER BY syn_us) AS place
    FROM syn_times
)
SELECT of_node, of_id, of_at, min(gap_us) AS closest_us, sum(repeated * (1 - failed)) AS repeats_sent,
        max(CASE WHEN repeated = 1 THEN syn_us END) AS last_us
    FROM syn_gaps GROUP BY of_node, of_id, of_at
SETTINGS join_use_nulls = 1, least_greatest_legacy_null_behavior = 0;

CREATE MATERIALIZED VIEW segments REFRESH EVERY 10 MINUTE DEPENDS ON joined, unjoined, syns ENGINE = MergeTree ORDER BY tuple() EMPTY AS
WITH
syn_times AS (
    SELECT k.c_node AS of_node, k.c_id AS of_id, k.c_at AS of_at, r.at_us AS syn_us, r.failed AS failed, 1 AS repeated
    FROM (
        SELECT DISTINCT c_node, c_id, c_at, c_earliest FROM joined WHERE c_retransmits > 0
        UNION ALL
        SELECT c_node, c_id, c_at, c_earliest FROM unjoined WHERE c_retransmits > 0
    ) k JOIN repeats r ON r.node = k.c_node AND r.id = k.c_id
    WHERE r.at_us >= k.c_earliest - 1000 AND r.at_us <= k.c_at + 1000
    UNION ALL
    SELECT DISTINCT c_node, c_id, c_at, c_began, 0, 0 FROM joined WHERE c_retransmits > 0 AND c_began IS NOT NULL
),
syn_gaps AS (
    SELECT of_node, of_id, of_at, syn_us, failed, repeated,
        syn_us - lag(syn_us) OVER (PARTITION BY of_node, of_id, of_at ORDER BY syn_us) AS gap_us,
        row_number() OVER (PARTITION BY of_node, of_id, of_at, repeated ORDER BY syn_us) AS place
    FROM syn_times
),
counted AS (
    SELECT j.c_node AS c_node, j.c_id AS c_id, j.c_at AS c_at, j.s_node AS s_node,
        max(j.by_number) AS by_number, max(j.clock_us) AS clock_us, max(j.clock_error) AS clock_error, max(j.near_us) AS near_us,
        any_value(j.c_began) AS c_began, any_value(j.c_earliest) AS c_earliest, any_value(j.c_established) AS c_established,
        any_value(j.c_retransmits) AS c_retransmits, any_value(j.c_verdict) AS c_verdict,
        any_value(j.c_confidence) AS c_confidence, any_value(j.c_open) AS c_open, any_value(j.c_answer) AS c_answer,
        any_value(j.c_local_addr) AS c_local_addr, any_value(j.c_local_port) AS c_local_port,
        any_value(j.c_peer_addr) AS c_peer_addr, any_value(j.c_peer_port) AS c_peer_port,
        any_value(j.c_outcome) AS c_outcome,
        count(*) AS half_opens, group_concat(CAST(j.s_id AS VARCHAR), ',') AS s_ids,
        argMin(j.s_local_addr, j.place) AS s_local_addr, argMin(j.s_local_port, j.place) AS s_local_port,
        argMin(j.s_peer_addr, j.place) AS s_peer_addr, min(j.s_peer_addr) AS s_peer_addr_2,
        max(CASE WHEN j.place = 1 THEN j.s_began END) AS s_first_began,
        CAST(sum(1 + j.s_by_peer) AS BIGINT) AS syns_arrived, CAST(sum(1 + j.s_retransmits) AS BIGINT) AS syn_acks_sent, sum(j.s_by_peer) AS by_peer,
        count(j.s_began) AS s_with_beginning, sum(j.s_established) AS s_established,
        argMin(CASE WHEN j.s_established = 1 THEN j.s_at END, CASE WHEN j.s_established = 1 THEN j.place END) AS s_connected,
        count(j.s_answer) AS answers, sum(CASE WHEN j.s_answer = j.c_answer THEN 1 ELSE 0 END) AS same_answers,
        sum(CASE WHEN j.s_established = 1 AND j.s_dwell IS NULL THEN 1 ELSE 0 END) AS cookies,
        min(j.s_earliest) AS s_earliest, max(j.s_at) AS s_last,
        sum(CASE WHEN j.s_open IN ('evicted', 'end_not_seen') THEN 1 ELSE 0 END) AS s_broken,
        sum(CASE WHEN j.s_verdict IS NOT NULL THEN 1 ELSE 0 END) AS s_verdicts,
        sum(CASE WHEN j.s_confidence <> 'insufficient' AND j.s_verdict IN ('accept-queue-full', 'defer-accept',
            'dropped-here', 'listener-closed') THEN 1 ELSE 0 END) AS s_refused_ack,
        min(CASE WHEN j.s_confidence <> 'insufficient' AND j.s_verdict IN ('dropped-here', 'defer-accept',
            'accept-queue-full', 'syn-queue-full', 'listener-closed', 'no-route-back', 'asymmetric-nat')
            THEN concat(CAST(1000 + j.place AS VARCHAR), j.s_verdict, '/', j.s_confidence) END) AS s_own,
        min(CASE WHEN j.s_confidence <> 'insufficient' AND j.s_verdict NOT IN ('syn-lost-then-ok', 'filtered',
            'synack-lost', 'peer-silent', 'syn-flood', 'scan-fanout', 'server-queue-full')
            THEN concat(CAST(1000 + j.place AS VARCHAR), j.s_verdict, '/', j.s_confidence) END) AS s_said
    FROM joined j GROUP BY j.c_node, j.c_id, j.c_at, j.s_node
),
missing AS (
    SELECT p.*, 1 + p.c_retransmits AS syns_sent, greatest(0, 1 + p.c_retransmits - p.syns_arrived) AS syns_missing,
        y.closest_us AS closest_us, coalesce(y.repeats_sent, 0) AS repeats_sent, y.last_us AS last_syn_us,
        count(*) OVER (PARTITION BY p.c_node, p.c_id, p.c_at) AS hosts
    FROM counted p LEFT JOIN syns y ON y.of_node = p.c_node AND y.of_id = p.c_id AND y.of_at = p.c_at
),
placed AS (
    SELECT m.*,
        CASE WHEN m.clock_us IS NOT NULL THEN greatest(
            least(m.clock_us, m.s_first_began - m.c_began,
                CASE WHEN m.c_established = 1 THEN m.s_connected - m.c_at END),
            coalesce(CASE WHEN m.c_established = 1 THEN m.s_first_began - m.c_at END, -9000000000000000))
        ELSE m.s_first_began - CASE WHEN m.syns_missing = 0 THEN m.c_began ELSE g.syn_us END END AS shift_us,
        CASE WHEN m.clock_us IS NOT NULL THEN 2 * m.clock_error + 200000 ELSE 400000 END AS margin_us
    FROM missing m LEFT JOIN (SELECT * FROM syn_gaps WHERE repeated = 1) g
        ON g.of_node = m.c_node AND g.of_id = m.c_id AND g.of_at = m.c_at AND g.place = m.syns_missing
)
SELECT * FROM placed
SETTINGS join_use_nulls = 1, least_greatest_legacy_null_behavior = 0;

CREATE MATERIALIZED VIEW watched_both REFRESH EVERY 10 MINUTE DEPENDS ON clocks, joined, met, unjoined, syns, segments ENGINE = MergeTree ORDER BY tuple() EMPTY AS
WITH
halves AS (
SELECT * FROM handshakes WHERE role = 'server'
),
answers AS (
    SELECT j.c_node AS c_node, j.c_id AS c_id, j.c_at AS c_at, j.s_node AS s_node, j.s_began AS sent_us, 1 AS sent,
        0 AS by_peer, 0 AS repeated
    FROM joined j WHERE j.s_began IS NOT NULL
    UNION ALL
    SELECT j.c_node, j.c_id, j.c_at, j.s_node, r.at_us, 1 - r.failed, r.by_peer, 1
    FROM (SELECT * FROM joined WHERE s_retransmits > 0) j JOIN repeats r ON r.node = j.s_node AND r.id = j.s_id
    WHERE r.at_us >= j.s_earliest - 1000 AND r.at_us <= j.s_at + 1000
),
answers_placed AS (
    SELECT a.c_node AS c_node, a.c_id AS c_id, a.c_at AS c_at, a.s_node AS s_node, a.sent AS sent,
        a.by_peer AS by_peer, a.repeated AS repeated, a.sent_us - g.shift_us AS sent_us, g.margin_us AS margin_us,
        g.c_established AS c_established,
        max(CASE WHEN a.sent = 1 AND a.sent_us - g.shift_us <= g.c_at + g.margin_us / 2
            THEN a.sent_us - g.shift_us END)
            OVER (PARTITION BY a.c_node, a.c_id, a.c_at, a.s_node) AS accepted_us
    FROM answers a JOIN segments g
        ON a.c_node = g.c_node AND a.c_id = g.c_id AND a.c_at = g.c_at AND a.s_node = g.s_node
),
answered AS (
    SELECT c_node, c_id, c_at, s_node, sum(by_peer) AS by_peer_seen,
        sum(CASE WHEN sent = 1 AND c_established = 1 AND accepted_us - sent_us > margin_us THEN 1 ELSE 0 END) AS before_it,
        sum(CASE WHEN sent = 1 AND c_established = 0 AND sent_us + margin_us < c_at THEN 1 ELSE 0 END) AS in_vain,
        sum(CASE WHEN repeated = 1 AND sent_us > c_at + margin_us THEN 1 ELSE 0 END) AS went_on
    FROM answers_placed GROUP BY c_node, c_id, c_at, s_node
),
outlived AS (
    SELECT j.c_node AS c_node, j.c_id AS c_id, j.c_at AS c_at, j.s_node AS s_node, count(*) AS halves
    FROM joined j JOIN segments g
        ON j.c_node = g.c_node AND j.c_id = g.c_id AND j.c_at = g.c_at AND j.s_node = g.s_node
    WHERE j.s_established = 0 AND j.s_at - j.s_error - g.shift_us > j.c_at + g.margin_us
    GROUP BY j.c_node, j.c_id, j.c_at, j.s_node
),
silent AS (
    SELECT u.c_node AS c_node, u.c_id AS c_id, u.c_at AS c_at, any_value(u.c_began) AS c_began,
        any_value(u.c_earliest) AS c_earliest, any_value(u.c_established) AS c_established,
        any_value(u.c_retransmits) AS c_retransmits, any_value(u.c_verdict) AS c_verdict,
        any_value(u.c_confidence) AS c_confidence, any_value(u.c_outcome) AS c_outcome,
        any_value(u.c_local_addr) AS c_local_addr, any_value(u.c_local_port) AS c_local_port,
        any_value(u.c_peer_addr) AS c_peer_addr, any_value(u.c_peer_port) AS c_peer_port,
        any_value(u.c_syn_seq) AS c_syn_seq,
        min(CASE WHEN a.node <> u.c_node THEN a.node END) AS s_node,
        sum(CASE WHEN a.node <> u.c_node THEN 1 ELSE 0 END) AS servers,
        max(CASE WHEN a.node = u.c_node THEN a.calls_from ELSE 0 END) AS is_here
    FROM unjoined u LEFT JOIN addresses a ON a.addr = u.c_peer_addr
    WHERE u.c_clean = 0
    GROUP BY u.c_node, u.c_id, u.c_at
),
silent_before AS (
    SELECT m.*, k.sample_offset_us AS offset_before,
        k.sample_error_us + (m.c_at - k.sample_us) * 0.0005 AS error_before
    FROM silent m ASOF LEFT JOIN clocks k
        ON m.c_node = k.client AND m.s_node = k.server AND m.c_at >= k.sample_us
),
silent_clock AS (
    SELECT m.*, k.sample_offset_us AS offset_after,
        k.sample_error_us + (k.sample_us - m.c_at) * 0.0005 AS error_after
    FROM silent_before m ASOF LEFT JOIN clocks k
        ON m.c_node = k.client AND m.s_node = k.server AND m.c_at <= k.sample_us
),
translated AS (
    SELECT DISTINCT c_node, c_peer_addr, c_peer_port FROM joined
    WHERE s_local_addr <> c_peer_addr OR s_local_port <> c_peer_port
),
shared AS (
    SELECT DISTINCT c_node, c_peer_addr, c_peer_port FROM unjoined WHERE c_established = 1
),
together AS (
    SELECT g.c_node AS c_node, g.c_id AS c_id, g.c_at AS c_at, g.s_node AS s_node, 1 AS both_ends,
        CASE WHEN g.by_number = 1 THEN 'syn_seq' ELSE '4-tuple' END AS pair_key,
        g.s_ids AS s_ids, g.c_local_addr AS c_local_addr, g.c_local_port AS c_local_port,
        g.c_peer_addr AS c_peer_addr, g.c_peer_port AS c_peer_port, g.s_local_addr AS s_local_addr,
        g.s_local_port AS s_local_port, g.s_peer_addr AS s_peer_addr, g.s_peer_addr_2 AS s_peer_addr_2,
        g.c_outcome AS c_outcome, g.c_began AS c_began, g.c_earliest AS c_earliest, g.c_established AS c_established,
        g.c_retransmits AS c_retransmits, g.c_verdict AS c_verdict, g.c_confidence AS c_confidence,
        g.clock_us AS clock_us, g.clock_error AS clock_error,
        g.syns_sent AS syns_sent, g.syns_arrived AS syns_arrived, g.syn_acks_sent AS syn_acks_sent,
        g.syns_missing AS syns_missing, g.half_opens AS half_opens, g.s_established AS s_established,
        g.s_verdicts AS s_verdicts, g.s_own AS s_own, g.s_said AS s_said,
        CASE WHEN g.shift_us IS NULL THEN 0 ELSE 1 END AS comparable,
        -- Each SYN has its place.
        CASE WHEN g.syns_missing = 0 OR g.c_began IS NULL OR (g.shift_us IS NOT NULL
            AND g.s_with_beginning + coalesce(a.by_peer_seen, 0) = g.syns_arrived
            AND 1 + g.repeats_sent = g.syns_sent) THEN 1 ELSE 0 END AS all_placed,
        CASE WHEN g.shift_us IS NULL OR (g.c_established = 1 AND g.c_verdict = 'spurious-retransmit') THEN 0
            ELSE coalesce(a.before_it + a.in_vain, 0) END AS not_taken,
        CASE WHEN g.shift_us IS NULL OR g.c_established = 0 OR g.c_began IS NULL THEN 'none'
            WHEN coalesce(a.went_on, 0) + coalesce(o.halves, 0) > 0
                THEN CASE WHEN g.s_refused_ack > 0 THEN 'refused' ELSE 'lost' END
            WHEN g.s_established > 0 THEN 'arrived' ELSE 'none' END AS ack,
        concat(
            CASE WHEN g.c_answer IS NOT NULL AND g.answers > 0 AND g.same_answers = 0
                THEN 'a SYN proxy answers in between; ' ELSE '' END,
            CASE WHEN g.c_established = 0 AND g.s_established > 0
                THEN 'the server is connected, and the client is not; ' ELSE '' END,
            CASE WHEN g.c_retransmits > 0 AND g.cookies > 0
                THEN 'the server may have answered with a SYN cookie; ' ELSE '' END,
            CASE WHEN g.syns_missing > 0 AND g.closest_us < 550000
                THEN 'SYNs came less than half a second apart; ' ELSE '' END,
            CASE WHEN g.shift_us IS NULL AND (g.c_established = 0 OR g.c_retransmits > 0)
                THEN 'the times of the two ends cannot be compared; ' ELSE '' END,
            CASE WHEN g.shift_us IS NOT NULL AND g.c_established = 0 AND coalesce(a.in_vain, 0) = 0
                THEN 'the client ended before an answer was due; ' ELSE '' END,
            CASE WHEN g.s_broken > 0 OR coalesce(g.c_open IN ('evicted', 'end_not_seen'), false)
                THEN 'the end of it was not seen; ' ELSE '' END,
            CASE WHEN x.m_node IS NOT NULL THEN 'a SYN in the server''s name came too; ' ELSE '' END,
            CASE WHEN g.hosts > 1 THEN 'several hosts got its SYNs; ' ELSE '' END) AS unclear,
        least(g.s_earliest, g.c_earliest + coalesce(g.near_us, 0)) AS s_from,
        greatest(g.s_last, coalesce(g.near_us, 0) + CASE WHEN g.c_established = 1 THEN g.c_at
            ELSE coalesce(g.last_syn_us, g.c_began, g.c_at) END) AS s_to,
        g.c_earliest + coalesce(g.near_us, 0) - 200000 AS refused_from,
        g.c_at + coalesce(g.near_us, 0) + 200000 AS refused_to
    FROM segments g
    LEFT JOIN answered a ON a.c_node = g.c_node AND a.c_id = g.c_id AND a.c_at = g.c_at AND a.s_node = g.s_node
    LEFT JOIN outlived o ON o.c_node = g.c_node AND o.c_id = g.c_id AND o.c_at = g.c_at AND o.s_node = g.s_node
    LEFT JOIN met x ON x.m_node = g.c_node AND x.m_id = g.c_id AND x.m_at = g.c_at
    UNION ALL
    SELECT m.c_node, m.c_id, m.c_at, m.s_node, 0, CASE WHEN m.c_syn_seq IS NULL THEN '4-tuple' ELSE 'syn_seq' END,
        NULL, m.c_local_addr, m.c_local_port, m.c_peer_addr, m.c_peer_port, NULL, NULL, m.c_local_addr, m.c_local_addr,
        m.c_outcome, m.c_began, m.c_earliest, m.c_established, m.c_retransmits, m.c_verdict, m.c_confidence,
        CASE WHEN m.error_before <= coalesce(m.error_after, m.error_before) THEN m.offset_before ELSE m.offset_after END,
        least(m.error_before, m.error_after), 1 + m.c_retransmits, 0, 0, 1 + m.c_retransmits, 0, 0, 0, NULL, NULL,
        0, 1, 0, 'none',
        concat(
            CASE WHEN coalesce(m.error_before, m.error_after) IS NULL
                THEN 'no handshake that both hosts have shows the offset of the clocks; ' ELSE '' END,
            CASE WHEN x.m_node IS NOT NULL OR k.m_node IS NOT NULL
                THEN 'the host that was called had called too (simultaneous open); ' ELSE '' END,
            CASE WHEN t.c_node IS NOT NULL THEN 'the address is translated on its way; '
                WHEN m.servers <> 1 OR m.is_here = 1 THEN 'nothing shows that the address is one server''s; '
                ELSE '' END,
            CASE WHEN m.c_established = 1 THEN 'another host answered it, or the server has missed it; '
                WHEN h.c_node IS NOT NULL THEN 'other hosts answer at this address too; ' ELSE '' END,
            CASE WHEN m.c_retransmits = 0 AND m.c_at - m.c_earliest < 1500000
                THEN 'it was too short for the server to show it; ' ELSE '' END),
        m.c_earliest + coalesce(m.offset_before, m.offset_after, 0),
        coalesce(y.last_us, m.c_began, m.c_at) + coalesce(m.offset_before, m.offset_after, 0) + 1500000,
        m.c_earliest + coalesce(m.offset_before, m.offset_after, 0) - 1500000,
        m.c_at + coalesce(m.offset_before, m.offset_after, 0) + 1500000
    FROM silent_clock m
    LEFT JOIN syns y ON y.of_node = m.c_node AND y.of_id = m.c_id AND y.of_at = m.c_at
    LEFT JOIN translated t ON t.c_node = m.c_node AND t.c_peer_addr = m.c_peer_addr AND t.c_peer_port = m.c_peer_port
    LEFT JOIN shared h ON h.c_node = m.c_node AND h.c_peer_addr = m.c_peer_addr AND h.c_peer_port = m.c_peer_port
    LEFT JOIN met x ON x.m_node = m.c_node AND x.m_id = m.c_id AND x.m_at = m.c_at
    LEFT JOIN (SELECT DISTINCT m_node, m_addr, m_port FROM met) k
        ON k.m_node = m.s_node AND k.m_addr = m.c_peer_addr AND k.m_port = m.c_peer_port
),
watched AS (
    SELECT t.*, r.since_us AS c_since, r.until_us AS c_until
    FROM together t ASOF LEFT JOIN runs r ON r.node = t.c_node AND t.c_earliest >= r.since_us
)
SELECT t.*, r.since_us AS s_since, r.until_us AS s_until, r.listen_drops AS listen_drops,
        r.syn_cookies AS syn_cookies, r.reports_all AS reports_all, r.filtered AS filtered, r.only_role AS only_role
    FROM watched t ASOF LEFT JOIN runs r ON r.node = t.s_node AND t.s_from >= r.since_us
SETTINGS join_use_nulls = 1, least_greatest_legacy_null_behavior = 0;

CREATE VIEW pairs AS
WITH
halves AS (
SELECT * FROM handshakes WHERE role = 'server'
),
counted AS (
    SELECT j.c_node AS c_node, j.c_id AS c_id, j.c_at AS c_at, j.s_node AS s_node,
        max(j.by_number) AS by_number, max(j.clock_us) AS clock_us, max(j.clock_error) AS clock_error, max(j.near_us) AS near_us,
        any_value(j.c_began) AS c_began, any_value(j.c_earliest) AS c_earliest, any_value(j.c_established) AS c_established,
        any_value(j.c_retransmits) AS c_retransmits, any_value(j.c_verdict) AS c_verdict,
        any_value(j.c_confidence) AS c_confidence, any_value(j.c_open) AS c_open, any_value(j.c_answer) AS c_answer,
        any_value(j.c_local_addr) AS c_local_addr, any_value(j.c_local_port) AS c_local_port,
        any_value(j.c_peer_addr) AS c_peer_addr, any_value(j.c_peer_port) AS c_peer_port,
        any_value(j.c_outcome) AS c_outcome,
        count(*) AS half_opens, group_concat(CAST(j.s_id AS VARCHAR), ',') AS s_ids,
        argMin(j.s_local_addr, j.place) AS s_local_addr, argMin(j.s_local_port, j.place) AS s_local_port,
        argMin(j.s_peer_addr, j.place) AS s_peer_addr, min(j.s_peer_addr) AS s_peer_addr_2,
        max(CASE WHEN j.place = 1 THEN j.s_began END) AS s_first_began,
        CAST(sum(1 + j.s_by_peer) AS BIGINT) AS syns_arrived, CAST(sum(1 + j.s_retransmits) AS BIGINT) AS syn_acks_sent, sum(j.s_by_peer) AS by_peer,
        count(j.s_began) AS s_with_beginning, sum(j.s_established) AS s_established,
        argMin(CASE WHEN j.s_established = 1 THEN j.s_at END, CASE WHEN j.s_established = 1 THEN j.place END) AS s_connected,
        count(j.s_answer) AS answers, sum(CASE WHEN j.s_answer = j.c_answer THEN 1 ELSE 0 END) AS same_answers,
        sum(CASE WHEN j.s_established = 1 AND j.s_dwell IS NULL THEN 1 ELSE 0 END) AS cookies,
        min(j.s_earliest) AS s_earliest, max(j.s_at) AS s_last,
        sum(CASE WHEN j.s_open IN ('evicted', 'end_not_seen') THEN 1 ELSE 0 END) AS s_broken,
        sum(CASE WHEN j.s_verdict IS NOT NULL THEN 1 ELSE 0 END) AS s_verdicts,
        sum(CASE WHEN j.s_confidence <> 'insufficient' AND j.s_verdict IN ('accept-queue-full', 'defer-accept',
            'dropped-here', 'listener-closed') THEN 1 ELSE 0 END) AS s_refused_ack,
        min(CASE WHEN j.s_confidence <> 'insufficient' AND j.s_verdict IN ('dropped-here', 'defer-accept',
            'accept-queue-full', 'syn-queue-full', 'listener-closed', 'no-route-back', 'asymmetric-nat')
            THEN concat(CAST(1000 + j.place AS VARCHAR), j.s_verdict, '/', j.s_confidence) END) AS s_own,
        min(CASE WHEN j.s_confidence <> 'insufficient' AND j.s_verdict NOT IN ('syn-lost-then-ok', 'filtered',
            'synack-lost', 'peer-silent', 'syn-flood', 'scan-fanout', 'server-queue-full')
            THEN concat(CAST(1000 + j.place AS VARCHAR), j.s_verdict, '/', j.s_confidence) END) AS s_said
    FROM joined j GROUP BY j.c_node, j.c_id, j.c_at, j.s_node
),
answers AS (
    SELECT j.c_node AS c_node, j.c_id AS c_id, j.c_at AS c_at, j.s_node AS s_node, j.s_began AS sent_us, 1 AS sent,
        0 AS by_peer, 0 AS repeated
    FROM joined j WHERE j.s_began IS NOT NULL
    UNION ALL
    SELECT j.c_node, j.c_id, j.c_at, j.s_node, r.at_us, 1 - r.failed, r.by_peer, 1
    FROM (SELECT * FROM joined WHERE s_retransmits > 0) j JOIN repeats r ON r.node = j.s_node AND r.id = j.s_id
    WHERE r.at_us >= j.s_earliest - 1000 AND r.at_us <= j.s_at + 1000
),
answers_placed AS (
    SELECT a.c_node AS c_node, a.c_id AS c_id, a.c_at AS c_at, a.s_node AS s_node, a.sent AS sent,
        a.by_peer AS by_peer, a.repeated AS repeated, a.sent_us - g.shift_us AS sent_us, g.margin_us AS margin_us,
        g.c_established AS c_established,
        max(CASE WHEN a.sent = 1 AND a.sent_us - g.shift_us <= g.c_at + g.margin_us / 2
            THEN a.sent_us - g.shift_us END)
            OVER (PARTITION BY a.c_node, a.c_id, a.c_at, a.s_node) AS accepted_us
    FROM answers a JOIN segments g
        ON a.c_node = g.c_node AND a.c_id = g.c_id AND a.c_at = g.c_at AND a.s_node = g.s_node
),
answered AS (
    SELECT c_node, c_id, c_at, s_node, sum(by_peer) AS by_peer_seen,
        sum(CASE WHEN sent = 1 AND c_established = 1 AND accepted_us - sent_us > margin_us THEN 1 ELSE 0 END) AS before_it,
        sum(CASE WHEN sent = 1 AND c_established = 0 AND sent_us + margin_us < c_at THEN 1 ELSE 0 END) AS in_vain,
        sum(CASE WHEN repeated = 1 AND sent_us > c_at + margin_us THEN 1 ELSE 0 END) AS went_on
    FROM answers_placed GROUP BY c_node, c_id, c_at, s_node
),
silent AS (
    SELECT u.c_node AS c_node, u.c_id AS c_id, u.c_at AS c_at, any_value(u.c_began) AS c_began,
        any_value(u.c_earliest) AS c_earliest, any_value(u.c_established) AS c_established,
        any_value(u.c_retransmits) AS c_retransmits, any_value(u.c_verdict) AS c_verdict,
        any_value(u.c_confidence) AS c_confidence, any_value(u.c_outcome) AS c_outcome,
        any_value(u.c_local_addr) AS c_local_addr, any_value(u.c_local_port) AS c_local_port,
        any_value(u.c_peer_addr) AS c_peer_addr, any_value(u.c_peer_port) AS c_peer_port,
        any_value(u.c_syn_seq) AS c_syn_seq,
        min(CASE WHEN a.node <> u.c_node THEN a.node END) AS s_node,
        sum(CASE WHEN a.node <> u.c_node THEN 1 ELSE 0 END) AS servers,
        max(CASE WHEN a.node = u.c_node THEN a.calls_from ELSE 0 END) AS is_here
    FROM unjoined u LEFT JOIN addresses a ON a.addr = u.c_peer_addr
    WHERE u.c_clean = 0
    GROUP BY u.c_node, u.c_id, u.c_at
),
c_gaps AS (
    SELECT DISTINCT w.c_node AS of_node, w.c_id AS of_id, w.c_at AS of_at
    FROM watched_both w JOIN gaps g ON g.node = w.c_node WHERE g.from_us <= w.c_at AND g.to_us >= w.c_earliest
),
s_gaps AS (
    SELECT DISTINCT w.c_node AS of_node, w.c_id AS of_id, w.c_at AS of_at, w.s_node AS of_server
    FROM watched_both w JOIN gaps g ON g.node = w.s_node WHERE g.from_us <= w.s_to AND g.to_us >= w.s_from
),
refused AS (
    SELECT w.c_node AS of_node, w.c_id AS of_id, w.c_at AS of_at, w.s_node AS of_server,
        min(concat(CASE WHEN f.peer_addr IS NULL THEN '1' ELSE '0' END, f.what)) AS refused_what,
        argMin(f.count, concat(CASE WHEN f.peer_addr IS NULL THEN '1' ELSE '0' END, f.what)) AS refused_count
    FROM watched_both w JOIN refusals f ON f.node = w.s_node
    WHERE w.syns_missing > 0 AND f.last_us >= w.refused_from AND f.first_us <= w.refused_to
        AND (f.peer_addr IS NULL OR f.peer_addr IN (w.c_local_addr, w.s_peer_addr, w.s_peer_addr_2))
        AND (f.local_addr IS NULL OR f.local_addr = w.c_peer_addr OR w.s_peer_addr <> w.c_local_addr)
        AND (f.local_port IS NULL OR f.local_port = w.c_peer_port OR w.s_peer_addr <> w.c_local_addr)
    GROUP BY w.c_node, w.c_id, w.c_at, w.s_node
),
lost AS (
    SELECT w.*, f.refused_what AS refused_what, coalesce(f.refused_count, 0) AS refused_count,
        CASE WHEN w.both_ends = 1 THEN least(w.syns_missing, coalesce(f.refused_count, 0)) ELSE 0 END AS refused_syns,
        CASE WHEN w.both_ends = 0 THEN 0
            WHEN w.c_verdict IN ('answer-rejected', 'dropped-here') THEN 0 ELSE w.not_taken END AS lost_syn_acks_all,
        CASE WHEN w.ack = 'lost' THEN 1 ELSE 0 END AS lost_acks_all,
        CASE WHEN w.c_confidence <> 'insufficient' AND w.c_verdict IN ('dropped-here', 'answer-rejected', 'not-sent',
            'ports-exhausted', 'self-connect', 'no-route-back', 'option-dropped') THEN 1 ELSE 0 END AS c_own,
        CASE WHEN w.c_confidence <> 'insufficient' AND w.c_verdict NOT IN ('syn-lost-then-ok', 'filtered',
            'synack-lost', 'peer-silent', 'syn-flood', 'scan-fanout', 'server-queue-full') THEN 1 ELSE 0 END AS c_said,
        concat(
            CASE WHEN w.c_since IS NULL OR w.c_at > w.c_until THEN 'the client was not watching all that time; ' ELSE '' END,
            CASE WHEN cg.of_node IS NOT NULL THEN 'the client lost records around then; ' ELSE '' END,
            CASE WHEN w.s_node IS NOT NULL AND (w.both_ends = 1 OR w.clock_error IS NOT NULL) AND (w.s_since IS NULL
                OR w.s_to > w.s_until)
                THEN 'the server was not watching all that time; ' ELSE '' END,
            CASE WHEN sg.of_node IS NOT NULL THEN 'the server lost records around then; ' ELSE '' END,
            CASE WHEN w.both_ends = 0 AND w.s_node IS NOT NULL AND (w.filtered = 1 OR w.only_role = 'client')
                THEN 'the server ran with a filter; ' ELSE '' END,
            CASE WHEN w.both_ends = 0 AND w.s_node IS NOT NULL AND w.reports_all = 0
                THEN 'the server lists only handshakes in trouble; ' ELSE '' END) AS unwatched,
        CASE WHEN w.listen_drops = 0 AND w.syn_cookies = 0 THEN 0 ELSE 1 END AS may_have_refused
    FROM watched_both w
    LEFT JOIN refused f ON f.of_node = w.c_node AND f.of_id = w.c_id AND f.of_at = w.c_at AND f.of_server = w.s_node
    LEFT JOIN c_gaps cg ON cg.of_node = w.c_node AND cg.of_id = w.c_id AND cg.of_at = w.c_at
    LEFT JOIN s_gaps sg ON sg.of_node = w.c_node AND sg.of_id = w.c_id AND sg.of_at = w.c_at AND sg.of_server = w.s_node
),
weighed AS (
    SELECT l.*,
        CASE WHEN l.both_ends = 1 THEN l.syns_missing - l.refused_syns
            WHEN l.refused_what IS NULL THEN l.syns_sent ELSE 0 END AS lost_syns_all,
        concat(l.unclear, l.unwatched,
            CASE WHEN l.both_ends = 1 AND l.clock_us IS NULL AND l.syns_missing > l.refused_syns
                THEN 'no handshake shows the offset of the clocks: a half-open without its number may be of it; '
                ELSE '' END,
            CASE WHEN l.may_have_refused = 1 AND (l.both_ends = 0 OR l.syns_missing > l.refused_syns)
                THEN 'listeners of the server may have refused SYNs, or cookies answered them; ' ELSE '' END) AS reasons
    FROM lost l
),
judged AS (
    SELECT w.*,
        CASE
            -- Nothing wrong.
            WHEN both_ends = 1 AND lost_syns_all + lost_syn_acks_all + lost_acks_all + refused_syns = 0
                AND c_established = 1 AND c_retransmits = 0 AND half_opens = s_established
                AND c_verdict IS NULL AND s_verdicts = 0 THEN 'clean'
            WHEN c_own = 1 OR (both_ends = 0 AND c_outcome = 'refused' AND c_verdict IS NOT NULL) THEN 'client'
            WHEN both_ends = 1 AND s_own IS NOT NULL THEN 'server'
            WHEN reasons <> '' THEN 'insufficient'
            WHEN both_ends = 0 AND refused_what IS NOT NULL THEN 'refused'
            WHEN lost_syns_all + lost_acks_all > 0 AND lost_syn_acks_all > 0 THEN 'lost-both-ways'
            WHEN lost_syns_all + lost_acks_all > 0 THEN 'lost-toward-server'
            WHEN lost_syn_acks_all > 0 THEN 'lost-toward-client'
            WHEN c_said = 1 THEN 'client'
            WHEN s_said IS NOT NULL THEN 'said'
            WHEN c_established = 1 AND s_established > 0 AND refused_syns = 0 THEN 'clean'
            ELSE 'insufficient' END AS found
    FROM weighed w
)
SELECT c_at AS at_us, c_node AS client_node, s_node AS server_node, pair_key, c_id AS client_id,
    s_ids AS server_ids, c_local_addr AS client_addr, c_local_port AS client_port,
    coalesce(s_local_addr, c_peer_addr) AS server_addr, coalesce(s_local_port, c_peer_port) AS server_port,
    c_outcome AS client_outcome, syns_sent, syns_arrived,
    syn_acks_sent,
    CASE WHEN found = 'clean' OR reasons = '' AND (both_ends = 1 OR found NOT IN ('client', 'insufficient'))
        THEN lost_syns_all + lost_acks_all END AS lost_toward_server,
    CASE WHEN found = 'clean' OR reasons = '' AND (both_ends = 1 OR found NOT IN ('client', 'insufficient'))
        THEN lost_syn_acks_all END AS lost_toward_client,
    clock_us AS clock_offset_us, ceil(clock_error) AS clock_error_us,
    CASE found WHEN 'clean' THEN NULL WHEN 'client' THEN c_verdict
        WHEN 'server' THEN substring(s_own, 5, position('/' IN s_own) - 5)
        WHEN 'said' THEN substring(s_said, 5, position('/' IN s_said) - 5)
        WHEN 'refused' THEN CASE WHEN refused_what LIKE '%accept queue is full%' THEN 'accept-queue-full'
            WHEN refused_what LIKE '%SYN queue is full%' THEN 'syn-queue-full'
            WHEN refused_what LIKE '_a connection of % exists in %' THEN 'existing-connection'
            WHEN refused_what LIKE '_no listening socket found%' THEN 'refused' ELSE 'dropped-here' END
        ELSE found END AS verdict,
    CASE found WHEN 'clean' THEN 'certain' WHEN 'client' THEN c_confidence
        WHEN 'server' THEN substring(s_own, position('/' IN s_own) + 1)
        WHEN 'said' THEN substring(s_said, position('/' IN s_said) + 1)
        WHEN 'refused' THEN 'likely'
        WHEN 'insufficient' THEN 'insufficient'
        ELSE CASE WHEN both_ends = 1 AND refused_syns = 0 AND all_placed = 1 AND NOT (c_established = 1 AND not_taken > 0)
            THEN 'certain' ELSE 'likely' END END AS confidence,
    reasons, 0 AS simultaneous
FROM judged
UNION ALL
-- Both called: nothing is counted, and no direction named.
SELECT a_at, a_node, b_node, CASE WHEN numbers > 0 THEN 'syn_seq' ELSE '4-tuple' END, a_id, CAST(b_id AS VARCHAR),
    a_addr, a_port, b_addr, b_port, a_outcome, NULL, NULL, NULL, NULL, NULL, clock_us, ceil(clock_error),
    CASE found WHEN 'client' THEN a_verdict WHEN 'server' THEN b_verdict WHEN 'insufficient' THEN found END,
    CASE found WHEN 'client' THEN a_confidence WHEN 'server' THEN b_confidence WHEN 'insufficient' THEN found
        ELSE 'likely' END,
    'both hosts called at once (simultaneous open); ', 1
FROM (
    SELECT x.*,
        CASE WHEN a_outcome = 'refused' AND a_verdict IS NOT NULL OR a_confidence <> 'insufficient'
                AND a_verdict IN ('dropped-here', 'not-sent', 'ports-exhausted', 'no-route-back') THEN 'client'
            WHEN b_outcome = 'refused' AND b_verdict IS NOT NULL OR b_confidence <> 'insufficient'
                AND b_verdict IN ('dropped-here', 'not-sent', 'ports-exhausted', 'no-route-back') THEN 'server'
            WHEN a_clean = 1 AND b_clean = 1 AND both_met = 1 THEN 'clean'
            ELSE 'insufficient' END AS found
    FROM crossed x
) y
UNION ALL
-- Half-opens in trouble that no client's host has: one end alone proves no direction.
SELECT s.at_us, NULL, s.node, CASE WHEN s.syn_seq IS NULL THEN '4-tuple' ELSE 'syn_seq' END, NULL,
    CAST(s.id AS VARCHAR), s.peer_addr, s.peer_port, s.local_addr, s.local_port, NULL, NULL, 1 + s.by_peer,
    1 + s.retransmits, NULL, NULL, NULL, NULL, 'insufficient', 'insufficient',
    'no host has the connect of this half-open; ', 0
FROM halves s LEFT JOIN joined j ON s.node = j.s_node AND s.id = j.s_id AND s.at_us = j.s_at
WHERE s.clean = 0 AND j.s_node IS NULL
SETTINGS join_use_nulls = 1, least_greatest_legacy_null_behavior = 0;
