//! Inputs as frames, and back.
//!
//! A record of the ring buffer is a frame as it is. Every other input is one in postcard's encoding, behind a
//! byte that says whether the input continues in the next frame: a dump of a million half-opens is longer than
//! a frame may be.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Frame, MAX_FRAME};
use crate::{
    decode::{Event, decode, record_bytes},
    engine::{DropMeaning, Input},
};

/// Most bytes of one input: a dump of a million half-opens fits. A longer one is not recorded; a file that
/// claims one is damaged.
pub const MAX_INPUT: usize = 64 << 20;
/// Bytes of an input in one frame.
const PART: usize = MAX_FRAME - 1;

/// The input ends with this frame.
const LAST: u8 = 0;
/// It continues in the next one.
const CONTINUES: u8 = 1;

/// What is not a record. New kinds go to the end: an older reader passes them over.
#[derive(Serialize)]
enum StoredRef<'a> {
    Input(&'a Input),
    /// Of the drop record that follows.
    Meaning(&'a DropMeaning),
    /// Inputs that the recorder could not store.
    Lost(u64),
}

#[derive(Deserialize)]
enum Stored {
    Input(Input),
    Meaning(DropMeaning),
    Lost(u64),
}

/// Why an input is not recorded.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// It is longer than [`MAX_INPUT`].
    #[error("an input of {0} bytes is too long for a recording")]
    TooLong(usize),
    /// It cannot be encoded.
    #[error("an input cannot be encoded: {0}")]
    Postcard(#[from] postcard::Error),
}

/// Hands the frames of an input to `each`, in order.
///
/// # Errors
///
/// [`EncodeError`]: the input is not recorded.
pub fn encode(input: &Input, mut each: impl FnMut(Frame<'_>)) -> Result<(), EncodeError> {
    match input {
        Input::Event(event) => {
            each(Frame::Record(event.record()));
            Ok(())
        }
        Input::Drop(drop, meaning) => {
            if let Some(meaning) = meaning {
                others(&StoredRef::Meaning(meaning), &mut each)?;
            }
            each(Frame::Record(record_bytes(drop)));
            Ok(())
        }
        input => others(&StoredRef::Input(input), &mut each),
    }
}

/// Hands the frame that says how many inputs were not stored to `each`.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_lost(inputs: u64, mut each: impl FnMut(Frame<'_>)) -> Result<(), EncodeError> {
    others(&StoredRef::Lost(inputs), &mut each)
}

fn others(stored: &StoredRef<'_>, each: &mut impl FnMut(Frame<'_>)) -> Result<(), EncodeError> {
    let bytes = postcard::to_extend(stored, vec![LAST])?;
    if bytes.len() > MAX_INPUT {
        return Err(EncodeError::TooLong(bytes.len()));
    }
    if bytes.len() <= PART {
        each(Frame::Other(&bytes));
        return Ok(());
    }
    let mut parts = bytes[1..].chunks(PART).peekable();
    let mut frame = Vec::with_capacity(PART + 1);
    while let Some(part) = parts.next() {
        frame.clear();
        frame.push(if parts.peek().is_some() {
            CONTINUES
        } else {
            LAST
        });
        frame.extend_from_slice(part);
        each(Frame::Other(&frame));
    }
    Ok(())
}

/// What a frame gave.
#[derive(Debug)]
pub enum Decoded {
    /// An input.
    Input(Input),
    /// Inputs that the recorder could not store.
    Lost(u64),
}

/// Frames to inputs. A frame that cannot be understood is passed over and counted.
#[derive(Default)]
pub struct InputDecoder {
    /// The parts of an input that continues.
    parts: Vec<u8>,
    /// Of the drop record that follows.
    meaning: Option<Arc<DropMeaning>>,
    unknown: u64,
}

impl InputDecoder {
    /// The input that a frame completes.
    pub fn frame(&mut self, frame: Frame<'_>) -> Option<Decoded> {
        match frame {
            Frame::Record(bytes) => self.record(bytes),
            Frame::Other(bytes) => self.other(bytes),
        }
    }

    /// Frames are missing: what was begun is not completed.
    pub fn gap(&mut self) {
        self.parts.clear();
        self.meaning = None;
    }

    /// Whether no input has begun that continues.
    pub fn is_between_inputs(&self) -> bool {
        self.parts.is_empty()
    }

    /// Frames that could not be understood: of a later minor version, or made by hand.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    fn record(&mut self, bytes: &[u8]) -> Option<Decoded> {
        let meaning = self.meaning.take();
        match decode(bytes) {
            Ok(Event::Drop(record)) => Some(Decoded::Input(Input::Drop(record, meaning))),
            Ok(event) => Some(Decoded::Input(Input::Event(event))),
            Err(_) => {
                self.unknown += 1;
                None
            }
        }
    }

    fn other(&mut self, bytes: &[u8]) -> Option<Decoded> {
        let (&flag, part) = bytes.split_first()?;
        if flag == CONTINUES || !self.parts.is_empty() {
            if self.parts.len() + part.len() > MAX_INPUT {
                self.parts = Vec::new();
                self.unknown += 1;
                return None;
            }
            self.parts.extend_from_slice(part);
        }
        if flag == CONTINUES {
            return None;
        }
        let whole = std::mem::take(&mut self.parts);
        let bytes = if whole.is_empty() { part } else { &whole };
        // What follows is of a later minor version.
        match postcard::take_from_bytes(bytes) {
            Ok((Stored::Input(input), _)) => Some(Decoded::Input(input)),
            Ok((Stored::Meaning(meaning), _)) => {
                self.meaning = Some(Arc::new(meaning));
                None
            }
            Ok((Stored::Lost(inputs), _)) => Some(Decoded::Lost(inputs)),
            Err(_) => {
                self.unknown += 1;
                None
            }
        }
    }
}
