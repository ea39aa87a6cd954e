//! The kernel's own retransmission schedules, from the settings of one namespace and one socket.
//!
//! All durations are microseconds and nominal: the timer wheel is never early and up to an eighth
//! late (kernel/time/timer.c), and lateness adds up, because each interval starts when the one
//! before it really ended.

use synprobe_ebpf::event::{RetransmitRecord, SynAckRecord};

/// `TCP_TIMEOUT_INIT` (include/net/tcp.h): 1 s, RFC 6298 section 2.
pub const TIMEOUT_INIT_US: u64 = 1_000_000;
/// `TCP_RTO_MAX` (include/net/tcp.h): 120 s; from 6.15 a socket's own `icsk_rto_max`.
pub const RTO_MAX_US: u64 = 120_000_000;
/// `TCP_RESOURCE_PROBE_INTERVAL` (include/net/tcp.h): HZ / 2. `tcp_retransmit_timer()` waits so long, without
/// backoff, where the retransmission failed because of local congestion (a positive NET_XMIT_*).
pub const RESOURCE_PROBE_US: u64 = 500_000;
/// No schedule is followed further than this many steps: more than R + L can be.
const MAX_STEPS: u32 = 256;

/// Jiffies → microseconds.
pub fn jiffies_to_us(jiffies: u32, hz: u32) -> u64 {
    u64::from(jiffies) * 1_000_000 / u64::from(hz.max(1))
}

fn doubled(base_us: u64, times: u32, max_us: u64) -> u64 {
    if times >= 40 {
        max_us
    } else {
        base_us.saturating_mul(1 << times).min(max_us)
    }
}

/// How a SYN is repeated: `tcp_retransmit_timer()` and `tcp_write_timeout()` (net/ipv4/tcp_timer.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynSchedule {
    /// First time-out.
    pub base_us: u64,
    /// `tcp_syn_linear_timeouts` (6.5; 0 before).
    pub linear: u32,
    /// TCP_SYNCNT, or `tcp_syn_retries`.
    pub retries: u32,
    /// RTO maximum.
    pub max_us: u64,
    /// TCP_USER_TIMEOUT.
    pub user_timeout_us: Option<u64>,
    /// Time-outs beyond the linear ones that did not double: their retransmission met local congestion.
    pub undoubled: u32,
    /// The retransmission of the last time-out met local congestion. The next ones are expected to meet it too.
    pub congested: bool,
}

impl SynSchedule {
    /// With the kernel's defaults but for the linear phase, for a socket that is only seen from
    /// outside.
    pub fn plain(linear: u32) -> Self {
        Self {
            base_us: TIMEOUT_INIT_US,
            linear,
            retries: u32::from(u8::MAX),
            max_us: RTO_MAX_US,
            user_timeout_us: None,
            undoubled: 0,
            congested: false,
        }
    }

    /// From the settings that a retransmission's record carries. `base_us` is the first time-out,
    /// where it was seen to be another than the kernel's constant.
    pub fn of(record: &RetransmitRecord, base_us: u64, hz: u32) -> Self {
        let retries = match record.syn_retries {
            0 => record.sysctl_syn_retries,
            own => own,
        };
        let max_us = match record.rto_max_jiffies {
            0 => RTO_MAX_US,
            own => jiffies_to_us(own, hz),
        };
        Self {
            base_us,
            linear: u32::from(record.sysctl_syn_linear),
            retries: u32::from(retries),
            max_us,
            user_timeout_us: (record.user_timeout_ms != 0)
                .then(|| u64::from(record.user_timeout_ms) * 1000),
            undoubled: 0,
            congested: false,
        }
    }

    /// The gap between transmission `k` and `k + 1`; `k` = 1 is the first SYN.
    pub fn gap_us(&self, k: u32) -> u64 {
        doubled(
            self.base_us,
            k.saturating_sub(1)
                .saturating_sub(self.linear)
                .saturating_sub(self.undoubled),
            self.max_us,
        )
    }

