//! The first SYN is lost for an option that it has.

use crate::{
    model::{Handshake, Outcome, Role, VerdictKind},
    util::format,
    verdict::{Context, Explanation, Finding, Verdict, context::SynOption},
};

/// `option-dropped`
pub(in crate::verdict) struct OptionDropped;

/// Handshakes in a row whose first SYN was lost, with the option: fewer may be chance.
const ENOUGH: u64 = 3;
/// The same for Fast Open: after two the kernel itself goes without for a while (`tcp_fastopen_cache_get()`,
/// `syn_loss`).
const ENOUGH_FAST_OPEN: u64 = 2;

impl Verdict for OptionDropped {
    fn kind(&self) -> VerdictKind {
        VerdictKind::OptionDropped
    }

    fn check(&self, h: &Handshake, context: &Context) -> Option<Finding> {
        let c = &h.connection;
        if c.role != Role::Client || h.outcome != Outcome::Established || h.retransmits == 0 {
            return None;
        }
        let option = SynOption::of(h)?;
        let seen = context.syn_options(c, option);
        // One that got through shows that the path takes the option.
        let enough = match option {
            SynOption::FastOpen => ENOUGH_FAST_OPEN,
            SynOption::Ecn => ENOUGH,
        };
        if seen.lost < enough || seen.passed > 0 {
            return None;
        }
        let mut finding = Finding::likely().pro(format!(
            "its first SYN {}, the repetition without it was answered{}",
            option.words(),
            match h.facts.since_last_syn_us {
                Some(us) => format!(" after {}", format::duration(us)),
                None => String::new(),
            }
        ));
        finding = finding
            .pro(format!(
                "so it was in each of {} handshakes with this end in which the first SYN {}; none is known in which \
                 such a SYN was answered",
                seen.lost,
                option.words()
            ))
            .contra("the path itself was not seen: which device drops such SYNs is not known");
        Some(finding.remedy(option.remedy().to_owned()))
    }

    fn explain(&self) -> Explanation {
        Explanation {
            summary: "the path drops SYNs with an option: each first one is lost, the plain second one answered",
            meaning: "TCP Fast Open and ECN change the first SYN; its repetitions go without. A firewall that \
                      drops what it does not know lets only the second one pass: every connect takes a second \
                      more, though the path and the server are well.",
            detection: "The socket's own record of what its first SYN had (tcp_sock.syn_fastopen, ecn_flags), at \
                      the retransmission. In three handshakes with the same end, and none in which such a SYN was \
                      answered: likely. A single one may be chance: syn-lost-then-ok.",
            remedy: "Switch the option off, or mend the firewall.\n    sysctl -w net.ipv4.tcp_fastopen=0\n    \
                     sysctl -w net.ipv4.tcp_ecn=2",
            reproduce: "synprobe lab option-dropped",
        }
    }
}
