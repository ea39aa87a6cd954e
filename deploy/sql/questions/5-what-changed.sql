-- What changed at 14:05? Handshakes by verdict and listener in the 15 minutes before and after. Put your time in line 4.
WITH counts AS (
    SELECT CASE WHEN role = 'server' THEN local_addr ELSE peer_addr END AS server_addr, role, verdict, outcome,
        CASE WHEN role = 'server' THEN local_port ELSE peer_port END AS server_port, at_us - 1795961100000000 AS after_us
    FROM handshakes
    WHERE clean = 0
)
SELECT server_addr, server_port, role, coalesce(verdict, outcome) AS what,
    sum(CASE WHEN after_us < 0 THEN 1 ELSE 0 END) AS before_it, sum(CASE WHEN after_us >= 0 THEN 1 ELSE 0 END) AS after_it
FROM counts
WHERE after_us >= -900000000 AND after_us < 900000000
GROUP BY server_addr, server_port, role, coalesce(verdict, outcome)
ORDER BY abs(sum(CASE WHEN after_us < 0 THEN -1 ELSE 1 END)) DESC, server_addr, server_port, role, what
LIMIT 20;
