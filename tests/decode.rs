//! Decoding is total: any bytes in the ring give an event or a typed error. Needs no root.

use std::mem::size_of;

use synprobe::decode::{DecodeError, Event, decode};
use synprobe_ebpf::event::{
    AF_INET, AF_INET6, DropRecord, EarlyResetRecord, ErrorRecord, Flow, Header, KIND_DROP,
    KIND_EARLY_RESET, KIND_ERROR, KIND_REQUEST, KIND_RESET, KIND_RETRANSMIT, KIND_STATE,
    KIND_SYNACK, MAX_RECORD, RequestRecord, ResetRecord, RetransmitRecord, StateRecord,
    SynAckRecord, TRIGGER_PEER, TRIGGER_TIMER, Wire,
};

/// Inputs of each kind: arbitrary bytes, and valid records with bytes changed.
const INPUTS: usize = 750_000;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Marsaglia's xorshift64: the same inputs on every run, so that a failure can be repeated.
struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            part.copy_from_slice(&random[..part.len()]);
        }
    }
}

const SIZES: [(u16, usize); 8] = [
    (KIND_STATE, size_of::<StateRecord>()),
    (KIND_RETRANSMIT, size_of::<RetransmitRecord>()),
    (KIND_SYNACK, size_of::<SynAckRecord>()),
    (KIND_RESET, size_of::<ResetRecord>()),
    (KIND_ERROR, size_of::<ErrorRecord>()),
    (KIND_DROP, size_of::<DropRecord>()),
    (KIND_REQUEST, size_of::<RequestRecord>()),
    (KIND_EARLY_RESET, size_of::<EarlyResetRecord>()),
];

/// The record's own bytes: what the kernel side puts into the ring.
fn encode<R: Wire>(record: &R) -> Vec<u8> {
    // SAFETY: `Wire` promises a `repr(C)` type whose every byte is a member's, so all of them are
    // initialised.
    let bytes = unsafe { std::slice::from_raw_parts((&raw const *record).cast(), size_of::<R>()) };
    bytes.to_vec()
}

fn encode_event(event: &Event) -> Vec<u8> {
    match event {
        Event::State(r, ..) => encode(r),
        Event::Retransmit(r, _) => encode(r),
        Event::SynAck(r, _) => encode(r),
        Event::Reset(r, _) => encode(r),
        Event::Error(r, _) => encode(r),
        Event::Drop(r) => encode(r),
        Event::Request(r, _) => encode(r),
        Event::EarlyReset(r, _) => encode(r),
    }
}

/// A record of this kind with everything random but what makes it valid.
fn valid((kind, size): (u16, usize), random: &mut XorShift) -> Vec<u8> {
    let mut bytes = vec![0; size];
    random.fill(&mut bytes);
    bytes[..2].copy_from_slice(&kind.to_ne_bytes());
    bytes[2..4].copy_from_slice(&(size as u16).to_ne_bytes());
    let family = [AF_INET, AF_INET6][random.below(2)];
    let at = size_of::<Header>() + std::mem::offset_of!(Flow, family);
    bytes[at..at + 2].copy_from_slice(&family.to_ne_bytes());
    let mut state = |at: usize, random: &mut XorShift| bytes[at] = 1 + random.below(12) as u8;
    match kind {
        KIND_STATE => {
            state(std::mem::offset_of!(StateRecord, old), random);
            state(std::mem::offset_of!(StateRecord, new), random);
        }
        KIND_RETRANSMIT => state(std::mem::offset_of!(RetransmitRecord, state), random),
        KIND_RESET => state(std::mem::offset_of!(ResetRecord, state), random),
        KIND_EARLY_RESET => state(std::mem::offset_of!(EarlyResetRecord, state), random),
        KIND_ERROR => state(std::mem::offset_of!(ErrorRecord, state), random),
        KIND_DROP => {}
        KIND_REQUEST => {
            bytes[std::mem::offset_of!(RequestRecord, moment)] = 1 + random.below(3) as u8;
        }
        _ => {
            let trigger = [TRIGGER_TIMER, TRIGGER_PEER][random.below(2)];
            bytes[std::mem::offset_of!(SynAckRecord, trigger)] = trigger;
        }
    }
    bytes
}

/// The SYN-ACK record of recordings that were made before it had the sequence numbers.
const EARLIER_SYNACK: (u16, usize) = (KIND_SYNACK, 120);

