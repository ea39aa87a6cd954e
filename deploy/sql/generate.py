"""Lines of a made fleet: handshakes of the lab's recordings, moved to many hosts, with faults at known places.

generate.py SYNPROBE RECORDINGS --hosts N --rows N > fleet.ndjson

Each line is one that synprobe printed for a recording, with another node, time, id, addresses, ports and sequence
numbers. What the recordings say of causes, counts and times stays. The same seed gives the same lines.
"""

import argparse
import datetime
import json
import os
import random
import subprocess
import sys

# How often each scenario occurs among the connects in trouble. The fleet is assumed; the lines are recorded.
MIX = {"syn-lost-ipv4": 35, "synack-lost-ipv4": 30, "ack-lost-ipv4": 15, "refused-ipv4": 10, "accept-queue-full-ipv4": 5,
       "impatient-ipv4": 5}
CLEAN = "healthy-ipv4"
FULL = "accept-queue-full-ipv4"
ZONES = 8
# Ids of a connect: of the client, and of its half-opens.
HANDSHAKES = 8
BEGAN = datetime.datetime(2026, 11, 29, 13, 0, 0, tzinfo=datetime.timezone.utc)
BEGAN_US = int(BEGAN.timestamp()) * 1_000_000
# Members that each copy of a line has of its own.
OWN = ("time", "mono_ns", "id", "local_addr", "local_port", "peer_addr", "peer_port", "syn_seq", "syn_ack_seq", "comm",
       "community_id")


def micros(line):
    whole, part = line["time"].rstrip("Z").split(".")
    return int(datetime.datetime.fromisoformat(whole + "+00:00").timestamp()) * 1_000_000 + int(part)


