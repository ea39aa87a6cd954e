-- Log records of `synprobe serve --otlp` from the table of the OpenTelemetry Collector's ClickHouse exporter (otel_logs).
-- OTLP has the lines handshake, problem and lost, without the members that are null. It has no retransmit, start and
-- end lines: docs/fleet.md says what the join then cannot tell.
CREATE MATERIALIZED VIEW otel_lines TO lines AS
SELECT coalesce(nullIf(ResourceAttributes['host.name'], ''), ResourceAttributes['host.id']) AS node,
    LogAttributes['event.name'] AS type, toDateTime64(Timestamp, 6, 'UTC') AS time,
    toInt64OrNull(LogAttributes['mono_ns']) AS mono_ns, toInt64OrNull(LogAttributes['id']) AS id,
    nullIf(LogAttributes['role'], '') AS role, nullIf(LogAttributes['local_addr'], '') AS local_addr,
    toInt32OrNull(LogAttributes['local_port']) AS local_port, nullIf(LogAttributes['peer_addr'], '') AS peer_addr,
    toInt32OrNull(LogAttributes['peer_port']) AS peer_port, toInt64OrNull(LogAttributes['netns']) AS netns,
    toInt64OrNull(LogAttributes['pid']) AS pid, nullIf(LogAttributes['comm'], '') AS comm,
    nullIf(LogAttributes['unit'], '') AS unit, nullIf(LogAttributes['pod'], '') AS pod,
    nullIf(LogAttributes['namespace'], '') AS namespace, nullIf(LogAttributes['outcome'], '') AS outcome,
    nullIf(LogAttributes['open_reason'], '') AS open_reason, toInt64OrNull(LogAttributes['dwell_us']) AS dwell_us,
    toInt64OrNull(LogAttributes['dwell_error_us']) AS dwell_error_us,
    toInt64OrNull(LogAttributes['retransmits']) AS retransmits,
    toInt64OrNull(LogAttributes['retransmits_by_peer']) AS retransmits_by_peer,
    nullIf(LogAttributes['error'], '') AS error, nullIf(LogAttributes['verdict'], '') AS verdict,
    nullIf(LogAttributes['confidence'], '') AS confidence, nullIf(LogAttributes['evidence'], '') AS evidence,
    toInt64OrNull(LogAttributes['syn_seq']) AS syn_seq, toInt64OrNull(LogAttributes['syn_ack_seq']) AS syn_ack_seq,
    nullIf(LogAttributes['community_id'], '') AS community_id, toInt64OrNull(LogAttributes['events']) AS events,
    nullIf(LogAttributes['reason'], '') AS reason, toInt64OrNull(LogAttributes['handshakes']) AS handshakes
FROM otel_logs
WHERE ServiceName = 'synprobe';
