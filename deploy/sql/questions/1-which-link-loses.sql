-- Which link or zone loses SYNs toward the server, or SYN-ACKs on the way back?
-- A host without a zone stands for itself. The share is of the connects that have lines, in the quiet mode those in trouble.
-- `unknown`: connects in trouble about which one end cannot testify.
SELECT coalesce(c.zone, p.client_node, 'unknown') AS from_zone, coalesce(s.zone, p.server_node, 'unknown') AS to_zone,
    count(*) AS connects,
    sum(CASE WHEN p.lost_toward_server > 0 THEN 1 ELSE 0 END) AS lost_toward,
    sum(CASE WHEN p.lost_toward_client > 0 THEN 1 ELSE 0 END) AS lost_back,
    sum(CASE WHEN p.verdict = 'insufficient' THEN 1 ELSE 0 END) AS unknown,
    round(100.0 * sum(CASE WHEN p.lost_toward_server > 0 OR p.lost_toward_client > 0 THEN 1 ELSE 0 END) / count(*), 1)
        AS percent_lost
FROM pairs p LEFT JOIN zones c ON c.node = p.client_node LEFT JOIN zones s ON s.node = p.server_node
GROUP BY 1, 2
HAVING count(*) >= 20
ORDER BY percent_lost DESC, 1, 2
LIMIT 20;
