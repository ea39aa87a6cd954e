//! Where functions of the kernel are.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    sync::OnceLock,
};

use synprobe_ebpf::config::{DROP_FUNCTION, ENDING_FUNCTIONS, REFUSING_FUNCTIONS};

use super::{KALLSYMS, LONGEST};

/// A function's address ranges: first the function, then the parts that the compiler has split from it (`.cold`).
/// None for a function that does not exist, and for each if the kernel hides addresses.
pub type Ranges = Vec<(u64, u64)>;

/// The one function that may be of a module, and that module.
const IN_MODULE: (&str, &str) = ("br_handle_frame_finish", "bridge");

/// Where the functions are that the programs in the kernel compare addresses with.
#[derive(Debug)]
pub struct Places {
    names: Vec<&'static str>,
    ranges: Vec<Ranges>,
}

impl Places {
    /// Those of the kernel itself. The list has a hundred thousand lines, and nothing in its kernel's part moves: a
    /// process reads it once.
    ///
    /// # Errors
    /// Those of reading the list.
    pub fn of_kernel() -> io::Result<&'static Self> {
        static KNOWN: OnceLock<Places> = OnceLock::new();
        if let Some(known) = KNOWN.get() {
            return Ok(known);
        }
        let all = [&ENDING_FUNCTIONS[..], &[DROP_FUNCTION], &REFUSING_FUNCTIONS].concat();
        let read = Self::read(list()?, all)?;
        Ok(KNOWN.get_or_init(|| read))
    }

    fn read(list: impl BufRead, names: Vec<&'static str>) -> io::Result<Self> {
        let ranges = in_kernel(list, &names)?;
        Ok(Self { names, ranges })
    }

    /// The ranges of one of the functions.
    pub fn ranges(&self, name: &str) -> &[(u64, u64)] {
        let at = self.names.iter().position(|known| *known == name);
        at.map_or(&[], |at| &self.ranges[at])
    }

    /// As [`Places::ranges`], in the function's module where the kernel itself does not have it. A module may come
    /// and go, and is looked for each time.
    ///
    /// # Errors
    /// Those of reading the list.
    pub fn ranges_with_module(&self, name: &str) -> io::Result<Ranges> {
        let own = self.ranges(name);
        let (function, module) = IN_MODULE;
        if !own.is_empty() || name != function || !Path::new("/sys/module").join(module).exists() {
            return Ok(own.to_vec());
        }
        in_module(list()?, module, name)
    }
}

fn list() -> io::Result<BufReader<File>> {
    File::open(KALLSYMS).map(BufReader::new)
}

/// A module's symbols are in no order: a function ends where the next higher symbol begins.
fn in_module(mut list: impl BufRead, module: &str, name: &str) -> io::Result<Ranges> {
    let end_of_line = format!("[{module}]");
    let (mut addresses, mut begins) = (Vec::new(), Vec::new());
    let mut line = Vec::new();
    while list.read_until(b'\n', &mut line)? > 0 {
        if line.trim_ascii_end().ends_with(end_of_line.as_bytes())
            && let Ok(text) = std::str::from_utf8(&line)
            && let Some((address @ 1.., plain)) = super::function(text)
        {
            addresses.push(address);
            if plain == name {
                begins.push(address);
            }
        }
        line.clear();
    }
    addresses.sort_unstable();
    let whole = |begin: u64| {
        let next = addresses.partition_point(|address| *address <= begin);
        let end = addresses.get(next).copied().unwrap_or(begin + LONGEST);
        (begin, end.min(begin + LONGEST))
    };
    Ok(begins.into_iter().map(whole).collect())
}

fn in_kernel(mut list: impl BufRead, names: &[&str]) -> io::Result<Vec<Ranges>> {
    let mut found = vec![Ranges::new(); names.len()];
    // The kernel's own symbols come first, by address: a function ends where the next symbol begins.
    let mut last: Option<(u64, usize)> = None;
    let mut line = Vec::new();
    // Other lines are not parsed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_function_ends_at_the_next_higher_symbol() {
        const LIST: &str = "\
ffffffff81000000 T nf_queue
ffffffffc0002000 t br_other\t[bridge]
ffffffffc0001c00 t not_of_it\t[other]
ffffffffc0001000 t br_handle_frame_finish\t[bridge]
ffffffffc0001800 d br_data\t[bridge]
ffffffffc0009000 t last.cold\t[bridge]
";
        let of = |name| in_module(LIST.as_bytes(), "bridge", name).unwrap();
        let whole = (0xffff_ffff_c000_1000, 0xffff_ffff_c000_2000);
        assert_eq!(of("br_handle_frame_finish"), [whole]);
        let last = 0xffff_ffff_c000_9000;
        assert_eq!(of("last"), [(last, last + LONGEST)]);
        assert!(of("nf_queue").is_empty(), "the kernel's own");
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
        let names = || vec!["tcp_check_req", "tcp_req_err", "tcp_abort"];
        let places = Places::read(LIST.as_bytes(), names()).unwrap();
        let both = [
            (0xffff_ffff_81a0_0010, 0xffff_ffff_81a0_0200),
            (0xffff_ffff_81c0_0000, 0xffff_ffff_81c0_0040),
        ];
        assert_eq!(places.ranges("tcp_check_req"), both);
        let one = [(0xffff_ffff_81a0_0300, 0xffff_ffff_81c0_0000)];
        assert_eq!(places.ranges("tcp_req_err"), one);
        assert!(places.ranges("tcp_abort").is_empty());
        assert!(places.ranges("not asked for").is_empty());
        let hidden = "0000000000000000 T tcp_check_req\n0000000000000000 T _etext\n";
        let hidden = Places::read(hidden.as_bytes(), names()).unwrap();
        assert!(hidden.ranges("tcp_check_req").is_empty());
    }

    #[test]
    #[ignore = "needs root"]
    fn the_running_kernel_has_the_functions() {
        let places = Places::of_kernel().unwrap();
        for name in ["tcp_check_req", "nf_queue", "ip_error"] {
            assert!(!places.ranges(name).is_empty(), "{name}");
        }
    }
}
