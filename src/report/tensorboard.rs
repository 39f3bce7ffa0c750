//! Event files for `TensorBoard`, with scalars by step. Each event is a protobuf message (a few
//! fields of `tensorflow/core/util/event.proto`) in a `TFRecord`: length, masked CRC32C of the
//! length, message, masked CRC32C of the message. `tests/readers/read_events.py` checks the files
//! with the reader of `TensorBoard`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::{Message, Oneof};

/// The beginning of the names of event files; `TensorBoard` reads the files of a folder in the
/// order of their names.
const PREFIX: &str = "events.out.tfevents.";
/// `SessionLog.SessionStatus.START`: a reader drops the values of earlier files from this step on.
const START: i32 = 1;

#[derive(Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

#[derive(Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// An event file, open to append events.
#[derive(Debug)]
pub struct Events {
    file: File,
}

impl Events {
    /// Begins a new file in `folder`, whose name comes after those of the existing files, for steps
    /// after `done`.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn create(folder: &Path, done: u64) -> io::Result<Self> {
        let now = since_epoch() as u64;
        let number = last_number(folder)?.map_or(now, |last| now.max(last + 1));
        let path = folder.join(format!("{PREFIX}{number:010}.ankh3"));
        let mut events = Events {
            file: File::create_new(path)?,
        };
        events.write(0, What::FileVersion("brain.Event:2".to_owned()))?;
        if done > 0 {
            let status = START;
            events.write(done + 1, What::SessionLog(SessionLog { status }))?;
        }
        Ok(events)
    }

    /// Writes the scalars of a step, by name.
    ///
    /// # Errors
    /// A full disk.
    pub fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> io::Result<()> {
        let values = scalars.iter().map(|(tag, value)| Value {
            tag: tag.clone(),
            simple_value: Some(*value as f32),
        });
        let values = values.collect();
        self.write(step, What::Summary(Summary { values }))
    }

    fn write(&mut self, step: u64, what: What) -> io::Result<()> {
        let event = Event {
            wall_time: since_epoch(),
            step: step as i64,
            what: Some(what),
        };
        // One call per record, so that a reader at the same time finds complete records, and a full
        // disk is an error here.
        self.file.write_all(&record(&event.encode_to_vec()))
    }
}

/// The number in the name of the last event file of a folder.
fn last_number(folder: &Path) -> io::Result<Option<u64>> {
    let mut last = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| {
            let (number, _) = name.strip_prefix(PREFIX)?.split_once('.')?;
            number.parse().ok()
        });
        last = last.max(number);
    }
    Ok(last)
}

fn since_epoch() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

/// A message as a `TFRecord`.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [
        &length[..],
        &masked_crc(&length).to_le_bytes(),
        message,
        &masked_crc(message).to_le_bytes(),
    ]
    .concat()
}

/// A masked checksum, TensorFlow's `crc32c::Mask`, which stays useful for data that contain
/// checksums.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_that_of_a_tfrecord() {
        // The checksum of RFC 3720, B.4; masked by hand.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffa);
        let framed = record(b"abc");
        assert_eq!(framed.len(), 8 + 4 + 3 + 4);
        assert_eq!(framed[..8], [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&framed[12..15], b"abc");
    }

    #[test]
    fn a_run_that_goes_on_writes_a_file_behind_the_others() {
        let folder = tempfile::tempdir().unwrap();
        for done in [0, 10, 20] {
            let mut events = Events::create(folder.path(), done).unwrap();
            events.scalars(done + 1, &[("a".to_owned(), 0.5)]).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3);
        // The later ones tell a reader to forget steps that are done again.
        let steps: Vec<Vec<i64>> = names.iter().map(|path| starts(path)).collect();
        assert_eq!(steps, [vec![], vec![11], vec![21]]);
    }

    /// The steps at which a file says that a run goes on.
    fn starts(path: &Path) -> Vec<i64> {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut steps) = (&bytes[..], Vec::new());
        while let Some((length, _)) = rest.split_first_chunk() {
            let end = 12 + u64::from_le_bytes(*length) as usize;
            let event = Event::decode(&rest[12..end]).unwrap();
            if let Some(What::SessionLog(SessionLog { status: START })) = event.what {
                steps.push(event.step);
            }
            rest = &rest[end + 4..];
        }
        steps
    }
}