    /// The time-out after retransmission `n`.
    pub fn next_gap_us(&self, n: u32) -> u64 {
        match self.congested {
            true => RESOURCE_PROBE_US,
            false => self.gap_us(n + 1),
        }
    }

    /// `tcp_model_timeout()`: how long `retries` time-outs would take if they doubled from the start.
    fn model_us(&self) -> u64 {
        let doublings = (self.max_us / self.base_us.max(1)).max(1).ilog2();
        if self.retries <= doublings {
            doubled(self.base_us, self.retries + 1, u64::MAX / 2) - self.base_us
        } else {
            doubled(self.base_us, doublings + 1, u64::MAX / 2) - self.base_us
                + u64::from(self.retries - doublings) * self.max_us
        }
    }

    /// After retransmission `n` (1 = the first), `elapsed_us` since the first SYN: time to the next
    /// one (`None`: there is none), and to the end.
    pub fn ahead_us(&self, n: u32, elapsed_us: u64) -> (Option<u64>, u64) {
        let limit_us = self.user_timeout_us.unwrap_or_else(|| self.model_us());
        let (mut n, mut waited, mut next) = (n, 0, None);
        for _ in 0..MAX_STEPS {
            let mut gap = self.next_gap_us(n);
            if !self.congested
                && let Some(user) = self.user_timeout_us
            {
                // tcp_clamp_rto_to_user_timeout(): the timer never overshoots it.
                gap = gap.min(user.saturating_sub(elapsed_us + waited));
            }
            waited += gap;
            if n >= self.retries + self.linear || elapsed_us + waited >= limit_us {
                break;
            }
            n += 1;
            next = next.or(Some(waited));
        }
        (next, waited)
    }

    /// How long ago the first SYN was sent, nominally, when `n` retransmissions are done and the
    /// timer has `left_us` to go.
    pub fn age_us(&self, n: u32, left_us: u64) -> u64 {
        let past: u64 = (1..=n.min(MAX_STEPS)).map(|k| self.gap_us(k)).sum();
        past + self.gap_us(n + 1).saturating_sub(left_us)
    }
}

/// How a SYN-ACK is repeated: `reqsk_timer_handler()` (net/ipv4/inet_connection_sock.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynAckSchedule {
    /// First time-out.
    pub base_us: u64,
    /// Upper bound of a time-out.
    pub max_us: u64,
    /// TCP_SYNCNT of the listener, or `tcp_synack_retries`; lower while the queue is pruned.
    pub retries: u32,
    /// The final ACK was seen and refused.
    pub acked: bool,
    /// `rskq_defer_accept`; 0: off.
    pub defer_accept: u32,
}

impl SynAckSchedule {
    /// With the kernel's defaults, for a half-open that is only seen from outside.
    pub const PLAIN: Self = Self {
        base_us: TIMEOUT_INIT_US,
        max_us: RTO_MAX_US,
        retries: u8::MAX as u32,
        acked: false,
        defer_accept: 0,
    };

    /// From the settings and queues that a record carries. `listener_max` says whether this kernel
    /// bounds the time-out by the listener's RTO maximum (after 6.18).
    pub fn of(record: &SynAckRecord, hz: u32, listener_max: bool) -> Self {
        let retries = match record.syn_retries {
            0 => record.sysctl_synack_retries,
            own => own,
        };
        let base_us = match record.timeout_jiffies {
            0 => TIMEOUT_INIT_US,
            own => jiffies_to_us(own, hz),
        };
        let max_us = match record.rto_max_jiffies {
            own if listener_max && own != 0 => jiffies_to_us(own, hz),
            _ => RTO_MAX_US,
        };
        Self {
            base_us,
            max_us,
            retries: pruned(
                u32::from(retries),
                record.qlen,
                record.young,
                record.max_ack_backlog,
            ),
            acked: record.acked != 0,
            defer_accept: u32::from(record.defer_accept),
        }
    }

