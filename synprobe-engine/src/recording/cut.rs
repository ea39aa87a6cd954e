//! Joins the segments of a rolling recording into one recording.

use std::{
    fs::File,
    io::{self, BufWriter, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    CreateError, FolderError, OpenError, SegmentHeader,
    block::{KIND_END, KIND_FRAMES, KIND_HEADER, Prefix, decompress},
    create,
    folder::{SegmentFile, is_locked, segments},
    scan::BlockScanner,
    writer::SegmentEncoder,
};

/// Why a cut was not made.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The folder cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder has no segment with anything to read in it.
    #[error("{} holds no recording", .0.display())]
    Empty(PathBuf),
    /// A segment cannot be read.
    #[error("{}: {source}", path.display())]
    Segment {
        /// The segment.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The output is one of the segments.
    #[error("{} is a segment of the recording to be cut", .0.display())]
    OutputIsSegment(PathBuf),
    /// The output cannot be created.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The output cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// What a cut holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutReport {
    /// Segments joined.
    pub segments: u64,
    /// Frames in them.
    pub frames: u64,
    /// Bytes written.
    pub bytes: u64,
    /// When the first frame was taken in, nanoseconds since 1970; `None`: no frame, or a damaged header.
    pub first_realtime_ns: Option<i64>,
    /// The same for the last frame.
    pub last_realtime_ns: Option<i64>,
    /// Segments of which something could not be read. What the recorder is writing just now does not
    /// count.
    pub damaged_segments: u64,
    /// Bytes left out as they belong to no intact block.
    pub skipped_bytes: u64,
}

/// Segments that are opened before the first is read. The recorder deletes the oldest first; one that is
/// open can still be read.
const OPEN_AHEAD: usize = 64;

/// A segment to be read, perhaps opened already.
struct Source {
    segment: SegmentFile,
    file: Option<File>,
}

impl Source {
    /// The segment at its start; `None`: deleted since the folder was listed.
    fn open(&self) -> io::Result<Option<File>> {
        if let Some(file) = &self.file {
            let mut file = file.try_clone()?;
            file.rewind()?;
            return Ok(Some(file));
        }
        match File::open(&self.segment.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The segments of a folder, without a gap, while a recorder makes new ones and deletes the oldest.
///
/// One listing may miss a segment that is made while it runs, and show the next one. A second listing has it:
/// it was there before that one began, or is deleted.
fn listed(folder: &Path) -> Result<Vec<SegmentFile>, CutError> {
    let mut listed = segments(folder)?;
    let Some(newest) = listed.last().map(|segment| segment.began_ms) else {
        return Ok(listed);
    };
    let again = segments(folder)?;
    listed.extend(again.into_iter().filter(|s| s.began_ms <= newest));
    listed.sort_by_key(|segment| segment.began_ms);
    listed.dedup_by_key(|segment| segment.began_ms);
    Ok(listed)
}

/// The segments of a folder that are there, without a gap.
fn sources(folder: &Path) -> Result<Vec<Source>, CutError> {
    loop {
        let listed = listed(folder)?;
        let any = !listed.is_empty();
        let there = opened(listed, folder)?;
        // Where all that were listed are deleted, there are newer ones.
        if !there.is_empty() || !any {
            return Ok(there);
        }
    }
}

/// Those of the listed segments that are there, without a gap: the oldest [`OPEN_AHEAD`] open.
fn opened(listed: Vec<SegmentFile>, folder: &Path) -> Result<Vec<Source>, CutError> {
    let mut sources: Vec<Source> = listed
        .into_iter()
        .map(|segment| Source {
            segment,
            file: None,
        })
        .collect();
    // The newest first: where one is deleted, so are all older ones, though some may still be open here.
    for index in (0..sources.len().min(OPEN_AHEAD)).rev() {
        let source = &mut sources[index];
        let opened = source.open();
        source.file =
            opened.map_err(|error| failed(source, ScanError::Open(error.into()), folder))?;
        if source.file.is_none() {
            sources.drain(..=index);
            break;
        }
    }
    Ok(sources)
}

/// Calls `each` with every intact block. Returns how many bytes belong to none; `None`: deleted.
fn scan(
    source: &Source,
    mut each: impl FnMut(&Prefix, &[u8], Option<&SegmentHeader>) -> io::Result<()>,
) -> Result<Option<u64>, ScanError> {
    let Some(file) = source
        .open()
        .map_err(|error| ScanError::Open(error.into()))?
    else {
        return Ok(None);
    };
    let mut blocks = BlockScanner::new(file);
    let mut header: Option<SegmentHeader> = None;
    let mut any = false;
    while let Some(block) = blocks.next() {
        any = true;
        let prefix = &block.prefix;
        if prefix.kind == KIND_HEADER {
            let mut raw = Vec::new();
            header = decompress(prefix, block.payload(), &mut raw)
                .and_then(|()| SegmentHeader::decode(prefix.minor, &raw))
                .ok();
        }
        each(prefix, &block.bytes, header.as_ref()).map_err(ScanError::Each)?;
    }
    match (blocks.take_error(), blocks.newer()) {
        (Some(error), _) => Err(ScanError::Open(error.into())),
        (None, Some(major)) if !any => Err(ScanError::Open(OpenError::Newer { major })),
        _ => Ok(Some(blocks.skipped())),
    }
}

enum ScanError {
    Open(OpenError),
    Each(io::Error),
}

/// The first segment that reaches into the last `last` of the recording.
fn first_within(found: &[Source], last: Duration) -> Result<usize, CutError> {
    let mut ends = Vec::with_capacity(found.len());
    for segment in found {
        let mut end = None;
        scan(segment, |prefix, _, header| {
            if let (KIND_FRAMES, Some(header)) = (prefix.kind, header) {
                end = end.max(Some(header.realtime_ns(prefix.last_ns)));
            }
            Ok(())
        })
        .map_err(|error| failed(segment, error, &segment.segment.path))?;
        ends.push(end);
    }
    let last_ns = i64::try_from(last.as_nanos()).unwrap_or(i64::MAX);
    let newest = ends.iter().flatten().max().copied();
    let from = newest.map(|newest| newest.saturating_sub(last_ns));
    let first = ends.iter().position(|end| end.is_some() && *end >= from);
    Ok(first.unwrap_or(0))
}

fn failed(source: &Source, error: ScanError, out: &Path) -> CutError {
    match error {
        ScanError::Open(error) => CutError::Segment {
            path: source.segment.path.clone(),
            source: error,
        },
        ScanError::Each(error) => CutError::Write {
            path: out.to_owned(),
            source: error,
        },
    }
}

/// Joins the segments of the folder `from` into the recording `out`, also while a recorder writes to it.
///
/// `last`: how far to go back from the newest frame; `None`: all. Segments are taken whole, because each
/// begins with the state that its frames need. Intact blocks are copied as they are; a reader sees where
/// one segment ends and the next, of the same run or another, begins.
///
/// # Errors
///
/// There is nothing to cut, or a file cannot be read or written.
pub fn cut(from: &Path, last: Option<Duration>, out: &Path) -> Result<CutReport, CutError> {
    let mut found = sources(from)?;
    let recording = is_locked(from);
    let output = std::fs::metadata(out)
        .ok()
        .map(|output| (output.dev(), output.ino()));
    for segment in &found {
        let metadata = std::fs::metadata(&segment.segment.path).ok();
        if output.is_some() && metadata.map(|metadata| (metadata.dev(), metadata.ino())) == output {
            return Err(CutError::OutputIsSegment(out.to_owned()));
        }
    }
    if let Some(last) = last {
        found.drain(..first_within(&found, last)?);
    }
    if found.is_empty() {
        return Err(CutError::Empty(from.to_owned()));
    }
    let write = |source| CutError::Write {
        path: out.to_owned(),
        source,
    };
    let mut file = BufWriter::new(create(out)?);
    let mut report = CutReport::default();
    for (index, segment) in found.iter().enumerate() {
        let mut tail: Option<Prefix> = None;
        let skipped = scan(segment, |prefix, bytes, header| {
            file.write_all(bytes)?;
            report.bytes += bytes.len() as u64;
            if prefix.kind == KIND_FRAMES {
                report.frames += u64::from(prefix.frames);
                let realtime = |at_ns| header.map(|header| header.realtime_ns(at_ns));
                report.first_realtime_ns = report
                    .first_realtime_ns
                    .or_else(|| realtime(prefix.first_ns));
                report.last_realtime_ns = realtime(prefix.last_ns).or(report.last_realtime_ns);
            }
            tail = Some(*prefix);
            Ok(())
        })
        .map_err(|error| failed(segment, error, out))?;
        let Some(tail) = tail else {
            report.damaged_segments += u64::from(skipped.is_some_and(|skipped| skipped > 0));
            report.skipped_bytes += skipped.unwrap_or(0);
            continue;
        };
        report.segments += 1;
        let is_open = tail.kind != KIND_END;
        let is_written = is_open && recording && index + 1 == found.len();
        if is_written {
            // The segment goes on, but not in this recording: what is here is complete.
            let end = SegmentEncoder::resume(&tail).end();
            file.write_all(&end).map_err(write)?;
            report.bytes += end.len() as u64;
        } else {
            let skipped = skipped.unwrap_or(0);
            report.damaged_segments += u64::from(is_open || skipped > 0);
            report.skipped_bytes += skipped;
        }
    }
    file.flush().map_err(write)?;
    if report.segments == 0 {
        return Err(CutError::Empty(from.to_owned()));
    }
    Ok(report)
}
