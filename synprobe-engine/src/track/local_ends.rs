//! The local ends of half-opens. A million half-opens share a few, so a key names its local end by a number
//! and is sixteen bytes shorter.

use std::collections::HashMap;

use crate::model::Tuple;

/// A local end: namespace, address, port.
type Local = (u32, [u8; 16], u16);

/// A half-open's key in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HalfOpenKey {
    local: u32,
    peer_addr: [u8; 16],
    peer_port: u16,
}

impl HalfOpenKey {
    /// Its peer.
    pub fn peer(&self) -> [u8; 16] {
        self.peer_addr
    }

    /// The number of its local end.
    pub fn local(&self) -> usize {
        self.local as usize
    }

    fn of(local: u32, tuple: &Tuple) -> Self {
        Self {
            local,
            peer_addr: tuple.peer_addr,
            peer_port: tuple.peer_port,
        }
    }
}

/// The numbers of the local ends that half-opens use.
#[derive(Default)]
pub struct LocalEnds {
    numbers: HashMap<Local, u32>,
    /// By number: the local end, and how many half-opens use it.
    ends: Vec<(Local, u32)>,
    /// Numbers that are free.
    free: Vec<u32>,
    /// Of the last lookup. The next one mostly has the same.
    last: u32,
}

fn local(tuple: &Tuple) -> Local {
    (tuple.netns, tuple.local_addr, tuple.local_port)
}

impl LocalEnds {
    /// The key of a half-open that is or is not in the table; `None`: it cannot be.
    pub fn find(&self, tuple: &Tuple) -> Option<HalfOpenKey> {
        let wanted = local(tuple);
        let number = match self.ends.get(self.last as usize) {
            Some((last, had_by)) if *last == wanted && *had_by > 0 => self.last,
            _ => *self.numbers.get(&wanted)?,
        };
        Some(HalfOpenKey::of(number, tuple))
    }

    /// The key of a half-open that is inserted into the table. Each such key must be released.
    pub fn acquire(&mut self, tuple: &Tuple) -> HalfOpenKey {
        let key = self.find(tuple).unwrap_or_else(|| {
            let fresh = (local(tuple), 0);
            let number = match self.free.pop() {
                Some(number) => {
                    self.ends[number as usize] = fresh;
                    number
                }
                None => {
                    self.ends.push(fresh);
                    self.ends.len() as u32 - 1
                }
            };
            self.numbers.insert(fresh.0, number);
            HalfOpenKey::of(number, tuple)
        });
        self.ends[key.local as usize].1 += 1;
        self.last = key.local;
        key
    }

    /// A half-open has left the table.
    pub fn release(&mut self, key: &HalfOpenKey) {
        let (end, had_by) = &mut self.ends[key.local as usize];
        *had_by -= 1;
        if *had_by == 0 {
            self.numbers.remove(end);
            self.free.push(key.local);
        }
    }

    /// Namespaces in use; one may be returned several times.
    pub fn namespaces(&self) -> impl Iterator<Item = u32> {
        let had = self.ends.iter().filter(|(_, had_by)| *had_by > 0);
        had.map(|((netns, ..), _)| *netns)
    }

    /// All numbers of local ends are below this.
    pub fn numbers(&self) -> usize {
        self.ends.len()
    }

    /// The namespace and the port of a local end, by its number.
    pub fn port(&self, number: usize) -> (u32, u16) {
        let ((netns, _, port), _) = self.ends[number];
        (netns, port)
    }

    /// What the key of a half-open in the table stands for.
    pub fn tuple(&self, key: &HalfOpenKey) -> Tuple {
        let ((netns, local_addr, local_port), _) = self.ends[key.local as usize];
        Tuple {
            netns,
            local_addr,
            peer_addr: key.peer_addr,
            local_port,
            peer_port: key.peer_port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(local_port: u16, peer_port: u16) -> Tuple {
        Tuple {
            netns: 1,
            local_addr: [7; 16],
            peer_addr: [9; 16],
            local_port,
            peer_port,
        }
    }

    #[test]
    fn a_number_stands_for_its_local_end_as_long_as_somebody_has_it() {
        let mut locals = LocalEnds::default();
        let (first, second) = (tuple(80, 1), tuple(80, 2));
        assert_eq!(locals.find(&first), None);
        let keys = [locals.acquire(&first), locals.acquire(&second)];
        assert_eq!(locals.find(&first), Some(keys[0]));
        assert_eq!(keys.map(|key| locals.tuple(&key)), [first, second]);
        assert_eq!(locals.namespaces().collect::<Vec<_>>(), [1]);
        locals.release(&keys[0]);
        assert_eq!(locals.find(&second), Some(keys[1]));
        locals.release(&keys[1]);
        assert_eq!(locals.find(&second), None);
        assert_eq!(locals.namespaces().count(), 0);
        // The number is another's now.
        let third = tuple(81, 1);
        let key = locals.acquire(&third);
        assert_eq!((locals.tuple(&key), locals.ends.len()), (third, 1));
        assert_eq!(locals.find(&first), None);
    }

    #[test]
    fn a_port_scan_leaves_nothing_behind() {
        let mut locals = LocalEnds::default();
        for port in 1..=u16::MAX {
            let key = locals.acquire(&tuple(port, 1));
            locals.release(&key);
        }
        assert_eq!((locals.numbers.len(), locals.ends.len()), (0, 1));
    }
}
