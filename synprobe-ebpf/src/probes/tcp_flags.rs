//! Flags of a TCP header (RFC 9293, section 3.1).

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
