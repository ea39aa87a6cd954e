-- Which listener refuses whom? By RST (the client's line), before a half-open (the server's sums), or at a full queue.
SELECT server_addr, server_port, client_addr, how, sum(x.times) AS refusals
FROM (
    SELECT peer_addr AS server_addr, peer_port AS server_port, local_addr AS client_addr, 'RST' AS how,
        CAST(count(*) AS BIGINT) AS times
    FROM handshakes WHERE role = 'client' AND outcome = 'refused' GROUP BY peer_addr, peer_port, local_addr
    UNION ALL
    SELECT local_addr, local_port, peer_addr, verdict, CAST(count(*) AS BIGINT) FROM handshakes
    WHERE role = 'server' AND verdict IN ('accept-queue-full', 'syn-queue-full', 'dropped-here', 'listener-closed')
    GROUP BY local_addr, local_port, peer_addr, verdict
    UNION ALL
    SELECT local_addr, local_port, peer_addr, what, coalesce(r.count, 0) FROM refusals r
) x
GROUP BY server_addr, server_port, client_addr, how
ORDER BY refusals DESC, server_addr, server_port, client_addr
LIMIT 20;
