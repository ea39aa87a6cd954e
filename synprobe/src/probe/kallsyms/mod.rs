//! The kernel's names for its addresses, from `/proc/kallsyms`.

mod places;

use std::{
    cell::RefCell,
    fs::File,
    io::{self, BufRead},
    ops::RangeInclusive,
    os::unix::fs::FileExt,
};

pub use places::Places;

/// The kernel's symbols, including those of modules and BPF programs.
const KALLSYMS: &str = "/proc/kallsyms";
/// Digits of an address (`%px` of 64 bits).
const DIGITS: usize = 16;
/// Longer than any function, bytes. An address farther above a symbol is in no known function.
const LONGEST: u64 = 1 << 20;

/// Functions are kept so far around an address that is asked for, bytes: all of them together take thirteen megabytes
/// while they are read, and five then. Each reading takes 40 ms of CPU time, nearly all of it the kernel's, and the
/// networking code is within three megabytes.
const AROUND: u64 = 2 << 20;
/// Areas that are kept.
const AREAS: usize = 16;

/// The kernel's functions, read at the first lookup in each area: most runs need one or two.
#[derive(Debug)]
pub struct Kallsyms {
    list: SymbolList,
    /// `None`: what was read hides addresses, or cannot be read.
    areas: RefCell<Option<Vec<Table>>>,
}

#[derive(Debug)]
enum SymbolList {
    /// The kernel checks the privilege to see addresses when the file is opened, not when it is read. So it is opened
    /// early.
    File(io::Result<File>),
    Text(String),
}

impl Kallsyms {
    /// Opens the file, and reads nothing yet.
    pub fn open() -> Self {
        Self::of(SymbolList::File(File::open(KALLSYMS)))
    }

    fn of(list: SymbolList) -> Self {
        Self {
            list,
            areas: RefCell::new(Some(Vec::new())),
        }
    }

    /// The function that contains an address, such as `nft_do_chain`, without the compiler's suffixes
    /// (`.isra.0`, `.cold`) and without the module.
    ///
    /// `None`: it is in no known function, or the kernel hides addresses (`kernel.kptr_restrict`).
    pub fn name(&self, address: u64) -> Option<String> {
        let mut known = self.areas.borrow_mut();
        let areas = known.as_mut()?;
        if !areas.iter().any(|table| table.area.contains(&address)) {
            let read = self.read_around(address).unwrap_or_else(|error| {
                log::info!("{KALLSYMS}: {error}: kernel addresses have no names");
                None
            });
            let Some(table) = read else {
                *known = None;
                return None;
            };
            if areas.len() >= AREAS {
                areas.remove(0);
            }
            areas.push(table);
        }
        let table = areas.iter().find(|table| table.area.contains(&address))?;
        table.name(address).map(str::to_owned)
    }

    fn read_around(&self, address: u64) -> io::Result<Option<Table>> {
        let area = address.saturating_sub(AROUND)..=address.saturating_add(AROUND);
        match &self.list {
            // Megabytes of text: never all of it at once.
            SymbolList::File(Ok(file)) => {
                Table::parse(io::BufReader::new(FromStart { file, at: 0 }), area)
            }
            SymbolList::File(Err(error)) => Err(error.kind().into()),
            SymbolList::Text(text) => Table::parse(text.as_bytes(), area),
        }
    }

    /// From a text, for tests.
    ///
    /// # Errors
    /// The text has no address.
    pub fn from_text(text: &str) -> io::Result<Self> {
        Table::parse(text.as_bytes(), 0..=0)?.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self::of(SymbolList::Text(text.to_owned())))
    }
}

/// A file, read from its beginning.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl io::Read for FromStart<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The functions of an area by address, and the last one below it.
#[derive(Debug)]
struct Table {
    area: RangeInclusive<u64>,
    /// All names in one string: one allocation each would be most of the memory.
    names: Box<str>,
    /// Address, start and end of the name in `names`; sorted by address, each once.
    symbols: Box<[(u64, u32, u32)]>,
}

impl Table {
    /// `None`: the kernel hides addresses.
    fn parse(mut list: impl BufRead, area: RangeInclusive<u64>) -> io::Result<Option<Self>> {
        let wanted = area.start().saturating_sub(LONGEST)..=*area.end();
        let bounds = [wanted.start(), wanted.end()].map(|bound| format!("{bound:016x}"));
        let (mut read, mut found) = (String::new(), Vec::new());
        let (mut line, mut hidden) = (Vec::new(), true);
        while list.read_until(b'\n', &mut line)? > 0 {
            // A hundred thousand lines: those outside the area are compared as they are written, and not parsed.
            let digits = line.get(..DIGITS).unwrap_or_default();
            if digits >= bounds[0].as_bytes() && digits <= bounds[1].as_bytes() {
                if let Ok(text) = std::str::from_utf8(&line)
                    && let Some((address @ 1.., name)) = function(text)
                {
                    found.push((address, append(&mut read, name)?));
                }
            } else if digits > bounds[1].as_bytes() && !found.is_empty() && !is_of_module(&line) {
                // The kernel's own symbols come first, by address (kernel/kallsyms.c, update_iter).
                break;
            }
            hidden &= digits.iter().all(|digit| *digit == b'0');
            line.clear();
        }
        let hidden = hidden && found.is_empty();
        // Stable: of several names for one address the first counts, as for the kernel itself
        // (kernel/kallsyms.c, get_symbol_pos).
        found.sort_by_key(|(address, _)| *address);
        found.dedup_by_key(|(address, _)| *address);
        let below = found.partition_point(|(address, _)| address < area.start());
        let (mut names, mut symbols) = (String::new(), Vec::new());
        for (address, (begin, end)) in &found[below.saturating_sub(1)..] {
            let name = &read[*begin as usize..*end as usize];
            let (begin, end) = append(&mut names, name)?;
            symbols.push((*address, begin, end));
        }
        Ok((!hidden).then(|| Self {
            area,
            names: names.into_boxed_str(),
            symbols: symbols.into_boxed_slice(),
        }))
    }