/// Whether the bytes are a valid record, by the contract's own words and not by the decoder's.
fn is_valid(bytes: &[u8]) -> bool {
    let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let Some((kind, _)) = SIZES
        .into_iter()
        .chain([EARLIER_SYNACK])
        .find(|(kind, size)| bytes.len() == *size && number(0) == *kind)
    else {
        return false;
    };
    let family = number(size_of::<Header>() + std::mem::offset_of!(Flow, family));
    let is_state = |at: usize| (1..=12).contains(&bytes[at]);
    (family == AF_INET || family == AF_INET6)
        && match kind {
            KIND_STATE => {
                is_state(std::mem::offset_of!(StateRecord, old))
                    && is_state(std::mem::offset_of!(StateRecord, new))
            }
            KIND_RETRANSMIT => is_state(std::mem::offset_of!(RetransmitRecord, state)),
            KIND_RESET => is_state(std::mem::offset_of!(ResetRecord, state)),
            KIND_EARLY_RESET => is_state(std::mem::offset_of!(EarlyResetRecord, state)),
            KIND_ERROR => is_state(std::mem::offset_of!(ErrorRecord, state)),
            KIND_DROP => true,
            KIND_REQUEST => (1..=3).contains(&bytes[std::mem::offset_of!(RequestRecord, moment)]),
            _ => matches!(
                bytes[std::mem::offset_of!(SynAckRecord, trigger)],
                TRIGGER_TIMER | TRIGGER_PEER
            ),
        }
}

/// Decodes, and holds what comes of it against what the bytes say.
fn hold(bytes: &[u8]) -> bool {
    match decode(bytes) {
        Ok(event) => {
            assert!(is_valid(bytes), "taken: {bytes:?}");
            let again = encode_event(&event);
            let (same, added) = again.split_at(bytes.len());
            assert_eq!(same, bytes, "not the same bytes again");
            assert!(added.iter().all(|byte| *byte == 0), "what it lacks is zero");
            true
        }
        Err(error) => {
            assert!(!is_valid(bytes), "refused ({error}): {bytes:?}");
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

#[test]
fn arbitrary_bytes_of_every_length() {
    let mut random = XorShift(SEED);
    // Misaligned by one, as nothing promises that the ring is not.
    let mut buffer = vec![0; 2 * MAX_RECORD + 1];
    let mut taken = 0;
    for n in 0..INPUTS {
        let length = match n % 4 {
            0 => random.below(2 * MAX_RECORD),
            // Around each record's size, where a bound is most easily wrong.
            _ => SIZES[random.below(SIZES.len())].1 + random.below(5) - 2,
        };
        let start = n % 2;
        let bytes = &mut buffer[start..start + length];
        random.fill(bytes);
        // Random kinds are nearly all unknown: half of them are made known.
        if n % 2 == 0 && length >= 2 {
            bytes[..2].copy_from_slice(&(random.below(8) as u16).to_ne_bytes());
        }
        taken += usize::from(hold(bytes));
    }
    assert!(taken < INPUTS / 100, "{taken} random inputs passed");
}

#[test]
fn valid_records_come_back_and_changed_ones_do_not_pass_unseen() {
    let mut random = XorShift(!SEED);
    let (mut taken, mut refused) = (0, 0);
    assert!(hold(&valid(EARLIER_SYNACK, &mut random)));
    for n in 0..INPUTS {
        let kind = SIZES[random.below(SIZES.len())];
        let mut bytes = valid(kind, &mut random);
        assert!(hold(&bytes), "a valid record of kind {}", kind.0);
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        match n % 8 {
            0 => bytes.truncate(random.below(bytes.len() + 1)),
            1 => bytes.extend_from_slice(&[0; 8][..random.below(9)]),
            // The fields that decide: kind, length, family.
            2 => bytes[random.below(2)] = random.below(8) as u8,
            3 => bytes[size_of::<Header>() + std::mem::offset_of!(Flow, family)] = n as u8,
            _ => {}
        }
        if hold(&bytes) {
            taken += 1;
        } else {
            refused += 1;
        }
    }
    assert!(
        taken > INPUTS / 10 && refused > INPUTS / 10,
        "{taken} taken, {refused} refused"
    );
}

#[test]
fn the_errors_name_what_is_wrong() {
    let mut random = XorShift(SEED);
    let record = valid(SIZES[0], &mut random);
    assert_eq!(decode(&[]), Err(DecodeError::Short(0)));
    assert_eq!(decode(&record[..1]), Err(DecodeError::Short(1)));
    let cut = decode(&record[..record.len() - 1]);
    let length = DecodeError::Length {
        kind: KIND_STATE,
        got: record.len() - 1,
        want: record.len(),
    };
    assert_eq!(cut, Err(length));
    let mut unknown = record.clone();
    unknown[..2].copy_from_slice(&99u16.to_ne_bytes());
    assert_eq!(decode(&unknown), Err(DecodeError::Kind(99)));
    let mut state = record;
    state[std::mem::offset_of!(StateRecord, new)] = 13;
    let kind = KIND_STATE;
    assert_eq!(decode(&state), Err(DecodeError::State { kind, state: 13 }));
}
