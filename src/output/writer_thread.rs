//! A thread that writes embeddings in order while the next ones are computed, and keeps the journal.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::embeddings::{EmbeddingRecord, EmbeddingWriter};
use super::journal::Journal;
use crate::sequence::digest::InputDigest;

/// Groups of records that may wait to be written.
const WAITING: usize = 2;

/// A sequence whose computation is finished.
pub struct FinishedRecord {
    /// The embedding to write; `None` where the result was rejected.
    pub record: Option<EmbeddingRecord>,
    /// The entry for the journal, unless the journal has it already.
    pub entry: Option<Vec<u8>>,
}

/// A message to the thread.
enum Message {
    Records(Vec<FinishedRecord>),
    /// The run is complete; the digest of its input. A closed channel without this message means that the run failed.
    End(InputDigest),
}

/// A writer on a thread of its own.
pub struct WriterThread {
    messages: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl WriterThread {
    /// Starts the thread. With a journal, the entries of new records are appended to the journal.
    ///
    /// # Errors
    /// A system without a thread left.
    pub fn new(writer: EmbeddingWriter, journal: Option<Journal>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || run(writer, journal, &receiver))?;
        Ok(WriterThread {
            messages: Some(sender),
            thread: Some(thread),
        })
    }

    /// Hands on finished records, in order.
    ///
    /// # Errors
    /// The error of an earlier write.
    pub fn write(&mut self, group: Vec<FinishedRecord>) -> io::Result<()> {
        self.send(Message::Records(group))
    }

    /// Completes the output, then deletes the journal.
    ///
    /// # Errors
    /// Output that cannot be written.
    pub fn finish(mut self, input: InputDigest) -> io::Result<()> {
        self.send(Message::End(input))?;
        self.join()
    }

    fn send(&mut self, message: Message) -> io::Result<()> {
        let sender = self.messages.as_ref().expect("open until finished");
        if sender.send(message).is_err() {
            return self.join();
        }
        Ok(())
    }

    /// Waits for the thread and returns its error.
    fn join(&mut self) -> io::Result<()> {
        self.messages = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for WriterThread {
    /// A run that failed waits until the thread has deleted its unfinished file.
    fn drop(&mut self) {
        self.messages = None;
        if let Some(thread) = self.thread.take() {
            // The thread's own error comes after the error that ended the run.
            drop(thread.join());
        }
    }
}

/// Writes records until the message that ends the run.
fn run(
    mut writer: EmbeddingWriter,
    mut journal: Option<Journal>,
    messages: &Receiver<Message>,
) -> io::Result<()> {
    while let Ok(message) = messages.recv() {
        let group = match message {
            Message::Records(group) => group,
            Message::End(input) => {
                writer.finish(Some(input))?;
                return journal.map_or(Ok(()), Journal::remove);
            }
        };
        if let Some(journal) = &mut journal {
            group
                .iter()
                .filter_map(|finished| finished.entry.as_ref())
                .try_for_each(|entry| journal.append(entry))?;
            journal.flush()?;
        }
        group
            .iter()
            .filter_map(|finished| finished.record.as_ref())
            .try_for_each(|record| writer.write(record))?;
    }
    Ok(())
}