    /// The time-out that runs when the timer has fired `num_timeout` times.
    pub fn gap_us(&self, num_timeout: u32) -> u64 {
        doubled(self.base_us, num_timeout, self.max_us)
    }

    /// Whether the time-out after `num_timeout` earlier ones ends it (`syn_ack_recalc()`).
    pub fn is_over(&self, num_timeout: u32) -> bool {
        let deferring = self.acked && num_timeout < self.defer_accept;
        num_timeout >= self.retries && !deferring
    }

    /// With the timer armed anew after `num_timeout` expiries: time to the next SYN-ACK that it
    /// sends (`None`: there is none), and to the end. `syn_ack_recalc()`.
    pub fn ahead_us(&self, num_timeout: u32) -> (Option<u64>, u64) {
        let (mut fired, mut waited, mut next) = (num_timeout, 0, None);
        for _ in 0..MAX_STEPS {
            waited += self.gap_us(fired);
            if self.is_over(fired) {
                break;
            }
            let resend = self.defer_accept == 0 || !self.acked || fired + 1 >= self.defer_accept;
            if resend {
                next = next.or(Some(waited));
            }
            fired += 1;
        }
        (next, waited)
    }

    /// As [`SynSchedule::age_us`], if every retransmission was the timer's.
    pub fn age_us(&self, n: u32, left_us: u64) -> u64 {
        let past: u64 = (0..n.min(MAX_STEPS)).map(|k| self.gap_us(k)).sum();
        past + self.gap_us(n).saturating_sub(left_us)
    }
}

