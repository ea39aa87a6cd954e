//! Recordings of two hosts that belong together: connects at an even rate, some of them in trouble.

use std::{cmp::Reverse, collections::BinaryHeap, path::Path};

use anyhow::Result;
use synprobe::model::Trigger;
use synprobe_ebpf::event::{
    AF_INET, ErrorRecord, Flow, RetransmitRecord, SynAckRecord, TRIGGER_PEER, TRIGGER_TIMER,
};

use crate::fill::{CLOSE, ESTABLISHED, FilledEngine, LISTEN, SEC, SYN_RECV, SYN_SENT};

/// The first one, on both monotonic clocks.
const BEGAN_NS: u64 = 2 * SEC;
/// Between two connects.
const EACH_NS: u64 = SEC / 200;
/// There and back.
const ROUND_TRIP_NS: u64 = 400_000;
/// The server's wall clock is so far ahead when its run begins.
const AHEAD_NS: i64 = 5_400_000_000_000;
/// And gains one nanosecond in so many: 20 ppm.
const GAINS: u64 = 50_000;
/// Of so many connects, two are in trouble, each in another way in turn.
const TROUBLED: u32 = 128;
const NETNS: u32 = 4_026_531_833;
const PORT: u16 = 8080;

/// What happens to a connect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Clean,
    SynLost,
    SynAckLost,
    AckLost,
    Unanswered,
    Refused,
}

/// A moment of a connect, at one of its ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Calls,
    /// How often, with this one.
    RepeatsSyn(u8),
    Fails,
    Connected,
    RepeatsAnswer,
    Accepts,
}

/// Two runs that are recorded at once.
pub struct TwoEnds {
    client: FilledEngine,
    server: FilledEngine,
    /// What is still to come, by time.
    coming: BinaryHeap<Reverse<(u64, u32, Moment, Fate)>>,
}

/// How many of each fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    pub joined: u64,
    pub client_only: u64,
    pub toward_server: u64,
    pub toward_client: u64,
}

impl TwoEnds {
    /// Records `connects` of them.
    pub fn record(client: &Path, server: &Path, connects: usize) -> Result<Fates> {
        let mut ends = Self {
            client: FilledEngine::recorded(client, 0)?,
            server: FilledEngine::recorded(server, AHEAD_NS)?,
            coming: BinaryHeap::new(),
        };
        let mut fates = Fates::default();
        for i in 0..u32::try_from(connects)? {
            let at_ns = BEGAN_NS + u64::from(i) * EACH_NS;
            ends.until(at_ns);
            if u64::from(i) % (SEC / EACH_NS) == 0 {
                ends.round(at_ns);
            }
            let fate = fate(i);
            fates.count(fate);
            ends.plan(at_ns, i, fate);
        }
        ends.until(u64::MAX);
        // Both go on until nothing more can come.
        ends.round(ends.client.at_ns + 10 * SEC);
        ends.client.ends()?;
        ends.server.ends()?;
        Ok(fates)
    }

    fn plan(&mut self, at_ns: u64, i: u32, fate: Fate) {
        use Moment::{Accepts, Calls, Connected, Fails, RepeatsAnswer, RepeatsSyn};
        // No two are alike.
        let round_trip_ns = ROUND_TRIP_NS + u64::from(i.wrapping_mul(2_654_435_761) >> 12);
        let half_ns = round_trip_ns / 2;
        let moments: &[(u64, Moment)] = match fate {
            Fate::Clean => &[
                (0, Calls),
                (round_trip_ns, Connected),
                (3 * half_ns, Accepts),
            ],
            Fate::SynLost => &[
                (0, Calls),
                (SEC, RepeatsSyn(1)),
                (SEC + round_trip_ns, Connected),
                (SEC + 3 * half_ns, Accepts),
            ],
            Fate::SynAckLost => &[
                (0, Calls),
                (SEC, RepeatsSyn(1)),
                (SEC + half_ns, RepeatsAnswer),
                (SEC + round_trip_ns, Connected),
                (SEC + 3 * half_ns, Accepts),
            ],
            Fate::AckLost => &[
                (0, Calls),
                (round_trip_ns, Connected),
                (SEC + half_ns, RepeatsAnswer),
                (SEC + 3 * half_ns, Accepts),
            ],
            Fate::Unanswered => &[
                (0, Calls),
                (SEC, RepeatsSyn(1)),
                (3 * SEC, RepeatsSyn(2)),
                (7 * SEC, Fails),
            ],
            Fate::Refused => &[(0, Calls), (round_trip_ns, Fails)],
        };
        for (after_ns, moment) in moments {
            self.coming
                .push(Reverse((at_ns + after_ns, i, *moment, fate)));
        }
    }

    fn until(&mut self, now_ns: u64) {
        while let Some(Reverse((at_ns, i, moment, fate))) = self.coming.peek().copied()
            && at_ns <= now_ns
        {
            self.coming.pop();
            self.it_is(at_ns);
            self.happens(i, moment, fate);
        }
    }

    fn it_is(&mut self, at_ns: u64) {
        self.client.at_ns = at_ns;
        self.server.at_ns = at_ns + (at_ns - BEGAN_NS) / GAINS;
    }

    /// Both look at their listeners, as they do every second. None of them refuses anything.
    fn round(&mut self, at_ns: u64) {
        self.it_is(at_ns);
        self.client.round(NETNS);
        self.server.round(NETNS);
    }

