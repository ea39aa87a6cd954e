-- The pairs of hosts with most trouble in the last hour. The hour ends with the newest line.
SELECT p.client_node AS client_node, p.server_node AS server_node, p.server_port AS server_port,
    count(*) AS connects, count(p.verdict) AS in_trouble,
    sum(CASE WHEN p.confidence = 'certain' AND p.verdict IS NOT NULL THEN 1 ELSE 0 END) AS certain,
    coalesce(sum(p.lost_toward_server), 0) AS lost_toward, coalesce(sum(p.lost_toward_client), 0) AS lost_back,
    max(p.verdict) AS a_verdict
FROM pairs p
WHERE p.client_node IS NOT NULL AND p.at_us > (SELECT max(at_us) FROM handshakes) - 3600000000
GROUP BY p.client_node, p.server_node, p.server_port
ORDER BY in_trouble DESC, client_node, server_node, server_port
LIMIT 20;
