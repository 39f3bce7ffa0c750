//! Stdin, stdout and named files. `-` means stdin or stdout.
//!
//! Files are written under a temporary name and renamed by [`Output::finish`]. If the reader of
//! stdout ends early (`| head`), [`is_stdout_closed`] recognises the error, and `main` ends the run
//! as a success.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, IsTerminal, Stdout, Write};
use std::path::Path;

use super::BUFFER;
use super::atomic_file::{AtomicFile, is_special};
use super::compression::decompress;

/// Opens stdin (`-`) or a file; compressed input is decompressed.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    if is_dash(path) {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            tracing::info!("reading from the terminal; end with Ctrl-D");
        }
        return decompress(Box::new(BufReader::with_capacity(BUFFER, stdin)));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    decompress(Box::new(BufReader::with_capacity(BUFFER, file)))
}

/// Whether `path` is `-`: stdin or stdout.
pub fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The name for messages: `stdin` for `-`.
pub fn input_name(path: &Path) -> String {
    if is_dash(path) {
        "stdin".to_owned()
    } else {
        path.display().to_string()
    }
}

/// Whether an output may be shown on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text may be shown on a terminal.
    Text,
    /// Binary data is rejected on a terminal.
    Binary,
}

/// Checks that [`Output::create`] will be able to open this output. Devices and pipes are not
/// opened, because they can be opened only once.
///
/// # Errors
/// As [`Output::create`].
pub fn check_output(path: &Path, content: Content) -> io::Result<()> {
    if is_special(path) {
        return Ok(());
    }
    Output::create(path, content).map(drop)
}

/// Stdout or a file, buffered. The output is complete only after [`finish`](Output::finish).
#[derive(Debug)]
pub struct Output {
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Stdout(BufWriter<Stdout>),
    /// A device or a pipe, which cannot be renamed.
    Special(BufWriter<File>),
    File(AtomicFile),
}

impl Output {
    /// Opens stdout (`-`) or a file to write.
    ///
    /// # Errors
    /// Binary content on a terminal; a directory; a folder that does not exist or is not writable.
    pub fn create(path: &Path, content: Content) -> io::Result<Self> {
        let sink = if is_dash(path) {
            let stdout = io::stdout();
            if content == Content::Binary && stdout.is_terminal() {
                return Err(invalid(
                    "binary data is not written to a terminal; give a file, or pipe the output to another program",
                ));
            }
            Sink::Stdout(BufWriter::with_capacity(BUFFER, stdout))
        } else if is_special(path) {
            let file = File::options().write(true).open(path)?;
            Sink::Special(BufWriter::with_capacity(BUFFER, file))
        } else {
            Sink::File(AtomicFile::create(path)?)
        };
        Ok(Output { sink })
    }

    /// The final name of the file; `None` for stdout, a device or a pipe.
    pub fn file(&self) -> Option<&Path> {
        match &self.sink {
            Sink::File(file) => Some(file.target()),
            Sink::Stdout(_) | Sink::Special(_) => None,
        }
    }

    /// Writes buffered bytes and gives a file its name.
    pub fn finish(self) -> io::Result<()> {
        match self.sink {
            Sink::Stdout(mut stdout) => stdout.flush().map_err(closed),
            Sink::Special(mut file) => file.flush(),
            Sink::File(file) => file.finish(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Stdout(stdout) => stdout.write(bytes).map_err(closed),
            Sink::Special(file) => file.write(bytes),
            Sink::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Stdout(stdout) => stdout.flush().map_err(closed),
            Sink::Special(file) => file.flush(),
            Sink::File(file) => file.flush(),
        }
    }
}

/// Whether the error, or one of its causes, is that the reader of stdout has ended. Other broken
/// pipes (of a network, of a device) do not count.
pub fn is_stdout_closed(error: &(dyn Error + 'static)) -> bool {
    let inner = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    error.is::<StdoutClosed>()
        || inner.is_some_and(|inner| is_stdout_closed(inner))
        || error.source().is_some_and(is_stdout_closed)
}

#[derive(Debug, thiserror::Error)]
#[error("stdout was closed by its reader")]
struct StdoutClosed;

/// The error that [`is_stdout_closed`] recognises.
pub(crate) fn stdout_closed() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, StdoutClosed)
}

fn closed(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => stdout_closed(),
        _ => error,
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_has_its_name_only_after_finish() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.tsv");
        let mut output = Output::create(&path, Content::Text).unwrap();
        output.write_all(b"new").unwrap();
        assert!(!path.exists());
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["out.tsv"]);
    }

    #[test]
    fn a_dropped_output_leaves_only_the_older_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.tsv");
        fs::write(&path, "old").unwrap();
        let mut output = Output::create(&path, Content::Binary).unwrap();
        output.write_all(&vec![0; 100_000]).unwrap();
        drop(output);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["out.tsv"]);
    }

    #[test]
    fn an_output_that_cannot_be_written_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let error = |path: &Path| Output::create(path, Content::Text).unwrap_err();
        assert_eq!(error(folder.path()).kind(), ErrorKind::IsADirectory);
        let missing = folder.path().join("no/such/out.tsv");
        let message = error(&missing).to_string();
        assert!(message.contains("cannot write in the folder"), "{message}");
        assert!(message.contains("no/such"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn permissions_follow_the_umask_and_links_stay_links() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.tsv");
        let link = folder.path().join("link.tsv");
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        fs::write(&path, "old").unwrap();
        symlink(&path, &link).unwrap();
        let mut output = Output::create(&link, Content::Text).unwrap();
        output.write_all(b"new").unwrap();
        output.finish().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_and_stays_a_device() {
        use std::os::unix::fs::FileTypeExt;
        let null = Path::new("/dev/null");
        let mut output = Output::create(null, Content::Binary).unwrap();
        output.write_all(b"gone").unwrap();
        output.finish().unwrap();
        assert!(fs::metadata(null).unwrap().file_type().is_char_device());
        assert!(AtomicFile::create(null).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let mut output = Output::create(Path::new("/dev/full"), Content::Binary).unwrap();
        let written = output.write_all(&[0; 100]).and_then(|()| output.finish());
        assert_eq!(written.unwrap_err().kind(), ErrorKind::StorageFull);
    }

    #[test]
    fn only_a_broken_pipe_of_stdout_is_graceful() {
        let pipe = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_stdout_closed(&closed(pipe())));
        assert!(is_stdout_closed(&io::Error::other(closed(pipe()))));
        let wrapped = anyhow::Error::new(closed(pipe())).context("cannot write");
        assert!(is_stdout_closed(wrapped.as_ref()));
        assert!(!is_stdout_closed(&pipe()));
        assert!(!is_stdout_closed(&closed(ErrorKind::StorageFull.into())));
    }

    #[test]
    fn a_directory_is_no_input() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            open(folder.path()).err().unwrap().kind(),
            ErrorKind::IsADirectory
        );
    }
}
