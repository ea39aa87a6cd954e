//! How long handshakes took, on a logarithmic axis.

use std::fmt::Write as _;

use synprobe_ebpf::histogram::{BUCKETS, bucket, from_us};

use super::{
    HtmlReport,
    html::{begin_picture, number, percent, tick},
    sums::Buckets,
};
use crate::{model::Role, util::format};

/// Height of the plot, pixels, and of the room above it.
const HEIGHT: u32 = 130;
const TOP: u32 = 18;
/// Buckets that a picture shows, at least: two decades.
const FEWEST: usize = 26;

pub(super) fn push(out: &mut String, report: &HtmlReport) {
    let mut any = false;
    for (role, id, name) in [
        (
            Role::Server,
            "ds",
            "Where this host is the server: from the first SYN-ACK",
        ),
        (
            Role::Client,
            "dc",
            "Where this host is the client: from the first SYN",
        ),
    ] {
        let (established, others) = report.durations.of(role);
        if established.iter().chain(others.iter()).any(|n| *n > 0) {
            any = true;
            draw(out, &established, &others, (id, name));
        }
    }
    if !any {
        out.push_str("<p>No duration is known: no handshake ended in this time whose beginning was seen.</p>\n");
    }
}

/// The time below which this share of them is: the upper end of its bucket.
fn quantile(buckets: &Buckets, share: f64) -> Option<String> {
    let total: u64 = buckets.iter().sum();
    let rank = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let at = buckets.iter().position(|n| {
        seen += n;
        seen >= rank
    })?;
    Some(match at + 1 < BUCKETS {
        true => format!("below {}", format::duration(u64::from(from_us(at + 1)))),
        false => format!("{} or more", format::duration(u64::from(from_us(at)))),
    })
}

/// Where a time lies among the buckets.
fn position(us: u32) -> f64 {
    let at = bucket(us);
    if at + 1 >= BUCKETS {
        return BUCKETS as f64;
    }
    let (from, to) = (f64::from(from_us(at)), f64::from(from_us(at + 1)));
    at as f64 + (f64::from(us) - from) / (to - from)
}

fn draw(out: &mut String, established: &Buckets, others: &Buckets, (id, name): (&str, &str)) {
    let both: Vec<u64> = established
        .iter()
        .zip(others.iter())
        .map(|(a, b)| a + b)
        .collect();
    let first = both.iter().position(|n| *n > 0).unwrap_or(0);
    let last = both.iter().rposition(|n| *n > 0).unwrap_or(0);
    // Room on both sides, so that one bar is no wall.
    let missing = FEWEST.saturating_sub(last + 1 - first);
    let first = first.saturating_sub(missing.div_ceil(2).max(1));
    let last = (last + missing.div_ceil(2).max(1)).min(BUCKETS - 1);
    let whole = (last + 1 - first) as f64;
    let most = both.iter().copied().max().unwrap_or(1).max(1);
    let (ok, not_ok): (u64, u64) = (established.iter().sum(), others.iter().sum());
    let mut about = vec![format!("{} completed", number(ok))];
    // Of a few, the 99th percentile is all of them.
    let (share, words) = match ok {
        0..100 => (1.0, "all"),
        _ => (0.99, "99 %"),
    };
    if let (Some(half), Some(most)) = (quantile(established, 0.5), quantile(established, share)) {
        about.push(format!("half of them {half}, {words} of them {most}"));
    }
    about.push(format!("{} ended otherwise", number(not_ok)));
    let about = about.join("; ");
    let _ = write!(
        out,
        "<figure>\n<h3>{name}</h3>\n<figcaption>{about}. Four bars to each doubling.</figcaption>\n\
         <ul class=\"legend\"><li><span class=\"sw cw\"></span>completed</li>\
         <li><span class=\"sw cb\"></span>ended otherwise (above)</li></ul>\n<div class=\"plot\">"
    );
    begin_picture(out, id, TOP + HEIGHT + 22, name, &about);
    let _ = write!(
        out,
        "<line class=\"ax\" x1=\"0\" x2=\"100%\" y1=\"{TOP}\" y2=\"{TOP}\"/><text x=\"0\" y=\"{}\">{}</text>",
        TOP - 4,
        number(most)
    );
    let ground = f64::from(TOP + HEIGHT);
    let height = |n: u64| match n {
        0 => 0.0,
        n => (f64::from(HEIGHT) * n as f64 / most as f64).max(2.0),
    };
    let width = percent(0.9, whole);
    for at in first..=last {
        let x = percent((at - first) as f64, whole);
        let mut y = ground;
        for (n, class) in [(established[at], "cw"), (others[at], "cb")] {
            if n > 0 {
                y -= height(n);
                let _ = write!(
                    out,
                    "<rect class=\"f {class}\" x=\"{x}%\" y=\"{y:.1}\" width=\"{width}%\" height=\"{:.1}\">\
                     <title>{} from {}</title></rect>",
                    height(n),
                    number(n),
                    format::duration(u64::from(from_us(at)))
                );
            }
        }
    }
    log_axis(out, first, last);
    out.push_str("</svg></div>\n</figure>\n");
}

/// A tick for each decade.
fn log_axis(out: &mut String, first: usize, last: usize) {
    let y = TOP + HEIGHT;
    let _ = write!(
        out,
        "<line class=\"ax\" x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/>"
    );
    const DECADES: [(u32, &str); 8] = [
        (1, "1 µs"),
        (10, "10 µs"),
        (100, "100 µs"),
        (1_000, "1 ms"),
        (10_000, "10 ms"),
        (100_000, "100 ms"),
        (1_000_000, "1 s"),
        (10_000_000, "10 s"),
    ];
    let whole = (last + 1 - first) as f64;
    for (us, label) in DECADES {
        let at = position(us) - first as f64;
        if !(0.0..=whole).contains(&at) {
            continue;
        }
        tick(out, (percent(at, whole), y), 4.0, label, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_upper_end_of_its_bucket() {
        let mut buckets: Buckets = Box::new([0; BUCKETS]);
        buckets[bucket(1_000)] = 98;
        buckets[bucket(1_000_000)] = 2;
        let of = |share| quantile(&buckets, share).unwrap();
        assert!(of(0.5).starts_with("below 1.0"), "{}", of(0.5));
        assert!(of(0.99).starts_with("below 1."), "{}", of(0.99));
        assert!(of(0.99).ends_with(" s"), "{}", of(0.99));
        buckets[BUCKETS - 1] = 1_000;
        assert_eq!(quantile(&buckets, 0.99).unwrap(), "29.4 s or more");
        assert_eq!(position(4), 4.0);
    }
}
