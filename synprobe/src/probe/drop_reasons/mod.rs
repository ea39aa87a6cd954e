//! Why the kernel drops a packet: `enum skb_drop_reason` (include/net/dropreason-core.h).
//!
//! The numbers differ between versions, the names do not. So the table is keyed by name, and the running
//! kernel's BTF gives the numbers.

mod kinds;
mod places;
mod table;

use synprobe_ebpf::config::{
    ALL_REASON_WORDS, NO_SOCKET_REASON, OTHER_STATION_REASON, REASON_WORDS, REASONS_ANSWER,
    REASONS_EXISTING, REASONS_HALF_OPEN, REASONS_INCOMING, REASONS_OUTGOING, REASONS_WANTED,
};

use super::btf::Btf;
use kinds::{ANSWER, EXISTING, HALF_OPEN, NO_SOCKET, OTHER_STATION};
pub use places::{is_before_the_device, refusal};
pub use table::Meaning;
use table::{OWN_DOING, RecordWhen};

/// The prefix of the kernel's names.
const PREFIX: &str = "SKB_DROP_REASON_";

/// The running kernel's drop reasons.
#[derive(Clone, Debug, Default)]
pub struct Reasons(
    /// By number.
    Vec<Reason>,
);

#[derive(Clone, Debug)]
struct Reason {
    number: u32,
    name: String,
    meaning: Option<&'static Meaning>,
}

impl Reasons {
    /// The reasons in the kernel's BTF; none before Linux 5.17.
    pub fn from_btf(btf: &Btf) -> Self {
        let all = btf.enumerators("skb_drop_reason").unwrap_or_default();
        Self::new(all.into_iter().filter_map(|(name, number)| {
            // The subsystem mask is not a reason, and is negative in a signed enum.
            let number = u32::from(u16::try_from(number).ok()?);
            Some((number, name.strip_prefix(PREFIX)?.to_owned()))
        }))
    }

    /// From numbers and names without their prefix.
    pub fn new(all: impl IntoIterator<Item = (u32, String)>) -> Self {
        let mut all: Vec<_> = all
            .into_iter()
            .filter(|(_, name)| name != "MAX")
            .map(|(number, name)| Reason {
                meaning: OWN_DOING.iter().find(|meaning| meaning.name == name),
                number,
                name,
            })
            .collect();
        all.sort_by_key(|reason| reason.number);
        Self(all)
    }

    fn find(&self, number: u32) -> Option<&Reason> {
        let at = self.0.binary_search_by_key(&number, |r| r.number).ok()?;
        self.0.get(at)
    }

    /// The kernel's name for a reason, without `SKB_DROP_REASON_`; `None` for an unknown number, and for
    /// those of other subsystems (mac80211, openvswitch).
    pub fn name(&self, number: u32) -> Option<&str> {
        self.find(number).map(|reason| reason.name.as_str())
    }