def stamp(us, seconds={}):
    second = us // 1_000_000
    text = seconds.get(second)
    if text is None:
        if len(seconds) > 100_000:
            seconds.clear()
        text = datetime.datetime.fromtimestamp(second, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        seconds[second] = text
    return f"{text}.{us % 1_000_000:06}Z"


class Template:
    """One line: its text with places for what is its own, and its time from the beginning of the connect."""

    def __init__(self, line, began_us, of_client, place):
        # Which of the handshakes of the connect it is of: each has an id of its own.
        self.place = place
        self.after_us = micros(line) - began_us
        self.of_client = of_client
        self.kind = line["type"]
        rest = {k: v for k, v in line.items() if k not in OWN and k not in ("v", "type")}
        # Recordings of before 0.1 do not have the numbers of connects without trouble.
        connected = line.get("outcome") == "established"
        self.has_syn = connected or line.get("syn_seq") is not None
        self.has_answer = connected or line.get("syn_ack_seq") is not None
        self.rest = json.dumps(rest, separators=(",", ":"), ensure_ascii=False)[1:]

    def text(self, node, began_us, client, server, number, numbers, comm):
        us = began_us + self.after_us
        (local, peer) = (client, server) if self.of_client else (server, client)
        more = ""
        if self.kind == "handshake":
            syn = numbers & 0xFFFFFFFF if self.has_syn else "null"
            answer = numbers >> 32 if self.has_answer else "null"
            more = f'"syn_seq":{syn},"syn_ack_seq":{answer},"community_id":null,'
        return (f'{{"v":1,"type":"{self.kind}","node":"{node}","time":"{stamp(us)}","mono_ns":{us * 1000 - BEGAN_US},'
                f'"id":{number * HANDSHAKES + self.place},"local_addr":"{local[0]}","local_port":{local[1]},"peer_addr":"{peer[0]}",'
                f'"peer_port":{peer[1]},"comm":"{comm}",{more}{self.rest}\n')


def connects(synprobe, recordings, scenario):
    """The connects of a recording, each as templates of both ends' lines."""
    path = os.path.join(recordings, f"{scenario}.synrec")
    ran = subprocess.run([synprobe, "watch", "--replay", path, "--format", "json"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    ours = [l for l in lines if l["type"] in ("handshake", "retransmit") and l.get("kind", "syn") in ("syn", "synack")]
    halves = [l for l in ours if l["type"] == "handshake" and l["role"] == "server"]
    found = []
    for client in (l for l in ours if l["type"] == "handshake" and l["role"] == "client"):
        ends = (client["local_addr"], client["local_port"], client["peer_addr"], client["peer_port"])
        mine = [h for h in halves if (h["peer_addr"], h["peer_port"], h["local_addr"], h["local_port"]) == ends]
        if client["dwell_us"] is None:
            continue
        began_us = micros(client) - client["dwell_us"]
        wanted = {h["id"]: place for place, h in enumerate([client, *mine][:HANDSHAKES])}
        found.append([Template(l, began_us, wanted[l["id"]] == 0, wanted[l["id"]]) for l in ours if l["id"] in wanted])
    if not found:
        sys.exit(f"{scenario}: no connect in it")
    return found


def address(host):
    return f"10.{host >> 16}.{host >> 8 & 255}.{host & 255}"


class Fleet:
    def __init__(self, synprobe, recordings, hosts, seed, faults):
        self.random = random.Random(seed)
        self.hosts = hosts
        self.faults = faults
        self.templates = {s: connects(synprobe, recordings, s) for s in [*MIX, CLEAN]}
        self.names, self.weights = list(MIX), list(MIX.values())
        self.number = 0
        self.ports = {}

    def zones(self):
        return [(f"h{host:05}", f"z{host % ZONES}") for host in range(self.hosts)]

    def refuses(self, host):
        """Whether its listeners refuse SYNs: then its counters show that."""
        return host == 11 if self.faults else host % 50 == 0

    def run_line(self, kind, host, us):
        more = {"start": '"version":"0.1.0","kernel":"6.18.0","features":[],"mode":"exact (fentry)","missing":[],'
                         f'"host":{{"hostname":"h{host:05}","machine_id":null,"boot_id":null}},"filters":{{}},'
                         '"handshake_lines":"all"',
                "end": '"events":1,"lost":0,"produced":1,"handshakes":1,"syns_refused":0,'
                       f'"listen_drops":{500 if self.refuses(host) else 0},'
                       '"syn_cookies":0,"counted":0,"evicted":0,"duration_us":1,"unexplained":[]'}[kind]
        return (f'{{"v":1,"type":"{kind}","node":"h{host:05}","time":"{stamp(us)}","mono_ns":{us * 1000 - BEGAN_US},'
                f'{more}}}\n')

    def connect(self, us, client, server, port, scenario, comm="app"):
        self.number += 1
        templates = self.random.choice(self.templates[scenario])
        # As in a kernel, no port comes again soon.
        self.ports[client] = (self.ports.get(client, client * 7) + 1) % 28000
        ends = ((address(client), 32768 + self.ports[client]), (address(server), port))
        numbers = self.random.getrandbits(64)
        return [t.text(f"h{client if t.of_client else server:05}", us, *ends, self.number, numbers, comm)
                for t in templates]

    def lines(self, rows, seconds, runs_end=None):
        """Lines in about the order of their times: all hosts start, connects, all hosts end."""
        for host in range(self.hosts):
            yield self.run_line("start", host, BEGAN_US - 1_000_000)
        made, planned = 0, self.planned() if self.faults else []
        planned.sort()
        # Lines of a connect, on average, over the mix.
        each = sum(w * sum(map(len, self.templates[s])) / len(self.templates[s]) for s, w in MIX.items()) / 100
        step_us = max(1, int(seconds * 1_000_000 * each / rows))
        us = BEGAN_US
        while made < rows and us < BEGAN_US + seconds * 1_000_000:
            us += step_us
            while planned and planned[0][0] <= us:
                yield from self.connect(*planned.pop(0))
            client = self.random.randrange(self.hosts)
            server = self.partner(client)
            scenario = self.random.choices(self.names, self.weights)[0]
            if self.faults:
                scenario = CLEAN if self.random.random() < 0.9 or scenario == FULL else scenario
                if (client % ZONES, server % ZONES) == (1, 2) and self.random.random() < 0.5:
                    scenario = "syn-lost-ipv4"
            elif scenario == FULL:
                server -= server % 50
                client = client if client != server else client + 1
            for text in self.connect(us, client, server, 8080 + server % 4, scenario):
                made += 1
                yield text
        for event in planned:
            yield from self.connect(*event)
        for host in range(self.hosts):
            yield self.run_line("end", host, BEGAN_US + ((runs_end or seconds) + 300) * 1_000_000)

    def partner(self, client):
        """One of the twenty hosts that a host calls."""
        server = (client * 7919 + self.random.randrange(20) * 104729 + 1) % self.hosts
        return server if server != client else (client + 1) % self.hosts

    def planned(self):
        """Faults at known places: what the questions must find."""
        second, events = 1_000_000, []
        # A client that is refused and tries again every 20 ms, and one that waits twice as long each time.
        for i in range(200):
            events.append((BEGAN_US + 600 * second + i * 20_000, 5, 9, 6379, "refused-ipv4", "eager"))
        for i in range(10):
            events.append((BEGAN_US + 600 * second + (2 ** i) * second, 6, 9, 6379, "refused-ipv4", "patient"))
        # From 14:05 on, a listener's accept queue is full.
        for i in range(300):
            events.append((BEGAN_US + 3900 * second + i * second, i % self.hosts if i % self.hosts != 11 else 12, 11,
                           9090, FULL, "app"))
        return events


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("synprobe")
    parser.add_argument("recordings")
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=7200)
    parser.add_argument("--runs-end", type=int, help="how long the runs last at least, where more lines follow")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", action="store_true", help="mostly clean connects, and faults at known places")
    args = parser.parse_args()
    fleet = Fleet(args.synprobe, args.recordings, args.hosts, args.seed, args.faults)
    sys.stdout.writelines(fleet.lines(args.rows, args.seconds, args.runs_end))


if __name__ == "__main__":
    main()
