//! The kernel's names for its addresses, from `/proc/kallsyms`.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, BufRead},
    ops::RangeInclusive,
    os::unix::fs::FileExt,
};

/// The kernel's symbols, including those of modules and BPF programs.
const KALLSYMS: &str = "/proc/kallsyms";
/// Longer than any function, bytes. An address farther above a symbol is in no known function.
const LONGEST: u64 = 1 << 20;

/// Functions are kept so far around an address that is asked for, bytes: all of them together take thirteen megabytes
/// while they are read, and five then. Each reading takes 50 ms of CPU time, and the networking code is within three
/// megabytes.
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

/// Address ranges of functions by name: first the function, then the parts that the compiler has split
/// from it (`.cold`). Empty for a function that does not exist, and for all if the kernel hides
/// addresses.
///
/// # Errors
/// Those of reading the list.
pub fn places(names: &[&str]) -> io::Result<Vec<Vec<(u64, u64)>>> {
    places_in(io::BufReader::new(File::open(KALLSYMS)?), names)
}

/// The same, with functions of modules: those that the kernel itself does not have are looked for there.
///
/// # Errors
/// Those of reading the list.
pub fn places_with_modules(names: &[&str]) -> io::Result<Vec<Vec<(u64, u64)>>> {
    let list = || File::open(KALLSYMS).map(io::BufReader::new);
    let mut found = places_in(list()?, names)?;
    let missing = |found: &[Vec<(u64, u64)>]| found.iter().any(Vec::is_empty);
    if missing(&found) {
        let of_modules = places_of_modules(list()?, names)?;
        for (own, of_module) in found.iter_mut().zip(of_modules) {
            if own.is_empty() {
                *own = of_module;
            }
        }
    }
    Ok(found)
}

/// A module's symbols are in no order: a function ends where the next higher symbol begins.
fn places_of_modules(list: impl BufRead, names: &[&str]) -> io::Result<Vec<Vec<(u64, u64)>>> {
    let mut addresses = Vec::new();
    let mut begins = vec![Vec::new(); names.len()];
    for line in list.lines() {
        let line = line?;
        let mut fields = line.split_ascii_whitespace();
        let (Some(address), Some("t" | "T"), Some(name), Some(_module)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Ok(address @ 1..) = u64::from_str_radix(address, 16) else {
            continue;
        };
        addresses.push(address);
        let plain = name.split('.').next().unwrap_or(name);
        if let Some(which) = names.iter().position(|wanted| *wanted == plain) {
            begins[which].push(address);
        }
    }
    addresses.sort_unstable();
    let ends = |begin: &u64| {
        let next = addresses.partition_point(|address| address <= begin);
        let end = addresses.get(next).copied().unwrap_or(begin + LONGEST);
        (*begin, end.min(begin + LONGEST))
    };
    Ok(begins
        .iter()
        .map(|of_one| of_one.iter().map(ends).collect())
        .collect())
}

fn places_in(mut list: impl BufRead, names: &[&str]) -> io::Result<Vec<Vec<(u64, u64)>>> {
    let mut found = vec![Vec::<(u64, u64)>::new(); names.len()];
    // The kernel's own symbols come first, by address: a function ends where the next symbol begins.
    let mut last: Option<(u64, usize)> = None;
    let mut line = Vec::new();
    // Every start reads a hundred thousand lines: other lines are not parsed.
    while list.read_until(b'\n', &mut line)? > 0 {
        let text = line.trim_ascii_end();
        let kind = text.iter().position(|byte| *byte == b' ').unwrap_or(0);
        let name = text.get(kind + 3..).unwrap_or_default();
        let address = || {
            let digits = std::str::from_utf8(&text[..kind]).unwrap_or_default();
            u64::from_str_radix(digits, 16).unwrap_or(0)
        };
        if let Some((begin, which)) = last
            && let end = address()
            && end > begin
        {
            found[which].push((begin, end));
            last = None;
        }
        // After it come only modules and boot code.
        if name == b"_etext" {
            break;
        }
        let is_it = |wanted: &&str| {
            let rest = name.strip_prefix(wanted.as_bytes());
            rest.is_some_and(|rest| matches!(rest, [] | [b'.', ..]))
        };
        if let Some(which) = names.iter().position(is_it)
            && let Some(b't' | b'T') = text.get(kind + 1)
            && let begin @ 1.. = address()
        {
            last = Some((begin, which));
        }
        line.clear();
    }
    Ok(found)
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
        let (mut read, mut found) = (String::new(), Vec::new());
        let (mut line, mut hidden) = (Vec::new(), true);
        while list.read_until(b'\n', &mut line)? > 0 {
            if let Ok(text) = std::str::from_utf8(&line)
                && let Some((address @ 1.., name)) = function(text)
            {
                hidden = false;
                if wanted.contains(&address) {
                    found.push((address, append(&mut read, name)?));
                }
            }
            line.clear();
        }
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
    fn a_modules_function_ends_at_the_next_higher_symbol() {
        let list = "ffffffff81000000 T nf_queue\n\
                    ffffffffc0002000 t br_other\t[bridge]\n\
                    ffffffffc0001000 t br_handle_frame_finish\t[bridge]\n\
                    ffffffffc0001800 d br_data\t[bridge]\n\
                    ffffffffc0009000 t last.cold\t[bridge]\n";
        let found = places_of_modules(
            list.as_bytes(),
            &["nf_queue", "br_handle_frame_finish", "last"],
        );
        let found = found.unwrap();
        assert!(found[0].is_empty(), "the kernel's own");
        assert_eq!(found[1], [(0xffff_ffff_c000_1000, 0xffff_ffff_c000_2000)]);
        assert_eq!(
            found[2],
            [(0xffff_ffff_c000_9000, 0xffff_ffff_c000_9000 + LONGEST)]
        );
    }

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
    fn functions_have_places() {
        const LIST: &str = "\
ffffffff81000000 T _stext
ffffffff81a00000 t __pfx_tcp_check_req
ffffffff81a00010 T tcp_check_req
ffffffff81a00200 d a_table
ffffffff81a00300 T tcp_req_err
ffffffff81c00000 t tcp_check_req.cold
ffffffff81c00040 T _etext
ffffffffc0200000 t tcp_abort\t[some_module]
";
        let all = places_in(
            LIST.as_bytes(),
            &["tcp_check_req", "tcp_req_err", "tcp_abort"],
        );
        let [check, err, abort] = &all.unwrap()[..] else {
            panic!("one each");
        };
        let both = [
            (0xffff_ffff_81a0_0010, 0xffff_ffff_81a0_0200),
            (0xffff_ffff_81c0_0000, 0xffff_ffff_81c0_0040),
        ];
        assert_eq!(check, &both);
        assert_eq!(err, &[(0xffff_ffff_81a0_0300, 0xffff_ffff_81c0_0000)]);
        assert!(abort.is_empty());
        let hidden = "0000000000000000 T tcp_check_req\n0000000000000000 T _etext\n";
        assert!(places_in(hidden.as_bytes(), &["tcp_check_req"]).unwrap()[0].is_empty());
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
