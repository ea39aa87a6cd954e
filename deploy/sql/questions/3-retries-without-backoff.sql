-- Which client tries again after a failure without waiting longer each time? From the fifth retry on: the pauses of the
-- later half are not twice those of the earlier half, and shorter than 5 s. Connects that overlap are no retries.
WITH failures AS (
    SELECT node, comm, peer_addr, peer_port, at_us,
        began_us - lag(at_us) OVER (PARTITION BY node, comm, peer_addr, peer_port ORDER BY at_us) AS pause_us,
        row_number() OVER (PARTITION BY node, comm, peer_addr, peer_port ORDER BY at_us) AS failure
    FROM handshakes
    WHERE role = 'client' AND outcome IN ('refused', 'timed_out', 'unreachable') AND began_us IS NOT NULL
),
pauses AS (
    SELECT node, comm, peer_addr, peer_port, pause_us,
        row_number() OVER (PARTITION BY node, comm, peer_addr, peer_port ORDER BY at_us) AS place,
        count(*) OVER (PARTITION BY node, comm, peer_addr, peer_port) AS retries
    FROM failures
    WHERE failure > 1 AND pause_us >= 0
)
SELECT node, comm, peer_addr, peer_port, max(retries) AS times,
    round(avg(CASE WHEN place * 2 <= retries THEN pause_us END) / 1000) AS earlier_pause_ms,
    round(avg(CASE WHEN place * 2 > retries THEN pause_us END) / 1000) AS later_pause_ms
FROM pauses
WHERE retries >= 5
GROUP BY node, comm, peer_addr, peer_port
HAVING avg(CASE WHEN place * 2 > retries THEN pause_us END) < 2 * avg(CASE WHEN place * 2 <= retries THEN pause_us END)
    AND avg(CASE WHEN place * 2 > retries THEN pause_us END) < 5000000
ORDER BY times DESC, node
LIMIT 20;