    /// Its meaning, if it shows that this host dropped the packet.
    pub fn own_doing(&self, number: u32) -> Option<&'static Meaning> {
        self.find(number)?.meaning
    }

    /// Whether it is the reason with which a SYN is freed that found no socket.
    pub fn is_no_socket(&self, number: u32) -> bool {
        self.name(number) == Some(NO_SOCKET)
    }

    /// Its number, by its name without `SKB_DROP_REASON_`.
    pub fn number(&self, name: &str) -> Option<u32> {
        let reason = self.0.iter().find(|reason| reason.name == name)?;
        Some(reason.number)
    }

    /// The kernel side's form: six bitmaps, one after the other, and the numbers of NO_SOCKET and OTHERHOST. `with_receiver`: the
    /// program receives the socket that the packet was for.
    pub fn to_kernel(&self, with_receiver: bool) -> [u64; ALL_REASON_WORDS] {
        let mut words = [0; ALL_REASON_WORDS];
        for Reason {
            number,
            name,
            meaning,
        } in &self.0
        {
            let (word, bit) = (*number as usize / 64, number % 64);
            // The bitmaps have no room for higher numbers: those reasons are not recorded.
            if word >= REASON_WORDS {
                continue;
            }
            if name == OTHER_STATION {
                words[OTHER_STATION_REASON] = u64::from(*number);
            }
            if name == NO_SOCKET {
                words[NO_SOCKET_REASON] = u64::from(*number);
            }
            let mut set = |bitmap| words[bitmap * REASON_WORDS + word] |= 1 << bit;
            if HALF_OPEN.contains(&name.as_str()) {
                set(REASONS_HALF_OPEN);
            }
            if with_receiver && ANSWER.contains(&name.as_str()) {
                set(REASONS_ANSWER);
            }
            if with_receiver && EXISTING.contains(&name.as_str()) {
                set(REASONS_EXISTING);
            }
            if kinds::can_be_outgoing(name) {
                set(REASONS_OUTGOING);
            }
            match meaning.map(|meaning| meaning.record_when) {
                None => {}
                Some(RecordWhen::WithReceiver) if !with_receiver => {}
                Some(RecordWhen::Always | RecordWhen::WithReceiver) => set(REASONS_WANTED),
                Some(RecordWhen::ComingIn) => {
                    set(REASONS_WANTED);
                    set(REASONS_INCOMING);
                }
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs};

    use super::*;
    use crate::probe::btf::{KERNEL_BTF, blob::Blob};

    fn made_up() -> Reasons {
        let mut blob = Blob::new();
        blob.enumeration(
            "skb_drop_reason",
            &[
                ("SKB_NOT_DROPPED_YET", 0),
                ("SKB_DROP_REASON_NOT_SPECIFIED", 2),
                ("SKB_DROP_REASON_NO_SOCKET", 3),
                ("SKB_DROP_REASON_SOCKET_FILTER", 63),
                ("SKB_DROP_REASON_NETFILTER_DROP", 64),
                ("SKB_DROP_REASON_CPU_BACKLOG", 255),
                ("SKB_DROP_REASON_XDP", 256),
                ("SKB_DROP_REASON_MAX", 300),
                ("SKB_DROP_REASON_SUBSYS_MASK", 0xffff_0000),
            ],
        );
        Reasons::from_btf(&Btf::parse(blob.bytes()).unwrap())
    }

    #[test]
    fn names_and_meanings_go_by_the_kernels_numbers() {
        let reasons = made_up();
        assert_eq!(reasons.name(2), Some("NOT_SPECIFIED"));
        assert_eq!(reasons.name(64), Some("NETFILTER_DROP"));
        for none in [0, 1, 4, 300, 0x1_0002, 0xffff_0000, u32::MAX] {
            assert_eq!(reasons.name(none), None, "{none}");
            assert_eq!(reasons.own_doing(none), None, "{none}");
        }
        assert_eq!(reasons.own_doing(2), None);
        assert_eq!(
            reasons.own_doing(64).map(|m| m.name),
            Some("NETFILTER_DROP")
        );
        assert_eq!(reasons.number("XDP"), Some(256));
        assert_eq!(reasons.number("IP_RPFILTER"), None);
        assert!(
            Reasons::from_btf(&Btf::parse(Blob::new().bytes()).unwrap())
                .0
                .is_empty()
        );
    }

    #[test]
    fn the_bitmaps_hold_what_is_wanted() {
        let reasons = made_up();
        // 63 is the socket's filter, 256 has no room.
        let none = [0; 4];
        let incoming = [0, 0, 0, 1 << 63];
        let unspecified = [4, 0, 0, 0];
        assert_eq!(reasons.to_kernel(false)[NO_SOCKET_REASON], 3);
        let outgoing = [4 | 1 << 63, 1, 0, 1 << 63];
        assert_eq!(
            reasons.to_kernel(true).as_chunks::<4>().0,
            [
                [1 << 63, 1, 0, 1 << 63],
                incoming,
                unspecified,
                unspecified,
                unspecified,
                outgoing
            ]
        );
        assert_eq!(
            reasons.to_kernel(false).as_chunks::<4>().0,
            [
                [0, 1, 0, 1 << 63],
                incoming,
                unspecified,
                none,
                none,
                outgoing
            ]
        );
        assert_eq!(Reasons::default().to_kernel(true), [0; ALL_REASON_WORDS]);
    }

    /// What a remedy may call.
    const COMMANDS: &[&str] = &[
        "ausearch",
        "bpftool",
        "bridge",
        "cat",
        "dmesg",
        "ethtool",
        "free",
        "ip",
        "ip6tables-save",
        "iptables-save",
        "mpstat",
        "nft",
        "nstat",
        "ss",
        "sysctl",
        "systemctl",
        "tc",
        "traceroute",
    ];

    #[test]
    fn each_reason_is_listed_once_with_a_meaning() {
        let mut names = HashSet::new();
        for meaning in OWN_DOING {
            assert!(names.insert(meaning.name), "{} twice", meaning.name);
            assert!(!meaning.name.starts_with(PREFIX) && !meaning.words.is_empty());
            assert!(!meaning.words.ends_with('.') && !meaning.words.contains('\n'));
            for text in [meaning.words, meaning.remedy] {
                assert!(!text.contains("  ") && text.trim() == text, "{text}");
            }
            // A shell runs them: what is no command is a comment at the end.
            let commands = meaning.remedy.split(" # ").next().unwrap_or_default();
            assert!(!commands.contains(['(', '…']), "{commands}");
            for command in commands.split("; ") {
                let name = command.split(' ').next().unwrap_or_default();
                assert!(COMMANDS.contains(&name), "{command}");
            }
            // Every placeholder is one that the printing code fills.
            for placeholder in meaning.remedy.split('<').skip(1) {
                let name = placeholder.split('>').next();
                assert!(
                    matches!(name, Some("peer" | "local" | "device")),
                    "{}",
                    meaning.remedy
                );
            }
        }
    }

    #[test]
    fn the_running_kernel_knows_the_reasons_of_its_age() {
        let Ok(bytes) = fs::read(KERNEL_BTF) else {
            return;
        };
        let reasons = Reasons::from_btf(&Btf::parse(bytes).unwrap());
        // Since 5.17 each.
        for name in ["NETFILTER_DROP", "SOCKET_FILTER", "TCP_CSUM"] {
            let Some(number) = reasons.number(name) else {
                assert!(reasons.0.is_empty(), "reasons, but not {name}");
                return;
            };
            assert_eq!(reasons.name(number), Some(name));
            assert_eq!(reasons.own_doing(number).map(|m| m.name), Some(name));
        }
        let unspecified = reasons.number("NOT_SPECIFIED").unwrap();
        assert_eq!(reasons.own_doing(unspecified), None);
        // A reason that this kernel has removed or renamed would never be recorded.
        let unknown: Vec<_> = OWN_DOING
            .iter()
            .filter(|meaning| reasons.number(meaning.name).is_none())
            .map(|meaning| meaning.name)
            .collect();
        println!("not in this kernel: {unknown:?}");
        assert!(unknown.len() < OWN_DOING.len() / 2, "{unknown:?}");
    }
}