/// `reqsk_timer_handler()`: a SYN queue more than half full gives old requests fewer retries, the
/// fewer of them are young.
fn pruned(retries: u32, qlen: u32, young: u32, max_ack_backlog: u32) -> u32 {
    let mut left = retries;
    if u64::from(qlen) * 2 > u64::from(max_ack_backlog.max(8)) {
        let mut young = u64::from(young) * 2;
        while left > 2 && u64::from(qlen) >= young {
            left -= 1;
            young *= 2;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    fn syn(linear: u32, retries: u32) -> SynSchedule {
        SynSchedule {
            base_us: TIMEOUT_INIT_US,
            linear,
            retries,
            max_us: RTO_MAX_US,
            user_timeout_us: None,
            undoubled: 0,
            congested: false,
        }
    }

    /// Follows a schedule to its end: (retransmissions, seconds).
    fn run(s: &SynSchedule) -> (u32, u64) {
        let (mut n, mut elapsed) = (1, s.gap_us(1));
        loop {
            let (next, end) = s.ahead_us(n, elapsed);
            match next {
                Some(gap) => (n, elapsed) = (n + 1, elapsed + gap),
                None => return (n, (elapsed + end) / S),
            }
        }
    }

    // Measured on Linux 6.18 (docs/kernel-facts.md, section 5).
    #[test]
    fn syn_retries_as_measured() {
        assert_eq!(run(&syn(4, 6)), (10, 131));
        assert_eq!(run(&syn(4, 5)), (9, 67));
        assert_eq!(run(&syn(4, 4)), (8, 35));
        assert_eq!(run(&syn(4, 3)), (7, 19));
        assert_eq!(run(&syn(4, 2)), (5, 7));
        assert_eq!(run(&syn(4, 1)), (2, 3));
        assert_eq!(run(&syn(0, 6)), (6, 127));
        assert_eq!(run(&syn(0, 2)), (2, 7));
    }

    // Measured on Linux 6.18 with a tbf queue that takes nothing: 10 retransmissions, 500 ms apart.
    #[test]
    fn local_congestion_has_no_backoff() {
        let mut s = syn(4, 6);
        s.congested = true;
        assert_eq!(s.ahead_us(1, S), (Some(S / 2), 5 * S));
        assert_eq!(s.ahead_us(10, 11 * S / 2), (None, S / 2));
        // Once it is over, the time-out is what it was before.
        (s.congested, s.undoubled) = (false, 2);
        let gaps: Vec<_> = (5..=9).map(|k| s.gap_us(k) / S).collect();
        assert_eq!(gaps, [1, 1, 1, 2, 4]);
    }

    #[test]
    fn the_linear_phase_is_not_1_2_4_8() {
        let gaps: Vec<_> = (1..=8).map(|k| syn(4, 6).gap_us(k) / S).collect();
        assert_eq!(gaps, [1, 1, 1, 1, 1, 2, 4, 8]);
        let gaps: Vec<_> = (1..=5).map(|k| syn(0, 6).gap_us(k) / S).collect();
        assert_eq!(gaps, [1, 2, 4, 8, 16]);
    }

    #[test]
    fn a_user_timeout_cuts_the_schedule() {
        let s = SynSchedule {
            user_timeout_us: Some(1_500_000),
            ..syn(4, 6)
        };
        assert_eq!(s.ahead_us(1, S), (None, 500_000));
    }

    #[test]
    fn the_rto_maximum_bounds_each_gap() {
        let s = SynSchedule {
            max_us: 3 * S,
            ..syn(0, 4)
        };
        let gaps: Vec<_> = (1..=5).map(|k| s.gap_us(k) / S).collect();
        assert_eq!(gaps, [1, 2, 3, 3, 3]);
    }

    fn synack(retries: u32) -> SynAckSchedule {
        SynAckSchedule {
            base_us: TIMEOUT_INIT_US,
            max_us: RTO_MAX_US,
            retries,
            acked: false,
            defer_accept: 0,
        }
    }

    /// Before 6.1 a request has no time-out of its own, and the loader's zero stands for it; the cap is
    /// the listener's only after 6.18.
    #[test]
    fn kernels_without_a_request_time_out_use_the_constant() {
        let record = SynAckRecord {
            sysctl_synack_retries: 5,
            max_ack_backlog: 128,
            rto_max_jiffies: 500,
            ..SynAckRecord::default()
        };
        assert_eq!(SynAckSchedule::of(&record, 250, false), synack(5));
        let own = SynAckRecord {
            timeout_jiffies: 750,
            ..record
        };
        assert_eq!(SynAckSchedule::of(&own, 250, false).gap_us(1), 6 * S);
        assert_eq!(SynAckSchedule::of(&own, 250, true).gap_us(1), 2 * S);
    }

    #[test]
    fn a_half_open_dies_at_the_expiry_after_its_retries() {
        assert_eq!(synack(5).ahead_us(0), (Some(S), 63 * S));
        assert_eq!(synack(1).ahead_us(0), (Some(S), 3 * S));
        assert_eq!(synack(1).ahead_us(1), (None, 2 * S));
    }

    // D = 2: no resend at 1 s, resends at 3 s and 7 s (docs/kernel-facts.md, section 5).
    #[test]
    fn defer_accept_waits_in_silence() {
        let s = SynAckSchedule {
            acked: true,
            defer_accept: 2,
            ..synack(5)
        };
        assert_eq!(s.ahead_us(0).0, Some(3 * S));
    }

    #[test]
    fn a_queue_more_than_half_full_prunes() {
        assert_eq!(pruned(5, 10, 0, 10), 2);
        assert_eq!(pruned(5, 5, 0, 10), 5, "2 * qlen <= backlog");
        assert_eq!(pruned(5, 10, 10, 10), 5, "all young");
        assert_eq!(pruned(1, 10, 0, 10), 1, "never raised");
        assert_eq!(pruned(5, 8, 2, 10), 3);
    }

    #[test]
    fn age_from_what_is_left() {
        assert_eq!(synack(5).age_us(0, 700_000), 300_000);
        assert_eq!(synack(5).age_us(2, S), 6 * S);
        assert_eq!(syn(4, 6).age_us(2, 400_000), 2_600_000);
    }
}
