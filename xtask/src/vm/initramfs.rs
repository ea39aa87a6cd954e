//! An initramfs: a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/
//! buffer-format.rst). It is uncompressed: emulated processors unpack slowly.

/// File type and permissions, as in `st_mode`.
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// Device 5:1.
const CONSOLE: (u32, u32) = (5, 1);
const TRAILER: &str = "TRAILER!!!";

/// An archive under construction.
pub struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
}

impl Initramfs {
    /// An archive with these folders and the console for init.
    pub fn new(folders: &[&str]) -> Self {
        let mut archive = Self {
            bytes: Vec::new(),
            entries: 0,
        };
        for folder in folders {
            archive.entry(folder, FOLDER, &[], (0, 0));
        }
        archive.entry("dev/console", CHARACTER_DEVICE, &[], CONSOLE);
        archive
    }

    /// Adds an executable file.
    pub fn program(&mut self, name: &str, contents: &[u8]) {
        self.entry(name, PROGRAM, contents, (0, 0));
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, contents: &[u8]) {
        self.entry(name, FILE, contents, (0, 0));
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8], device: (u32, u32)) {
        self.entries += 1;
        let numbers = [
            self.entries,
            mode,
            0, // uid
            0, // gid
            1, // links
            0, // time
            contents.len() as u32,
            0, // device it is on: major, minor
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0, // checksum
        ];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes
                .extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Initramfs;

    #[test]
    fn entries_are_padded_and_end_with_the_trailer() {
        let mut archive = Initramfs::new(&["dev"]);
        archive.program("init", b"abcde");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert!(text.contains("init\0\0abcde\0\0\x00070701"));
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"));
    }
}
