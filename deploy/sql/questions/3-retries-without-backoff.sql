-- Which client tries again after a failure without waiting longer each time? From the fifth retry on: the pauses of the
-- later half are not twice those of the earlier half, and shorter than 5 s. Connects that overlap are no retries.
-- Only numbers go through the sorts: names come last, to those that are left.
WITH paused AS (
    SELECT caller, at_us,
        began_us - lag(at_us) OVER (PARTITION BY caller ORDER BY at_us) AS pause_us,
        row_number() OVER (PARTITION BY caller ORDER BY at_us) AS failure
    FROM failures
),
pauses AS (
    SELECT caller, at_us, pause_us,
        row_number() OVER (PARTITION BY caller ORDER BY at_us) AS place,
        count(*) OVER (PARTITION BY caller) AS retries
    FROM paused
    WHERE failure > 1 AND pause_us >= 0
),
hasty AS (
    SELECT caller, max(at_us) AS last_us, max(retries) AS times,
        avg(CASE WHEN place * 2 <= retries THEN pause_us END) AS earlier_us,
        avg(CASE WHEN place * 2 > retries THEN pause_us END) AS later_us
    FROM pauses
    WHERE retries >= 5
    GROUP BY caller
)
SELECT DISTINCT f.node AS node, f.comm AS comm, f.peer_addr AS peer_addr, f.peer_port AS peer_port, h.times AS times,
    round(h.earlier_us / 1000) AS earlier_pause_ms, round(h.later_us / 1000) AS later_pause_ms
FROM failures f
JOIN hasty h ON h.caller = f.caller AND h.last_us = f.at_us
WHERE h.later_us < 2 * h.earlier_us AND h.later_us < 5000000
ORDER BY times DESC, node
LIMIT 20;