    fn happens(&mut self, i: u32, moment: Moment, fate: Fate) {
        let sock = 0xffff_8880_0000_0000 + u64::from(i % 65_536) * 2304;
        let local = 32_768 + (i % 28_232) as u16;
        let (ours, theirs) = (flow(1, 2, (local, PORT)), flow(2, 1, (PORT, local)));
        // Both ends of a connect choose a number.
        let (syn, syn_ack) = (number(2 * i), number(2 * i + 1));
        let repeated = match fate {
            Fate::Clean | Fate::AckLost | Fate::Refused => 0,
            Fate::SynLost | Fate::SynAckLost => 1,
            Fate::Unanswered => 2,
        };
        let (ours_to, theirs_to) = (&mut self.client, &mut self.server);
        match moment {
            Moment::Calls => {
                let called = flow(1, 2, (0, PORT));
                ours_to.state(called, sock, (CLOSE, SYN_SENT), 700 + i % 5);
            }
            Moment::RepeatsSyn(so_far) => ours_to.repeats_syn(RetransmitRecord {
                flow: ours,
                sock,
                seq: syn,
                segs: 1,
                total_retrans: u32::from(so_far),
                rto_jiffies: 250 * u32::from(so_far),
                state: SYN_SENT,
                pending: 1,
                retransmits: so_far,
                sysctl_syn_retries: 6,
                ..RetransmitRecord::default()
            }),
            Moment::Fails => {
                let what = match fate {
                    Fate::Refused => libc::ECONNREFUSED,
                    _ => libc::ETIMEDOUT,
                };
                ours_to.fails(ErrorRecord {
                    flow: ours,
                    sock,
                    sk_err: what.unsigned_abs(),
                    state: SYN_SENT,
                    ..ErrorRecord::default()
                });
                ours_to.left(ours, sock, (SYN_SENT, CLOSE), |r| {
                    r.snd_first_or_backlog = syn;
                    r.total_retrans = repeated;
                });
            }
            Moment::Connected => ours_to.left(ours, sock, (SYN_SENT, ESTABLISHED), |r| {
                r.snd_first_or_backlog = syn;
                r.rcv_first_or_half_open = syn_ack.wrapping_add(1);
                r.total_retrans = repeated;
                r.srtt_us = 8 * (ROUND_TRIP_NS / 1000) as u32;
            }),
            Moment::RepeatsAnswer => {
                let by_peer = fate == Fate::SynAckLost;
                let trigger = if by_peer {
                    Trigger::Peer
                } else {
                    Trigger::Timer
                };
                let began_ns = theirs_to.at_ns - SEC;
                theirs_to.repeats_answer(
                    SynAckRecord {
                        flow: theirs,
                        req: sock + 1,
                        sock: 0xfeed,
                        snt_synack_us: began_ns / 1000,
                        timeout_jiffies: 250,
                        max_ack_backlog: 128,
                        trigger: if by_peer { TRIGGER_PEER } else { TRIGGER_TIMER },
                        sysctl_synack_retries: 5,
                        sock_state: LISTEN,
                        rcv_isn: syn,
                        snt_isn: syn_ack,
                        ..SynAckRecord::default()
                    },
                    trigger,
                );
            }
            Moment::Accepts => {
                theirs_to.state(theirs, sock, (LISTEN, SYN_RECV), 0);
                theirs_to.left(theirs, sock, (SYN_RECV, ESTABLISHED), |r| {
                    r.rcv_first_or_half_open = syn.wrapping_add(1);
                    r.snd_first_or_backlog = syn_ack.wrapping_add(1);
                    r.total_retrans = u32::from(matches!(fate, Fate::SynAckLost | Fate::AckLost));
                    r.srtt_us = 8 * (ROUND_TRIP_NS / 1000) as u32;
                });
            }
        }
    }
}

impl Fates {
    /// A line of a pair. Its own verdict comes after those of its ends.
    pub fn says(&mut self, line: &str) {
        let verdict = line
            .rsplit_once(r#""verdict":""#)
            .map_or("", |(_, rest)| rest);
        self.toward_server += u64::from(verdict.starts_with("lost-toward-server"));
        self.toward_client += u64::from(verdict.starts_with("lost-toward-client"));
    }

    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Unanswered | Fate::Refused => self.client_only += 1,
            _ => self.joined += 1,
        }
        match fate {
            Fate::SynLost | Fate::AckLost | Fate::Unanswered => self.toward_server += 1,
            Fate::SynAckLost => self.toward_client += 1,
            Fate::Clean | Fate::Refused => (),
        }
    }
}

fn fate(i: u32) -> Fate {
    const WAYS: [Fate; 5] = [
        Fate::SynLost,
        Fate::SynAckLost,
        Fate::AckLost,
        Fate::Unanswered,
        Fate::Refused,
    ];
    match i % TROUBLED {
        60 | 90 => WAYS[(i / (TROUBLED / 2)) as usize % WAYS.len()],
        _ => Fate::Clean,
    }
}

/// An initial sequence number: no two of a recording are alike.
fn number(i: u32) -> u32 {
    i.wrapping_mul(2_654_435_761).wrapping_add(12_345)
}

fn flow(local: u8, peer: u8, (local_port, peer_port): (u16, u16)) -> Flow {
    let address = |last: u8| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last];
    Flow {
        local_addr: address(local),
        peer_addr: address(peer),
        local_port,
        peer_port,
        family: AF_INET,
        netns: NETNS,
        ..Flow::default()
    }
}