    fn name(&self, address: u64) -> Option<&str> {
        let above = self.symbols.partition_point(|(at, ..)| *at <= address);
        let &(at, begin, end) = self.symbols.get(above.checked_sub(1)?)?;
        (address - at < LONGEST).then(|| &self.names[begin as usize..end as usize])
    }
}

/// A line's end is the module's name in brackets.
fn is_of_module(line: &[u8]) -> bool {
    line.trim_ascii_end().ends_with(b"]")
}

/// Where a name begins and ends that comes behind the others.
fn append(names: &mut String, name: &str) -> io::Result<(u32, u32)> {
    let length = |names: &str| u32::try_from(names.len()).map_err(io::Error::other);
    let begin = length(names)?;
    names.push_str(name);
    Ok((begin, length(names)?))
}

/// Address and name of a function's line, without the compiler's suffixes; 0: the kernel hides addresses.
fn function(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) =
        (fields.next(), fields.next(), fields.next())
    else {
        return None;
    };
    let address = u64::from_str_radix(address, 16).ok()?;
    // A name that begins with a dot is all suffix.
    let plain = match name.find('.') {
        Some(at @ 1..) => &name[..at],
        _ => name,
    };
    Some((address, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81a00000 T tcp_v4_rcv
ffffffff819ff000 t ip_rcv_finish.isra.0
ffffffff81a00800 D not_a_function
ffffffff81a01000 W weak_one
ffffffff81a01000 t its_alias
ffffffff81a02000 t .hidden
0000000000000000 T percpu
broken
ffffffffc0200000 t nft_do_chain\t[nf_tables]
ffffffffc0201000 t nft_do_chain.cold\t[nf_tables]
ffffffffc0300000 t bpf_prog_6deef7357e7b4530_sd_fw\t[bpf]
";

    #[test]
    fn an_address_is_in_the_function_below_it() {
        let all = Kallsyms::from_text(TEXT).unwrap();
        let named = |address, name: Option<&str>| assert_eq!(all.name(address).as_deref(), name);
        named(0xffff_ffff_81a0_0000, Some("tcp_v4_rcv"));
        // A data symbol does not end it.
        named(0xffff_ffff_81a0_0fff, Some("tcp_v4_rcv"));
        named(0xffff_ffff_819f_ffff, Some("ip_rcv_finish"));
        named(0xffff_ffff_8100_0000, Some("_stext"));
        named(0xffff_ffff_81a0_1001, Some("weak_one"));
        named(0xffff_ffff_81a0_2001, Some(".hidden"));
        named(0xffff_ffff_c020_0042, Some("nft_do_chain"));
        named(0xffff_ffff_c020_1042, Some("nft_do_chain"));
        named(
            0xffff_ffff_c030_0001,
            Some("bpf_prog_6deef7357e7b4530_sd_fw"),
        );
    }

    #[test]
    fn a_function_may_begin_in_the_area_below() {
        let list = "ffffffff81bffff0 t ends_here\nffffffff819ffff0 t ends_there\n\
                    ffffffff81c00010 t beyond\nffffffff817f0000 t too_far\n";
        let all = Kallsyms::from_text(list).unwrap();
        let name = |address| all.name(address);
        assert_eq!(name(0xffff_ffff_81c0_0000).as_deref(), Some("ends_here"));
        assert_eq!(name(0xffff_ffff_81a0_0000).as_deref(), Some("ends_there"));
        assert_eq!(name(0xffff_ffff_81b0_0000), None);
        assert_eq!(name(0xffff_ffff_81c0_0010).as_deref(), Some("beyond"));
    }

    #[test]
    fn beyond_what_is_known_there_is_no_name() {
        let all = Kallsyms::from_text(TEXT).unwrap();
        for address in [0, 1, 0xffff_ffff_8000_0000, 0xffff_ffff_8200_0000, u64::MAX] {
            assert_eq!(all.name(address), None, "{address:x}");
        }
    }

    #[test]
    fn hidden_addresses_give_no_names() {
        let hidden = "0000000000000000 T _stext\n0000000000000000 T tcp_v4_rcv\n";
        assert!(Table::parse(hidden.as_bytes(), 0..=0).unwrap().is_none());
        assert!(Kallsyms::from_text(hidden).is_err());
        assert!(Table::parse("".as_bytes(), 0..=0).unwrap().is_none());
    }

    #[test]
    #[ignore = "needs root"]
    fn the_running_kernels_functions_have_their_names() {
        let text = std::fs::read_to_string(KALLSYMS).unwrap();
        let all = Kallsyms::open();
        for function in ["tcp_v4_rcv", "tcp_v6_rcv", "nf_hook_slow"] {
            let line = text
                .lines()
                .find(|line| line.split_ascii_whitespace().nth(2) == Some(function));
            let address = line.and_then(|line| line.split(' ').next()).unwrap();
            let address = u64::from_str_radix(address, 16).unwrap();
            assert_ne!(address, 0, "root sees addresses");
            assert_eq!(all.name(address).as_deref(), Some(function));
            assert_eq!(all.name(address + 5).as_deref(), Some(function));
        }
        // Each reading takes 50 ms: the networking code takes few.
        let areas = all.areas.into_inner().unwrap();
        assert!(areas.len() <= 2, "{} readings", areas.len());
    }
}
